"""Squared error over the entries of a collection, seen from either side.

The contract is that of `_optim.objective`, with row factors that are dask.arrays, a
chunk for each part, and column factors in memory. A step of the rows is a map over the
parts. To step the columns, either

- row factors are sent to the columns, whose entries are kept in ranges of columns: the
  result has the same bits for any parts (`MovedColumns`), or
- each part adds up what its rows say about all columns (`SummedColumns`), which needs
  less memory where there are many more rows than columns.
"""

from functools import cached_property
from itertools import pairwise
from operator import getitem

import numpy as np

from .._bayes.moments import (
    expectations,
    moments_of,
    n_pairs,
    pack,
    packed_size,
    total,
)
from .._data.row_blocks import blocks_of_rows
from .._kernels import dispatch
from .._kernels.linalg import exact_sum, inner_of_rows
from .._kernels.rows import Biases, join_transposed
from .._optim.objective import ObservedObjective, SquaredError, objective_of
from ._matrix import PartedMatrix, add_each, row_counts
from ._parted import Parts, add_pairs

# Row factors are sent to the columns unless there are this many times more rows: then
# sums of (rank + 1) (rank + 2) / 2 numbers per column take less memory in no more time.
MANY_ROWS = 18


@objective_of.register
def _(entries: PartedMatrix, biases):
    return PartedObjective(entries, biases)


class PartedObjective(SquaredError):
    """The objective of the rows."""

    def __init__(self, matrix: PartedMatrix, biases, columns=None):
        self.matrix, self._biases = matrix, Biases(*biases)
        self.row_bias, self.column_bias = self._biases
        self.shape, self.dtype = matrix.shape, matrix.dtype
        self.n_observed, self._columns = matrix.n_observed, columns

    @property
    def columns(self):
        """What turns row factors into sums over the entries of columns."""
        if self._columns is None:
            m, n = self.shape
            kind = SummedColumns if m >= MANY_ROWS * n else MovedColumns
            self._columns = kind(self.matrix)
        return self._columns

    @property
    def T(self):
        return ColumnObjective(self)

    def with_biases(self):
        return PartedObjective(self.matrix, (True, True), self.columns)

    def row_zeros(self, n_columns):
        return self._rows(_zeros, n_columns, n_columns, self.dtype)

    @cached_property
    def total(self):
        return self.matrix.mean_square() * self.matrix.weight()

    @cached_property
    def largest_weight(self):
        return self.matrix.largest_weight()

    def value(self, W, H):
        given = H, self._biases
        return 0.5 * self.matrix.parts.exact_total(_squares, *given, along=(W,))

    def penalized_value(self, W, H, row_penalty, column_penalty):
        given = {"along": (W,), "add": add_pairs}  # both in one round
        parts, ridge = self.matrix.parts, row_penalty.ridge
        sums = parts.total(_squares_and_penalty, H, self._biases, ridge, **given)
        return 0.5 * float(sums.sum(axis=1).sum()) + column_penalty.value(H)

    def value_and_gradient(self, W, H):
        width = H.shape[1] - self.column_bias + self.row_bias
        given = H, self._biases
        return self.value(W, H), self._rows(_gradient, width, *given, along=(W,))

    def curvature(self, D, H):
        parts, given = self.matrix.parts, (H, self._biases)
        return parts.array(_curvature, (), np.float64, *given, along=(D,))

    def least_squares(self, H, ridge):
        width = H.shape[1] - self.column_bias + self.row_bias
        return self._rows(_least_squares, width, H, self._biases, ridge)

    def deflate(self, b, c):
        return PartedOperator(self, (b, c))

    @property
    def pattern(self):
        return PartedOperator(self, None)

    def _rows(self, function, width, *given, along=()):
        parts = self.matrix.parts
        return parts.array(function, (width,), self.dtype, *given, along=along)


