r"""Missingness features: what is observed of a row or column may say where it lies.

Which entries are there is seldom chance: who rates a film has chosen it. A row is
described by a constant, by the logarithm of the number of its entries, and by where it
lies among the leading singular vectors of the standardized residuals of independence

.. math::

    N_{ij} = \frac{[(i, j) \text{ observed}] - n_i n_j / n}
             {\sqrt{(n_i + \tau)(n_j + \tau)}},

with :math:`n_i, n_j` entries in its row and column of n in all: observed minus expected
if rows and columns were independent, as in correspondence analysis [1]_, with a
constant in the root for rows and columns of few entries. The features of all rows are
orthonormal; those of a new row follow from what is observed of it, as in SVD++ [2]_.
How much they say is for `priors` to find out: where entries are missing at random,
nothing.

References
----------
.. [1] M. Greenacre, "Theory and Applications of Correspondence Analysis", Academic
   Press (1984).
.. [2] Y. Koren, "Factorization Meets the Neighborhood: a Multifaceted Collaborative
   Filtering Model", KDD (2008).
"""

from typing import NamedTuple

import numpy as np

from .._kernels import dispatch
from .._kernels.linalg import row_slices
from .._kernels.rows import Rows
from .._kernels.svd import truncated_svd

# The largest number of singular vectors. A table needs at least SIDE_PER_DIRECTION rows
# and as many columns for each. Vectors below this share of the first are left out.
MAX_DIRECTIONS = 32
SIDE_PER_DIRECTION = 16
MIN_SINGULAR_RATIO = 1e-3

# A feature is dropped if less than this share of it is left after projection on the
# earlier ones.
MIN_NEW_SHARE = 1e-3

# Counts beyond this quantile are clipped to it: the few rows of a table that are nearly
# empty would be where the straight line through the others leads.
RARE_QUANTILE = 0.01

TINY = np.finfo(np.float64).tiny

# Rows and columns with much fewer entries count for less in singular vectors.
TAU = 200.0

# Features that do not come from singular vectors: the constant and the count.
N_OTHERS = 2


class FeatureMap(NamedTuple):
    """How rows become features by what is observed of them."""

    loadings: np.ndarray  # (n, n_directions)
    low: np.ndarray  # (n_raw,), least raw features of the rows that it was made for
    high: np.ndarray
    basis: np.ndarray  # (n_raw, n_features), makes them orthonormal

    def transform(self, rows: Rows) -> np.ndarray:
        """Features of rows, (n_rows, n_features), zero where nothing is observed.

        Raw features beyond all that were seen are clipped: a straight line says nothing
        about what is far away.
        """
        raw = _clipped(_raw_features(rows, self.loadings), rows, self.low, self.high)
        return (raw @ self.basis).astype(rows.values.dtype, copy=False)


class Features(NamedTuple):
    """Of all rows or columns that a model is fitted to."""

    values: np.ndarray  # (m, n_features), orthonormal
    scales: np.ndarray  # (n_features,), singular values over the first, 1 for others

    def astype(self, dtype) -> "Features":
        """The same in another precision."""
        return self._replace(values=self.values.astype(dtype, copy=False))


