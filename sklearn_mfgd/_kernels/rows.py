"""Observed entries row by row, and which biases a model has."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import sparse


class Biases(NamedTuple):
    """Which biases a model has."""

    row: bool
    column: bool


# Entries that one call of SciPy transposes, at the most.
LONGEST_TRANSPOSE = 30_000_000


class Rows(NamedTuple):
    """Observed entries, row by row."""

    indptr: np.ndarray  # (n_rows + 1,) int64
    indices: np.ndarray  # (n_entries,) int32
    values: np.ndarray | None  # (n_entries,)
    weights: np.ndarray | None  # (n_entries,), None where all are 1
    n_columns: int

    @property
    def shape(self):
        return len(self.indptr) - 1, self.n_columns

    @property
    def row_numbers(self):
        """Row of each entry, int32."""
        numbers = np.arange(self.shape[0], dtype=np.int32)
        return np.repeat(numbers, np.diff(self.indptr))

    @property
    def sum_of_squares(self):
        """Sum of the weighted squares of the data."""
        values, weights = self.values, self.weights
        factors = (values, values) if weights is None else (values, values, weights)
        terms = "i,i->" if weights is None else "i,i,i->"
        return float(np.einsum(terms, *factors, dtype=np.float64))

    def transpose(self):
        """The same entries, column by column; by parts, between which Ctrl-C comes."""
        n_parts = -(-self.indices.size // LONGEST_TRANSPOSE)
        if n_parts <= 1:
            return self._transpose_at_once()
        cuts = np.linspace(0, self.indices.size, n_parts + 1)[1:-1]
        cuts = np.unique([0, *np.searchsorted(self.indptr, cuts), self.shape[0]])
        counts = np.zeros(self.n_columns, np.int64)
        for start in range(0, self.indices.size, LONGEST_TRANSPOSE):
            part = self.indices[start : start + LONGEST_TRANSPOSE]
            counts += np.bincount(part, minlength=self.n_columns)
        indptr = np.concatenate([[0], np.cumsum(counts)])
        given = self.indices, self.values, self.weights
        found = [None if array is None else np.empty_like(array) for array in given]
        places = indptr[:-1].copy()
        for start, stop in pairwise(cuts.tolist()):
            part = self.between(start, stop)._transpose_at_once()
            counts = np.diff(part.indptr)
            to = np.arange(part.indices.size) + np.repeat(
                places - part.indptr[:-1], counts
            )
            own = part.indices + np.int32(start), part.values, part.weights
            for whole, few in zip(found, own, strict=True):
                if whole is not None:
                    whole[to] = few
            places += counts
        return Rows(indptr, *found, self.shape[0])

    def _transpose_at_once(self):
        given = [array for array in (self.values, self.weights) if array is not None]
        # SciPy wants pointers and indices of one type; the smaller where it does.
        indptr = self.indptr
        if indptr[-1] <= np.iinfo(np.int32).max:
            indptr = indptr.astype(np.int32)
        found = []
        for data in given or [np.ones(self.indices.size, np.int8)]:
            matrix = sparse.csr_array((data, self.indices, indptr), self.shape).tocsc()
            found.append(matrix.data)
        found = iter(found)
        return Rows(
            matrix.indptr.astype(np.int64),
            matrix.indices.astype(np.int32, copy=False),
            None if self.values is None else next(found),
            None if self.weights is None else next(found),
            self.shape[0],
        )

    def take(self, chosen):
        """Some of the rows."""
        counts = np.diff(self.indptr)[chosen]
        indptr = np.concatenate([[0], np.cumsum(counts)])
        entries = np.arange(indptr[-1])
        entries += np.repeat(self.indptr[chosen] - indptr[:-1], counts)
        taken = (a if a is None else a[entries] for a in (self.values, self.weights))
        return Rows(indptr, self.indices[entries], *taken, self.n_columns)

    def between(self, start, stop):
        """A range of the rows; the entries are not copied."""
        indptr = self.indptr[start : stop + 1]
        own = slice(indptr[0], indptr[-1])
        taken = (a if a is None else a[own] for a in (self.values, self.weights))
        return Rows(indptr - indptr[0], self.indices[own], *taken, self.n_columns)

    def astype(self, dtype):
        """The same in another precision."""
        return self._replace(
            values=self.values.astype(dtype, copy=False),
            weights=None if self.weights is None else self.weights.astype(dtype),
        )

    @property
    def weights_matrix(self):
        """The weights in place of the values: what sums up over the entries."""
        return self._replace(values=self.weights, weights=None)

    @property
    def weighted_values(self):
        """The values times the weights."""
        if self.weights is None:
            return self
        return self._replace(values=self.values * self.weights, weights=None)

    def scale_weights(self, factors):
        """Multiply the weights by a factor of each column."""
        weights = factors.astype(self.values.dtype)[self.indices]
        if self.weights is not None:
            weights *= self.weights
        return self._replace(weights=weights)

    def renumber(self, numbers, n_columns):
        """The entries whose column has a new number below `n_columns`, in its order.

        Parameters
        ----------
        numbers : int ndarray of shape (n_columns of today,)
            They rise among those that are kept.
        n_columns : int
        """
        if len(numbers) and numbers.max() > n_columns:
            raise ValueError(
                f"A column has the number {numbers.max()}, but there are {n_columns}."
            )
        indices = numbers[self.indices].astype(np.int32, copy=False)
        keep, kept = indices < n_columns, self._replace(indices=indices)
        if not keep.all():
            dropped = np.flatnonzero(~keep)
            kept = kept.select(keep, np.searchsorted(dropped, self.indptr))
        return kept._replace(n_columns=n_columns)

    def select(self, keep, n_dropped):
        """Some of the entries; `n_dropped` are not kept before each row."""
        return Rows(
            self.indptr - n_dropped,
            self.indices[keep],
            None if self.values is None else self.values[keep],
            None if self.weights is None else self.weights[keep],
            self.n_columns,
        )
