"""Squared error over all entries of a sparse matrix whose stored entries have weights.

Entries that are not stored are zeros of weight 1. With the regressors g_j and the
offset ``o_j = mean + c_j`` of column j, the prediction ``p_ij = w_i . g_j + o_j`` and
the value ``x_ij`` and weight ``s_ij`` of a stored entry,

    2 F = sum over all entries of p_ij^2
          + sum over stored entries of s_ij (p_ij - x_ij)^2 - p_ij^2.

The first sum needs the Gram matrix of the regressors only, so no matrix of the size of
X is formed [1]_. The system of a row is that Gram matrix, which all rows share, and
``(s_ij - 1) g_j g_j'`` for each of its stored entries; `base_systems` solves it.

References
----------
.. [1] Y. Hu, Y. Koren, C. Volinsky, "Collaborative Filtering for Implicit Feedback
   Datasets", ICDM 2008.
"""

from functools import cached_property

import numpy as np
from scipy import sparse

from .._data.weighted_zeros import WeightedZeros
from .._kernels import dispatch
from .._kernels.linalg import row_slices
from .._kernels.non_negative import minimize
from .._kernels.rows import Biases, Rows
from .base_systems import BaseSystem, Regressors, solve_corrected
from .objective import CompleteObjective, Side, objective_of


@objective_of.register
def _(entries: WeightedZeros, biases):
    stored = StoredEntries(entries.rows)
    return WeightedZerosObjective(stored, mean=entries.mean, biases=biases)


class StoredEntries:
    """The stored entries seen from one side, and what does not change in a descent."""

    def __init__(self, rows: Rows):
        self.rows = rows

    @cached_property
    def corrections(self):
        """What the weights exceed those of zeros by; negative where they are less."""
        return self.rows.weights - 1

    @cached_property
    def weighted_values(self):
        """Weights times values."""
        return self.rows.weights * self.rows.values

    @cached_property
    def mostly_stored(self):
        """Numbers of the rows of which at least half of the entries are stored."""
        return np.flatnonzero(2 * np.diff(self.rows.indptr) >= self.rows.n_columns)

    @cached_property
    def listed(self):
        """All entries of the rows that are mostly stored."""
        stored = self.rows.take(self.mostly_stored)
        m, n = stored.shape
        values = np.zeros((m, n), stored.values.dtype)
        weights = np.ones_like(values)
        places = stored.row_numbers, stored.indices
        values[places], weights[places] = stored.values, stored.weights
        indices = np.tile(np.arange(n, dtype=np.int32), m)
        return Rows(n * np.arange(m + 1), indices, values.ravel(), weights.ravel(), n)


