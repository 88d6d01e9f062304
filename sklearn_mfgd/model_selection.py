"""Model selection by held-out entries: hide some, predict them, compare.

These functions show how well a model fills in a matrix, without any labels. In this
module, entries that a sparse matrix does not store are missing.
"""

import time
from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.metrics import check_scoring
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.parallel import Parallel, delayed

from ._data.entries import Entries
from ._data.splits import choose_folds, choose_test
from ._data.tables import is_frame
from ._data.timeline import Timeline, cut_into_blocks

__all__ = [
    "block_entries",
    "cross_validate_entries",
    "make_entries_scorer",
    "train_test_split_entries",
]


def train_test_split_entries(
    X: Any,
    *,
    test_size: float = 0.2,
    random_state: int | np.random.RandomState | None = None,
    blocks: Any = None,
) -> tuple[Any, Any]:
    """Hide some of the observed entries of a matrix, to test predictions on them.

    Parameters
    ----------
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        The matrix. NaN and entries that a sparse X does not store are missing.
    test_size : float or int, default=0.2
        Share or number of the observed entries to hold out. With `blocks`, share or
        number of blocks of entries.
    random_state : int, RandomState instance or None, default=None
        Seed of the split. An array and a sparse matrix with the same entries get the
        same split.
    blocks : array-like of shape (n_samples,), default=None
        Label of the block of each row, such as its day; :func:`block_entries` makes
        these labels from times. The observed entries of a column in the rows of a block
        are held out together or not at all. Use it if neighbouring rows are alike.

    Returns
    -------
    X_train, X_test : ndarray or sparse matrix of shape (n_samples, n_features)
        Each observed entry is in one of them and missing in the other. Every row and
        column with an observed entry keeps one in `X_train`. For a sparse X both are
        sparse, in the same format.

    Raises
    ------
    ValueError
        If X has too few entries to hide `test_size` of them.

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
    entries = Entries.of(X, "model_selection")
    is_test = choose_test(entries, test_size, blocks, random_state)
    return entries.select(~is_test), entries.select(is_test)


def cross_validate_entries(
    estimator: Any,
    X: Any,
    *,
    cv: int = 5,
    scoring: Any = "neg_root_mean_squared_error",
    random_state: int | np.random.RandomState | None = None,
    n_jobs=None,
    return_train_score=False,
    return_estimator=False,
    blocks: Any = None,
    times: Any = None,
    groups: Any = None,
):
    """Measure how well an estimator predicts entries that it has not seen.

    The observed entries are divided into folds. Each fold is predicted by a fit to the
    other folds.

    Parameters
    ----------
    estimator : estimator object
        An estimator of this package, an imputer of scikit-learn, or a Pipeline of one
        of these and steps with an `inverse_transform`. Its `transform` must fill in the
        missing entries, or its `inverse_transform` must reconstruct the matrix.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        The matrix. NaN and entries that a sparse X does not store are missing. A sparse
        X needs an estimator with `predict_entries`.
    cv : int, default=5
        Number of folds of the entries. With `blocks`, whole blocks are in one fold.
    scoring : str, callable, list, or dict, default="neg_root_mean_squared_error"
        Name of a scorer for regression, or a callable that
        :func:`sklearn.metrics.make_scorer` makes from ``metric(y_true, y_pred)``. A
        list of names or a dict gives several scores. Scores are in units of X.
    random_state : int, RandomState instance or None, default=None
        Seed of the folds.
    n_jobs : int, default=None
        Number of folds to fit in parallel.
    return_train_score : bool, default=False
        Whether to also score the reconstruction of the entries of the fit.
    return_estimator : bool, default=False
        Whether to return the fitted estimators.
    blocks : array-like of shape (n_samples,), default=None
        Label of the block of each row, such as its day; :func:`block_entries` makes
        these labels from times. The observed entries of a column in the rows of a block
        are in the same fold, so neighbours in time cannot give an entry away.
    times : array-like of shape (n_samples,), default=None
        Times of the rows, for estimators whose `fit_transform` takes them.
    groups : array-like of shape (n_samples,), default=None
        Label of the series of each row, for such estimators.

    Returns
    -------
    scores : dict of ndarray of shape (cv,)
        The same keys as those of :func:`sklearn.model_selection.cross_validate`:
        ``fit_time`` and ``score_time`` in seconds, ``test_score`` (``test_NAME`` for
        several scorers), and ``train_score`` and ``estimator`` if asked for.

    Raises
    ------
    ValueError
        If the estimator does not predict the entries of X.

    See Also
    --------
    block_entries : Blocks of rows from their times.

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
    entries = Entries.of(X, "model_selection")
    Timeline.of(times, groups, entries.X.shape[0])  # or the first fit raises an error
    given = {"times": times, "groups": groups}
    given = {name: values for name, values in given.items() if values is not None}
    _check_takes_sparse(estimator, X)
    scorer = check_scoring(estimator, scoring=scoring)
    folds = choose_folds(entries, cv, blocks, random_state)
    fit, options = delayed(_fit_and_score), (scorer, return_train_score, given)
    results = Parallel(n_jobs=n_jobs)(
        fit(clone(estimator), entries, folds != k, *options) for k in range(cv)
    )
    fitted = [result.pop("estimator") for result in results]
    scores = {name: np.array([each[name] for each in results]) for name in results[0]}
    return scores | ({"estimator": fitted} if return_estimator else {})


