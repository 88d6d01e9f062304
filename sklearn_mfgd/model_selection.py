"""Model selection by held-out entries: hide some of a matrix, predict them, compare.

Rows cannot be held out of an imputation, but entries can. What is said here of a sparse
matrix takes an entry that it does not store for a missing one.
"""

import time
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.metrics import check_scoring
from sklearn.pipeline import Pipeline
from sklearn.utils import assert_all_finite, check_random_state
from sklearn.utils.parallel import Parallel, delayed

from ._data.observed import check_sparse, observe
from ._data.tables import check_table, is_frame

__all__ = [
    "cross_validate_entries",
    "make_entries_scorer",
    "train_test_split_entries",
]


class _Entries(NamedTuple):
    """The observed entries of a matrix, row by row, and what holds them."""

    X: np.ndarray | sparse.sparray | sparse.spmatrix
    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, X):
        """Validate X and list what it holds."""
        if not sparse.issparse(X):
            X = check_table(X, ensure_all_finite="allow-nan")
            places = np.nonzero(~np.isnan(X))
            return cls(X, *places, X[places])
        checked = check_sparse(X, "model_selection", unstored_is_zero=False)
        rows = observe(checked, None, None, unstored_is_zero=False)
        assert_all_finite(rows.values, input_name="X")
        return cls(X, rows.row_numbers, rows.indices, rows.values)

    def part(self, chosen):
        """A matrix like X in which only some of the entries are observed."""
        values, places = self.values[chosen], (self.rows[chosen], self.columns[chosen])
        if not sparse.issparse(self.X):
            part = np.full(self.X.shape, np.nan, self.X.dtype)
            part[places] = values
            return part
        is_array = isinstance(self.X, sparse.sparray)
        container = sparse.coo_array if is_array else sparse.coo_matrix
        return container((values, places), self.X.shape).asformat(self.X.format)


def train_test_split_entries(X, *, test_size=0.2, random_state=None):
    """Split the observed entries of a matrix at random.

    Parameters
    ----------
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        NaN means missing, and so does what a sparse X does not store.
    test_size : float or int, default=0.2
        Share of the observed entries that is held out, or their number.
    random_state : int, RandomState instance or None, default=None
        Seed of the split, which is the same for the same entries in any container.

    Returns
    -------
    X_train, X_test : ndarray or sparse matrix of shape (n_samples, n_features)
        Each observed entry is in one of them and missing in the other. Sparse ones
        have the format of X. Every row and column with an observed entry keeps one in
        `X_train`.

    Raises
    ------
    ValueError
        When so many entries cannot be held out.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mfgd.model_selection import train_test_split_entries
    >>> X = np.arange(12.0).reshape(3, 4)
    >>> X_train, X_test = train_test_split_entries(X, test_size=3, random_state=0)
    >>> int(np.isnan(X_train).sum()), int(np.isnan(X_test).sum())
    (3, 9)
    >>> bool((np.isnan(X_train) ^ np.isnan(X_test)).all())
    True
    """
    entries = _Entries.of(X)
    count = len(entries.values)
    n_test = _number_of(test_size, count)
    order = check_random_state(random_state).permutation(count)
    rows, columns = entries.rows[order], entries.columns[order]
    free = order[~_first_of_rows_and_columns(rows, columns)]
    if n_test > len(free):
        raise ValueError(
            f"test_size={test_size!r} would hold out {n_test} of {count} observed "
            f"entries, but only {len(free)} can be without emptying a row or a column. "
            "Use a smaller test_size."
        )
    is_test = np.zeros(count, bool)
    is_test[free[:n_test]] = True
    return entries.part(~is_test), entries.part(is_test)