class ColumnObjective(SquaredError):
    """The objective of the columns, as far as alternating least squares ask for it."""

    def __init__(self, rows: PartedObjective):
        self.T, self.rows = rows, rows
        self.row_bias, self.column_bias = self._biases = Biases(*rows._biases[::-1])
        self.shape, self.dtype = rows.shape[::-1], rows.dtype

    def least_squares(self, W, ridge):
        return self.rows.columns.least_squares(W, self._biases, ridge)


class PartedOperator:
    """Ones where an entry is observed, or its value without biases; zeros elsewhere."""

    def __init__(self, objective: PartedObjective, factors, transposed=False):
        self.objective, self.factors = objective, factors  # biases of rows and columns
        self.transposed, self.n_entries = transposed, objective.n_observed
        self.shape = objective.shape[::-1] if transposed else objective.shape

    @property
    def T(self):
        return PartedOperator(self.objective, self.factors, not self.transposed)

    @cached_property
    def counts(self):
        """Number of entries of each row, or column."""
        return self._settled(
            self.objective.matrix.counts(axis=int(not self.transposed))
        )

    def count_histogram(self):
        """Numbers of entries that rows have, and how many rows have each of them."""
        if self.transposed:
            return np.unique(self.counts, return_counts=True)
        return self.objective.matrix.parts.total(_histogram, add=_add_histograms)

    def __matmul__(self, V):
        objective, biases = self.objective, self.objective._biases
        if self.transposed:
            return objective.columns.product(V, Biases(*biases[::-1]), self.factors)
        work, given, along = _pattern_product, (V,), ()
        if self.factors is not None:
            b, c = self.factors
            work, given, along = _deflated_product, (V, c, biases), (b,)
        parts, shape = objective.matrix.parts, (V.shape[1],)
        return self._settled(parts.array(work, shape, V.dtype, *given, along=along))

    def _settled(self, array):
        """An array in memory where there are no more rows than columns, which are."""
        m, n = self.objective.shape
        return array if m > n else np.asarray(array)


class MovedColumns:
    """The entries of ranges of columns; row factors are sent to them."""

    def __init__(self, matrix: PartedMatrix):
        engine, parts = matrix.parts.engine, matrix.parts
        ends = np.cumsum(matrix.counts(axis=0))
        cuts = np.linspace(0, ends[-1], len(parts.values) + 1)[1:-1]
        cuts = np.unique([0, *np.searchsorted(ends, cuts), len(ends)])
        pieces = parts.map(_cut_columns, cuts).stored().values
        of_ranges = [
            engine.call(
                _join_columns,
                engine.shared(parts.offsets),
                *(engine.call(getitem, piece, number) for piece in pieces),
            )
            for number in range(len(cuts) - 1)
        ]
        lengths = tuple(np.diff(cuts).tolist())
        self.parts = Parts(engine, of_ranges, lengths).stored()

    def least_squares(self, W, biases, ridge):
        """Solve for all columns given the row factors."""
        given = _whole(self.parts, W), biases, ridge
        return self._gathered(self.parts.map(_least_squares, *given))

    def product(self, U, biases, factors):
        """Multiply the transposed operator by U, (m, k)."""
        U = _whole(self.parts, U)
        if factors is None:
            return self._gathered(self.parts.map(_pattern_product, U))
        b, c = factors
        given = U, _whole(self.parts, b), biases
        return self._gathered(self.parts.map(_deflated_product, *given, along=(c,)))

    def _gathered(self, parts):
        return np.concatenate(self.parts.engine.compute(*parts.values))


