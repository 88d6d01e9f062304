"""The fitted model of a given ridge and of losses other than squared error."""

from typing import NamedTuple

import numpy as np

from .column_losses import ColumnLosses, predictions_at
from .loss_objective import LossObjective
from .objective import solve_rows
from .ridge_model import ModelOfBase, RidgeModel


class LossModelMixin(ModelOfBase):
    """What any fitted model with losses answers besides those of its factors.

    A subclass has `base`, the model of the predictions, `losses` of the columns with
    entries, `null`, what each would be predicted to be by itself, and `ranges`, the
    values of each that count as they are in the start of a fold-in; the last of all is
    that of columns without entries.
    """

    losses: ColumnLosses
    null: np.ndarray
    ranges: np.ndarray

    has_times = False

    @property
    def has_variances(self):
        return self.base.has_variances

    @property
    def numbers(self):
        """Number of each column among those with entries."""
        if self.base.columns is None:
            return np.arange(len(self.null) - 1)
        return self.base.columns

    @property
    def has_noise(self):
        """Which columns have a loss with noise to learn."""
        return ~self.losses_here.unit_noise_columns(len(self.numbers))

    @property
    def losses_here(self):
        """Losses of the columns that the model is restricted to."""
        return self.losses.over(self.numbers)

    def noise_precision_at(self, columns):
        """Precision of the noise of entries of columns, or ones."""
        variance = self.noise_variance
        return np.ones(len(columns)) if variance is None else 1 / variance[columns]

    def respond(self, X):
        """Expected values of all entries of rows given their predictions."""
        result, numbers = np.empty_like(X), np.arange(X.shape[1])
        for kind, at in self.losses_here.groups(numbers, len(numbers)):
            result[:, at] = kind.mean(X[:, at], 0.0)
        return result

    def respond_at(self, columns, x, v):
        """Expected values of entries of columns given predictions and variances."""
        mean = self.losses_here.apply("mean", columns, x, v)
        return mean.astype(x.dtype, copy=False)

    def press(self, seen, hidden, columns) -> float:
        """Twice the loss of hidden entries, predicted from the seen ones."""
        seen_columns, hidden_columns = columns
        W = self.take(seen_columns).fold_in(seen)
        there = self.take(hidden_columns)
        rows = hidden.listed().rows
        places = rows.row_numbers, rows.indices
        p = predictions_at(W, there.H, self.biases, *places)
        return there.deviance(rows, p)

    def null_deviance(self, matrix) -> float:
        """Twice the loss where each column is predicted by itself."""
        rows = matrix.listed().rows
        return self.deviance(rows, self.null[self.numbers][rows.indices])

    def deviance(self, rows, p) -> float:
        """Twice the weighted loss of entries given predictions."""
        x, precision = rows.values.astype(np.float64), None
        precision = self.noise_precision_at(rows.indices)
        losses = self.losses_here.value(rows.indices, x, p, precision)
        weights = rows.weights
        return 2 * float(losses.sum() if weights is None else losses @ weights)

    def reconstruct(self, matrix):
        """Yield row factors of all rows, and their loss."""
        matrix = matrix.listed()
        W, H = self.fold_in(matrix), self.H.astype(matrix.dtype, copy=False)
        places = matrix.rows.row_numbers, matrix.rows.indices
        p = predictions_at(W, H, self.biases, *places)
        yield W, 0.5 * self.deviance(matrix.rows, p)


class _RidgeLossFields(NamedTuple):
    base: RidgeModel
    losses: ColumnLosses
    null: np.ndarray
    ranges: np.ndarray


class RidgeLossModel(LossModelMixin, _RidgeLossFields):
    """Column factors, and rows that minimize their penalized loss."""

    @classmethod
    def of(cls, model, losses, rows) -> "RidgeLossModel":
        """Make one of the model of predictions and the rows that it was fitted to."""
        return cls(model, *of_columns(losses, rows))

    def fold_in(self, matrix) -> np.ndarray:
        """Row factors [w, b] of new rows, each by itself, (m, q)."""
        rows = matrix.listed().rows
        given = {"biases": self.biases, "ranges": self.ranges[:, self.numbers]}
        objective = LossObjective(rows, self.losses_here, **given)
        H = self.H.astype(matrix.dtype, copy=False)
        return solve_rows(objective, H, self.base.ridge, self.base.non_negative[0])


def of_columns(losses, rows):
    """Losses, null predictions and ranges of the columns of rows.

    One more column stands for those without entries.
    """
    null = np.append(losses.null_predictor(rows), 0.0)
    ranges = np.hstack([losses.ranges(rows), [[-np.inf], [np.inf]]])
    if losses.of_column is not None:
        losses = losses._replace(of_column=np.append(losses.of_column, 0))
    return losses, null, ranges
