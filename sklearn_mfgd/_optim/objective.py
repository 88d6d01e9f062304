"""Squared error over the observed entries, seen from one side.

An objective holds the data ``X`` (m, n) and answers for its *rows*, so a solver is
written once and applied to either side. The contract, with ``W`` (m, .), ``H`` (n, .):

===================================  =================================================
``value(W, H)``                      data term F = 1/2 sum of squared residuals, float
``penalized_value(W, H, p, q)``      F and the penalties p of W and q of H
``value_and_gradient(W, H)``         the same with dF/dW, which shares its residuals
``curvature(D, H)``                  sum_j (d_i . g_j)^2 of each row, (m,)
``least_squares(H, ridge)``          the W that minimizes F + 1/2 sum ridge * W^2
``gram(H)``                          sum_j g_j g_j' over *all* columns, float64, times
                                     the largest weight of an entry
``deflate(b, c)``                    the data without biases, zero where missing; it
                                     has ``@``, ``.T`` and ``.shape``
``row_zeros(k)``                     zeros of the shape (m, k)
``total``                            sum of the squared data
``T``                                the same data, rows and columns exchanged
``shape``, ``dtype``                 of the data
``row_bias``, ``column_bias``        whether W and H end in a column of biases
``largest_weight``                   of an entry, 1 without weights
``is_squared``                       False for other losses, see `loss_objective`
``adapt(W, H)``                      learns the parameters of another loss
``quadratic(W, H)``                  the squared error that a step of W is to lower
``lower(W, moved, H, p)``            rows between W and `moved` that do not raise F
===================================  =================================================

Where entries are missing there are also ``n_observed``, ``with_biases()``, the same for
a model with all biases, and ``pattern``: ones where an entry is observed, with ``@``,
``.T``, ``.shape``, ``n_entries``, ``.counts`` of those of each row, and
``count_histogram()``.

With biases the last column of ``W`` is the row bias b, and that of ``H`` the column
bias c: row i sees the regressors ``g_j = [h_j, 1]``, the target ``x_ij - mean - c_j``.
"""

from functools import cached_property, singledispatch

import numpy as np
from scipy import sparse

from .._data.matrix import CompleteMatrix
from .._kernels import dispatch
from .._kernels.linalg import product, row_slices, solve_shared
from .._kernels.numpy_kernels import regressors
from .._kernels.rows import Biases, Rows

# Below this share of the sum of squares of the data, an error that is a difference of
# large sums has lost half of its digits and is summed entry by entry instead.
CANCELLATION_SHARE = {np.dtype(np.float64): 1e-8, np.dtype(np.float32): 1e-3}

# Below this ratio of the smallest to the largest eigenvalue, a system visibly magnifies
# the rounding of float32, and its targets are computed in float64.
MIN_EIGENVALUE_RATIO = 1e-5

# Entries of which the values without biases are made at a time.
BLOCK_ENTRIES = 2**20


@singledispatch
def objective_of(entries, biases):
    """Squared error over the entries of a `CompleteMatrix` or `ObservedMatrix`."""
    if isinstance(entries, CompleteMatrix):
        mean = entries.mean if sparse.issparse(entries.values) else 0.0
        return CompleteObjective(entries.values, mean=mean, biases=biases)
    return ObservedObjective(entries.rows, biases=biases)


class SquaredError:
    """What a descent asks of any loss; squared error is its own quadratic."""

    is_squared = True

    def adapt(self, W, H):
        """Learn the parameters of a loss; squared error has none."""

    def quadratic(self, W, H):
        """The squared error that stands for the loss around W and H: itself."""
        return self

    def lower(self, W, moved, H, penalty):
        """Rows where F is no larger than at W: those of a step of squared error."""
        return moved


class Side(SquaredError):
    """What both objectives share: biases, and the regressors that they lead to."""

    largest_weight = 1.0

    def __init__(self, biases):
        self.row_bias, self.column_bias = self._biases = Biases(*biases)

    def _design(self, H):
        """Return the regressors g_j of a row, (n, r)."""
        return regressors(H, *self._biases)[0]

    def penalized_value(self, W, H, row_penalty, column_penalty):
        return self.value(W, H) + row_penalty.value(W) + column_penalty.value(H)

    def row_zeros(self, n_columns):
        return np.zeros((self.shape[0], n_columns), self.dtype)

    def gram(self, H):
        design = self._design(H).astype(np.float64, copy=False)
        return self.largest_weight * (design.T @ design)


