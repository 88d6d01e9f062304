"""Factorize columns, their normal scores, or both, weighed by hidden entries."""

from typing import NamedTuple

import numpy as np

from .._data.hidden import hold_outs
from .._data.normal_scores import by_column
from .._state import RECORDS
from ._columns import Imputed, Settings, Table, Wanted, fit_columns
from ._stack_weights import HiddenErrors, parts_of, stack_weights

# Which of the two are factorized.
AS_SCORES = {"none": (False,), "normal": (True,), "auto": (False, True)}

# What the average column counts in the weights of each column, in hidden entries.
ENTRIES_OF_TABLE = 100.0


class WeightedColumns(NamedTuple):
    """Factorizations of the columns of a table, and their weights in each column."""

    members: list
    weights: np.ndarray  # (n_members, n)

    def impute(self, table: Table, wanted: Wanted, limits, rng=None) -> Imputed:
        """Tell of the missing entries of a table, as weighted means of the members.

        A weighted mean of quantiles is the quantile of a distribution, too. A sample
        takes each column from one member, chosen at random by the weights.
        """
        told = [member.impute(table, wanted, limits, rng) for member in self.members]
        columns = np.nonzero(table.missing)[1]
        if len(told) == 1:
            return told[0].clipped(limits, columns)
        if rng is not None:
            share = np.cumsum(self.weights, axis=0)
            chosen = (rng.uniform(size=share.shape[1]) > share[:-1]).sum(axis=0)
            values = np.array([one.values for one in told])
            values = values[chosen[columns], np.arange(len(columns))]
            return told[0]._replace(values=values).clipped(limits, columns)
        weights = self.weights[:, columns]
        told = Imputed(
            values=weighted_mean([one.values for one in told], weights),
            std=weighted_mean([one.std for one in told], weights)
            if wanted.std
            else None,
            quantiles=weighted_mean([one.quantiles for one in told], weights),
        )
        return told.clipped(limits, columns)

    def ranges(self) -> tuple[np.ndarray, np.ndarray]:
        """Limits of what can be imputed: the observed range if all are of scores."""
        scores = [member.scores for member in self.members]
        if None not in scores:
            return scores[0].ranges()
        high = np.full(self.weights.shape[1], np.inf)
        return -high, high


RECORDS["WeightedColumns"] = WeightedColumns


def weighted_mean(values, weights):
    """Sum of arrays times weights; what has no weight may be infinite."""
    total = np.zeros(np.shape(values[0]))
    for value, weight in zip(values, weights, strict=True):
        total += np.where(weight > 0, value, 0) * weight
    return total


def fit_marginals(
    table: Table,
    settings: Settings,
    marginal: str,
    wanted: Wanted,
    *,
    limits,
    rng=None,
    weights=None,
    on_sweep=None,
) -> WeightedColumns:
    """Factorize the columns as `marginal` says; weights that are given are kept."""
    kinds = AS_SCORES[marginal]
    if weights is None and len(kinds) > 1:
        weights = _learn(table, settings, kinds, wanted, limits, rng)
    elif weights is None:
        weights = np.ones((1, table.X.shape[1]))
    members = [
        fit_columns(table, settings, kind, on_sweep if k == 0 else None)
        for k, kind in enumerate(kinds)
    ]
    return WeightedColumns(members, weights)


def _learn(table, settings, kinds, wanted, limits, rng):
    """Weights that predict entries best that were hidden from the fits."""
    errors, hidden_places = [], []
    scale = deviations(table.X, table.missing)
    for of_features in hold_outs(table.missing_features(), rng):
        shown, hidden = table.hide(of_features)
        found = []
        for kind in kinds:
            member = fit_columns(shown, settings._replace(samples=False), kind)
            found.append(member.impute(shown, wanted, limits).values)
        of_hidden = hidden[shown.missing]
        places = np.nonzero(hidden)
        truth = table.X[places]
        units = scale[places[1]]
        errors.append([(values[of_hidden] - truth) / units for values in found])
        hidden_places.append(places)
    n = table.X.shape[1]
    if not errors:
        return np.full((len(kinds), n), 1 / len(kinds))
    rows, columns = np.concatenate(hidden_places, axis=1)
    errors = np.concatenate(errors, axis=1).T
    errors = HiddenErrors(errors, columns, n, parts_of(rows, columns))
    absolute = wanted.statistic == "median"
    return stack_weights(errors, ENTRIES_OF_TABLE, absolute=absolute).weights


def deviations(X, missing):
    """Standard deviation of the observed entries of each column.

    Of a constant column it is the size of its value, and 1 if that is 0 or unknown.
    """
    scale = np.ones(X.shape[1])
    rows, columns = np.nonzero(~missing)
    values = X[rows, columns].astype(np.float64)
    for j, places in by_column(columns):
        largest = np.abs(values[places]).max()
        if largest > 0:
            spread = np.std(values[places] / largest) * largest
            scale[j] = spread if spread > 0 else largest
    return scale
