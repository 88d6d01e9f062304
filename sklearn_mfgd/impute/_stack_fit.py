"""How a stack fits its members: with entries hidden, and to the whole table."""

from inspect import signature
from time import perf_counter
from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.base import clone
from sklearn.utils.parallel import Parallel, delayed

from .._data.entries import Entries
from .._data.hidden import hold_outs
from .._data.splits import must_stay
from .._data.standardize import Standardization
from . import _residual as residual

# Fewer hidden entries do not tell imputers apart.
FEWEST_HIDDEN = 10

# Standardized errors are at most this large, and deviations at least so small: squares
# of their ratios would overflow.
LARGEST_ERROR, LEAST_DEVIATION = 1e8, 1e-8


class Hidden(NamedTuple):
    """Entries that are hidden from the members, fold by fold."""

    rows: np.ndarray
    columns: np.ndarray
    folds: np.ndarray  # which are hidden together

    @classmethod
    def of(
        cls, X: np.ndarray, features: np.ndarray, test_size, cv: int | None, rng
    ) -> Self:
        """Choose entries of features that vary; each row and feature keeps one.

        Columns of the same feature are next to one another, missing together, and
        hidden together. No entry is hidden if that would be too few.
        """
        firsts = np.unique(features, return_index=True)[1]
        of_features = X[:, firsts]
        with np.errstate(invalid="ignore"):
            varies = np.nanmin(of_features, axis=0) < np.nanmax(of_features, axis=0)
        if cv is None:
            found = hold_outs(np.isnan(of_features), rng, test_size)
            tables = [hidden & varies for hidden in found]
        else:
            tables = _folds(of_features, varies, cv, rng)
        if sum(hidden.sum() for hidden in tables) < FEWEST_HIDDEN:
            tables = []
        widths = np.diff(np.append(firsts, X.shape[1]))
        places = [np.nonzero(np.repeat(hidden, widths, axis=1)) for hidden in tables]
        rows, columns = np.concatenate([np.empty((2, 0), int), *places], axis=1)
        folds = np.repeat(np.arange(len(places)), [len(rows) for rows, _ in places])
        return cls(rows, columns, folds)


def _folds(X, varies, cv, random_state) -> list:
    """Cut the entries that may be hidden into folds: tables of what is in each."""
    rows, columns = np.nonzero(~np.isnan(X))
    entries = Entries(X, rows, columns, X[rows, columns])
    order = random_state.permutation(len(rows))
    stays = must_stay(entries, np.arange(len(rows)), order)
    order = order[~stays[order] & varies[columns[order]]]
    fold_of_entry = np.full(X.shape, -1)
    fold_of_entry[rows[order], columns[order]] = np.arange(len(order)) % cv
    return [fold_of_entry == fold for fold in range(cv)]


class Predicted(NamedTuple):
    """What a member says of entries."""

    values: np.ndarray  # (n_entries,)
    deviations: np.ndarray | None
    quantiles: np.ndarray | None  # (n_quantiles, n_entries)


class HeldOut(NamedTuple):
    """Standardized errors of members at hidden entries, and deviations they tell."""

    errors: np.ndarray  # (n_hidden, k)
    deviations: np.ndarray  # (n_hidden, k), NaN for a member that tells none
    predicted: list  # of each fold, (k, n_missing) with what is missing anyway


