"""A matrix, what is seen of it, and what a fit makes of it."""

import numpy as np
from scipy import sparse

from ._axes import axes_for

# Entries beyond which nothing could be seen, and memory would run short.
LARGEST = 10_000_000

PANELS = ("mask", "observed", "reconstruction", "truth", "residual")


class MatrixDisplay:
    """Mask, observed entries, reconstruction and residual side by side.

    The data share one scale of colours; the residual has one around zero, which is the
    same in both directions. Missing entries are hatched.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The matrix; NaN means missing.
    reconstruction : ndarray of shape (n_samples, n_features)
        What the fit makes of it.
    truth : ndarray of shape (n_samples, n_features), default=None
        The complete matrix, where it is known.

    Attributes
    ----------
    figure_ : matplotlib Figure
        What was drawn on.
    axes_ : ndarray of matplotlib Axes
        One for each panel.
    images_ : dict of matplotlib AxesImage
        By the name of the panel.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mfgd import MaskedGradientMF
    >>> from sklearn_mfgd.plotting import MatrixDisplay
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(20, 2)) @ rng.normal(size=(2, 12))
    >>> X[rng.random(X.shape) < 0.4] = np.nan
    >>> display = MatrixDisplay.from_estimator(MaskedGradientMF().fit(X), X)
    >>> [ax.get_title() for ax in display.axes_]
    ['mask', 'observed', 'reconstruction', 'residual']
    """

    def __init__(self, X, reconstruction, *, truth=None):
        self.X = X
        self.reconstruction = reconstruction
        self.truth = truth

    @classmethod
    def from_estimator(
        cls, estimator, X, *, mask=None, truth=None, panels=None, ax=None, name="value"
    ):
        """Draw a matrix and what a fitted estimator makes of it.

        Parameters
        ----------
        estimator : fitted estimator
            With `transform` and `inverse_transform`, or an imputer.
        X : array-like of shape (n_samples, n_features)
            The matrix; NaN means missing. Of a sparse one what is not stored is.
        mask : array-like of bool of shape (n_samples, n_features), default=None
            True where X is observed, in addition to NaN.
        truth : array-like of shape (n_samples, n_features), default=None
            The complete matrix, where it is known.
        panels : sequence of str, default=None
            Some of "mask", "observed", "reconstruction", "truth", "residual"; by
            default all there are.
        ax : array-like of matplotlib Axes, default=None
            One for each panel; by default a new figure.
        name : str, default="value"
            What an entry is, with its unit.

        Returns
        -------
        display : MatrixDisplay
            The picture.

        Raises
        ------
        ValueError
            When X is too large to be drawn entry by entry.
        """
        if np.prod(X.shape if hasattr(X, "shape") else np.shape(X)) > LARGEST:
            raise ValueError(
                f"X of shape {X.shape} is too large for a picture of all of its "
                "entries. Draw some of its rows and columns."
            )
        X = _dense(X)
        if mask is not None:
            X = np.where(np.asarray(mask, dtype=bool), X, np.nan)
        filled = estimator.transform(X)
        # A factorization has factors; an imputer fills the holes.
        if hasattr(estimator, "predict_entries") or filled.shape != X.shape:
            filled = estimator.inverse_transform(filled)
        display = cls(X, np.asarray(filled), truth=truth)
        return display.plot(ax, panels=panels, name=name)

    def plot(self, ax=None, *, panels=None, name="value"):
        """Draw the panels.

        Parameters
        ----------
        ax : array-like of matplotlib Axes, default=None
            One for each panel; by default a new figure.
        panels : sequence of str, default=None
            Some of "mask", "observed", "reconstruction", "truth", "residual"; by
            default all there are.
        name : str, default="value"
            What an entry is, with its unit.

        Returns
        -------
        display : MatrixDisplay
            The picture.
        """
        known = [p for p in PANELS if p != "truth" or self.truth is not None]
        panels = known if panels is None else panels
        unknown = set(panels) - set(known)
        if unknown:
            raise ValueError(
                f"panels must be some of {', '.join(PANELS)}, and 'truth' needs truth; "
                f"got {sorted(unknown)}."
            )
        self.figure_, self.axes_ = axes_for(ax, len(panels), width=2.9, height=3.4)
        self.images_ = {}
        for axes, panel in zip(self.axes_, panels, strict=True):
            self.images_[panel] = self._draw(axes, panel)
            axes.set(title=panel, xlabel="column", ylabel="row")
        for axes in self.axes_[1:]:
            axes.set_ylabel("")
        self._add_scales(panels, name)
        return self

    def _draw(self, axes, panel):
        """Draw one panel; what is missing stays hatched."""
        data = [np.ravel(self.X), np.ravel(self.reconstruction)]
        data += [] if self.truth is None else [np.ravel(self.truth)]
        low, high = np.nanmin(np.concatenate(data)), np.nanmax(np.concatenate(data))
        options = {"aspect": "auto", "interpolation": "nearest"}
        if panel == "mask":
            options |= {"cmap": "gray", "vmin": 0, "vmax": 1}
            return axes.imshow(~np.isnan(self.X), **options)
        if panel == "residual":
            residual = self.X - self.reconstruction
            largest = np.nanmax(np.abs(residual), initial=0) or 1.0
            options |= {"cmap": "PuOr", "vmin": -largest, "vmax": largest}
            shown = residual
        else:
            shown = {"observed": self.X}.get(panel, getattr(self, panel, None))
            options |= {"cmap": "viridis", "vmin": low, "vmax": high}
        if np.isnan(shown).any():
            axes.set_facecolor("0.85")
            axes.patch.set(hatch="////", edgecolor="0.6")
        return axes.imshow(shown, **options)

    def _add_scales(self, panels, name):
        of_data = [k for k, p in enumerate(panels) if p not in ("mask", "residual")]
        for chosen, label in (
            (of_data, name),
            ([k for k, p in enumerate(panels) if p == "residual"], f"{name}: residual"),
        ):
            if chosen:
                image = self.images_[panels[chosen[-1]]]
                self.figure_.colorbar(
                    image,
                    ax=[self.axes_[k] for k in chosen],
                    label=label,
                    location="bottom",
                    shrink=0.9,
                )


def _dense(X):
    if not sparse.issparse(X):
        return np.asarray(X, dtype=np.float64)
    entries = X.tocoo()
    dense = np.full(X.shape, np.nan)
    dense[entries.row, entries.col] = entries.data
    return dense