def fit_features(rows: Rows, columns: Rows) -> tuple[Features, Features, FeatureMap]:
    """Features of rows, of columns, and the map of rows, from the entries both ways."""
    dtype = rows.values.dtype
    row_counts, column_counts = (np.diff(side.indptr) for side in (rows, columns))
    rank = min(MAX_DIRECTIONS, min(rows.shape) // SIDE_PER_DIRECTION)
    residuals = StandardizedResiduals(rows, columns, dtype)
    U, singular, V = truncated_svd(residuals, rank, dtype)
    kept = singular > MIN_SINGULAR_RATIO * singular.max(initial=0)
    singular = singular[kept].astype(np.float64)
    # Row features are N V / singular values: products with loadings V of columns. The
    # expected part of N is a constant of the loadings and goes off beforehand.
    found, sides = [], ((rows, V, column_counts), (columns, U, row_counts))
    for side, vectors, other_counts in sides:
        loadings = vectors[:, kept] / singular / np.sqrt(other_counts + TAU)[:, None]
        loadings -= other_counts @ loadings / other_counts.sum()
        found.append(_orthonormal_features(side, loadings, singular))
    (row_features, feature_map), (column_features, _) = found
    return row_features, column_features, feature_map


def no_features(m: int, n: int, dtype) -> tuple[Features, Features, FeatureMap]:
    """What `fit_features` returns where missingness is to say nothing."""
    empty = (Features(np.zeros((k, 0), dtype), np.zeros(0)) for k in (m, n))
    zeros, basis = np.zeros(N_OTHERS), np.zeros((N_OTHERS, 0))
    return *empty, FeatureMap(np.zeros((n, 0), dtype), zeros, zeros, basis)


def _raw_features(rows, loadings):
    """One, logarithm of the number of entries, and sums of loadings."""
    counts = np.diff(rows.indptr)
    raw = np.empty((len(counts), N_OTHERS + loadings.shape[1]))
    raw[:, 0], raw[:, 1] = 1, np.log1p(counts)
    if loadings.shape[1]:
        loadings = loadings.astype(rows.values.dtype, copy=False)
        raw[:, N_OTHERS:] = dispatch.product(_indicators(rows), loadings)
        raw[:, N_OTHERS:] /= np.sqrt(counts + TAU)[:, None]
    return raw


def _clipped(raw, rows, low, high):
    """Raw features between limits, zero where nothing is observed."""
    clipped = np.clip(raw, low, high)
    clipped[np.diff(rows.indptr) == 0] = 0
    return clipped


def _orthonormal_features(rows, loadings, singular):
    """Features of rows that are orthonormal, and the map that makes them."""
    raw = _raw_features(rows, loadings)
    seen = raw[np.diff(rows.indptr) > 0]
    low, high = np.quantile(seen, [0, 1], axis=0)
    low[1], high[1] = np.quantile(seen[:, 1], [RARE_QUANTILE, 1 - RARE_QUANTILE])
    raw = _clipped(raw, rows, low, high)
    gram = raw.T @ raw
    sizes = np.sqrt(np.diag(gram))
    gram /= np.maximum(np.outer(sizes, sizes), TINY)
    # Gram-Schmidt by the Gram matrix: what is left of feature k after projection.
    kept = []
    for k in range(len(gram)):
        earlier, products = gram[np.ix_(kept, kept)], gram[kept, k]
        remaining = gram[k, k] - products @ np.linalg.solve(earlier, products)
        if remaining > MIN_NEW_SHARE**2:
            kept.append(k)
    basis = np.zeros((len(gram), len(kept)))
    root = np.linalg.cholesky(gram[np.ix_(kept, kept)])
    basis[kept] = np.linalg.inv(root).T / sizes[kept, None]
    scales = np.append(np.ones(N_OTHERS), singular / singular.max(initial=TINY))[kept]
    values = (raw @ basis).astype(rows.values.dtype, copy=False)
    return Features(values, scales), FeatureMap(loadings, low, high, basis)


def _indicators(rows):
    """Rows of ones where an entry is observed."""
    return rows._replace(values=None, weights=None)


class StandardizedResiduals:
    """The operator N of standardized residuals of independence; it is not formed."""

    def __init__(self, rows, columns, dtype):
        self.rows, self.columns = _indicators(rows), _indicators(columns)
        self.shape, self.dtype = rows.shape, dtype

    @property
    def T(self):
        """The same with rows and columns exchanged."""
        return StandardizedResiduals(self.columns, self.rows, self.dtype)

    def __matmul__(self, V):
        row_counts = np.diff(self.rows.indptr)
        column_counts = np.diff(self.columns.indptr)
        V = (V / np.sqrt(column_counts + TAU)[:, None]).astype(self.dtype)
        expected = column_counts.astype(self.dtype) @ V / column_counts.sum()
        product = dispatch.product(self.rows, V)
        for place in row_slices(*product.shape):  # there are many rows
            product[place] -= row_counts[place, None] * expected
            product[place] /= np.sqrt(row_counts[place] + TAU)[:, None]
        return product
