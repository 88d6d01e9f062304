"""Observed entries row by row, and which biases a model has."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import sparse

# Entries that one call of SciPy transposes, at most.
LONGEST_TRANSPOSE = 30_000_000


class Biases(NamedTuple):
    """Which biases a model has."""

    row: bool
    column: bool


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
        if weights is None:
            return float(np.einsum("i,i->", values, values, dtype=np.float64))
        return float(np.einsum("i,i,i->", values, values, weights, dtype=np.float64))

    def transpose(self):
        """The same entries, column by column.

        Blocks of rows are transposed one after the other, as Ctrl-C waits for the end
        of a call, and their entries added to the columns.
        """
        ranges = self.ranges(LONGEST_TRANSPOSE)
        if len(ranges) <= 1:
            return self._transpose_at_once()
        counts = np.zeros(self.n_columns, np.int64)
        for start in range(0, self.indices.size, LONGEST_TRANSPOSE):
            indices = self.indices[start : start + LONGEST_TRANSPOSE]
            counts += np.bincount(indices, minlength=self.n_columns)
        pieces = (self.between(*bounds)._transpose_at_once() for bounds in ranges)
        first_rows = [*(start for start, _ in ranges), self.shape[0]]
        return join_transposed(counts, pieces, first_rows)

    def _transpose_at_once(self):
        # SciPy wants pointers and indices of one type; the smaller where it does.
        indptr = self.indptr
        if indptr[-1] <= np.iinfo(np.int32).max:
            indptr = indptr.astype(np.int32)
        transposed, matrix = [], None
        for data in (self.values, self.weights):
            if data is not None:
                matrix = sparse.csr_array((data, self.indices, indptr), self.shape)
                matrix = matrix.tocsc()
            transposed.append(None if data is None else matrix.data)
        if matrix is None:
            data = np.ones(self.indices.size, np.int8)
            matrix = sparse.csr_array((data, self.indices, indptr), self.shape).tocsc()
        indices = matrix.indices.astype(np.int32, copy=False)
        return Rows(matrix.indptr.astype(np.int64), indices, *transposed, self.shape[0])

    def take(self, chosen):
        """Some of the rows."""
        counts = np.diff(self.indptr)[chosen]
        indptr = np.concatenate([[0], np.cumsum(counts)])
        entries = np.arange(indptr[-1])
        entries += np.repeat(self.indptr[chosen] - indptr[:-1], counts)
        return self._entries(entries, indptr)

    def ranges(self, n_entries):
        """Cut the rows into ranges of about this many entries."""
        n_ranges = -(-self.indices.size // n_entries)
        cuts = np.linspace(0, self.indices.size, n_ranges + 1)[1:-1]
        cuts = np.unique([0, *np.searchsorted(self.indptr, cuts), self.shape[0]])
        return list(pairwise(cuts.tolist()))

    def between(self, start, stop):
        """A range of the rows; the entries are not copied."""
        indptr = self.indptr[start : stop + 1]
        return self._entries(slice(indptr[0], indptr[-1]), indptr - indptr[0])

    def select(self, keep, n_dropped):
        """Some of the entries; `n_dropped` are not kept before each row."""
        return self._entries(keep, self.indptr - n_dropped)

    def _entries(self, chosen, indptr):
        """Some of the entries, with the pointers of their rows."""
        arrays = (None if a is None else a[chosen] for a in self[1:4])
        return Rows(indptr, *arrays, self.n_columns)

    def astype(self, dtype):
        """The same entries in another precision."""
        weights = None if self.weights is None else self.weights.astype(dtype)
        values = self.values.astype(dtype, copy=False)
        return self._replace(values=values, weights=weights)

    @property
    def weights_matrix(self):
        """The weights in place of the values; a product with it is a weighted sum."""
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
        """Give each column j the number ``numbers[j]``; drop those from `n_columns` on.

        The numbers of the columns that are kept must increase.
        """
        largest = numbers.max(initial=0)
        if largest > n_columns:
            raise ValueError(
                f"A column has the number {largest}, but there are {n_columns}."
            )
        indices = numbers[self.indices].astype(np.int32, copy=False)
        renumbered = self._replace(indices=indices, n_columns=n_columns)
        keep = indices < n_columns
        if keep.all():
            return renumbered
        n_dropped = np.searchsorted(np.flatnonzero(~keep), self.indptr)
        return renumbered.select(keep, n_dropped)


def join_transposed(counts, pieces, offsets) -> Rows:
    """Put together the entries of ranges of rows, each given column by column.

    `counts` are the entries of each column, `offsets` the first row of each range and
    the number of rows.
    """
    indptr = np.concatenate([[0], np.cumsum(counts)])
    next_place, results = indptr[:-1].copy(), None  # of each column
    for piece, offset in zip(pieces, offsets[:-1], strict=True):
        if results is None:
            results = [
                None if a is None else np.empty(indptr[-1], a.dtype) for a in piece[1:4]
            ]
        of_piece = np.diff(piece.indptr)
        places = np.arange(piece.indices.size)
        places += np.repeat(next_place - piece.indptr[:-1], of_piece)
        piece = piece._replace(indices=piece.indices + np.int32(offset))
        for result, array in zip(results, piece[1:4], strict=True):
            if result is not None:
                result[places] = array
        next_place += of_piece
    return Rows(indptr, *results, int(offsets[-1]))
