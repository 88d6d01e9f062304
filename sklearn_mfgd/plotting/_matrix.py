"""A matrix, what is seen of it, and what a fit makes of it."""

import numpy as np

from ._axes import axes_for, count_in_integers
from ._models import dense, reconstruction_of

# Entries beyond which nothing could be seen, and memory would run short.
LARGEST = 10_000_000

# Share of entries at either end that may lie beyond the colours.
OUTLIERS = 0.005

# Blue below, grey at and yellow above zero. In greyscale, too, signs can be told apart,
# and no value is white, as holes are.
SIGNED = "cividis"

EXTEND = {
    (False, False): "neither",
    (True, False): "min",
    (False, True): "max",
    (True, True): "both",
}

PANELS = ("mask", "observed", "reconstruction", "truth", "residual")


class MatrixDisplay:
    """Mask, observed entries, reconstruction and residual side by side.

    The data share one scale of colours; the residual, X less the reconstruction, has
    one around zero which is the same in both directions. Missing entries are white and
    hatched. Where a few values are far larger or smaller than all others, they lie
    beyond the scale, which then ends in an arrow.

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
            With `transform` and `inverse_transform`, such as GradientMF or a Pipeline
            that ends in one, or an imputer. Of MFImputer the reconstruction is drawn
            for observed entries, too, which it returns unchanged.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The matrix; NaN means missing. What a sparse one does not store is what the
            estimator takes it for.
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
            When X is too large to be drawn entry by entry, panels are not known, or
            matrices differ in shape.
        """
        shape = np.shape(X) if not hasattr(X, "shape") else X.shape
        if np.prod(shape) > LARGEST:
            raise ValueError(
                f"X of shape {tuple(shape)} is too large for a picture of all of its "
                "entries. Draw some of its rows and columns."
            )
        display = cls(
            dense(estimator, X, mask),
            reconstruction_of(estimator, X, mask),
            truth=truth,
        )
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

        Raises
        ------
        ValueError
            When panels are not known, or matrices differ in shape.
        """
        known = [p for p in PANELS if p != "truth" or self.truth is not None]
        panels = known if panels is None else list(panels)
        unknown = set(panels) - set(known)
        if unknown or not panels:
            raise ValueError(
                f"panels must be some of {', '.join(PANELS)}, and 'truth' needs truth; "
                f"got {sorted(unknown)}."
            )
        data = self._matrices()
        rows = -(-len(panels) // 3)
        self.figure_, self.axes_ = axes_for(
            ax, len(panels), columns=-(-len(panels) // rows), width=2.8, height=2.8
        )
        of_data = [panel for panel in panels if panel in data]
        scale = _scale([data[panel] for panel in of_data])
        self.images_, last_row = {}, None
        for axes, panel in zip(self.axes_, panels, strict=True):
            first = axes is self.axes_[0] or _row(axes) != last_row
            last_row = _row(axes)
            axes.set(title=panel, xlabel="column", ylabel="row" if first else "")
            count_in_integers(axes.xaxis)
            count_in_integers(axes.yaxis)
            if panel == "mask":
                seen = ~np.isnan(data["observed"])
                options = {"cmap": "gray", "vmin": 0, "vmax": 1}
                self.images_[panel] = _draw(axes, seen, **options)
                axes.set_xlabel("column\n(white: observed)")
            elif panel == "residual":
                residual = data["observed"] - data["reconstruction"]
                _, largest = _scale([np.abs(residual)])
                options = {"cmap": SIGNED, "vmin": -largest, "vmax": largest}
                self.images_[panel] = _draw(axes, residual, **options)
            else:
                options = {"cmap": "viridis", "vmin": scale[0], "vmax": scale[1]}
                self.images_[panel] = _draw(axes, data[panel], **options)
        self._add_scale(of_data, panels, [data[panel] for panel in of_data], name)
        if "residual" in panels:
            self._add_scale(["residual"], panels, [residual], f"residual: {name}")
        return self

    def _matrices(self):
        """The matrices by the names of their panels."""
        data = {"observed": self.X, "reconstruction": self.reconstruction}
        if self.truth is not None:
            data["truth"] = self.truth
        data = {name: np.asarray(values, np.float64) for name, values in data.items()}
        shapes = {values.shape for values in data.values()}
        if len(shapes) > 1:
            raise ValueError(
                "X, reconstruction and truth must have one shape; got "
                f"{', '.join(f'{k}: {v.shape}' for k, v in data.items())}."
            )
        return data

    def _add_scale(self, chosen, panels, values, label):
        """Add the colours of some panels below those that are in the last of rows."""
        if not chosen:
            return
        places = [self.axes_[panels.index(panel)] for panel in chosen]
        rows = [_row(axes) for axes in places]
        image = self.images_[chosen[-1]]
        low, high = image.get_clim()
        below = any(np.nanmin(array, initial=low) < low for array in values)
        above = any(np.nanmax(array, initial=high) > high for array in values)
        self.figure_.colorbar(
            image,
            ax=[a for a, row in zip(places, rows, strict=True) if row == rows[-1]],
            label=label,
            location="bottom",
            extend=EXTEND[below, above],
        )


def _row(axes):
    """The row of a grid that axes are in, None where there is no grid."""
    place = axes.get_subplotspec()
    return None if place is None else place.rowspan.start


def _scale(matrices):
    """From small to large, without a few outliers that would leave all else one colour.

    Of fewer entries than 1 / OUTLIERS none is left out.
    """
    values = np.concatenate([matrix[~np.isnan(matrix)] for matrix in matrices] or [[]])
    if not values.size:
        return 0.0, 1.0
    low = np.quantile(values, OUTLIERS, method="lower")
    high = np.quantile(values, 1 - OUTLIERS, method="higher")
    if low == high:
        low, high = values.min(), values.max()
    return (low, high) if low < high else (low, low + 1.0)


def _draw(axes, shown, **options):
    """Draw a matrix; what is missing stays white and hatched."""
    if np.isnan(shown).any():
        axes.set_facecolor("white")
        axes.patch.set(hatch="//////", edgecolor="0.5")
    return axes.imshow(shown, aspect="auto", interpolation="nearest", **options)