class GivenTable(NamedTuple):
    """A table with NaN where values are missing, and what its columns are like."""

    X: np.ndarray
    standardization: Standardization
    limits: list  # the least and the largest imputed value of each column

    def standardized(self, values: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Standardize values of columns, within their limits; float64."""
        values = np.clip(values, *(limit[columns] for limit in self.limits))
        return self.standardization.apply_to(values.astype(np.float64), columns)

    def truth(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return observed entries, standardized."""
        values = self.X[rows, columns].astype(np.float64)
        return self.standardization.apply_to(values, columns)


def predict_hidden(
    members, table: GivenTable, hidden: Hidden, n_jobs, verbose
) -> HeldOut:
    """Fit each member to the table without the entries of a fold, and predict these."""
    folds = [np.flatnonzero(hidden.folds == f) for f in np.unique(hidden.folds)]
    places = [(hidden.rows[fold], hidden.columns[fold]) for fold in folds]
    jobs = (
        delayed(_errors_at)(member, table, at, verbose)
        for member in members
        for at in places
    )
    found = iter(Parallel(n_jobs=n_jobs)(jobs))
    errors, deviations = np.empty((2, len(hidden.rows), len(members)))
    predicted: list[list] = [[] for _ in folds]
    for number in range(len(members)):
        for fold, values in zip(folds, predicted, strict=True):
            errors[fold, number], deviations[fold, number], of_member = next(found)
            values.append(of_member)
    return HeldOut(errors, deviations, [np.stack(values) for values in predicted])


def _errors_at(member, table: GivenTable, places, verbose) -> tuple:
    """Fit a member without some entries; return errors and deviations at these.

    Return what it says of all that is missing then, too.
    """
    start, (name, imputer) = perf_counter(), member
    X = table.X.copy()
    X[places] = np.nan
    imputer = _fit(name, clone(imputer), X)
    every = np.nonzero(np.isnan(X))
    predicted = predict(name, imputer, X, every, return_std=True)
    number = np.empty(X.shape, int)
    number[every] = np.arange(len(every[0]))
    at = number[places]
    errors = table.standardized(predicted.values[at], places[1]) - table.truth(*places)
    errors = np.clip(errors, -LARGEST_ERROR, LARGEST_ERROR)
    deviations = np.full(len(errors), np.nan)
    if predicted.deviations is not None:
        unit = table.standardization.scale[places[1]]
        deviations = standardized_deviations(predicted.deviations[at], unit)
    if verbose:
        print(
            f"[StackingImputer] {name}: held-out error {root_mean_square(errors):.3g} "
            f"standard deviations, {perf_counter() - start:.1f} s"
        )
    bounds = [limit[every[1]] for limit in table.limits]
    return errors, deviations, np.clip(predicted.values, *bounds)


def standardized_deviations(std: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Return deviations of a member in those of the columns, `unit`.

    Zero or infinity says that a fit saw one value, or one everywhere, in a column: then
    the deviation of the column is what is known.
    """
    deviations = np.where((std > 0) & np.isfinite(std), std / unit, 1.0)
    return np.maximum(deviations, LEAST_DEVIATION)


def root_mean_square(errors: np.ndarray) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(errors))))


def root_mean_squares(errors: np.ndarray, columns: np.ndarray, n_columns: int):
    """Return those of each column, NaN without entries."""
    counts = np.bincount(columns, minlength=n_columns)
    sums = np.bincount(columns, np.square(errors), minlength=n_columns)
    return np.sqrt(np.where(counts > 0, sums, np.nan) / np.maximum(counts, 1))


def errors_of_features(errors, hidden: Hidden, features, scale, n_features: int):
    """Return root mean squares, in units of the data, of each row of `errors`.

    The square of a feature is the sum of those of its columns; errors are in their
    deviations, `scale`.
    """
    units = np.full(n_features, np.nan)
    for column, feature in enumerate(features):
        units[feature] = np.fmax(units[feature], scale[column])
    widths = np.bincount(features, minlength=n_features)
    columns = features[hidden.columns]
    errors = errors * (scale[hidden.columns] / units[columns])
    means = np.array([root_mean_squares(e, columns, n_features) for e in errors])
    return units * np.sqrt(widths) * means


def stacked_at_hidden(
    X, hidden: Hidden, predicted: list, weights
) -> list[residual.HoldOut]:
    """Return what the stack says of missing and hidden entries, fold by fold."""
    of_stack = []
    for fold, of_members in zip(np.unique(hidden.folds), predicted, strict=True):
        is_hidden = np.zeros(X.shape, bool)
        at = hidden.folds == fold
        is_hidden[hidden.rows[at], hidden.columns[at]] = True
        missing = np.isnan(X) | is_hidden
        of_entries = weights[:, np.nonzero(missing)[1]]
        values = np.einsum("ki,ki->i", of_entries, of_members)
        of_stack.append(residual.HoldOut(is_hidden, missing, values))
    return of_stack


def fit_members(members, X: np.ndarray, n_jobs) -> list:
    """Fit a clone of each member to X."""
    jobs = (delayed(_fit)(name, clone(imputer), X) for name, imputer in members)
    return list(Parallel(n_jobs=n_jobs)(jobs))


def _fit(name: str, imputer, X):
    try:
        return imputer.fit(X)
    except Exception as error:
        error.add_note(f"This is an error of {name!r}, one of the imputers.")
        raise


def predict(
    name: str, imputer, X, places, *, return_std=False, probabilities=None
) -> Predicted:
    """Impute X by a member and return the entries at places, as float64.

    Deviations and quantiles are None if they are not asked for, or the member has none.
    """
    result = None
    if return_std or probabilities is not None:
        result = _impute_with_spread(imputer, X, probabilities)
    if result is None:
        result = imputer.transform(X), None, None
    filled, std, quantiles = result
    values = _entries_of(name, filled, X.shape, places)
    if not np.isfinite(values).all():
        wrong = values[~np.isfinite(values)][0]
        raise ValueError(
            f"{name!r}, one of the imputers, imputes {wrong}. Members of a stack must "
            "replace every missing value by a finite number; leave this one out, or "
            "change its parameters."
        )
    if std is not None:
        std = _entries_of(name, std, X.shape, places)
        if np.isnan(std).any():
            raise ValueError(
                f"{name!r}, one of the imputers, returns NaN as the standard deviation "
                "of a missing value."
            )
    if quantiles is not None:
        each = [_entries_of(name, q, X.shape, places) for q in quantiles]
        quantiles = np.stack(each) if each else None
    return Predicted(values, std, quantiles)


def _impute_with_spread(imputer, X, probabilities):
    """Impute with deviations, and quantiles if it has these; None without either."""
    impute = getattr(imputer, "impute", None)
    takes = signature(impute).parameters if callable(impute) else {}
    if "return_std" not in takes:
        return None
    options: dict[str, Any] = {"return_std": True}
    if probabilities is not None and "return_quantiles" in takes:
        options["return_quantiles"] = tuple(probabilities.tolist())
    try:
        result = impute(X, **options)
    except ValueError:  # of a fit that does not know how uncertain its values are
        return None
    return result if len(result) == 3 else (*result, None)


def _entries_of(name: str, filled, shape, places) -> np.ndarray:
    """Take entries of what a member returns, if it has the shape of X."""
    filled = np.asarray(filled)
    if filled.shape != shape:
        raise ValueError(
            f"{name!r}, one of the imputers, returns shape {filled.shape} for X of "
            f"shape {shape}. Members of a stack must return the columns of X as they "
            "are, in a dense array."
        )
    return filled[places].astype(np.float64)
