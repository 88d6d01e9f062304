r"""What is observed of a row or a column, as features that may say where it lies.

Which entries are there is seldom chance: who rates a film has chosen it. A row is
described by a constant, by the logarithm of the number of its entries, and by where it
lies among the leading singular vectors of

.. math::

    N_{ij} = \frac{[(i, j) \text{ observed}] - n_i n_j / n}
             {\sqrt{(n_i + \tau)(n_j + \tau)}},

with :math:`n_i, n_j` entries in its row and column of n in all: what there is more than
so many of each would give by chance, as in correspondence analysis [1]_, with a
constant in the root for rows and columns of few entries. The features of all rows are
orthonormal; those of a new row follow from what is observed of it, as in SVD++ [2]_.
How much they say is for `_priors` to find out: where holes are chance, nothing.

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
from .._kernels.svd import truncated_svd

# Singular vectors, one for so many rows and columns at most: a table of few columns has
# no room for them. Smaller than this share of the first they are left out.
N_DIRECTIONS = 32
SIDE_PER_DIRECTION = 16
LEAST_DIRECTION = 1e-3

# A feature is left out of which those before it leave less than this share.
LEAST_OWN = 1e-3

# Numbers of entries beyond this quantile are taken to be there: the few rows of a table
# that are nearly empty would be where the straight line through the others leads.
RARE = 0.01

TINY = np.finfo(np.float64).tiny

# Rows and columns with much fewer entries count for less in singular vectors.
TAU = 200.0

# Features that do not come from singular vectors: the constant and the count.
N_OTHERS = 2


class FeatureMap(NamedTuple):
    """How to describe rows by what is observed of them."""

    loadings: np.ndarray  # (n, n_directions)
    low: np.ndarray  # (n_raw,), of the rows that it was made for
    high: np.ndarray
    basis: np.ndarray  # (n_raw, n_features)

    def __call__(self, rows):
        """Features of rows, (n_rows, n_features), zero where nothing is observed.

        A feature unlike all that were seen is taken for the nearest: a straight line
        says nothing about what is far away.
        """
        found = _clipped(_raw_features(rows, self.loadings), rows, self.low, self.high)
        return (found @ self.basis).astype(rows.values.dtype, copy=False)


class Features(NamedTuple):
    """Of all rows or columns that a model is fitted to."""

    values: np.ndarray  # (m, n_features)
    scales: np.ndarray  # (n_features,), singular values over the first, 1 for others

    def astype(self, dtype):
        """The same in another precision."""
        return self._replace(values=self.values.astype(dtype))


def describe(rows, columns):
    """Find features of both sides.

    Parameters
    ----------
    rows, columns : Rows
        The observed entries both ways.

    Returns
    -------
    of_rows, of_columns : Features
    description : FeatureMap
        Of rows.
    """
    dtype = rows.values.dtype
    row_counts, column_counts = (np.diff(side.indptr) for side in (rows, columns))
    rank = min(N_DIRECTIONS, min(rows.shape) // SIDE_PER_DIRECTION)
    left, singular, right = truncated_svd(_Excess(rows, columns, dtype), rank, dtype)
    kept = singular > LEAST_DIRECTION * singular.max(initial=0)
    singular = singular[kept].astype(np.float64)
    found = []
    for side, vectors, counts in (
        (rows, right, column_counts),
        (columns, left, row_counts),
    ):
        loadings = vectors[:, kept] / singular / np.sqrt(counts + TAU)[:, None]
        loadings -= counts @ loadings / counts.sum()
        found.append(_orthonormal(side, loadings, singular))
    (of_rows, description), (of_columns, _) = found
    return of_rows, of_columns, description


def nothing(m, n, dtype):
    """What `describe` returns where the pattern is to say nothing."""
    without = (Features(np.zeros((k, 0), dtype), np.zeros(0)) for k in (m, n))
    zeros = np.zeros(N_OTHERS)
    basis = np.zeros((N_OTHERS, 0))
    return *without, FeatureMap(np.zeros((n, 0), dtype), zeros, zeros, basis)


def _raw_features(rows, loadings):
    """One, logarithm of the number of entries, and sums of loadings."""
    counts = np.diff(rows.indptr)
    raw = np.empty((len(counts), N_OTHERS + loadings.shape[1]))
    raw[:, 0], raw[:, 1] = 1, np.log1p(counts)
    if loadings.shape[1]:
        observed = rows._replace(values=None, weights=None)
        loadings = loadings.astype(rows.values.dtype, copy=False)
        raw[:, N_OTHERS:] = dispatch.product(observed, loadings)
        raw[:, N_OTHERS:] /= np.sqrt(counts + TAU)[:, None]
    return raw


def _clipped(raw, rows, low, high):
    """Raw features between limits, zero where nothing is observed."""
    np.clip(raw, low, high, out=raw)
    raw[np.diff(rows.indptr) == 0] = 0
    return raw


def _orthonormal(rows, loadings, singular):
    """Features of rows that are orthonormal, and how to make them."""
    raw = _raw_features(rows, loadings)
    observed = np.diff(rows.indptr) > 0
    low, high = np.quantile(raw[observed], [0, 1], axis=0)
    low[1], high[1] = np.quantile(raw[observed, 1], [RARE, 1 - RARE])
    raw = _clipped(raw, rows, low, high)
    gram = raw.T @ raw
    sizes = np.sqrt(np.diag(gram))
    gram /= np.maximum(np.outer(sizes, sizes), TINY)
    kept = []
    for k in range(len(gram)):
        own, others = gram[np.ix_(kept, kept)], gram[kept, k]
        if gram[k, k] - others @ np.linalg.solve(own, others) > LEAST_OWN**2:
            kept.append(k)
    basis = np.zeros((len(gram), len(kept)))
    root = np.linalg.cholesky(gram[np.ix_(kept, kept)])
    basis[kept] = np.linalg.inv(root).T / sizes[kept, None]
    scales = np.append(np.ones(N_OTHERS), singular / singular.max(initial=TINY))[kept]
    description = FeatureMap(loadings, low, high, basis)
    values = (raw @ basis).astype(rows.values.dtype, copy=False)
    return Features(values, scales), description


class _Excess:
    """N and its products."""

    def __init__(self, rows, columns, dtype):
        self.rows = rows._replace(values=None, weights=None)
        self.columns = columns._replace(values=None, weights=None)
        self.shape, self.dtype = rows.shape, dtype

    @property
    def T(self):
        return _Excess(self.columns, self.rows, self.dtype)

    def __matmul__(self, V):
        counts, others = (np.diff(rows.indptr) for rows in (self.rows, self.columns))
        V = (V / np.sqrt(others + TAU)[:, None]).astype(self.dtype)
        expected = others.astype(self.dtype) @ V / others.sum()
        found = dispatch.product(self.rows, V)
        for part in row_slices(*found.shape):  # there are many rows
            found[part] -= counts[part, None] * expected
            found[part] /= np.sqrt(counts[part] + TAU)[:, None]
        return found
