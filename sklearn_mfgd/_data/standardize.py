"""Columns of mean zero and unit variance, whatever the size of their values."""

from typing import NamedTuple

import numpy as np

from .._kernels.linalg import row_slices

# Of normal values, the standard deviation over the median absolute deviation.
NORMAL_RATIO = 1.4826


class Standardization(NamedTuple):
    """Mean and standard deviation of the observed entries of each column.

    `shift` and `width` are those of columns divided by ``2**exponent``, with values
    from -1 to 1; `mean` and `scale` are in the units of the data.
    """

    exponent: np.ndarray  # (n,), int
    shift: np.ndarray  # (n,)
    width: np.ndarray  # (n,), 1 for a constant column; without scale that of all
    counts: np.ndarray  # (n,), entries
    constant: np.ndarray  # (n,), whether all its entries are equal
    plain: np.ndarray | bool = False  # (n,), which columns are left as they are

    @classmethod
    def of(
        cls,
        X: np.ndarray,
        missing: np.ndarray,
        *,
        scale: bool,
        weights=None,
        robust=False,
        plain=False,
    ):
        """Learn it from X; an empty column gets NaN. Weights are zero where missing.

        Masks tell which columns have outliers, so that medians stand for means, and
        which are left as they are.
        """
        m, n = X.shape
        low, high = np.full(n, np.inf), np.full(n, -np.inf)
        for block in row_slices(m, n):
            seen = ~missing[block]
            low = np.minimum(low, X[block].min(axis=0, initial=np.inf, where=seen))
            high = np.maximum(high, X[block].max(axis=0, initial=-np.inf, where=seen))
        empty, constant = low > high, low >= high
        low[empty] = high[empty] = 0
        exponent = np.frexp(np.maximum(-low, high))[1]
        if not scale:
            exponent[:] = exponent.max()
        exponent[np.broadcast_to(plain, n)] = 0
        counts, totals, sums, squares = np.zeros((4, n))
        for observed, share, values in _blocks(X, missing, weights, exponent):
            counts += np.count_nonzero(observed, axis=0)
            totals += share.sum(axis=0)
            sums += (share * values).sum(axis=0)
        with np.errstate(invalid="ignore"):  # 0 / 0 of empty columns
            shift = sums / totals
        equal = constant & ~empty  # whose mean is known without rounding
        shift[equal] = np.ldexp(low, -exponent)[equal]
        for observed, share, values in _blocks(X, missing, weights, exponent):
            deviations = np.where(observed, values - shift, 0)
            squares += (share * np.square(deviations)).sum(axis=0)
        if not scale:  # one for all
            squares[:], totals[:] = squares.sum(), totals.sum()
        with np.errstate(invalid="ignore"):
            width = np.sqrt(squares / totals)
        width[constant if scale else width == 0] = 1.0
        width[empty] = np.nan
        for j in np.flatnonzero(np.broadcast_to(robust, n) & ~constant):
            values = np.ldexp(X[~missing[:, j], j].astype(np.float64), -exponent[j])
            shift[j] = np.median(values)
            deviation = NORMAL_RATIO * np.median(np.abs(values - shift[j]))
            width[j] = deviation if deviation > 0 else width[j]
        kept_as_it_is = np.broadcast_to(plain, n) & ~constant
        shift[kept_as_it_is], width[kept_as_it_is] = 0.0, 1.0
        return cls(exponent, shift, width, counts, constant, kept_as_it_is)

    @property
    def varies(self):
        """Which columns are factorized: those of different values, or all with any."""
        return ~self.constant if not self.constant.all() else self.counts > 0

    @property
    def mean(self):
        return np.ldexp(self.shift, self.exponent)

    @property
    def scale(self):
        return np.ldexp(self.width, self.exponent)

    def apply(self, X, missing, columns, dtype):
        """Standardize some of the columns, chosen by a mask; NaN where missing."""
        Z = np.empty((len(X), np.count_nonzero(columns)), dtype)
        for block in row_slices(*X.shape):
            scaled = _scaled(X[block], missing[block], self.exponent)
            scaled -= self.shift
            scaled /= self.width
            scaled[missing[block]] = np.nan
            Z[block] = scaled[:, columns]
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

        Values lie closer to their own mean than to the true one, so the variance of a
        column of n entries is that of `width` times ``n / (n - 1)``.
        """
        counts = self.counts[columns]
        with np.errstate(divide="ignore"):
            ratio = np.sqrt(counts / (counts - 1))
        ratio[np.broadcast_to(self.plain, self.shift.shape)[columns]] = 1.0
        width = self.width[columns] * ratio
        deviations = np.where(counts > 1, width, np.inf) * deviations.astype(np.float64)
        return np.ldexp(deviations, self.exponent[columns])

    def deviations_of_constants(self):
        """Of each column if it is constant: infinite, as unknown, from one value."""
        return np.where(self.counts > 1, 0.0, np.inf)


def _blocks(X, missing, weights, exponent):
    """Yield what is observed, the weights and the scaled values of blocks of rows."""
    for block in row_slices(*X.shape):
        observed = ~missing[block]
        share = observed if weights is None else weights[block]
        yield observed, share, _scaled(X[block], missing[block], exponent)


def _scaled(X: np.ndarray, missing: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """Divide columns by powers of two, zero where missing, float64."""
    observed = np.where(missing, 0, X).astype(np.float64, copy=False)
    return np.ldexp(observed, -exponent)
