"""A matrix, its observed entries, and what a fit predicts for all entries."""

from typing import Self

import numpy as np

from ._display import SIGNED_COLOURS, BaseDisplay, show_matrix
from ._models import dense, reconstruction_of

# Beyond this nothing could be seen, and memory would run short.
MAX_ENTRIES = 10_000_000

# Share of entries at either end that may lie beyond the colours.
OUTLIER_SHARE = 0.005

# Ends of a scale that get an arrow, by whether there are values below and above it.
EXTEND = (("neither", "max"), ("min", "both"))

PANELS = ("mask", "observed", "reconstruction", "truth", "residual")
MAX_PANELS_IN_ROW = 3


class MatrixDisplay(BaseDisplay):
    """Picture of a matrix: its mask, observed entries, reconstruction and residual.

    The panels of data share one scale of colours. The residual, X minus the
    reconstruction, has a scale that is symmetric around zero. Missing entries are white
    and hatched. A scale ends in an arrow if a few values lie far beyond it.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The matrix. NaN means missing.
    reconstruction : ndarray of shape (n_samples, n_features)
        What the fit predicts for each entry.
    truth : ndarray of shape (n_samples, n_features), default=None
        The complete matrix, if it is known.

    Attributes
    ----------
    figure_ : matplotlib Figure
        The figure.
    axes_ : ndarray of matplotlib Axes
        The axes, one for each panel.
    images_ : dict of matplotlib AxesImage
        The images, by the name of the panel.

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
    ) -> Self:
        """Draw a matrix and what a fitted estimator predicts for its entries.

        Parameters
        ----------
        estimator : fitted estimator
            An imputer, or an estimator with `transform` and `inverse_transform`, such
            as GradientMF or a Pipeline that ends with it. MFImputer returns observed
            entries unchanged, but the picture shows their reconstruction.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The matrix. NaN means missing. The estimator decides whether entries that a
            sparse matrix does not store are zero or missing.
        mask : array-like of bool of shape (n_samples, n_features), default=None
            True where X is observed. NaN is missing even where the mask is True.
        truth : array-like of shape (n_samples, n_features), default=None
            The complete matrix, if it is known.
        panels : sequence of str, default=None
            What to draw: some of "mask", "observed", "reconstruction", "truth" and
            "residual". By default all of them, "truth" only if it is given.
        ax : array-like of matplotlib Axes, default=None
            Where to draw, one for each panel. By default in a new figure.
        name : str, default="value"
            What the entries measure, with its unit, for the scale of colours.

        Returns
        -------
        display : MatrixDisplay
            The picture.

        Raises
        ------
        ValueError
            If X is too large to be drawn entry by entry, if panels are not known, or if
            matrices differ in shape.
        """
        shape = np.shape(X) if not hasattr(X, "shape") else X.shape
        if np.prod(shape) > MAX_ENTRIES:
            raise ValueError(
                f"X of shape {tuple(shape)} is too large for a picture of all of its "
                "entries. Draw some of its rows and columns."
            )
        reconstruction = reconstruction_of(estimator, X, mask)
        display = cls(dense(estimator, X, mask), reconstruction, truth=truth)
        return display.plot(ax, panels=panels, name=name)

    def plot(self, ax=None, *, panels=None, name: str = "value") -> Self:
        """Draw the panels.

        Parameters
        ----------
        ax : array-like of matplotlib Axes, default=None
            Where to draw, one for each panel. By default in a new figure.
        panels : sequence of str, default=None
            What to draw: some of "mask", "observed", "reconstruction", "truth" and
            "residual". By default all of them, "truth" only if it is given.
        name : str, default="value"
            What the entries measure, with its unit, for the scale of colours.

        Returns
        -------
        display : MatrixDisplay
            The picture.

        Raises
        ------
        ValueError
            If panels are not known, or if matrices differ in shape.
        """
        known = [p for p in PANELS if p != "truth" or self.truth is not None]
        panels = known if panels is None else list(panels)
        unknown = set(panels) - set(known)
        if unknown or not panels:
            raise ValueError(
                f"panels must be some of {', '.join(PANELS)}, and 'truth' needs truth; "
                f"got {sorted(unknown)}."
            )
        data = {"observed": self.X, "reconstruction": self.reconstruction}
        data |= {} if self.truth is None else {"truth": self.truth}
        data = {panel: np.asarray(values, np.float64) for panel, values in data.items()}
        if len({values.shape for values in data.values()}) > 1:
            raise ValueError(
                "X, reconstruction and truth must have one shape; got "
                f"{', '.join(f'{k}: {v.shape}' for k, v in data.items())}."
            )
        n_rows = -(-len(panels) // MAX_PANELS_IN_ROW)
        size = {"columns": -(-len(panels) // n_rows), "width": 2.8, "height": 2.8}
        self.axes_ = self._open_axes(ax, len(panels), **size)
        of_data = {panel: data[panel] for panel in panels if panel in data}
        limits = _colour_limits(list(of_data.values()))
        self.images_, last_row = {}, None
        for axes, panel in zip(self.axes_, panels, strict=True):
            is_first = axes is self.axes_[0] or _row_in_grid(axes) != last_row
            last_row = _row_in_grid(axes)
            axes.set(title=panel, xlabel="column", ylabel="row" if is_first else "")
            self._count_in_integers(axes.xaxis, axes.yaxis)
            if panel == "mask":
                axes.set_xlabel("column\n(white: observed)")
                observed = ~np.isnan(data["observed"])
                self.images_[panel] = _show(axes, observed, "gray", 0, 1)
            elif panel == "residual":
                residual = data["observed"] - data["reconstruction"]
                _, end = _colour_limits([np.abs(residual)])
                self.images_[panel] = _show(axes, residual, SIGNED_COLOURS, -end, end)
            else:
                self.images_[panel] = _show(axes, data[panel], "viridis", *limits)
        if of_data:
            self._add_colorbar(of_data, name)
        if "residual" in panels:
            self._add_colorbar({"residual": residual}, f"residual: {name}")
        return self

    def _add_colorbar(self, drawn: dict[str, np.ndarray], label: str):
        """Add the colours that some panels share, below those in the last row."""
        axes = {panel: self.images_[panel].axes for panel in drawn}
        last_row = _row_in_grid(list(axes.values())[-1])
        image = self.images_[list(drawn)[-1]]
        low, high = image.get_clim()
        below = any((values < low).any() for values in drawn.values())
        above = any((values > high).any() for values in drawn.values())
        options = {"label": label, "location": "bottom", "extend": EXTEND[below][above]}
        ax = [each for each in axes.values() if _row_in_grid(each) == last_row]
        self.figure_.colorbar(image, ax=ax, **options)


def _row_in_grid(axes) -> int | None:
    """Return the row of a grid that axes are in, None where there is no grid."""
    place = axes.get_subplotspec()
    return None if place is None else place.rowspan.start


def _colour_limits(matrices: list[np.ndarray]) -> tuple[float, float]:
    """Return the range of the values without the outliers, which would dim the rest."""
    values = np.concatenate([matrix[~np.isnan(matrix)] for matrix in matrices] or [[]])
    if not values.size:
        return 0.0, 1.0
    low = np.quantile(values, OUTLIER_SHARE, method="lower")
    high = np.quantile(values, 1 - OUTLIER_SHARE, method="higher")
    if low == high:
        low, high = values.min(), values.max()
    return (low, high) if low < high else (low, low + 1.0)


def _show(axes, values: np.ndarray, colours: str, low: float, high: float):
    """Draw a matrix; missing entries stay white and hatched."""
    if np.isnan(values).any():
        axes.set_facecolor("white")
        axes.patch.set(hatch="//////", edgecolor="0.5")
    return show_matrix(axes, values, colours, low, high)
