"""Columns of mean zero and unit variance, whatever the size of their values."""

from typing import NamedTuple

import numpy as np

from .._kernels.linalg import row_slices


class Standardization(NamedTuple):
    """Mean and standard deviation of the observed entries of each column.

    Both are kept for columns divided by ``2**exponent``, whose values lie between -1
    and 1, so that no square over- or underflows.
    """

    exponent: np.ndarray  # (n,), int
    shift: np.ndarray  # (n,)
    width: np.ndarray  # (n,), 1 for a constant column; without scale that of all
    counts: np.ndarray  # (n,), entries
    constant: np.ndarray  # (n,), whether all its entries are equal

    @classmethod
    def of(cls, X, missing, *, scale, weights=None):
        """Learn it from X; an empty column gets NaN. Weights are zero where missing."""
        m, n = X.shape
        low, high = np.full(n, np.inf), np.full(n, -np.inf)
        for part in row_slices(m, n):
            seen = {"axis": 0, "where": ~missing[part]}
            np.minimum(low, X[part].min(initial=np.inf, **seen), out=low)
            np.maximum(high, X[part].max(initial=-np.inf, **seen), out=high)
        empty = low > high
        low[empty] = high[empty] = 0
        exponent = np.frexp(np.maximum(-low, high))[1]
        if not scale:
            exponent[:] = exponent.max()
        counts, totals, sums, squares = np.zeros((4, n))
        for part in row_slices(m, n):
            observed = ~missing[part]
            share = observed if weights is None else weights[part]
            counts += np.count_nonzero(observed, axis=0)
            totals += share.sum(axis=0)
            sums += (share * _scaled(X[part], missing[part], exponent)).sum(axis=0)
        with np.errstate(invalid="ignore"):
            shift = sums / totals
        constant = low == high
        shift[constant & ~empty] = np.ldexp(low, -exponent)[constant & ~empty]
        for part in row_slices(m, n):
            centred = _scaled(X[part], missing[part], exponent) - shift
            centred[missing[part]] = 0
            share = 1.0 if weights is None else weights[part]
            squares += (share * np.square(centred)).sum(axis=0)
        if not scale:  # one for all
            squares[:], totals[:] = squares.sum(), totals.sum()
        with np.errstate(invalid="ignore"):
            width = np.sqrt(squares / totals)
        width[constant if scale else width == 0] = 1.0
        width[empty] = np.nan
        return cls(exponent, shift, width, counts, constant)

    @property
    def varies(self):
        """Columns that differ from row to row, and so have a part in what is learned.

        All with entries where there are no such.
        """
        return ~self.constant if not self.constant.all() else self.counts > 0

    @property
    def mean(self):
        """In the units of the data."""
        return np.ldexp(self.shift, self.exponent)

    @property
    def scale(self):
        """In the units of the data."""
        return np.ldexp(self.width, self.exponent)

    def apply(self, X, missing, columns, dtype):
        """Standardize some of the columns, chosen by a mask; holes are NaN."""
        Z = np.empty((len(X), np.count_nonzero(columns)), dtype)
        for part in row_slices(*X.shape):
            scaled = _scaled(X[part], missing[part], self.exponent)
            scaled -= self.shift
            scaled /= self.width
            scaled[missing[part]] = np.nan
            Z[part] = scaled[:, columns]
        return Z

    def apply_to(self, values, columns):
        """Standardize values of columns, float64; infinite ones stay so."""
        scaled = np.ldexp(values, -self.exponent[columns])
        return (scaled - self.shift[columns]) / self.width[columns]

    def undo(self, values, columns):
        """Entries of columns in the units of the data, float64."""
        values = self.shift[columns] + self.width[columns] * values.astype(np.float64)
        return np.ldexp(values, self.exponent[columns])

    def widen(self, deviations, columns):
        """Standard deviations of entries in the units of the data.

        Values lie closer to their own mean than to the true one: by a half of the
        variance where there are two.
        """
        counts = self.counts[columns]
        with np.errstate(divide="ignore"):
            width = self.width[columns] * np.sqrt(counts / (counts - 1))
        deviations = np.where(counts > 1, width, np.inf) * deviations.astype(np.float64)
        return np.ldexp(deviations, self.exponent[columns])

    def deviations_of_constants(self):
        """Of a column that is constant: none is known of a single value, (n,)."""
        return np.where(self.counts > 1, 0.0, np.inf)


def _scaled(X, missing, exponent):
    """Divide columns by powers of two, zero in the holes, float64."""
    observed = np.where(missing, 0, X).astype(np.float64, copy=False)
    return np.ldexp(observed, -exponent)