class CompleteObjective(Side):
    """All entries of X are observed, those that a sparse X does not store as zeros.

    Everything follows from products of X with factors: no residual is formed, and the
    mean is not subtracted from X. Both sides share the `sums` over X.
    """

    def __init__(self, X, *, mean=0.0, biases=(False, False), sums=None):
        super().__init__(biases)
        self.X, self.mean, self.shape, self.dtype = X, mean, X.shape, X.dtype
        self.total, self._row_sums, self._column_sums = sums or _sums_of(X)

    @property
    def T(self):
        sums = self.total, self._column_sums, self._row_sums
        biases = self._biases[::-1]
        return CompleteObjective(self.X.T, mean=self.mean, biases=biases, sums=sums)

    def _offset(self, H):
        """Mean and column bias, (n,) float64."""
        offset = np.full(len(H), self.mean)
        return offset + H[:, -1] if self.column_bias else offset

    def _correlate(self, design, offset):
        """Multiply the targets with the regressors: (X - 1 offset') design, (m, r)."""
        correlations = product(self.X, design)
        if offset.any():
            correlations = correlations - (offset @ design).astype(correlations.dtype)
        return correlations

    def _correlate_in_double(self, design, offset):
        design = design.astype(np.float64)
        correlations = np.empty((self.X.shape[0], design.shape[1]))
        whole = [slice(None)]  # what is sparse is small, or slow to cut
        for rows in whole if sparse.issparse(self.X) else row_slices(*self.X.shape):
            correlations[rows] = self.X[rows] @ design
        return correlations - offset @ design

    def value(self, W, H) -> float:
        return self.value_and_gradient(W, H)[0]

    def value_and_gradient(self, W, H) -> tuple[float, np.ndarray]:
        # With the targets T = X - 1 offset' and the regressors G, the value is
        # 1/2 (|T|^2 - 2 W . T G + W'W . G'G) and the gradient is W G'G - T G.
        design, offset = self._design(H), self._offset(H)
        correlations, gram = self._correlate(design, offset), self.gram(H)
        targets = self.total - 2 * (offset @ self._column_sums)
        targets += self.X.shape[0] * (offset @ offset)
        cross = np.einsum("ij,ij->i", W, correlations).sum(dtype=np.float64)
        W64 = W.astype(np.float64, copy=False)
        value = 0.5 * (targets - 2 * cross + np.vdot(W64.T @ W64, gram))
        cancels = value < CANCELLATION_SHARE[W.dtype] * max(self.total, targets)
        if cancels and not sparse.issparse(self.X):
            value = self._sum_of_residuals(W, design, offset)
        return max(float(value), 0.0), W @ gram.astype(W.dtype) - correlations

    def _sum_of_residuals(self, W, design, offset) -> float:
        value, offset = 0.0, offset.astype(W.dtype)
        for rows in row_slices(*self.X.shape):
            residual = W[rows] @ design.T
            residual += offset
            residual -= self.X[rows]
            value += 0.5 * _sum_of_squares(residual)
        return value

    def curvature(self, D, H) -> np.ndarray:
        return np.einsum("ij,ij->i", D @ self.gram(H).astype(D.dtype), D)

    def least_squares(self, H, ridge) -> np.ndarray:
        # All rows share one system: W (G'G + ridge) = T G.
        system, correlate = self.gram(H) + np.diag(ridge), self._correlate
        if H.dtype == np.float32 and np.isfinite(system).all():
            eigenvalues = np.linalg.eigvalsh(system)
            if eigenvalues[0] < MIN_EIGENVALUE_RATIO * eigenvalues[-1]:
                correlate = self._correlate_in_double
        targets = correlate(self._design(H), self._offset(H))
        return solve_shared(system, targets, len(H)).astype(H.dtype, copy=False)

    def deflate(self, b, c):
        row_offset = b[:, 0] if self.row_bias else np.zeros(len(b), b.dtype)
        column_offset = self._offset(c).astype(c.dtype)
        if not (row_offset.any() or column_offset.any()):
            return self.X
        return _WithoutOffsets(self.X, row_offset, column_offset)


