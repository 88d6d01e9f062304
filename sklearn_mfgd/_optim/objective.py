"""Squared error over the observed entries, seen from one side.

An objective holds the data ``X`` (m, n) and answers for its *rows*; ``objective.T``
holds the same data with rows and columns exchanged, so a solver is written once and
applied to either side. The contract, with ``W`` (m, .) and ``H`` (n, .):

===================================  =================================================
``value(W, H)``                      data term F = 1/2 sum of squared residuals, float
``value_and_gradient(W, H)``         the same with dF/dW, which shares its residuals
``curvature(D, H)``                  sum_j (d_i . g_j)^2 of each row, (m,)
``least_squares(H, ridge)``          the W that minimizes F + 1/2 sum ridge * W^2
``gram(H)``                          sum_j g_j g_j' over *all* columns, float64, times
                                     the largest weight of an entry
``deflate(b, c)``                    the data without biases, zero in the holes; it
                                     knows ``@``, ``.T`` and ``.shape``
``total``                            sum of the squared data
``T``                                the other side
===================================  =================================================

With biases the last column of ``W`` is the row bias b and the last column of ``H`` the
column bias c: row i sees the regressors ``g_j = [h_j, 1]`` and the target
``x_ij - mean - c_j``.
"""

from functools import cached_property

import numpy as np
from scipy import sparse

from .._data.matrix import CompleteMatrix
from .._kernels import dispatch
from .._kernels.linalg import product, row_slices, solve_shared

# Below this share of the data's own sum of squares, an error found as a difference of
# large sums has lost half of its digits and is summed entry by entry instead.
CANCELLATION = {np.dtype(np.float64): 1e-8, np.dtype(np.float32): 1e-3}

# Below this ratio of the smallest to the largest eigenvalue a system is solved for
# targets in float64.
ILL_CONDITIONED = 1e-5


class _Side:
    """What both objectives share: whose biases there are, and the regressors."""

    row_bias: bool
    column_bias: bool
    largest_weight = 1.0

    def _regressors(self, H):
        """Split H into the regressors of a row, (n, r), and the offset c or None."""
        factors, offset = (H[:, :-1], H[:, -1]) if self.column_bias else (H, None)
        if self.row_bias:
            factors = np.column_stack([factors, np.ones(len(H), H.dtype)])
        return factors, offset

    def gram(self, H):
        """Bound the second derivative of every row from above, (r, r)."""
        design = self._regressors(H)[0].astype(np.float64, copy=False)
        return self.largest_weight * (design.T @ design)


def objective_of(entries, biases):
    """Squared error over the entries of a `CompleteMatrix` or `ObservedMatrix`."""
    flags = {"row_bias": biases[0], "column_bias": biases[1]}
    if isinstance(entries, CompleteMatrix):
        mean = entries.mean if sparse.issparse(entries.values) else 0.0
        return CompleteObjective(entries.values, mean=mean, **flags)
    return ObservedObjective(entries.rows, **flags)


class CompleteObjective(_Side):
    """Every entry is observed; X is dense or sparse, and no residual is formed.

    Parameters
    ----------
    X : ndarray or CSR/CSC matrix of shape (m, n)
        An entry that a sparse X does not store is a zero.
    mean : float
        Subtracted from every entry without touching X.
    row_bias, column_bias : bool
        Whether W, respectively H, ends in a column of biases.
    """

    def __init__(self, X, *, mean=0.0, row_bias=False, column_bias=False):
        stored = X.data[None] if sparse.issparse(X) else X
        total = float(_row_squares(stored).sum(dtype=np.float64))
        sums = [np.asarray(X.sum(axis=k, dtype=np.float64)).ravel() for k in (1, 0)]
        self._set(X, mean, row_bias, column_bias, total, sums)

    def _set(self, X, mean, row_bias, column_bias, total, sums):
        self.X, self.mean = X, mean
        self.shape, self.dtype = X.shape, X.dtype
        self.row_bias, self.column_bias = row_bias, column_bias
        self.total, self._sums = total, sums

    @property
    def T(self):
        """The same data with rows and columns exchanged."""
        other = object.__new__(CompleteObjective)
        flags = self.column_bias, self.row_bias
        other._set(self.X.T, self.mean, *flags, self.total, self._sums[::-1])
        return other

    def _offset(self, H):
        """Mean and column bias, (n,) float64."""
        offset = np.full(len(H), self.mean)
        return offset + H[:, -1] if self.column_bias else offset

    def _correlate(self, design, offset):
        """Multiply the targets with the regressors, (m, r)."""
        found = product(self.X, design)
        if offset.any():
            found = found - (offset @ design).astype(found.dtype)
        return found

    def _correlate_in_double(self, design, offset):
        """The same in float64: an ill-conditioned system magnifies rounding."""
        design = design.astype(np.float64)
        found = np.empty((self.X.shape[0], design.shape[1]))
        whole = [slice(None)]  # what is sparse is small, or slow to cut
        for rows in whole if sparse.issparse(self.X) else row_slices(*self.X.shape):
            found[rows] = self.X[rows] @ design
        return found - offset @ design

    def _expand(self, W, H):
        """Form value and gradient out of Gram matrices."""
        design, offset = self._regressors(H)[0], self._offset(H)
        correlations = self._correlate(design, offset)
        gram = self.gram(H)
        target = self.total - 2 * (offset @ self._sums[1])
        target += self.X.shape[0] * (offset @ offset)
        cross = np.einsum("ij,ij->i", W, correlations).sum(dtype=np.float64)
        W64 = W.astype(np.float64, copy=False)
        value = 0.5 * (target - 2 * cross + np.vdot(W64.T @ W64, gram))
        scale = max(self.total, target)
        if value < CANCELLATION[W.dtype] * scale and not sparse.issparse(self.X):
            value = self._sum_of_residuals(W, design, offset)
        return max(float(value), 0.0), W @ gram.astype(W.dtype) - correlations

    def _sum_of_residuals(self, W, design, offset):
        value, offset = 0.0, offset.astype(W.dtype)
        for rows in row_slices(self.X.shape[0], self.X.shape[1]):
            residual = W[rows] @ design.T
            residual += offset
            residual -= self.X[rows]
            value += float(_row_squares(residual).sum(dtype=np.float64))
        return 0.5 * value

    def value(self, W, H):
        """Half the sum of squared residuals."""
        return self._expand(W, H)[0]

    def value_and_gradient(self, W, H):
        """Half the sum of squared residuals and its gradient in W."""
        return self._expand(W, H)

    def curvature(self, D, H):
        """Second derivative along each row of D."""
        return np.einsum("ij,ij->i", D @ self.gram(H).astype(D.dtype), D)

    def least_squares(self, H, ridge):
        """Exact rows; all of them share one system."""
        design, offset = self._regressors(H)[0], self._offset(H)
        system = self.gram(H) + np.diag(ridge)
        if H.dtype == np.float32 and _ill_conditioned(system):
            found = self._correlate_in_double(design, offset)
        else:
            found = self._correlate(design, offset)
        return solve_shared(system, found, len(H)).astype(H.dtype, copy=False)

    def deflate(self, b, c):
        """Subtract biases, (m, 0 or 1) and (n, 0 or 1); good for products only."""
        row = b[:, 0] if self.row_bias else np.zeros(len(b), b.dtype)
        column = self._offset(c).astype(c.dtype)
        if not (row.any() or column.any()):
            return self.X
        return _Deflated(self.X, row, column)


