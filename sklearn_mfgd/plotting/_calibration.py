"""How often intervals contain the true values."""

from typing import Self

import numpy as np
from scipy.special import ndtri
from sklearn.utils import check_array, check_consistent_length

from .._data.entries import Entries
from ._display import BaseDisplay
from ._models import varying_columns

DEFAULT_LEVELS = np.linspace(0.05, 0.99, 20)


class CalibrationDisplay(BaseDisplay):
    """Picture of how often prediction intervals contain held-out entries.

    The curve shows the share of entries inside intervals that should contain 5 %, 10 %
    and so on of them. On the diagonal, intervals are as wide as they should be. Below
    the diagonal they are too narrow.

    Parameters
    ----------
    nominal : ndarray of shape (n_levels,)
        Share of entries that the intervals should contain, from 0 to 1.
    covered : ndarray of shape (n_levels,)
        Share of entries that the intervals do contain.
    name : str, default=None
        Name of the curve, for the legend.

    Attributes
    ----------
    figure_ : matplotlib Figure
        The figure.
    ax_ : matplotlib Axes
        The axes.
    line_ : matplotlib Line2D
        The curve.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mfgd import MaskedGradientMF
    >>> from sklearn_mfgd.model_selection import train_test_split_entries
    >>> from sklearn_mfgd.plotting import CalibrationDisplay
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 30))
    >>> X += 0.3 * rng.normal(size=X.shape)
    >>> seen, hidden = train_test_split_entries(X, random_state=0)
    >>> model = MaskedGradientMF().fit(seen)
    >>> display = CalibrationDisplay.from_estimator(model, seen, hidden)
    >>> bool(np.abs(display.covered - display.nominal).max() < 0.05)
    True
    """

    def __init__(self, nominal, covered, *, name=None):
        self.nominal = nominal
        self.covered = covered
        self.name = name

    @classmethod
    def from_estimator(
        cls, estimator, X, X_test, *, levels=None, name: str | None = None, ax=None
    ) -> Self:
        """Draw how often intervals of a fitted estimator contain hidden entries.

        Parameters
        ----------
        estimator : fitted estimator
            GradientMF, MaskedGradientMF, MFImputer or StackingImputer. It must know how
            uncertain it is, which needs ``reg="auto"``.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The matrix that the estimator predicts from.
        X_test : {array-like, sparse matrix} of shape (n_samples, n_features)
            The entries that X hides, as
            :func:`sklearn_mfgd.model_selection.train_test_split_entries` returns them:
            all others are NaN or not stored. Entries that X shows do not count, nor do
            columns without values when an imputer was fitted.
        levels : array-like of shape (n_levels,), default=None
            Shares of entries that the intervals should contain, between 0 and 1. By
            default 20 values from 0.05 to 0.99.
        name : str, default=None
            Name of the curve. By default the class of the estimator.
        ax : matplotlib Axes, default=None
            Where to draw. By default in a new figure.

        Returns
        -------
        display : CalibrationDisplay
            The picture.

        Raises
        ------
        ValueError
            If X shows all of X_test, or if the fit cannot tell how uncertain it is.
        """
        missing_values = getattr(estimator, "missing_values", np.nan)
        shown = Entries.of(X, "CalibrationDisplay", missing_values)
        test = Entries.of(X_test, "CalibrationDisplay")
        shape, found = shown.X.shape, test.X.shape
        if found != shape:
            raise ValueError(f"X_test must have the shape of X, {shape}; got {found}.")
        shown_places = np.ravel_multi_index((shown.rows, shown.columns), shape)
        test_places = np.ravel_multi_index((test.rows, test.columns), shape)
        hidden = ~np.isin(test_places, shown_places)
        if not hidden.any():
            raise ValueError(
                "X_test has no entry that is hidden in X. X must be what the estimator "
                "may see, with NaN, or nothing stored, where X_test has values."
            )
        rows, columns, truth = (part[hidden] for part in test[1:])
        if hasattr(estimator, "impute"):
            filled = np.flatnonzero(estimator._of_columns(estimator._filled))
            # A constant column has no interval.
            has_factors = hasattr(estimator, "factorization_")
            known = varying_columns(estimator) if has_factors else filled
            known = np.isin(columns, known)
            rows, columns, truth = rows[known], columns[known], truth[known]
            # Its output lacks empty columns, unless they are kept.
            every = np.arange(estimator.n_features_in_)
            kept = every if estimator.keep_empty_features else filled
            places = rows, np.searchsorted(kept, columns)
            imputed, deviations = estimator.impute(X, return_std=True)
            predicted, std = np.asarray(imputed)[places], np.asarray(deviations)[places]
        else:
            Z, covariance = estimator.transform(X, return_cov=True)
            predicted, std = estimator.predict_entries(
                Z, rows, columns, covariance=covariance, return_std=True
            )
        options = {"name": type(estimator).__name__ if name is None else name, "ax": ax}
        return cls.from_predictions(truth, predicted, std, levels=levels, **options)

    @classmethod
    def from_predictions(
        cls, y_true, y_pred, std, *, levels=None, name: str | None = None, ax=None
    ) -> Self:
        """Draw how often intervals around any predictions contain the true values.

        Parameters
        ----------
        y_true, y_pred, std : array-like of shape (n_entries,)
            True values, predicted values, and the standard deviations of the latter.
        levels : array-like of shape (n_levels,), default=None
            Shares of entries that the intervals should contain, between 0 and 1. By
            default 20 values from 0.05 to 0.99.
        name : str, default=None
            Name of the curve.
        ax : matplotlib Axes, default=None
            Where to draw. By default in a new figure.

        Returns
        -------
        display : CalibrationDisplay
            The picture.

        Raises
        ------
        ValueError
            If standard deviations are negative, or if levels are not between 0 and 1.
        """
        y_true, y_pred, std = (
            check_array(values, dtype=np.float64, ensure_2d=False, input_name=what)
            for values, what in ((y_true, "y_true"), (y_pred, "y_pred"), (std, "std"))
        )
        check_consistent_length(y_true, y_pred, std)
        if (std < 0).any():
            raise ValueError(f"std must not be negative; got {std.min():g}.")
        errors = np.abs(y_true - y_pred)
        levels = DEFAULT_LEVELS if levels is None else np.asarray(levels, np.float64)
        if ((levels <= 0) | (levels >= 1)).any():
            raise ValueError(f"levels must lie between 0 and 1; got {levels}.")
        # Half the width of a central interval, in standard deviations.
        half_widths = ndtri(0.5 + levels / 2)
        covered = np.array([np.mean(errors <= z * std) for z in half_widths])
        return cls(levels, covered, name=name).plot(ax)

    def _draw(self, ax):
        (self.ax_,) = self._open_axes(ax, width=4.2, height=4.0)
        if not any(line.get_label() == "exact" for line in self.ax_.lines):
            self.ax_.plot([0, 1], [0, 1], ":", color="black", label="exact")
        n_curves = len(self.ax_.lines) - 1  # those of earlier displays
        look = {"marker": "osD^v"[n_curves % 5], "markersize": 4}
        look |= {"linestyle": ("-", "--", "-.")[n_curves % 3]}
        label = self.name or "intervals"
        (self.line_,) = self.ax_.plot(self.nominal, self.covered, label=label, **look)
        self.ax_.set(
            xlabel="nominal coverage", ylabel="share of hidden entries covered"
        )
        self.ax_.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
        self.ax_.legend(frameon=False, loc="best")
        self._hide_frame(self.ax_)
