r"""What is observed of a row or a column, as features that may say where it lies.

Which entries are there is seldom chance: who rates a film has chosen it. A row is
described by the logarithm of the number of its entries and by where it lies among the
leading singular vectors of

.. math::

    N_{ij} = \frac{[(i, j) \text{ observed}]}{\sqrt{(n_i + \tau)(n_j + \tau)}},

with :math:`n_i, n_j` entries in its row and column. The features of all rows are
orthonormal and of mean zero; those of a new row follow from what is observed of it. How
much they say is for `_priors` to find out: where holes are chance, nothing.

The singular vectors stand for the sums over rated items of Koren's SVD++ [1]_, the
constant in the root for the shrinkage of rows and columns with few entries.

References
----------
.. [1] Y. Koren, "Factorization Meets the Neighborhood: a Multifaceted Collaborative
   Filtering Model", KDD 2008.
"""

from typing import NamedTuple

import numpy as np

from . import _engine
from ._init import truncated_svd

# Singular vectors, if there are four times as many rows and columns; smaller than this
# share of the first they are not worth dividing by.
N_DIRECTIONS = 32
LEAST_DIRECTION = 1e-3

# Rows and columns with much fewer entries count for less in singular vectors.
TAU = 100.0


class Description(NamedTuple):
    """How to describe rows by what is observed of them."""

    loadings: np.ndarray  # (n, n_directions)
    low: np.ndarray  # (1 + n_directions,), of the rows that it was made for
    high: np.ndarray
    centre: np.ndarray
    basis: np.ndarray  # (1 + n_directions, n_features)

    def __call__(self, rows):
        """Features of rows, (n_rows, n_features).

        Rows unlike all that were seen are taken for the nearest: a straight line says
        nothing about what is far away.
        """
        found = np.clip(_raw_features(rows, self.loadings), self.low, self.high)
        return ((found - self.centre) @ self.basis).astype(rows.values.dtype)

    def take(self, columns):
        """The same for some of the columns."""
        return self._replace(loadings=self.loadings[columns])


class Features(NamedTuple):
    """Of all rows or columns that a model is fitted to."""

    values: np.ndarray  # (m, n_features)
    scales: np.ndarray  # (n_features,), singular values over the first, 1 for the count


def describe(rows, columns):
    """Find features of both sides.

    Parameters
    ----------
    rows, columns : Rows
        The observed entries both ways.

    Returns
    -------
    of_rows, of_columns : Features
    description : Description
        Of rows.
    """
    dtype = rows.values.dtype
    row_scales, column_scales = (
        1 / np.sqrt(np.diff(side.indptr) + TAU) for side in (rows, columns)
    )
    pattern = _ScaledPattern(
        rows, columns, row_scales.astype(dtype), column_scales.astype(dtype)
    )
    rank = min(N_DIRECTIONS, min(rows.shape) // 4)
    left, singular, right = truncated_svd(pattern, rank, dtype)
    kept = singular > LEAST_DIRECTION * singular.max(initial=0)
    singular = singular[kept].astype(np.float64)
    found = []
    for side, vectors, scales in (
        (rows, right, column_scales),
        (columns, left, row_scales),
    ):
        loadings = vectors[:, kept] / singular * scales[:, None]
        found.append(_orthonormal(side, loadings, singular))
    (of_rows, description), (of_columns, _) = found
    return of_rows, of_columns, description


def nothing(m, n, dtype):
    """What `describe` returns where the pattern is to say nothing."""
    without = (Features(np.zeros((k, 0), dtype), np.zeros(0)) for k in (m, n))
    zero = np.zeros(1)
    return *without, Description(np.zeros((n, 0)), zero, zero, zero, np.zeros((1, 0)))


def _raw_features(rows, loadings):
    """Logarithm of the number of entries, and sums of loadings."""
    counts = np.diff(rows.indptr)
    sums = np.zeros((len(counts), 0))
    if loadings.shape[1]:
        observed = rows._replace(values=None, weights=None)
        sums = _engine.product(observed, loadings.astype(rows.values.dtype))
    sums = sums / np.sqrt(counts + TAU)[:, None]
    return np.column_stack([np.log1p(counts), sums])


def _orthonormal(rows, loadings, singular):
    """Features of rows that are orthonormal and of mean zero, and how to make them."""
    raw = _raw_features(rows, loadings)
    least = np.sqrt(np.finfo(rows.values.dtype).eps)
    sizes, centre = np.linalg.norm(raw, axis=0), raw.mean(axis=0)
    centred = raw - centre
    scales = np.append(1.0, singular / singular.max(initial=np.finfo(float).tiny))
    kept = np.flatnonzero(np.linalg.norm(centred, axis=0) > least * sizes)
    # What the features before it say already is left out.
    own = np.abs(np.diag(np.linalg.qr(centred[:, kept]).R))
    kept = kept[: len(own)][own > least * sizes[kept[: len(own)]]]
    basis = np.zeros((raw.shape[1], len(kept)))
    basis[kept] = np.linalg.inv(np.linalg.qr(centred[:, kept]).R)
    low, high = raw.min(axis=0), raw.max(axis=0)
    description = Description(loadings, low, high, centre, basis)
    return Features(description(rows), scales[kept]), description


class _ScaledPattern:
    """N and its products."""

    def __init__(self, rows, columns, row_scales, column_scales):
        self.rows = rows._replace(values=None, weights=None)
        self.columns = columns._replace(values=None, weights=None)
        self.row_scales, self.column_scales = row_scales, column_scales
        self.shape = rows.shape

    @property
    def T(self):
        return _ScaledPattern(
            self.columns, self.rows, self.column_scales, self.row_scales
        )

    def __matmul__(self, V):
        V = self.column_scales[:, None] * V
        return self.row_scales[:, None] * _engine.product(self.rows, V)
