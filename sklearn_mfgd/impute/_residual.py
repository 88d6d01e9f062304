"""What the factors leave of each column, predicted by a regressor from the filled row.

The regressor of a column learns from residuals of entries that were hidden from the
factors: the observed entries are cut into folds, and each fold is predicted by a fit to
the others. What it predicts is weighted by how well it does so for entries that it has
not seen.
"""

from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import has_fit_parameter

from .._data.normal_scores import by_column
from .._state import RECORDS
from ._columns import Imputed, Table, Wanted
from ._marginals import deviations

N_FOLDS = 5

# A regressor of fewer entries learns nothing.
FEWEST = 10

# Deviations beyond which a value is no farther, so that squares of it are finite.
FARTHEST = 1e9

# What the average column counts in the weight of each column, in entries.
ENTRIES_OF_TABLE = 100.0


class ResidualModel(NamedTuple):
    """Regressors of what is left of each column, None where there is none."""

    mean: np.ndarray  # (n,), of the columns
    scale: np.ndarray  # (n,), their standard deviations
    regressors: list
    weights: np.ndarray  # (n,), from 0 to 1, of what the regressors predict
    ratio: np.ndarray  # (n,), of errors with what they predict to errors without

    @classmethod
    def without(cls, X: np.ndarray, missing: np.ndarray):
        """The model of a table without any regressor."""
        n = X.shape[1]
        mean = np.array([_mean(X[~missing[:, j], j]) for j in range(n)])
        scale = deviations(X, missing)
        return cls(mean, scale, [None] * n, np.zeros(n), np.ones(n))

    def features(self, filled: np.ndarray) -> np.ndarray:
        """What regressors are given: rows without missing values, standardized."""
        with np.errstate(over="ignore"):
            Z = (filled - self.mean) / self.scale
        return Z.clip(-FARTHEST, FARTHEST).astype(np.float32)

    def correct(self, X: np.ndarray, missing: np.ndarray, imputed: Imputed) -> Imputed:
        """Add what is predicted of the residual to imputed values and quantiles."""
        filled = np.array(X, np.float64)
        filled[missing] = imputed.values
        rows, columns = np.nonzero(missing)
        values, std, quantiles = imputed
        values, quantiles = values.copy(), quantiles.copy()
        ratio = self.ratio[columns]
        for j, places in by_column(columns):
            regressor = self.regressors[j]
            if regressor is None or self.weights[j] == 0:
                continue
            found = regressor.predict(self.features(filled[rows[places]]))
            values[places] += self.weights[j] * self.scale[j] * found
        # The distribution moves with its value, and narrows.
        quantiles = values + ratio * (quantiles - imputed.values)
        return Imputed(values, None if std is None else ratio * std, quantiles)


RECORDS["ResidualModel"] = ResidualModel


def learn_residual(
    table: Table, refit, wanted: Wanted, regressor, *, limits, rng
) -> ResidualModel:
    """Learn it by cross-fitting; ``refit(table)`` factorizes the columns of a table."""
    X, missing = table.X, table.missing
    if (~missing).sum(axis=0).max() < FEWEST:
        return ResidualModel.without(X, missing)
    missing_features = table.missing_features()
    folds = np.full(missing_features.shape, -1, np.int8)
    observed = np.nonzero(~missing_features)
    folds[observed] = rng.permutation(len(observed[0])) % N_FOLDS
    predicted = []
    for k in range(N_FOLDS):
        shown, hidden = table.hide(folds == k)
        values = refit(shown).impute(shown, wanted, limits).values
        predicted.append(HoldOut(hidden, shown.missing, values))
    return regress(table, predicted, regressor, wanted.statistic, rng)[0]


class HoldOut(NamedTuple):
    """What a fit without some entries says of these and of what is missing anyway."""

    hidden: np.ndarray  # (m, n), bool
    missing: np.ndarray  # with the hidden ones
    values: np.ndarray  # of these, row by row

    def fill(self, X: np.ndarray) -> np.ndarray:
        """The table as the fit filled it, in float64."""
        filled = np.array(X, np.float64)
        filled[self.missing] = self.values
        return filled


def regress(
    table: Table, predicted: list[HoldOut], regressor, statistic, rng
) -> tuple[ResidualModel, list[HoldOut]]:
    """Fit the regressor of each column to residuals of hidden entries, and weigh it.

    The weight is that with the least squared error, or absolute error for the median,
    at entries of the other half of the rows. Return the model, and what was predicted
    with, at hidden entries, what the fit to the other half of the rows adds to it.
    """
    X, missing, weights = table[:3]
    model = ResidualModel.without(X, missing)
    filled = [one.fill(X) for one in predicted]
    features = [model.features(rows) for rows in filled]
    learner, half = _Learner(regressor, rng), rng.permutation(len(X)) % 2 == 0
    n = len(model.mean)
    found = [_Unseen.nothing()] * n
    for j in range(n):
        rows = [np.flatnonzero(one.hidden[:, j]) for one in predicted]
        left = [X[r, j] - f[r, j] for r, f in zip(rows, filled, strict=True)]
        y = np.concatenate(left) / model.scale[j]
        if len(y) < FEWEST or not y.any():
            continue
        A = np.vstack([f[r] for r, f in zip(rows, features, strict=True)])
        rows = np.concatenate(rows)
        order = np.argsort(rows, kind="stable")
        A, y, rows = A[order], y[order], rows[order]
        share = np.ones(len(y)) if weights is None else weights[rows, j]
        given = None if weights is None else share
        found[j] = _Unseen(y, learner.unseen(A, y, given, half[rows]), share)
        model.regressors[j] = learner.fit(A, y, given)
    model = _weighed(model, found, absolute=statistic == "median")
    return model, _corrected(model, predicted, filled, found)