def cross_validate_entries(
    estimator,
    X,
    *,
    cv=5,
    scoring="neg_root_mean_squared_error",
    random_state=None,
    n_jobs=None,
    return_train_score=False,
    return_estimator=False,
):
    """Predict each fold of the observed entries from a fit to the others.

    Parameters
    ----------
    estimator : estimator object
        :class:`MaskedGradientMF`, :class:`GradientMF`, :class:`MFImputer`, an imputer
        of scikit-learn, or a Pipeline of one of these and steps with an
        `inverse_transform`: what fills the holes by `transform`, or has an
        `inverse_transform` that reconstructs the matrix. Errors are in units of X.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        NaN means missing, and so does what a sparse X does not store. Sparse X needs
        an estimator with `predict_entries`.
    cv : int, default=5
        Number of folds of the entries.
    scoring : str, callable, list, or dict, default="neg_root_mean_squared_error"
        Names of scorers of regressions, or callables as
        :func:`sklearn.metrics.make_scorer` makes them from ``metric(y_true, y_pred)``.
        A list of names or a dict for several.
    random_state : int, RandomState instance or None, default=None
        Seed of the folds.
    n_jobs : int, default=None
        Number of folds that are fitted at once.
    return_train_score : bool, default=False
        Whether to score the reconstruction of the training entries, too.
    return_estimator : bool, default=False
        Whether to return the fitted estimators.

    Returns
    -------
    scores : dict of ndarray of shape (cv,)
        What :func:`sklearn.model_selection.cross_validate` returns: ``fit_time``,
        ``score_time``, ``test_score`` (``test_NAME`` for several scorers), and
        ``train_score``, ``estimator`` if asked for.

    Raises
    ------
    ValueError
        When the estimator does not predict the entries of X.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.impute import KNNImputer
    >>> from sklearn_mfgd import MFImputer
    >>> from sklearn_mfgd.model_selection import cross_validate_entries
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(100, 2)) @ rng.normal(size=(2, 12))
    >>> X += 0.1 * rng.normal(size=X.shape)
    >>> for imputer in (MFImputer(), KNNImputer()):
    ...     scores = cross_validate_entries(imputer, X, random_state=0)
    ...     print(f"{-scores['test_score'].mean():.2f}")
    0.12
    0.53
    """
    _check_n_folds(cv, "cv")
    entries = _Entries.of(X)
    count = len(entries.values)
    if count < cv:
        raise ValueError(f"cv={cv} folds need as many observed entries; X has {count}.")
    if sparse.issparse(X):
        _check_sparse_estimator(estimator)
    scorer = check_scoring(estimator, scoring=scoring)
    order = check_random_state(random_state).permutation(count)
    fold = np.empty(count, int)
    fold[order] = np.arange(count) % cv
    found = Parallel(n_jobs=n_jobs)(
        delayed(_fit_and_score)(
            clone(estimator), entries, fold != k, scorer, return_train_score
        )
        for k in range(cv)
    )
    fitted = [one.pop("estimator") for one in found]
    results = {name: np.array([one[name] for one in found]) for name in found[0]}
    if return_estimator:
        results["estimator"] = fitted
    return results


def make_entries_scorer(scoring="neg_root_mean_squared_error", *, n_folds=5):
    """Make a scorer of hidden entries, for `GridSearchCV` and `cross_val_score`.

    These hold out rows. Of the rows that they hold out, the scorer hides one fold of
    the entries after the other, has the fitted estimator predict them from what is left
    of their rows, and scores the predictions of all folds together. No y is needed.

    Parameters
    ----------
    scoring : str, callable, list, or dict, default="neg_root_mean_squared_error"
        As in :func:`cross_validate_entries`: names of scorers of regressions, or
        callables as :func:`sklearn.metrics.make_scorer` makes them. With a list or a
        dict there are several scores, and `GridSearchCV` needs the name of one of them
        as `refit`.
    n_folds : int, default=5
        Number of folds: the k-th observed entry of a row belongs to fold k mod
        `n_folds`, as in :meth:`MaskedGradientMF.score`.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X)`` scores a fitted estimator, of those that
        :func:`cross_validate_entries` takes. Scores are in units of X.

    See Also
    --------
    cross_validate_entries : Holds out entries of all rows, also from the fit.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn_mfgd import GradientMF
    >>> from sklearn_mfgd.model_selection import make_entries_scorer
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(100, 2)) @ rng.normal(size=(2, 12))
    >>> X += 0.1 * rng.normal(size=X.shape)
    >>> scorer = make_entries_scorer("neg_mean_absolute_error")
    >>> search = GridSearchCV(GradientMF(), {"rank": [1, 2, 3]}, scoring=scorer).fit(X)
    >>> search.best_params_
    {'rank': 2}
    >>> print(f"{-search.best_score_:.1f}")
    0.1
    """
    _check_n_folds(n_folds, "n_folds")
    return _EntriesScorer(check_scoring(scoring=scoring), n_folds)


class _EntriesScorer:
    """What `make_entries_scorer` returns: it can be pickled, for workers."""

    def __init__(self, scorer, n_folds):
        self.scorer = scorer
        self.n_folds = n_folds

    def __repr__(self):
        return f"make_entries_scorer({self.scorer!r}, n_folds={self.n_folds})"

    def __call__(self, estimator, X, y=None):
        entries = _Entries.of(X)
        if not len(entries.values):
            raise ValueError("There is nothing to score: every entry of X is missing.")
        if sparse.issparse(X):
            _check_sparse_estimator(estimator)
        starts = np.searchsorted(entries.rows, np.arange(entries.X.shape[0]))
        turn = (np.arange(len(entries.rows)) - starts[entries.rows]) % self.n_folds
        predicted = np.empty_like(entries.values)
        for fold in np.unique(turn):
            part, hidden = entries.part(turn != fold), turn == fold
            part = _named(part, X)
            predict = _predictor(estimator, part, estimator.transform(part))
            predicted[hidden] = _predictions(estimator, predict, entries, hidden)
        return self.scorer(_Predicted(), predicted, entries.values)


