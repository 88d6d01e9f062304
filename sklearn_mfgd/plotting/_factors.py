"""The factors of a fit: their sizes, and how many were dropped."""

from typing import Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ._display import SIGNED_COLOURS, BaseDisplay, show_matrix
from ._models import factorization_of, factors_of, varying_columns

# Columns beyond which their names would overlap.
MAX_NAMES = 20


class FactorDisplay(BaseDisplay):
    """Picture of how large the factors of a fit are, and of their columns.

    The left panel shows the size of each factor: the root mean square, over all
    entries, of its part :math:`w_{ik} h_{jk}` of the reconstruction. The right panel
    shows the loadings, which say how much each factor adds to each column.

    Parameters
    ----------
    sizes : ndarray of shape (n_factors,)
        Size of each factor, the largest first.
    components : ndarray of shape (n_factors, n_features)
        The column factors.
    rank : int
        Number of factors at the start of the fit.
    feature_names : ndarray of shape (n_features,), default=None
        Names of the columns.
    unit : str, default="units of X"
        Unit of the sizes, for the axis. For an imputer, `from_estimator` uses standard
        deviations of the columns, or with ``scale=False`` the pooled one.

    Attributes
    ----------
    figure_ : matplotlib Figure
        The figure.
    axes_ : ndarray of matplotlib Axes
        Axes of the sizes and of the loadings.
    bars_ : matplotlib BarContainer
        Bars of the sizes.
    image_ : matplotlib AxesImage
        Image of the loadings, divided by the largest loading of each factor.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mfgd import MaskedGradientMF
    >>> from sklearn_mfgd.plotting import FactorDisplay
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(90, 2)) @ rng.normal(size=(2, 30))
    >>> X += 0.3 * rng.normal(size=X.shape)
    >>> display = FactorDisplay.from_estimator(MaskedGradientMF(10).fit(X), X)
    >>> display.axes_[0].get_title()
    '2 of 10 factors left'
    """

    def __init__(
        self, sizes, components, *, rank, feature_names=None, unit="units of X"
    ):
        self.sizes = sizes
        self.components = components
        self.rank = rank
        self.feature_names = feature_names
        self.unit = unit

    @classmethod
    def from_estimator(cls, estimator, X, *, mask=None, ax=None) -> Self:
        """Draw the factors of a fitted estimator.

        Parameters
        ----------
        estimator : fitted estimator
            GradientMF, MaskedGradientMF or MFImputer, with ``n_draws=0`` and
            ``sample_posterior=False``.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows from which the sizes are computed, such as those of the fit.
        mask : array-like of bool of shape (n_samples, n_features), default=None
            True where X is observed. NaN is missing even where the mask is True.
        ax : array-like of two matplotlib Axes, default=None
            Where to draw. By default in a new figure.

        Returns
        -------
        display : FactorDisplay
            The picture.

        Raises
        ------
        ValueError
            If the fit averages samples from the posterior, which have different
            factors.
        """
        check_is_fitted(estimator)
        model = factorization_of(estimator)
        if model.reg == "auto" and model.n_draws:
            raise ValueError(
                f"Factors differ from draw to draw, and this fit has {model.n_draws}. "
                "Draw those of a fit with n_draws=0, or sample_posterior=False."
            )
        H = model.components_
        W = factors_of(estimator, X, mask)[:, : len(H)]
        # mean_ij (w_ik h_jk)^2 = mean_i w_ik^2 * mean_j h_jk^2
        sizes = np.sqrt(np.mean(W**2, axis=0) * np.mean(H**2, axis=1))
        order = np.argsort(sizes)[::-1]
        names = getattr(estimator, "feature_names_in_", None)
        options = {"rank": model.rank, "feature_names": names}
        if model is not estimator:
            unit = f"{'' if estimator.scale else 'pooled '}standard deviations"
            names = None if names is None else names[varying_columns(estimator)]
            options |= {"feature_names": names, "unit": unit}
        return cls(sizes[order], H[order], **options).plot(ax)

    def _draw(self, ax):
        self.axes_ = self._open_axes(ax, 2, width=3.8, height=3.3)
        ax = self.axes_[0]
        count, n_columns = self.components.shape
        n_dropped = max(self.rank - count, 0)
        self.bars_ = ax.bar(np.arange(1, count + 1), self.sizes, color="C0")
        title = f"{count} factor{'s' * (count != 1)}"
        if n_dropped:
            title = f"{count} of {self.rank} factors left"
            look = {"facecolor": "0.9", "hatch": "//", "edgecolor": "0.7"}
            ax.axvspan(count + 0.5, self.rank + 0.5, **look)
            place = (count + self.rank + 1) / 2, 0.5 * (np.max(self.sizes) or 1.0)
            look = {"rotation": 0 if n_dropped > 0.3 * self.rank else 90}
            look["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 2}
            ax.text(*place, "dropped", ha="center", va="center", **look)
        ax.set(title=title, xlabel="factor", ylabel=f"RMS of its part ({self.unit})")
        ax.set_xlim(0.5, count + n_dropped + 0.5)
        self._count_in_integers(ax.xaxis)
        self._hide_frame(ax)
        ax = self.axes_[1]
        largest = np.abs(self.components).max(axis=1, keepdims=True, initial=0.0)
        loadings = self.components / np.where(largest > 0, largest, 1.0)
        extent = (-0.5, n_columns - 0.5, count + 0.5, 0.5)  # factors from 1
        self.image_ = show_matrix(ax, loadings, SIGNED_COLOURS, -1, 1, extent=extent)
        ax.set(title="loadings", xlabel="column", ylabel="factor")
        self._count_in_integers(ax.xaxis, ax.yaxis)
        if self.feature_names is not None and len(self.feature_names) <= MAX_NAMES:
            ax.set_xticks(range(n_columns), self.feature_names, rotation=90)
        label = "loading over the largest of the factor"
        self.figure_.colorbar(self.image_, ax=ax, label=label)