def block_entries(times: Any, *, length: Any, groups: Any = None) -> np.ndarray:
    """Cut rows into blocks of time, so that neighbours are hidden together.

    If single entries are hidden at random, their neighbours in time nearly give them
    away. Pass the labels that this function returns as `blocks` to
    :func:`train_test_split_entries` or :func:`cross_validate_entries`. In each column,
    they then hide whole blocks.

    Parameters
    ----------
    times : array-like of shape (n_samples,)
        Times of the rows: numbers, dates or durations. Dates without a time zone are
        taken to be in UTC.
    length : float, numpy.timedelta64 or datetime.timedelta
        Length of a block: a number in units of `times`, or a duration if `times` are
        dates or durations. Choose it as long as the gaps that you want to fill.
    groups : array-like of shape (n_samples,), default=None
        Label of the series of each row. No block contains rows of two series.

    Returns
    -------
    blocks : ndarray of int of shape (n_samples,)
        Number of the block of each row. Numbers are cut from the first time of the
        series on. Dates are cut at multiples of `length` since 1970-01-01, so days
        start at midnight UTC.

    See Also
    --------
    cross_validate_entries : Predict blocks that are hidden from the fit.
    train_test_split_entries : Hold out some blocks.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mfgd.model_selection import block_entries, train_test_split_entries
    >>> times = np.arange("2024-03-01T12", "2024-03-03T12", 6, "datetime64[h]")
    >>> blocks = block_entries(times, length=np.timedelta64(1, "D"))
    >>> blocks
    array([0, 0, 1, 1, 1, 1, 2, 2])
    >>> X = np.ones((8, 2))
    >>> _, X_test = train_test_split_entries(
    ...     X, test_size=2, blocks=blocks, random_state=0
    ... )
    >>> (~np.isnan(X_test)).astype(int).T
    array([[1, 1, 0, 0, 0, 0, 0, 0],
           [0, 0, 1, 1, 1, 1, 0, 0]])
    """
    return cut_into_blocks(times, length, groups)


