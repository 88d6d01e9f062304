"""The observed entries in the units of the solvers, and which of them are hidden.

Data are divided by a power of four near their largest value, so that no square over-
or underflows; factors then differ by a power of two and nothing is rounded.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse
from sklearn.utils.random import sample_without_replacement

from .._kernels.dispatch import entry_products
from .._kernels.linalg import BLOCK
from .._kernels.rows import Rows
from .observed import keep_entries, rows_of
from .units import times_power


class CompleteMatrix(NamedTuple):
    """A matrix of which every entry is observed."""

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
        """Observed entries of each column (axis 0) or row (axis 1)."""
        return np.full(self.shape[1 - axis], self.shape[axis])

    def column_means(self):
        """Mean of each column."""
        sums = np.asarray(self.values.sum(axis=0, dtype=np.float64)).ravel()
        return sums / self.shape[0] + (
            0.0 if sparse.issparse(self.values) else self.mean
        )

    def weight(self, power=1):
        """Sum of a power of the weights of the entries, which are 1."""
        return float(self.n_observed)

    def mean_square(self):
        """Mean square of the centred values."""
        stored = self.values.data[None] if sparse.issparse(self.values) else self.values
        total = np.einsum("ij,ij->i", stored, stored).sum(dtype=np.float64)
        return float(total) / self.weight()

    def listed(self, hidden=None):
        """List the entries one by one, all of them or all but some positions."""
        observed = np.ones(self.shape, bool)
        if hidden is not None:
            observed.flat[hidden] = False
        return ObservedMatrix(rows_of(self.values, observed), self.mean)

    def at(self, positions):
        """Some entries, numbered row by row."""
        rows, columns = np.unravel_index(positions, self.shape)
        return HeldOut(rows, columns, self.values[rows, columns], None)


class ObservedMatrix(NamedTuple):
    """A matrix with holes."""

    rows: Rows  # centred
    mean: float

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
        """Observed entries of each column (axis 0) or row (axis 1)."""
        if axis:
            return np.diff(self.rows.indptr)
        return self._sum_by_column(None).astype(np.int64)

    def column_means(self):
        """Mean of each column; the mean of all where a column was never observed."""
        values, weights = self.rows.values, self.rows.weights
        totals = self._sum_by_column(weights)
        sums = self._sum_by_column(values if weights is None else weights * values)
        return sums / np.where(totals > 0, totals, 1) + self.mean

    def _sum_by_column(self, values):
        """Sum values of the entries, or 1, over each column.

        By parts, as the types that NumPy counts with take more room than the entries.
        """
        indices, n = self.rows.indices, self.shape[1]
        sums = np.zeros(n)
        step = max(BLOCK, n)
        for start in range(0, indices.size, step):
            part = slice(start, start + step)
            own = None if values is None else values[part]
            sums += np.bincount(indices[part], own, minlength=n)
        return sums

    def weight(self, power=1):
        """Sum of a power of the weights of the entries."""
        weights = self.rows.weights
        if weights is None:
            return float(self.n_observed)
        return float(np.power(weights, power, dtype=np.float64).sum())

    def with_unit_weights(self):
        """The same with weights of mean one, and the mean that they had.

        Returns
        -------
        entries : ObservedMatrix
            Without weights where all are equal.
        mean : float
        """
        weights = self.rows.weights
        if weights is None:
            return self, 1.0
        largest = float(weights.max(initial=0))
        shares = weights / weights.dtype.type(largest)
        share = float(shares.mean(dtype=np.float64))
        if share == 1:
            shares = None
        else:
            shares /= weights.dtype.type(share)
        return self._replace(rows=self.rows._replace(weights=shares)), share * largest

    def mean_square(self):
        """Weighted mean square of the centred values."""
        return self.rows.sum_of_squares / self.weight()

    def listed(self, hidden=None):
        """List the entries one by one, all of them or all but some positions."""
        if hidden is None:
            return self
        keep = np.ones(self.n_observed, bool)
        keep[hidden] = False
        return self._replace(rows=keep_entries(self.rows, keep))

    def at(self, positions):
        """Some entries, numbered row by row."""
        indptr, indices, values, weights = self.rows[:4]
        rows = np.searchsorted(indptr, positions, side="right") - 1
        if weights is not None:
            weights = weights[positions]
        return HeldOut(rows, indices[positions], values[positions], weights)


class HeldOut(NamedTuple):
    """Entries that the solver does not see."""

    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    weights: np.ndarray | None


def scale_exponent(observed):
    """Find k such that the values over 4**k are of order one; 0 when all are zero."""
    values = _values(observed)
    largest = max(float(values.max(initial=0)), -float(values.min(initial=0)))
    return round(np.log2(largest) / 2) if largest > 0 else 0


def matrix_of(observed, *, exponent, mean=None, centred=True):
    """Copy observed values into the units of the solvers.

    Parameters
    ----------
    observed : ndarray, sparse matrix or Rows
        As `observe` returns it.
    exponent : int or float
        The result is X / 4**exponent.
    mean : float, optional
        Already in these units; the mean of the observed entries when not given.
    centred : bool
        False: nothing is subtracted.
    """
    values = _values(observed)
    if abs(exponent) < 30:  # as exact, and quicker
        values = values * values.dtype.type(4.0**-exponent)
    else:
        values = times_power(values, -2 * exponent)
    mean = 0.0 if not centred else _mean(observed, values) if mean is None else mean
    if sparse.issparse(observed):  # centred by the objective, its zeros not written out
        scaled = observed.copy()
        scaled.data = values
        scaled.sum_duplicates()
        return CompleteMatrix(scaled, mean)
    values -= values.dtype.type(mean)
    if isinstance(observed, Rows):
        return ObservedMatrix(observed._replace(values=values), mean)
    return CompleteMatrix(values, mean)


def unit_exponent(entries, exponent):
    """Find k such that the values over 4**k have unit mean square around their mean.

    Or, where they are all equal, are one or minus one.

    Parameters
    ----------
    entries : CompleteMatrix or ObservedMatrix
        The values over ``4**exponent``.
    exponent : int
    """
    square, level = entries.mean_square(), entries.mean**2
    if square <= (4 * np.finfo(entries.dtype).eps) ** 2 * level:  # rounding
        square = level
    return exponent + np.log2(square) / 4 if square > 0 else exponent


def _values(observed):
    if isinstance(observed, Rows):
        return observed.values
    return observed.data if sparse.issparse(observed) else observed


def _mean(observed, values):
    """Weighted mean of the observed values."""
    if isinstance(observed, Rows):
        if observed.weights is not None:
            weights = observed.weights.astype(np.float64)
            return float(weights @ values / weights.sum())
        return float(values.mean(dtype=np.float64))
    return float(values.sum(dtype=np.float64)) / (observed.shape[0] * observed.shape[1])


def hold_out(entries, fraction, random_state):
    """Hide a share of the observed entries, chosen among them in row-major order.

    Returns
    -------
    training : ObservedMatrix
    held_out : HeldOut
    """
    size = int(fraction * entries.n_observed)
    if not 0 < size < entries.n_observed:
        raise ValueError(
            f"validation_fraction={fraction} of {entries.n_observed} observed entries "
            f"leaves {size} to validate on and {entries.n_observed - size} to fit; use "
            "another fraction or early_stopping=False."
        )
    chosen = np.sort(
        sample_without_replacement(entries.n_observed, size, random_state=random_state)
    )
    return entries.listed(hidden=chosen), entries.at(chosen)


def validation_error(held_out, biases):
    """Root mean squared error of the held-out entries, as a function of the factors."""

    def validate(W, H):
        rank = H.shape[1] - biases.column
        rows, columns = held_out.rows, held_out.columns
        error = entry_products(W[:, :rank], H[:, :rank], rows, columns)
        error -= held_out.values
        if biases.row:
            error += W[rows, -1]
        if biases.column:
            error += H[columns, -1]
        squares = np.square(error, dtype=np.float64)
        return float(np.sqrt(np.average(squares, weights=held_out.weights)))

    return validate


def folds(entries, n_folds=5):
    """Split the entries of each row: its k-th observed one goes to fold k mod n_folds.

    Yields
    ------
    seen, hidden : CompleteMatrix or ObservedMatrix
        Complementary. Complete data are split by columns, which is the same.
    columns : pair of ndarray or slice
        The columns that `seen` and `hidden` hold.
    """
    if isinstance(entries, CompleteMatrix):
        n = entries.shape[1]
        turn = np.arange(n) % n_folds
        for fold in range(min(n_folds, n)):
            pair = np.flatnonzero(turn != fold), np.flatnonzero(turn == fold)
            parts = (entries._replace(values=entries.values[:, part]) for part in pair)
            yield *parts, pair
        return
    rows = entries.rows
    turn = np.arange(entries.n_observed)
    turn -= np.repeat(rows.indptr[:-1], np.diff(rows.indptr))
    turn %= n_folds
    for fold in range(n_folds):
        hidden = turn == fold
        if hidden.any():
            parts = (
                entries._replace(rows=keep_entries(rows, part))
                for part in (~hidden, hidden)
            )
            yield *parts, (slice(None), slice(None))
