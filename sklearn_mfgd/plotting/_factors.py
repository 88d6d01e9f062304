"""The factors of a fit, how large they are, and how many were dropped."""

import numpy as np
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted

from ._axes import axes_for, tidy


class FactorDisplay:
    """Sizes of the factors, and their loadings on the columns.

    The size of factor k is the root mean square of its part of the reconstruction,
    :math:`w_{ik} h_{jk}`, over all entries. Factors are drawn from large to small.

    Parameters
    ----------
    sizes : ndarray of shape (n_factors,)
        Root mean squares.
    components : ndarray of shape (n_factors, n_features)
        The column factors.
    rank : int
        Number of factors that the fit began with.
    feature_names : ndarray of shape (n_features,), default=None
        Names of the columns.

    Attributes
    ----------
    figure_ : matplotlib Figure
        What was drawn on.
    axes_ : ndarray of matplotlib Axes
        Of the sizes and of the loadings.
    bars_ : matplotlib BarContainer
        The sizes.
    image_ : matplotlib AxesImage
        The loadings, each factor over its largest.

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
    '2 of 10 factors are left'
    """

    def __init__(self, sizes, components, *, rank, feature_names=None):
        self.sizes = sizes
        self.components = components
        self.rank = rank
        self.feature_names = feature_names

    @classmethod
    def from_estimator(cls, estimator, X, *, mask=None, ax=None):
        """Draw the factors of a fitted estimator.

        Parameters
        ----------
        estimator : fitted estimator
            GradientMF or MaskedGradientMF.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows whose factors are measured, such as those of the fit.
        mask : array-like of bool of shape (n_samples, n_features), default=None
            True where X is observed, in addition to NaN.
        ax : array-like of two matplotlib Axes, default=None
            Where to draw; by default a new figure.

        Returns
        -------
        display : FactorDisplay
            The picture.
        """
        check_is_fitted(estimator)
        H = estimator.components_
        W = estimator.transform(X, mask=mask)[:, : len(H)]
        sizes = np.sqrt(np.mean(W**2, axis=0) * np.mean(H**2, axis=1))
        order = np.argsort(sizes)[::-1]
        names = None
        if hasattr(estimator, "feature_names_in_"):
            names = _check_feature_names_in(estimator)
        display = cls(sizes[order], H[order], rank=estimator.rank, feature_names=names)
        return display.plot(ax)

    def plot(self, ax=None):
        """Draw sizes and loadings.

        Parameters
        ----------
        ax : array-like of two matplotlib Axes, default=None
            Where to draw; by default a new figure.

        Returns
        -------
        display : FactorDisplay
            The picture.
        """
        self.figure_, self.axes_ = axes_for(ax, 2)
        bars, loadings = self.axes_
        count, numbers = len(self.sizes), np.arange(1, len(self.sizes) + 1)
        self.bars_ = bars.bar(numbers, self.sizes, color="C0")
        dropped = max(self.rank - count, 0)
        title = f"{count} factors"
        if dropped:
            title = f"{count} of {self.rank} factors are left"
            bars.axvspan(
                count + 0.5,
                self.rank + 0.5,
                facecolor="0.9",
                hatch="//",
                edgecolor="0.7",
            )
            middle = (count + self.rank + 1) / 2
            bars.text(
                middle,
                0.5 * self.sizes.max(initial=1.0),
                "dropped",
                ha="center",
                rotation=0 if dropped > 2 else 90,
                backgroundcolor="white",
            )
        bars.set(title=title, xlabel="factor", ylabel="root mean square of its part")
        bars.xaxis.get_major_locator().set_params(integer=True)
        tidy(bars)
        largest = np.abs(self.components).max(axis=1, keepdims=True, initial=0.0)
        self.image_ = loadings.imshow(
            self.components / np.where(largest > 0, largest, 1.0),
            aspect="auto",
            interpolation="nearest",
            cmap="PuOr",
            vmin=-1,
            vmax=1,
            extent=(-0.5, self.components.shape[1] - 0.5, count + 0.5, 0.5),
        )
        loadings.set(title="loadings", xlabel="column", ylabel="factor")
        loadings.yaxis.get_major_locator().set_params(integer=True)
        if self.feature_names is not None and len(self.feature_names) <= 20:
            places = np.arange(len(self.feature_names))
            loadings.set_xticks(places, self.feature_names, rotation=90)
        self.figure_.colorbar(
            self.image_, ax=loadings, label="loading over the largest of its factor"
        )
        return self