def make_entries_scorer(
    scoring: Any = "neg_root_mean_squared_error", *, n_folds: int = 5
) -> Any:
    """Make a scorer for `GridSearchCV` and `cross_val_score` that needs no labels.

    `GridSearchCV` and `cross_val_score` hold out rows. In these rows, the scorer hides
    the entries of one fold after the other. The fitted estimator predicts them from the
    rest of their rows. The scorer then scores the predictions of all folds together.

    Parameters
    ----------
    scoring : str, callable, list, or dict, default="neg_root_mean_squared_error"
        Name of a scorer for regression, or a callable that
        :func:`sklearn.metrics.make_scorer` makes. A list or a dict gives several
        scores; `GridSearchCV` then needs the name of one of them as `refit`.
    n_folds : int, default=5
        Number of folds. The k-th observed entry of a row belongs to fold k mod
        `n_folds`, as in :meth:`sklearn_mfgd.MaskedGradientMF.score`.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X)`` scores a fitted estimator, of the same kinds as in
        :func:`cross_validate_entries`. Scores are in units of X.

    See Also
    --------
    cross_validate_entries : Hides the entries of all rows from the fit.

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
    """What `make_entries_scorer` returns: a class, so that workers can unpickle it."""

    def __init__(self, scorer: Callable, n_folds: int):
        self.scorer = scorer
        self.n_folds = n_folds

    def __repr__(self):
        return f"make_entries_scorer({self.scorer!r}, n_folds={self.n_folds})"

    def __call__(self, estimator, X, y=None):
        entries = Entries.of(X, "model_selection")
        if not len(entries.values):
            raise ValueError("There is nothing to score: every entry of X is missing.")
        _check_takes_sparse(estimator, X)
        row_starts = np.searchsorted(entries.rows, entries.rows)
        folds = (np.arange(len(row_starts)) - row_starts) % self.n_folds
        predicted = np.empty_like(entries.values)
        for fold in np.unique(folds):
            hidden = folds == fold
            shown = entries.select(~hidden)
            # The estimator knows the names of columns.
            if hasattr(X, "iloc"):
                shown = type(X)(shown, columns=X.columns, index=X.index)
            elif is_frame(X):
                shown = type(X)(shown, schema=list(X.columns))
            Z = estimator.transform(shown)
            predicted[hidden] = _predict(estimator, shown, Z, entries, hidden, {})
        return self.scorer(_PredictsItsInput(), predicted, entries.values)


class _PredictsItsInput(RegressorMixin, BaseEstimator):
    """Estimator that predicts its X, so that a scorer can score given predictions."""

    def predict(self, X):
        """Return X."""
        return X


def _fit_and_score(estimator, entries, train, scorer, score_train, given) -> dict:
    """Fit to the entries of `train`; score the others, and these if asked for.

    The times and series of rows that are given are passed to the estimator.
    """
    start = time.perf_counter()
    shown = entries.select(train)
    Z = estimator.fit_transform(shown, **given)
    fitted = time.perf_counter()
    results = {"fit_time": fitted - start, "estimator": estimator}
    wanted = ~train | score_train
    predicted = _predict(estimator, shown, Z, entries, wanted, given)
    sides = {"test": ~train} | ({"train": train} if score_train else {})
    for side, chosen in sides.items():
        x, truth = predicted[chosen[wanted]], entries.values[chosen]
        scores = scorer(_PredictsItsInput(), x, truth)
        scores = scores if isinstance(scores, dict) else {"score": scores}
        results |= {f"{side}_{name}": value for name, value in scores.items()}
    return results | {"score_time": time.perf_counter() - fitted}


def _predict(estimator, shown, Z, entries, wanted, given) -> np.ndarray:
    """Predict the wanted entries from Z, which is the shown matrix transformed."""
    rows, columns = entries.rows[wanted], entries.columns[wanted]
    if hasattr(estimator, "predict_entries"):
        predicted = estimator.predict_entries(Z, rows, columns)
    else:
        predicted = _reconstruct(estimator, shown, Z, given)[rows, columns]
    if not np.isfinite(predicted).all():
        raise ValueError(
            f"{type(estimator).__name__} leaves hidden entries missing; use an "
            "estimator that fills or reconstructs every entry."
        )
    return predicted


def _reconstruct(estimator, X, Z, given) -> np.ndarray:
    """Reconstruct X from Z, which is X transformed by the estimator."""
    if isinstance(estimator, Pipeline):
        earlier_steps, estimator = estimator[:-1], estimator[-1]
        if len(earlier_steps):
            transformed = earlier_steps.transform(X, **_taken(earlier_steps, given))
            Z = _reconstruct(estimator, transformed, Z, given)
            return _reconstruct(earlier_steps, X, Z, given)
    X, Z = np.asarray(X), np.asarray(Z)
    if Z.shape == X.shape:
        observed = ~np.isnan(X)
        # What is observed may differ by the rounding of a scaling and its inverse.
        largest = np.max(np.abs(X), axis=0, initial=0, where=observed)
        close = np.abs(Z - X) <= np.sqrt(np.finfo(Z.dtype).eps) * largest
        if close[observed].all():
            return Z
    # The inverse_transform of an imputer takes out again what it has filled in.
    if hasattr(estimator, "inverse_transform") and not _is_imputer(estimator):
        reconstruction = np.asarray(estimator.inverse_transform(Z))
        if reconstruction.shape == X.shape:
            return reconstruction
    raise ValueError(
        f"{type(estimator).__name__} does not predict the entries of X: its transform "
        "must fill in the missing entries and keep what is observed, or its "
        "inverse_transform reconstruct X. An imputer must not drop columns (use "
        "keep_empty_features=True) or add any (add_indicator=False)."
    )


def _taken(pipeline: Pipeline, given: dict) -> dict:
    """What a transform of the pipeline takes of the metadata that are given."""
    if not given:
        return {}
    routing = get_routing_for_object(pipeline)
    return {name: given[name] for name in routing.consumes("transform", given.keys())}


def _is_imputer(estimator) -> bool:
    """Whether it is an imputer: this is the parameter that all of them share."""
    return hasattr(estimator, "keep_empty_features")


def _takes_unstored_for_zero(estimator) -> bool:
    """Whether it takes entries that a sparse X does not store for zeros."""
    by_entry = hasattr(estimator, "predict_entries")
    return getattr(estimator, "_unstored_is_zero", not by_entry)


def _check_takes_sparse(estimator, X):
    """Refuse a sparse X if entries could not be hidden from the estimator."""
    name = type(estimator).__name__
    if sparse.issparse(X) and not hasattr(estimator, "predict_entries"):
        raise ValueError(
            "A sparse X needs an estimator with predict_entries, such as "
            f"MaskedGradientMF; {name} would write out all of X."
        )
    if sparse.issparse(X) and _takes_unstored_for_zero(estimator):
        raise ValueError(
            f"{name} takes what a sparse X does not store for zeros, so entries cannot "
            "be hidden from it. Use MaskedGradientMF, or a dense X."
        )


def _check_n_folds(number, name: str):
    if not isinstance(number, Integral) or number < 2:
        message = f"{name} must be a number of folds, at least 2; got {number!r}."
        raise ValueError(message)