def _named(part, X):
    """A frame if X is one: the estimator has seen the names of its columns."""
    if hasattr(X, "iloc"):
        return type(X)(part, columns=X.columns, index=X.index)
    return type(X)(part, schema=list(X.columns)) if is_frame(X) else part


def _fit_and_score(estimator, entries, train, scorer, return_train_score):
    start = time.perf_counter()
    part = entries.part(train)
    Z = estimator.fit_transform(part)
    fitted = time.perf_counter()
    result = {"fit_time": fitted - start, "estimator": estimator}
    predict = _predictor(estimator, part, Z)
    sides = {"test": ~train} | ({"train": train} if return_train_score else {})
    for side, chosen in sides.items():
        x = _predictions(estimator, predict, entries, chosen)
        scores = scorer(_Predicted(), x, entries.values[chosen])
        scores = scores if isinstance(scores, dict) else {"score": scores}
        result |= {f"{side}_{name}": value for name, value in scores.items()}
    result["score_time"] = time.perf_counter() - fitted
    return result


def _predictions(estimator, predict, entries, chosen):
    x = predict(entries.rows[chosen], entries.columns[chosen])
    if not np.isfinite(x).all():
        raise ValueError(
            f"{type(estimator).__name__} leaves hidden entries missing; use an "
            "estimator that fills or reconstructs every entry."
        )
    return x


def _predictor(estimator, X, Z):
    """A function of rows and columns that tells what was predicted there."""
    if hasattr(estimator, "predict_entries"):
        return lambda rows, columns: estimator.predict_entries(Z, rows, columns)
    filled = _reconstruct(estimator, X, Z)
    return lambda rows, columns: filled[rows, columns]


def _reconstruct(estimator, X, Z):
    """The matrix that Z, which is X transformed, stands for."""
    if isinstance(estimator, Pipeline) and len(estimator) > 1:
        before, last = estimator[:-1], estimator[-1]
        return _reconstruct(before, X, _reconstruct(last, before.transform(X), Z))
    if isinstance(estimator, Pipeline):
        estimator = estimator[0]
    X, Z = np.asarray(X), np.asarray(Z)
    if _is_filled(X, Z):
        return Z
    # That of an imputer makes holes again where it has filled them.
    is_imputer = hasattr(estimator, "keep_empty_features")
    if hasattr(estimator, "inverse_transform") and not is_imputer:
        found = np.asarray(estimator.inverse_transform(Z))
        if found.shape == X.shape:
            return found
    raise ValueError(
        f"{type(estimator).__name__} does not predict the entries of X: its transform "
        "must fill the holes and keep what is observed, or its inverse_transform "
        "reconstruct X. An imputer must not drop columns (use "
        "keep_empty_features=True) or add any (add_indicator=False)."
    )


def _is_filled(X, Z):
    """Whether Z is X with its holes filled, but for rounding of steps and back."""
    if Z.shape != X.shape:
        return False
    seen = ~np.isnan(X)
    largest = np.max(np.abs(X), axis=0, initial=0, where=seen)
    close = np.abs(Z - X) <= np.sqrt(np.finfo(Z.dtype).eps) * largest
    return bool(close[seen].all())


class _Predicted(RegressorMixin, BaseEstimator):
    """For scorers: what was predicted stands in the place of data."""

    def predict(self, X):
        """Return X."""
        return X


def _check_sparse_estimator(estimator):
    if getattr(estimator, "_unstored_is_zero", False):
        raise ValueError(
            f"{type(estimator).__name__} takes what a sparse X does not store for "
            "zeros, so entries cannot be hidden from it. Use MaskedGradientMF, or a "
            "dense X."
        )
    if not hasattr(estimator, "predict_entries"):
        raise ValueError(
            "A sparse X needs an estimator with predict_entries, such as "
            f"MaskedGradientMF; {type(estimator).__name__} would write out all of X."
        )


def _check_n_folds(number, name):
    if not isinstance(number, Integral) or number < 2:
        raise ValueError(
            f"{name} must be a number of folds, at least 2; got {number!r}."
        )


def _number_of(test_size, count):
    if isinstance(test_size, Integral) and not isinstance(test_size, bool):
        number = int(test_size)
    elif isinstance(test_size, Real) and 0 < test_size < 1:
        number = round(test_size * count)
    else:
        number = 0
    if number < 1:
        raise ValueError(
            "test_size must be a share between 0 and 1, or a number of entries, and "
            f"hold out at least one of {count}; got {test_size!r}."
        )
    return number


def _first_of_rows_and_columns(rows, columns):
    """Which entries are the first of their row, or of a column these do not cover."""
    first = np.zeros(len(rows), bool)
    first[np.unique(rows, return_index=True)[1]] = True
    numbers, places = np.unique(columns, return_index=True)
    first[places[~np.isin(numbers, columns[first])]] = True
    return first
