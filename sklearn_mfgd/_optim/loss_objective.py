r"""Any loss over the observed entries, seen from one side, as an objective.

Before a step of either side the loss is replaced by its working quadratic around the
present factors, see `losses`, so a step is the one of squared error. Where the
quadratic is no bound, the step of each row is halved until its part of F falls.
"""

import numpy as np

from .._kernels import dispatch
from .._kernels.linalg import exact_sum
from .._kernels.rows import Rows
from .column_losses import ColumnLosses
from .objective import ObservedObjective, solve_rows

# Halvings of the step of a row. One that still raises F is not made.
MAX_HALVINGS = 20

# Sweeps of working quadratics that fold a row in, and the change of a prediction that
# ends them.
MAX_REWEIGHTINGS = 100
SETTLED = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 1e-5}


class LossObjective(ObservedObjective):
    """Values x as they are, not working ones; `losses` are those of the columns of X.

    `transposed`: the rows here are the columns of X. `ranges` are the values of each
    column that a start takes as they are, see `ColumnLosses.ranges`; where they are
    given, rows are solved for by themselves.
    """

    is_squared = False

    def __init__(self, rows: Rows, losses, *, biases, transposed=False, ranges=None):
        super().__init__(rows, biases=biases)
        self.losses: ColumnLosses = losses
        self.transposed, self.ranges = transposed, ranges

    @property
    def T(self):
        if self._columns is None:
            self._columns = self.rows.transpose()
        given = {"biases": self._biases[::-1], "transposed": not self.transposed}
        other = LossObjective(self._columns, self.losses, **given)
        other._columns = self.rows
        return other

    def start(self) -> ObservedObjective:
        """Squared error of values near what the factors are to predict."""
        rows = self.losses.start(self.rows, self.ranges)
        return ObservedObjective(rows, biases=self._biases)

    def adapt(self, W, H):
        x, p = self.rows.values.astype(np.float64), self.predictions(W, H)
        given = self.columns_of_entries, x, p, np.zeros_like(x), np.ones_like(x)
        self.losses = self.losses.learned(*given)

    @property
    def columns_of_entries(self):
        """Column of X of each entry; None where all have the same loss."""
        if self.losses.of_column is None:
            return None
        return self.rows.row_numbers if self.transposed else self.rows.indices

    def predictions(self, W, H):
        """Prediction of each entry, float64, without the intercept."""
        rows = self.rows._replace(values=np.zeros_like(self.rows.values))
        return dispatch.residuals(rows, W, H, self._biases).astype(np.float64)

    def losses_of_entries(self, W, H):
        """Weighted loss of each entry."""
        x, p = self.rows.values.astype(np.float64), self.predictions(W, H)
        with np.errstate(over="ignore", invalid="ignore"):
            losses = self.losses.value(self.columns_of_entries, x, p, np.ones_like(x))
        weights = self.rows.weights
        return losses if weights is None else losses * weights

    def value(self, W, H) -> float:
        return sum(exact_sum(self.losses_of_entries(W, H)))

    def losses_of_rows(self, W, H):
        """Weighted loss of each row."""
        return _sums_by_row(self.rows, self.losses_of_entries(W, H))

    def quadratic(self, W, H) -> ObservedObjective:
        """Squared error of working values, with working weights, around W and H."""
        x, p = self.rows.values.astype(np.float64), self.predictions(W, H)
        ones, zeros = np.ones_like(x), np.zeros_like(x)
        values, weights = self.losses.working(
            self.columns_of_entries, x, p, zeros, ones
        )
        if self.rows.weights is not None:
            weights = weights * self.rows.weights
        rows = self.rows._replace(
            values=values.astype(self.dtype), weights=weights.astype(self.dtype)
        )
        return ObservedObjective(rows, biases=self._biases)

    def lower(self, W, moved, H, ridge):
        """Rows on the way from W to `moved` where F is lower than at W, or W itself."""
        if self.losses.is_bound:
            return moved
        ridge = 0.5 * ridge
        with np.errstate(over="ignore", invalid="ignore"):
            before = self.losses_of_rows(W, H) + np.square(W) @ ridge
            for _ in range(MAX_HALVINGS):
                after = self.losses_of_rows(moved, H) + np.square(moved) @ ridge
                rises = ~(after <= before)
                if not rises.any():
                    return moved
                halfway = W + (moved - W) / 2
                moved = np.where(rises[:, None], halfway, moved).astype(W.dtype)
            after = self.losses_of_rows(moved, H) + np.square(moved) @ ridge
        return np.where((after <= before)[:, None], moved, W)

    def least_squares(self, H, ridge) -> np.ndarray:
        """The W of least penalized loss, each row by itself, by working quadratics."""
        return self._reweighted(H, ridge, non_negative=False)

    def non_negative_least_squares(self, H, ridge, W) -> np.ndarray:
        """The W >= 0 of least penalized loss, which has no other minimum than that."""
        return self._reweighted(H, ridge, non_negative=True)

    def _reweighted(self, H, ridge, *, non_negative) -> np.ndarray:
        W = solve_rows(self.start(), H, ridge, non_negative)
        moving = np.arange(len(W))
        for _ in range(MAX_REWEIGHTINGS):
            rows, before = self.rows.take(moving), W[moving]
            part = LossObjective(rows, self.losses, biases=self._biases)
            moved = solve_rows(part.quadratic(before, H), H, ridge, non_negative)
            moved = part.lower(before, moved, H, ridge)
            W[moving] = moved
            change = np.abs(part.predictions(moved, H) - part.predictions(before, H))
            moving = moving[_largest_by_row(rows, change) > SETTLED[W.dtype]]
            if not moving.size:
                break
        return W

    @property
    def total(self):
        """Twice the loss where nothing is predicted but the intercept."""
        no_rows = self.row_zeros(int(self.row_bias))
        no_columns = np.zeros((self.shape[1], int(self.column_bias)), self.dtype)
        return 2 * self.value(no_rows, no_columns)


def _sums_by_row(rows, values):
    sums = np.zeros(len(rows.indptr) - 1)
    occupied = np.diff(rows.indptr) > 0
    if values.size:
        sums[occupied] = np.add.reduceat(values, rows.indptr[:-1][occupied])
    return sums


def _largest_by_row(rows, values):
    largest = np.zeros(len(rows.indptr) - 1)
    occupied = np.diff(rows.indptr) > 0
    if values.size:
        largest[occupied] = np.maximum.reduceat(values, rows.indptr[:-1][occupied])
    return largest
