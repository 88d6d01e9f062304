"""The fitted model of a given ridge: column factors, and how rows fold in."""

from typing import Any, NamedTuple

import numpy as np

from .._kernels.rows import Biases
from .objective import objective_of, solve_rows
from .penalty import MAX_RIDGE


class RidgeModel(NamedTuple):
    """Column factors in the units of the solvers, of the columns with entries.

    This class states the contract of a fitted model: the estimators ask nothing else of
    the models in `_bayes`.
    """

    factors: np.ndarray  # [h, c]; the last row is that of columns without entries
    ridge: np.ndarray  # of [w, b]
    biases: Biases
    columns: np.ndarray | None = None  # row of `factors` for each column; None: all
    non_negative: tuple[bool, bool] = False, False  # row factors, column factors

    # What a given ridge does not learn.
    has_variances = has_times = False
    noise_variance = row_precision = column_precision = None

    @classmethod
    def of(cls, H, ridge, biases, non_negative=(False, False)) -> "RidgeModel":
        """Return the model of the column factors at the end of a fit."""
        factors = np.vstack([H, np.zeros_like(H[:1])])
        return cls(factors, ridge, biases, non_negative=non_negative)

    @property
    def rank(self):
        """Number of factors."""
        return self.factors.shape[1] - self.biases.column

    n_factors = rank

    @property
    def H(self):
        """Column factors [h, c] of all columns, (n, rank) or (n, rank + 1)."""
        return self.factors[:-1] if self.columns is None else self.factors[self.columns]

    def over(self, columns) -> "RidgeModel":
        """Return the same model of columns with these rows of `factors`; None: all."""
        return self._replace(columns=columns)

    def take(self, columns) -> "RidgeModel":
        """Return the same model of some of the columns."""
        every = (
            np.arange(len(self.factors) - 1) if self.columns is None else self.columns
        )
        return self._replace(columns=every[columns])

    def fold_in(self, matrix) -> np.ndarray:
        """Row factors [w, b] of new rows, each by itself, (m, q)."""
        objective = objective_of(matrix, self.biases)
        return self._solve_rows(objective, self._factors_in(matrix))

    def reconstruct(self, matrix):
        """Yield row factors of blocks of rows, and half of their squared residuals."""
        objective, H = objective_of(matrix, self.biases), self._factors_in(matrix)
        W = self._solve_rows(objective, H)
        yield W, objective.value(W, H)

    def press(self, seen, hidden, columns) -> float:
        """Squared error of hidden entries, predicted from the seen ones of their rows.

        `columns` are those of the two matrices.
        """
        return press_of_factors(self, seen, hidden, columns)

    def with_new_columns(self, matrix, W, covariances, reg) -> "RidgeModel":
        """Return the same model with the columns of a matrix, given its row factors."""
        ridge = np.append(self.ridge[: self.rank], min(reg, MAX_RIDGE))
        ridge = ridge[: self.rank + self.biases.column]
        objective = objective_of(matrix, self.biases).T
        W = W.astype(matrix.dtype)
        new = solve_rows(objective, W, ridge, self.non_negative[1])
        last, numbers = len(self.factors) - 1, self.columns
        if numbers is None:
            numbers = np.arange(last)
        numbers = np.where(numbers == last, last + len(new), numbers)
        numbers = np.append(numbers, last + np.arange(len(new))).astype(np.int32)
        new = new.astype(self.factors.dtype)
        factors = np.concatenate([self.factors[:-1], new, self.factors[-1:]])
        return self._replace(factors=factors, columns=numbers)

    def _solve_rows(self, objective, H):
        return solve_rows(objective, H, self.ridge, self.non_negative[0])

    def _factors_in(self, matrix):
        return self.H.astype(matrix.dtype, copy=False)


class ModelOfBase:
    """Answers of a fitted model that its `base`, the model of the factors, knows."""

    base: Any
    _replace: Any  # of the named tuple that a subclass is

    @property
    def rank(self):
        """Number of factors."""
        return self.base.rank

    n_factors = rank

    @property
    def biases(self):
        """Which biases there are."""
        return self.base.biases

    @property
    def H(self):
        """Column factors [h, c] of all columns."""
        return self.base.H

    @property
    def noise_variance(self):
        """Variance of the noise of each column, one where none is to be learned."""
        return self.base.noise_variance

    @property
    def row_precision(self):
        """Precision of the prior of [w, b]."""
        return self.base.row_precision

    @property
    def column_precision(self):
        """Precision of the prior of [h, c]."""
        return self.base.column_precision

    def over(self, columns):
        """Return the same model of columns with these rows of factors; None: all."""
        return self._replace(base=self.base.over(columns))

    def take(self, columns):
        """Return the same model of some of the columns."""
        return self._replace(base=self.base.take(columns))


def press_of_factors(model, seen, hidden, columns) -> float:
    """Squared error of hidden entries for a model of which factors tell all."""
    seen_columns, hidden_columns = columns
    W = model.take(seen_columns).fold_in(seen)
    H = model.H.astype(hidden.dtype, copy=False)[hidden_columns]
    return 2 * objective_of(hidden, model.biases).value(W, H)
