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
from ._marginals import deviations, hide

N_FOLDS = 5

# A regressor of fewer entries learns nothing.
FEWEST = 10

# A value so many deviations off is as far as any, so that squares of it are finite.
FARTHEST = 1e9

# So many entries of the average column count in the weight of each column.
ENTRIES_OF_TABLE = 100.0


class ResidualModel(NamedTuple):
    """Regressors of what is left of each column, None where there is none."""

    mean: np.ndarray  # (n,), of the columns
    scale: np.ndarray  # (n,), their standard deviations
    regressors: list
    weights: np.ndarray  # (n,), from 0 to 1, of what the regressors predict
    ratio: np.ndarray  # (n,), of errors with what they predict to errors without

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
    n = X.shape[1]
    scale = deviations(X, missing)
    mean = np.array([_mean(X[~missing[:, j], j]) for j in range(n)])
    model = ResidualModel(mean, scale, [None] * n, np.zeros(n), np.ones(n))
    folds = np.full(X.shape, -1, np.int8)
    observed = np.nonzero(~missing)
    folds[observed] = rng.permutation(len(observed[0])) % N_FOLDS
    if (~missing).sum(axis=0).max() < FEWEST:
        return model
    features, residual = [], np.zeros(X.shape)
    for k in range(N_FOLDS):
        hidden = folds == k
        shown = hide(table, hidden)
        imputed = refit(shown).impute(shown, wanted, limits)
        filled = np.array(X, np.float64)
        filled[shown.missing] = imputed.values
        residual[hidden] = ((X - filled) / scale)[hidden]
        features.append(model.features(filled))
    return _regress(model, _Learner(regressor, rng), folds, features, residual, table)


def _regress(model, learner, folds, features, residual, table):
    """Fit the regressors of all columns to residuals, and weigh them."""
    n = len(model.mean)
    products, squares, totals, counts = np.zeros((4, n))
    for j in range(n):
        rows = np.flatnonzero(~table.missing[:, j])
        y, fold = residual[rows, j], folds[rows, j]
        if len(rows) < FEWEST or not y.any():
            continue
        A = np.empty((len(rows), n), np.float32)
        for k, of_fold in enumerate(features):
            A[fold == k] = of_fold[rows[fold == k]]
        weights = None if table.weights is None else table.weights[rows, j]
        unseen = np.empty(len(y))
        for half in fold % 2 == 0, fold % 2 == 1:
            if not half.any() or half.all():
                unseen[half] = 0
                continue
            given = None if weights is None else weights[~half]
            unseen[half] = learner.fit(A[~half], y[~half], given).predict(A[half])
        model.regressors[j] = learner.fit(A, y, weights)
        share = np.ones(len(y)) if weights is None else weights
        products[j], squares[j] = share * y @ unseen, share * unseen @ unseen
        totals[j], counts[j] = share * y @ y, share.sum()
    learned = counts > 0
    weights = np.where(learned, _shrunk(products, squares, counts).clip(0, 1), 0)
    left = totals - 2 * weights * products + np.square(weights) * squares
    ratio = np.sqrt(_shrunk(left, totals, counts, otherwise=1.0).clip(0, 1))
    return model._replace(weights=weights, ratio=np.where(learned, ratio, 1))


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


def _mean(values):
    """Mean of a column, 0 if it is empty; exact if all values are equal."""
    largest = np.abs(values.astype(np.float64)).max(initial=0)
    return (values / largest).mean() * largest if largest > 0 else 0.0
