"""A sparse matrix with weights: what it does not store are zeros of weight one.

This is the matrix of implicit feedback: clicks, purchases and plays are stored, each
with a weight that says how sure it is, and that nothing else happened is known too, but
with less certainty.
"""

from typing import NamedTuple

import numpy as np

from .._kernels.linalg import exact_total
from .._kernels.rows import Rows


class WeightedZeros(NamedTuple):
    """Stored entries with their weights; all others are zeros of weight one.

    A stored entry of weight zero is missing. `observe` returns the class with a mean of
    zero, `matrix_of` in the units of the solvers.
    """

    rows: Rows  # not centred: values 0 where the weight is 0
    mean: float = 0.0

    in_memory = True

    @property
    def shape(self):
        return self.rows.shape

    @property
    def dtype(self):
        return self.rows.values.dtype

    @property
    def n_observed(self):
        """Number of entries that are not missing."""
        n_stored, n_seen = self.rows.weights.size, np.count_nonzero(self.rows.weights)
        return self.shape[0] * self.shape[1] - n_stored + n_seen

    def counts(self, axis):
        """Number of observed entries of each column (axis 0) or row (axis 1)."""
        places = self.rows.row_numbers if axis else self.rows.indices
        lost = places[self.rows.weights == 0]
        n = self.shape[1 - axis]
        return self.shape[axis] - np.bincount(lost, minlength=n)

    def weight(self):
        """Sum of the weights of all entries."""
        n_zeros = self.shape[0] * self.shape[1] - self.rows.weights.size
        return n_zeros + sum(exact_total(self.rows.weights))

    def weighted_mean(self):
        """Mean of all entries; zero if none is observed."""
        weight = self.weight()
        total = sum(exact_total(self.rows.values, self.rows.weights))
        return total / weight if weight > 0 else 0.0

    def column_means(self):
        """Mean of each column; the mean of all where a column is missing."""
        weights = self.rows.weights.astype(np.float64)
        sums, gains = (
            np.bincount(self.rows.indices, terms, minlength=self.shape[1])
            for terms in (weights * self.rows.values, weights - 1)
        )
        # Rounding leaves no zero where weights are summed up in another order.
        observed = self.counts(axis=0) > 0
        totals = np.where(observed, self.shape[0] + gains, 1)
        return np.where(observed, sums / totals, self.mean)

    def mean_square(self):
        """Mean square of the values."""
        return self.rows.sum_of_squares / self.weight()

    def take_columns(self, columns):
        """Return the matrix of some columns, whose numbers increase."""
        numbers = np.full(self.shape[1], len(columns), np.int32)
        numbers[columns] = np.arange(len(columns))
        return self._replace(rows=self.rows.renumber(numbers, len(columns)))