class SummedColumns:
    """Sums over the rows of each part, added up for all columns."""

    def __init__(self, matrix: PartedMatrix):
        self.parts = matrix.parts

    def least_squares(self, W, biases, ridge):
        """Solve for all columns given the row factors."""
        rank, dtype = W.shape[1] - biases.column, W.dtype
        given = rank, bool(biases.column)
        sums = self.parts.map(_column_sums, *given, along=(W,)).summed(add_each)
        ((systems, targets),) = self.parts.engine.compute(sums)
        given = np.arange(len(systems)), targets, np.ones(len(systems))
        prior = pack(np.diag(np.asarray(ridge, np.float64)))
        found = dispatch.posterior(systems, *given, prior, biases)
        return found.means.astype(dtype, copy=False)

    def product(self, U, biases, factors):
        """Multiply the transposed operator by U, (m, k)."""
        if factors is None:
            return self.parts.total(_transposed_pattern_product, along=(U,))
        b, c = factors
        given = {"along": (b, U)}
        return self.parts.total(_transposed_deflated_product, c, biases, **given)


def _whole(parts: Parts, W):
    """A row-sized array in one piece, for workers that need all of it."""
    if isinstance(W, np.ndarray):
        return W
    # Not optimized, as keys would then mean one thing here and another there.
    chunks = W.rechunk({1: -1}).to_delayed(optimize_graph=False).ravel()
    return parts.engine.call(_concatenate, *chunks)


# What is done with the entries of some rows, or, exchanged, of some columns.


def _zeros(rows, n_columns, dtype):
    return np.zeros((rows.shape[0], n_columns), dtype)


def _squares(rows, W, H, biases):
    return exact_sum(dispatch.squares(rows, W, H, biases))


def _squares_and_penalty(rows, W, H, biases, ridge):
    """Two pairs: of the squared error, and of the squares of W times the ridge."""
    penalty = exact_sum(inner_of_rows(W, W, ridge))
    return np.array([_squares(rows, W, H, biases), penalty])


def _gradient(rows, W, H, biases):
    return ObservedObjective(rows, biases=biases).value_and_gradient(W, H)[1]


def _curvature(rows, D, H, biases):
    return ObservedObjective(rows, biases=biases).curvature(D, H)


def _least_squares(rows, H, biases, ridge):
    return ObservedObjective(rows, biases=biases).least_squares(H, ridge)


def _pattern_product(rows, V):
    return ObservedObjective(rows).pattern @ V


def _deflated_product(rows, b, V, c, biases):
    return ObservedObjective(rows, biases=biases).deflate(b, c) @ V


def _transposed_pattern_product(rows, U):
    return _pattern_product(rows.transpose(), U)


def _transposed_deflated_product(rows, b, U, c, biases):
    return _deflated_product(rows.transpose(), c, U, b, biases)


def _column_sums(rows, W, rank, biased):
    """Sums of E[v v'] and x E[v] of known rows v = [w, 1, b] over each column."""
    n, size = rows.n_columns, packed_size(rank, biased)
    systems = np.zeros((n, size), W.dtype)
    targets = np.zeros((n, rank + 1 + biased), W.dtype)
    for block in blocks_of_rows(rows, size):
        means = W[block.rows]
        no_variance = np.zeros((len(means), n_pairs(rank + biased)), W.dtype)
        moments = moments_of(means, no_variance, biased)
        block.add_over_rows(moments, total(moments), systems)
        block.add_targets_of_columns(expectations(moments, rank), targets)
    return systems, targets


def _cut_columns(rows, cuts):
    """The entries of ranges of columns, by columns."""
    by_columns = rows.transpose()
    return [by_columns.between(*bounds) for bounds in pairwise(cuts.tolist())]


def _join_columns(offsets, *pieces):
    """Entries of the same columns in several parts; each starts at a row."""
    counts = sum(np.diff(piece.indptr) for piece in pieces)
    return join_transposed(counts, pieces, offsets)


def _concatenate(*chunks):
    return np.concatenate(chunks)


def _histogram(rows):
    return np.unique(row_counts(rows), return_counts=True)


def _add_histograms(a, b):
    values, places = np.unique(np.concatenate([a[0], b[0]]), return_inverse=True)
    numbers = np.bincount(places, np.concatenate([a[1], b[1]]))
    return values, numbers.astype(np.int64)