class _Deflated:
    """``X - b 1' - 1 c'``, never written out."""

    def __init__(self, X, b, c):
        self.X, self.b, self.c, self.shape = X, b, c, X.shape

    @property
    def T(self):
        return _Deflated(self.X.T, self.c, self.b)

    def __matmul__(self, V):
        return product(self.X, V) - np.outer(self.b, V.sum(axis=0)) - self.c @ V


class ObservedObjective(_Side):
    """Only the entries of a list are observed; nothing else is ever formed.

    Parameters
    ----------
    rows : Rows
        The entries by rows, the mean already subtracted.
    columns : Rows, optional
        The same entries by columns; made when first needed.
    row_bias, column_bias : bool
        Whether W, respectively H, ends in a column of biases.
    """

    def __init__(self, rows, columns=None, *, row_bias=False, column_bias=False):
        self.rows, self._columns = rows, columns
        self.row_bias, self.column_bias = row_bias, column_bias
        self.shape, self.dtype = rows.shape, rows.values.dtype

    @cached_property
    def largest_weight(self):
        """The largest weight of an entry."""
        weights = self.rows.weights
        return 1.0 if weights is None else float(weights.max(initial=0))

    @property
    def T(self):
        """The same data with rows and columns exchanged."""
        if self._columns is None:
            self._columns = self.rows.transpose()
        flags = {"row_bias": self.column_bias, "column_bias": self.row_bias}
        return ObservedObjective(self._columns, self.rows, **flags)

    def with_biases(self):
        """The same data, for a model that has the biases of either side."""
        flags = {"row_bias": True, "column_bias": True}
        return ObservedObjective(self.rows, self.T.rows, **flags)

    @property
    def total(self):
        """Sum of the weighted squares of the data."""
        return self.rows.sum_of_squares

    @property
    def _biases(self):
        return self.row_bias, self.column_bias

    def value(self, W, H):
        """Half the sum of squared residuals."""
        return dispatch.loss(self.rows, W, H, self._biases)

    def value_and_gradient(self, W, H):
        """Half the sum of squared residuals and its gradient in W."""
        return dispatch.loss_and_gradient(self.rows, W, H, self._biases)

    def curvature(self, D, H):
        """Second derivative along each row of D."""
        return dispatch.curvature(self.rows, D, H, self._biases)

    def least_squares(self, H, ridge):
        """Exact rows, each with the system of its own entries."""
        return dispatch.least_squares(self.rows, H, self._biases, ridge)

    def deflate(self, b, c):
        """Subtract biases, (m, 0 or 1) and (n, 0 or 1)."""
        columns = self.T
        by_rows = -dispatch.residuals(self.rows, b, c, self._biases)
        by_columns = -dispatch.residuals(columns.rows, c, b, columns._biases)
        return _Observed(
            self.rows._replace(values=by_rows),
            columns.rows._replace(values=by_columns),
        )


class _Observed:
    """A sparse matrix by rows and by columns, for products on several threads."""

    def __init__(self, rows, columns):
        self.rows, self.columns, self.shape = rows, columns, rows.shape

    @property
    def T(self):
        return _Observed(self.columns, self.rows)

    def __matmul__(self, V):
        return dispatch.product(self.rows, V)


def _ill_conditioned(system):
    """Whether a system magnifies the rounding of float32 to what is seen."""
    if not np.isfinite(system).all():
        return False
    eigenvalues = np.linalg.eigvalsh(system)
    return eigenvalues[0] < ILL_CONDITIONED * eigenvalues[-1]


def _row_squares(A):
    return np.einsum("ij,ij->i", A, A)
