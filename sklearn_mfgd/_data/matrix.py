"""The observed entries in the units of the solvers: one type for each kind of X.

Data are divided by a power of four near their largest value, so that no square over-
or underflows; factors then differ by a power of two and nothing is rounded.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from .._kernels.linalg import exact_total
from .._kernels.rows import Rows
from .observed import Observed, keep_entries, rows_of
from .units import Units
from .weighted_zeros import WeightedZeros


class CompleteMatrix(NamedTuple):
    """A matrix without missing entries."""

    values: np.ndarray  # dense and centred, or sparse (unstored is zero) and not
    mean: float

    @property
    def shape(self):
        return self.values.shape

    @property
    def dtype(self):
        return self.values.dtype

    @property
    def n_observed(self):
        return self.shape[0] * self.shape[1]

    def counts(self, axis):
        """Number of observed entries of each column (axis 0) or row (axis 1)."""
        return np.full(self.shape[1 - axis], self.shape[axis])

    def column_means(self):
        means = np.asarray(self.values.sum(axis=0, dtype=np.float64)).ravel()
        means /= self.shape[0]
        return means if sparse.issparse(self.values) else means + self.mean

    def weight(self):
        """Sum of the weights of the entries, which are 1."""
        return float(self.n_observed)

    def mean_square(self):
        """Mean square of the values: around their mean, but for sparse ones."""
        stored = self.values.data[None] if sparse.issparse(self.values) else self.values
        total = np.einsum("ij,ij->i", stored, stored).sum(dtype=np.float64)
        return float(total) / self.weight()

    def take_columns(self, columns):
        return self._replace(values=self.values[:, columns])

    def listed(self, hidden=None):
        """List the entries one by one, all of them or all but some positions."""
        observed = np.ones(self.shape, bool)
        if hidden is not None:
            observed.flat[hidden] = False
        return ObservedMatrix(rows_of(self.values, observed), self.mean)

    def at(self, positions):
        """Rows, columns, values and weights of entries, given their numbers."""
        rows, columns = np.unravel_index(positions, self.shape)
        return rows, columns, self.values[rows, columns], None


class ObservedMatrix(NamedTuple):
    """A matrix with missing entries, or with weights."""

    rows: Rows  # centred
    mean: float

    in_memory = True

    @property
    def shape(self):
        return self.rows.shape

    @property
    def dtype(self):
        return self.rows.values.dtype

    @property
    def n_observed(self):
        return self.rows.indices.size

    def counts(self, axis):
        if axis:
            return np.diff(self.rows.indptr)
        return self._sum_by_column().astype(np.int64)

    def column_means(self):
        """Mean of each column; the mean of all where a column was never observed."""
        sums, totals = self.column_sums(1), self.column_sums(0)
        return sums / np.where(totals > 0, totals, 1) + self.mean

    def column_sums(self, power: int) -> np.ndarray:
        """Weighted sum of this power of the values of each column, float64."""
        values, weights = self.rows.values, self.rows.weights
        if power == 0 and weights is None:
            return self._sum_by_column()

        def terms(some):
            summands = values[some].astype(np.float64) ** power
            return summands if weights is None else summands * weights[some]

        return self._sum_by_column(terms)

    def _sum_by_column(self, terms=None) -> np.ndarray:
        """Sum ``terms(slice of the entries)``, or count the entries, of each column."""
        indices, n = self.rows.indices, self.shape[1]
        sums = np.zeros(n)
        step = max(500_000, n)  # NumPy makes wider types of them meanwhile
        for start in range(0, indices.size, step):
            some = slice(start, start + step)
            summands = None if terms is None else terms(some)
            sums += np.bincount(indices[some], summands, minlength=n)
        return sums

    def weight(self):
        """Sum of the weights of the entries."""
        weights = self.rows.weights
        return float(self.n_observed) if weights is None else sum(exact_total(weights))

    def with_unit_weights(self):
        """The same with weights of mean one, or none, and the mean that they had."""
        weights = self.rows.weights
        if weights is None:
            return self, 1.0
        # Divided by the largest first, as a sum of large weights could be infinite.
        largest = float(weights.max(initial=0))
        scaled = weights / weights.dtype.type(largest)
        mean = sum(exact_total(scaled)) / self.n_observed
        scaled = None if mean == 1 else scaled / weights.dtype.type(mean)
        return self._replace(rows=self.rows._replace(weights=scaled)), mean * largest

    def astype(self, dtype):
        """The same in another precision."""
        return self._replace(rows=self.rows.astype(dtype))

    def mean_square(self):
        return self.rows.sum_of_squares / self.weight()

    def listed(self, hidden=None):
        if hidden is None:
            return self
        keep = np.ones(self.n_observed, bool)
        keep[hidden] = False
        return self._replace(rows=keep_entries(self.rows, keep))

    def at(self, positions):
        indptr, indices, values, weights = self.rows[:4]
        rows = np.searchsorted(indptr, positions, side="right") - 1
        weights = None if weights is None else weights[positions]
        return rows, indices[positions], values[positions], weights


def units_of_size(observed: Observed) -> Units:
    """Find units in which the values are of order one; nothing is rounded in them."""
    values = _values(observed)
    largest = max(float(values.max(initial=0)), -float(values.min(initial=0)))
    return units_of_largest(largest)


def units_of_largest(largest: float) -> Units:
    """Find units in which values up to this size are of order one."""
    return Units(round(np.log2(largest) / 2) if largest > 0 else 0)


def units_of_variance(square: float, mean: float, dtype, units: Units) -> Units:
    """Find units in which X has unit variance, or is 1 or -1.

    In `units` it has this mean, and this mean square around it.
    """
    square_of_mean = mean**2
    rounding = 4 * np.finfo(dtype).eps
    if square <= rounding**2 * square_of_mean:  # equal but for rounding
        square = square_of_mean
    # (4**dk)**2 = square
    return units if square == 0 else Units(units.exponent + np.log2(square) / 4)


def matrix_of(observed: Observed, units: Units, *, mean=None, centred=True):
    """Copy observed values into `units`; centre them at `mean` there, or their own."""
    values = units.enter(_values(observed))
    if isinstance(observed, WeightedZeros):  # centred by the objective
        scaled = WeightedZeros(observed.rows._replace(values=values))
        if mean is None:
            mean = scaled.weighted_mean() if centred else 0.0
        return scaled._replace(mean=mean)
    if not centred:
        mean = 0.0
    elif mean is None:
        mean = _mean(observed, values)
    if sparse.issparse(observed):  # centred by the objective, its zeros not written out
        scaled = observed.copy()
        scaled.data = values
        scaled.sum_duplicates()
        return CompleteMatrix(scaled, mean)
    values -= values.dtype.type(mean)
    if isinstance(observed, Rows):
        return ObservedMatrix(observed._replace(values=values), mean)
    return CompleteMatrix(values, mean)


def _values(observed: Observed) -> np.ndarray:
    """The values that are stored."""
    if isinstance(observed, WeightedZeros):
        observed = observed.rows
    if isinstance(observed, Rows):
        return observed.values
    return observed.data if sparse.issparse(observed) else observed


def _mean(observed: Observed, values: np.ndarray) -> float:
    """Weighted mean of all observed values, given those that are stored."""
    if not isinstance(observed, Rows):
        return float(values.sum(dtype=np.float64) / np.prod(observed.shape))
    # The same for any order and division of the entries.
    total = sum(exact_total(values, observed.weights))
    weights = observed.weights
    return total / (values.size if weights is None else sum(exact_total(weights)))