def _corrected(model, predicted, filled, found) -> list[HoldOut]:
    """Add to what is predicted at hidden entries what regressors say unseen."""
    for j, unseen in enumerate(found):
        if not len(unseen.predicted):
            continue
        rows = [np.flatnonzero(one.hidden[:, j]) for one in predicted]
        correction = np.empty(len(unseen.predicted))
        # Residuals are in the order of rows.
        order = np.argsort(np.concatenate(rows), kind="stable")
        correction[order] = model.weights[j] * model.scale[j] * unseen.predicted
        ends = np.cumsum([len(r) for r in rows])
        for table, r, end in zip(filled, rows, ends, strict=True):
            table[r, j] += correction[end - len(r) : end]
    return [
        one._replace(values=table[one.missing])
        for one, table in zip(predicted, filled, strict=True)
    ]


class _Unseen(NamedTuple):
    """Residuals of a column, what is said of them unseen, and their weights."""

    residual: np.ndarray
    predicted: np.ndarray
    share: np.ndarray

    @classmethod
    def nothing(cls):
        return cls(*np.zeros((3, 0)))

    def products(self):
        y, p, share = self
        return share * y @ p, share * p @ p, share * y @ y, share.sum()


def _weighed(model, found, *, absolute):
    """Weigh the regressors of all columns by what they say of unseen residuals."""
    products, squares, totals, counts = np.transpose([f.products() for f in found])
    learned = counts > 0
    if absolute:
        every = _Unseen(*map(np.concatenate, zip(*found, strict=True)))
        best = np.array([_least_absolute(*one) for one in found])
        weights = (counts * best + ENTRIES_OF_TABLE * _least_absolute(*every)) / (
            counts + ENTRIES_OF_TABLE
        )
    else:
        weights = _shrunk(products, squares, counts).clip(0, 1)
    weights = np.where(learned, weights, 0)
    left = totals - 2 * weights * products + np.square(weights) * squares
    ratio = np.sqrt(_shrunk(left, totals, counts, otherwise=1.0).clip(0, 1))
    return model._replace(weights=weights, ratio=np.where(learned, ratio, 1))


def _least_absolute(y, p, share) -> float:
    """The factor of p with the least absolute error: a weighted median, 0 to 1."""
    used = p != 0
    if not used.any():
        return 0.0
    ratio, share = y[used] / p[used], (share * np.abs(p))[used]
    order = np.argsort(ratio)
    below = np.cumsum(share[order])
    return float(np.clip(ratio[order][np.searchsorted(below, below[-1] / 2)], 0, 1))


def _shrunk(numerators, denominators, counts, otherwise=0.0):
    """Ratio in each column, to which the average of all columns counts as entries."""
    total = counts.sum()
    if total == 0 or denominators.sum() == 0:
        return np.full(len(counts), otherwise)
    share = ENTRIES_OF_TABLE / total
    above = numerators + share * numerators.sum()
    return above / (denominators + share * denominators.sum())


class _Learner(NamedTuple):
    """Fits clones of a regressor, with weights where it takes them."""

    regressor: Any
    rng: np.random.RandomState

    def fit(self, A, y, weights):
        regressor = clone(self.regressor)
        # Its own and those of its parts, as of the steps of a pipeline.
        seeds = {
            name: self.rng.randint(np.iinfo(np.int32).max)
            for name, value in sorted(regressor.get_params().items())
            if value is None and name.split("__")[-1] == "random_state"
        }
        regressor.set_params(**seeds)
        if weights is None or not has_fit_parameter(regressor, "sample_weight"):
            return regressor.fit(A, y)
        return regressor.fit(A, y, sample_weight=weights)

    def unseen(self, A, y, weights, half):
        """What fits to each of two halves say of the other; zero where one is empty."""
        predicted = np.zeros(len(y))
        for of in (half, ~half):
            if of.any() and not of.all():
                given = None if weights is None else weights[~of]
                predicted[of] = self.fit(A[~of], y[~of], given).predict(A[of])
        return predicted


def _mean(values):
    """Mean of a column, 0 if it is empty; exact if all values are equal."""
    largest = np.abs(values.astype(np.float64)).max(initial=0)
    return (values / largest).mean() * largest if largest > 0 else 0.0