class _WithoutOffsets:
    """``X - b 1' - 1 c'``, never written out."""

    def __init__(self, X, b, c):
        self.X, self.b, self.c, self.shape = X, b, c, X.shape

    @property
    def T(self):
        return _WithoutOffsets(self.X.T, self.c, self.b)

    def __matmul__(self, V):
        return product(self.X, V) - np.outer(self.b, V.sum(axis=0)) - self.c @ V


class ObservedObjective(Side):
    """Only the entries of a list, less the mean, are observed; no others are formed."""

    def __init__(self, rows: Rows, columns=None, *, biases=(False, False)):
        super().__init__(biases)
        self.rows, self._columns = rows, columns
        self.shape, self.dtype = rows.shape, rows.values.dtype

    @cached_property
    def largest_weight(self):
        weights = self.rows.weights
        return 1.0 if weights is None else float(weights.max(initial=0))

    @property
    def T(self):
        if self._columns is None:
            self._columns = self.rows.transpose()
        return ObservedObjective(self._columns, self.rows, biases=self._biases[::-1])

    def with_biases(self):
        """The same data, for a model that has the biases of either side."""
        biases = Biases(row=True, column=True)
        return ObservedObjective(self.rows, self.T.rows, biases=biases)

    @property
    def total(self):
        return self.rows.sum_of_squares

    def value(self, W, H) -> float:
        return dispatch.loss(self.rows, W, H, self._biases)

    def value_and_gradient(self, W, H) -> tuple[float, np.ndarray]:
        return dispatch.loss_and_gradient(self.rows, W, H, self._biases)

    def curvature(self, D, H) -> np.ndarray:
        return dispatch.curvature(self.rows, D, H, self._biases)

    def least_squares(self, H, ridge) -> np.ndarray:
        return dispatch.least_squares(self.rows, H, self._biases, ridge)

    @property
    def n_observed(self):
        return self.rows.indices.size

    def deflate(self, b, c):
        return Deflated(self, b, c)

    @property
    def pattern(self):
        return Pattern(self)


class Deflated:
    """Observed data less their biases, zero where missing, made some rows at a time."""

    def __init__(self, side: ObservedObjective, b, c):
        self.side, self.b, self.c, self.shape = side, b, c, side.shape

    @property
    def T(self):
        return Deflated(self.side.T, self.c, self.b)

    def __matmul__(self, V):
        product = np.empty((self.shape[0], V.shape[1]), V.dtype)
        for place, rows in self._blocks():
            product[place] = dispatch.product(rows, V)
        return product

    def largest(self) -> float:
        """Largest absolute value."""
        return max(
            float(np.abs(rows.values).max(initial=0)) for _, rows in self._blocks()
        )

    def _blocks(self):
        rows, biases = self.side.rows, self.side._biases
        for start, stop in rows.ranges(BLOCK_ENTRIES):
            place, block = slice(start, stop), rows.between(start, stop)
            values = block.values
            if any(biases):
                values = -dispatch.residuals(block, self.b[place], self.c, biases)
            yield place, block._replace(values=values, weights=None)


class Pattern:
    """Ones where an entry is observed, zeros elsewhere."""

    def __init__(self, side: ObservedObjective):
        self.side, self.shape = side, side.shape
        self.n_entries = side.n_observed

    @property
    def T(self):
        return Pattern(self.side.T)

    @property
    def counts(self):
        return np.diff(self.side.rows.indptr)

    def count_histogram(self):
        """Numbers of entries that rows have, and how many rows have each of them."""
        return np.unique(self.counts, return_counts=True)

    def __matmul__(self, V):
        return dispatch.product(self.side.rows._replace(values=None, weights=None), V)


def _sums_of(X) -> tuple[float, np.ndarray, np.ndarray]:
    """Sum of squares, and sums over each row and each column."""
    squares = _sum_of_squares(X.data[None] if sparse.issparse(X) else X)
    sums = (np.asarray(X.sum(axis=axis, dtype=np.float64)).ravel() for axis in (1, 0))
    return squares, *sums


def _sum_of_squares(A: np.ndarray) -> float:
    return float(np.einsum("ij,ij->i", A, A).sum(dtype=np.float64))
