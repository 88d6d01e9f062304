"""Columns of mean zero and unit variance, whatever the size of their values."""

from typing import NamedTuple

import numpy as np

from ._linalg import blocks


class Standardization(NamedTuple):
    """Mean and standard deviation of the observed entries of each column.

    Both are kept for columns divided by ``2**exponent``, whose values lie between -1
    and 1, so that no square over- or underflows.
    """

    exponent: np.ndarray  # (n,), int
    shift: np.ndarray  # (n,)
    width: np.ndarray  # (n,), 1 for a constant column

    @classmethod
    def of(cls, X, missing, *, scale, weights=None):
        """Learn it from X; an empty column gets NaN. Weights are zero where missing."""
        m, n = X.shape
        largest = np.zeros(n)
        for part in blocks(m, n):
            magnitudes = np.where(missing[part], 0, np.abs(X[part]))
            np.maximum(largest, magnitudes.max(axis=0, initial=0), out=largest)
        exponent = np.frexp(largest)[1]
        if not scale:
            exponent[:] = exponent.max()
        counts, totals, sums, squares = np.zeros((4, n))
        for part in blocks(m, n):
            observed = ~missing[part]
            share = observed if weights is None else weights[part]
            counts += np.count_nonzero(observed, axis=0)
            totals += share.sum(axis=0)
            sums += (share * _scaled(X[part], missing[part], exponent)).sum(axis=0)
        with np.errstate(invalid="ignore"):
            shift = sums / totals
        for part in blocks(m, n):
            centred = _scaled(X[part], missing[part], exponent) - shift
            centred[missing[part]] = 0
            share = 1.0 if weights is None else weights[part]
            squares += (share * np.square(centred)).sum(axis=0)
        with np.errstate(invalid="ignore"):
            width = np.sqrt(squares / totals)
        if scale:
            # What is left of a constant column is rounding, of sums in float64.
            constant = width <= 4 * np.finfo(np.float64).eps * np.sqrt(counts)
            width[constant & (counts > 0)] = 1.0
        else:
            width = np.where(counts > 0, 1.0, np.nan)
        return cls(exponent, shift, width)

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
        for part in blocks(*X.shape):
            scaled = _scaled(X[part], missing[part], self.exponent)
            scaled -= self.shift
            scaled /= self.width
            scaled[missing[part]] = np.nan
            Z[part] = scaled[:, columns]
        return Z

    def undo(self, values, columns):
        """Entries of columns in the units of the data, float64."""
        values = self.shift[columns] + self.width[columns] * values.astype(np.float64)
        return np.ldexp(values, self.exponent[columns])

    def widen(self, deviations, columns):
        """Standard deviations of entries in the units of the data."""
        deviations = self.width[columns] * deviations.astype(np.float64)
        return np.ldexp(deviations, self.exponent[columns])


def _scaled(X, missing, exponent):
    """Divide columns by powers of two, zero in the holes, float64."""
    observed = np.where(missing, 0, X).astype(np.float64, copy=False)
    return np.ldexp(observed, -exponent)
