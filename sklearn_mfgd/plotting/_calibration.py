"""Whether intervals cover as much as they promise."""

import numpy as np
from scipy import sparse
from scipy.special import ndtri
from sklearn.utils import check_array, check_consistent_length

from .._data.observed import check_sparse, observe
from .._data.tables import as_stored, check_table
from ._axes import axes_for, tidy
from ._models import seen_columns, varying_columns

LEVELS = np.linspace(0.05, 0.99, 20)


class CalibrationDisplay:
    """Share of held-out entries within intervals of each nominal coverage.

    On the diagonal intervals are right; below it they are too narrow.

    Parameters
    ----------
    nominal : ndarray of shape (n_levels,)
        What the intervals promise.
    covered : ndarray of shape (n_levels,)
        Share of the entries within them.
    name : str, default=None
        What to call the curve.

    Attributes
    ----------
    figure_ : matplotlib Figure
        What was drawn on.
    ax_ : matplotlib Axes
        With the curve.
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
    def from_estimator(cls, estimator, X, X_test, *, levels=None, name=None, ax=None):
        """Draw how often intervals of a fitted estimator cover hidden entries.

        Parameters
        ----------
        estimator : fitted estimator
            With ``reg="auto"``: GradientMF, MaskedGradientMF or MFImputer.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            What the estimator may see.
        X_test : {array-like, sparse matrix} of shape (n_samples, n_features)
            The hidden entries, NaN or not stored everywhere else, as
            :func:`sklearn_mfgd.model_selection.train_test_split_entries` returns them.
            Entries that X shows as well are left out, and so are columns that an
            imputer has never seen.
        levels : array-like of shape (n_levels,), default=None
            Nominal coverages, between 0 and 1.
        name : str, default=None
            What to call the curve; by default the class of the estimator.
        ax : matplotlib Axes, default=None
            Where to draw; by default a new figure.

        Returns
        -------
        display : CalibrationDisplay
            The picture.

        Raises
        ------
        ValueError
            When X shows all of X_test, or the fit does not know how uncertain it is.
        """
        rows, columns, truth = _hidden(estimator, X, X_test)
        if hasattr(estimator, "impute"):
            seen = seen_columns(estimator)
            # A constant column has no interval.
            own = hasattr(estimator, "factorization_")
            known = np.isin(columns, varying_columns(estimator) if own else seen)
            rows, columns, truth = rows[known], columns[known], truth[known]
            # Its output lacks empty columns, unless they are kept.
            every = np.arange(estimator.n_features_in_)
            kept = every if estimator.keep_empty_features else seen
            places = rows, np.searchsorted(kept, columns)
            filled, deviations = estimator.impute(X, return_std=True)
            x, std = np.asarray(filled)[places], np.asarray(deviations)[places]
        else:
            Z, covariance = estimator.transform(X, return_cov=True)
            x, std = estimator.predict_entries(
                Z, rows, columns, covariance=covariance, return_std=True
            )
        name = type(estimator).__name__ if name is None else name
        return cls.from_predictions(truth, x, std, levels=levels, name=name, ax=ax)

    @classmethod
    def from_predictions(cls, y_true, y_pred, std, *, levels=None, name=None, ax=None):
        """Draw how often intervals around predictions cover the truth.

        Parameters
        ----------
        y_true, y_pred, std : array-like of shape (n_entries,)
            True values, predicted ones, and standard deviations.
        levels : array-like of shape (n_levels,), default=None
            Nominal coverages, between 0 and 1.
        name : str, default=None
            What to call the curve.
        ax : matplotlib Axes, default=None
            Where to draw; by default a new figure.

        Returns
        -------
        display : CalibrationDisplay
            The picture.

        Raises
        ------
        ValueError
            When standard deviations are negative, or levels not between 0 and 1.
        """
        y_true, y_pred, std = (
            check_array(values, dtype=np.float64, ensure_2d=False, input_name=what)
            for values, what in ((y_true, "y_true"), (y_pred, "y_pred"), (std, "std"))
        )
        check_consistent_length(y_true, y_pred, std)
        if (std < 0).any():
            raise ValueError(f"std must not be negative; got {std.min():g}.")
        off = np.abs(y_true - y_pred)
        levels = LEVELS if levels is None else np.asarray(levels, dtype=np.float64)
        if ((levels <= 0) | (levels >= 1)).any():
            raise ValueError(f"levels must lie between 0 and 1; got {levels}.")
        widths = ndtri(0.5 + levels / 2)
        covered = np.array([np.mean(off <= width * std) for width in widths])
        return cls(levels, covered, name=name).plot(ax)

    def plot(self, ax=None):
        """Draw the curve.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; by default a new figure.

        Returns
        -------
        display : CalibrationDisplay
            The picture.
        """
        self.figure_, (self.ax_,) = axes_for(ax, width=4.2, height=4.0)
        if not any(line.get_label() == "exact" for line in self.ax_.lines):
            self.ax_.plot([0, 1], [0, 1], ":", color="black", label="exact")
        kind = len(self.ax_.lines) - 1
        (self.line_,) = self.ax_.plot(
            self.nominal,
            self.covered,
            ("-", "--", "-.")[kind % 3],
            marker="osD^v"[kind % 5],
            markersize=4,
            label=self.name or "intervals",
        )
        self.ax_.set(
            xlabel="nominal coverage",
            ylabel="share of hidden entries covered",
            xlim=(0, 1),
            ylim=(0, 1.02),
        )
        self.ax_.set_aspect("equal")
        self.ax_.legend(frameon=False, loc="best")
        tidy(self.ax_)
        return self


def _hidden(estimator, X, X_test):
    """Rows, columns and values of X_test that X does not show."""
    shown, test = _observed(X, getattr(estimator, "missing_values", np.nan)), X_test
    test = _observed(test, np.nan)
    if shown[0] != test[0]:
        raise ValueError(f"X_test must have the shape of X, {shown[0]}; got {test[0]}.")
    _, rows, columns, values = test
    n = shown[0][1]
    hidden = ~np.isin(rows * n + columns, shown[1] * n + shown[2])
    if not hidden.any():
        raise ValueError(
            "X_test has no entry that is hidden in X. X must be what the estimator "
            "may see, with NaN, or nothing stored, where X_test has values."
        )
    return rows[hidden], columns[hidden], values[hidden]


def _observed(X, missing_values):
    """Shape, rows, columns and values of what is observed."""
    if sparse.issparse(X):
        X = check_sparse(X, "CalibrationDisplay", unstored_is_zero=False)
        listed = observe(X, None, None, unstored_is_zero=False)
        rows, columns = listed.row_numbers, listed.indices
        return X.shape, rows.astype(np.int64), columns.astype(np.int64), listed.values
    marker = as_stored(missing_values, X)
    X = check_table(X, fill=marker, ensure_all_finite="allow-nan").astype(np.float64)
    places = np.nonzero(~np.isnan(X) & (marker != X))
    return X.shape, *places, X[places]