class WeightedZerosObjective(Side):
    """Stored entries with their weights and, as zeros of weight 1, all others."""

    def __init__(self, stored: StoredEntries, columns=None, *, mean, biases):
        super().__init__(biases)
        self.stored, self._columns, self.mean = stored, columns, mean
        self.shape, self.dtype = stored.rows.shape, stored.rows.values.dtype

    @property
    def T(self):
        if self._columns is None:
            self._columns = StoredEntries(self.stored.rows.transpose())
        return self._of(self._columns, self.stored, self._biases[::-1])

    def with_biases(self):
        """The same data, for a model that has the biases of either side."""
        biases = Biases(row=True, column=True)
        return self._of(self.stored, self._columns, biases)

    def _of(self, stored, columns, biases):
        return WeightedZerosObjective(stored, columns, mean=self.mean, biases=biases)

    @cached_property
    def total(self):
        return self.stored.rows.sum_of_squares

    @property
    def n_observed(self):
        return WeightedZeros(self.stored.rows).n_observed

    @cached_property
    def largest_weight(self):
        return max(1.0, float(self.stored.rows.weights.max(initial=0)))

    def _regressors(self, H) -> Regressors:
        offset = np.full(len(H), self.mean)
        if self.column_bias:
            offset += H[:, -1]
        return Regressors.of(self._design(H), offset)

    def _predictions(self, W, H):
        """Predictions of the stored entries, float64."""
        zeros = np.zeros_like(self.stored.rows.values)
        rows = self.stored.rows._replace(values=zeros, weights=None)
        predictions = dispatch.residuals(rows, W, H, self._biases)
        return predictions.astype(np.float64, copy=False) + self.mean

    def value(self, W, H) -> float:
        return self._value(W, self._predictions(W, H), self._regressors(H))

    def _value(self, W, predictions, regressors) -> float:
        values, weights = self.stored.rows.values, self.stored.rows.weights
        W = W.astype(np.float64, copy=False)
        of_all = np.vdot(W.T @ W, regressors.gram) + len(W) * regressors.square
        of_all += 2 * (W.sum(axis=0) @ regressors.cross)
        errors = predictions - values
        of_stored = weights.astype(np.float64) @ errors**2 - predictions @ predictions
        return max(0.5 * float(of_all + of_stored), 0.0)

    def value_and_gradient(self, W, H) -> tuple[float, np.ndarray]:
        regressors, predictions = self._regressors(H), self._predictions(W, H)
        rows = self.stored.rows
        changes = rows.weights * (predictions - rows.values) - predictions
        changed = rows._replace(values=changes.astype(self.dtype), weights=None)
        gradient = dispatch.product(changed, regressors.design)
        gradient += W @ regressors.gram.astype(W.dtype) + regressors.cross
        return self._value(W, predictions, regressors), gradient

    def curvature(self, D, H) -> np.ndarray:
        gram = self._regressors(H).gram
        corrected = self.stored.rows._replace(weights=self.stored.corrections)
        of_all = np.einsum("ij,ij->i", D @ gram, D)
        return of_all + dispatch.curvature(corrected, D, H, self._biases)

    def least_squares(self, H, ridge) -> np.ndarray:
        numbers = self.stored.mostly_stored
        if numbers.size == 0:
            return self._corrected_rows(H, ridge)
        # A difference from the system of zeros would lose digits of these rows.
        listed, W = self.stored.listed, np.empty((self.shape[0], len(ridge)), H.dtype)
        listed = listed._replace(values=listed.values - self.dtype.type(self.mean))
        W[numbers] = dispatch.least_squares(listed, H, self._biases, ridge)
        others = np.delete(np.arange(len(W)), numbers)
        if others.size:
            W[others] = self._corrected_rows(H, ridge, others)
        return W

    def non_negative_least_squares(self, H, ridge, W) -> np.ndarray:
        regressors, rows = self._regressors(H), self.stored.rows
        base = regressors.gram + np.diag(ridge)
        q, result = len(base), np.empty_like(W)
        design = regressors.design.astype(np.float64, copy=False)
        for block in row_slices(len(W), q * q):
            start, stop = block.start, min(block.stop, len(W))
            systems = np.repeat(base[None], stop - start, axis=0)
            targets = np.repeat(-regressors.cross[None], stop - start, axis=0)
            for k, i in enumerate(range(start, stop)):
                entries = slice(rows.indptr[i], rows.indptr[i + 1])
                columns, weights = rows.indices[entries], rows.weights[entries]
                G = design[columns]
                systems[k] += ((weights - 1)[:, None] * G).T @ G
                left = weights * rows.values[entries]
                left = left - (weights - 1) * regressors.offset[columns]
                targets[k] += left @ G
            result[block] = minimize(systems, targets, W[block].astype(np.float64))
        return result

    def _corrected_rows(self, H, ridge, chosen=None):
        """Solve rows of which most entries are zeros that are not stored."""
        base = BaseSystem.of(self._regressors(H), ridge)
        rows, corrections = self.stored.rows, self.stored.corrections
        targets = self.stored.weighted_values
        if base.predictions is not None:  # the solution of a row of zeros explains them
            targets = targets - corrections * base.predictions[rows.indices]
        rows = rows._replace(values=targets, weights=corrections)
        return solve_corrected(rows if chosen is None else rows.take(chosen), base)

    def deflate(self, b, c):
        rows = self.stored.rows
        X = sparse.csr_array((rows.values, rows.indices, rows.indptr), self.shape)
        unweighted = CompleteObjective(X, mean=self.mean, biases=self._biases)
        return unweighted.deflate(b, c)
