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

from .._kernels.rows import Rows
from .._kernels.svd import truncated_svd
from .._optim.objective import ObservedObjective

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

# Where rows are raters, the choice of what to rate says more: directions are as many as
# the root of the number of entries over ENTRIES_ROOT_PER_DIRECTION, up to the largest
# number, and rows and columns of fewer entries count for as much.
MAX_RATER_DIRECTIONS, ENTRIES_ROOT_PER_DIRECTION = 128, 10
RATER_TAU = 50.0

# Features that do not come from singular vectors: the constant and the count.
N_OTHERS = 2


class FeatureMap(NamedTuple):
    """How rows become features by what is observed of them."""

    loadings: np.ndarray  # (n, n_directions)
    low: np.ndarray  # (n_raw,), least raw features of the rows that it was made for
    high: np.ndarray
    basis: np.ndarray  # (n_raw, n_features), makes them orthonormal
    tau: float = TAU

    def transform(self, rows: Rows) -> np.ndarray:
        """Features of rows, (n_rows, n_features), zero where nothing is observed.

        Raw features beyond all that were seen are clipped: a straight line says nothing
        about what is far away.
        """
        return self.of(ObservedObjective(rows).pattern, rows.values.dtype)

    def with_columns(self, n_new: int) -> "FeatureMap":
        """The map of rows with new columns, which count but belong to no direction."""
        return self._replace(loadings=np.pad(self.loadings, ((0, n_new), (0, 0))))

    def of(self, pattern, dtype):
        """Features of the rows of a pattern."""
        raw = _raw_features(pattern, self.loadings, dtype, self.tau)
        return (_clipped(raw, pattern, self) @ self.basis).astype(dtype)


class Features(NamedTuple):
    """Of all rows or columns that a model is fitted to."""

    values: np.ndarray  # (m, n_features), orthonormal
    scales: np.ndarray  # (n_features,), singular values over the first, 1 for others

    def astype(self, dtype) -> "Features":
        """The same in another precision."""
        return self._replace(values=self.values.astype(dtype, copy=False))


def fit_features(
    pattern, dtype, *, of_raters: bool = False
) -> tuple[Features, Features, FeatureMap]:
    """Features of rows, of columns, and the map of rows, from where entries are."""
    largest, tau = MAX_DIRECTIONS, TAU
    if of_raters:
        wanted = int(np.sqrt(pattern.n_entries) / ENTRIES_ROOT_PER_DIRECTION)
        largest, tau = np.clip(wanted, largest, MAX_RATER_DIRECTIONS), RATER_TAU
    rank = min(int(largest), min(pattern.shape) // SIDE_PER_DIRECTION)
    residuals = StandardizedResiduals(pattern, dtype, tau)
    U, singular, V = truncated_svd(residuals, rank, dtype)
    kept = singular > MIN_SINGULAR_RATIO * singular.max(initial=0)
    singular = singular[kept].astype(np.float64)
    # Row features are N V / singular values: products with loadings V of columns. The
    # expected part of N is a constant of the loadings and goes off beforehand.
    found = []
    for side, vectors in ((pattern, V), (pattern.T, U)):
        other_counts = side.T.counts
        loadings = vectors[:, kept] / singular / np.sqrt(other_counts + tau)[:, None]
        loadings = loadings - other_counts @ loadings / other_counts.sum()
        found.append(_orthonormal_features(side, loadings, singular, dtype, tau))
    (row_features, feature_map), (column_features, _) = found
    return row_features, column_features, feature_map


def no_features(m: int, n: int, dtype) -> tuple[Features, Features, FeatureMap]:
    """What `fit_features` returns where missingness is to say nothing."""
    empty = (Features(np.zeros((k, 0), dtype), np.zeros(0)) for k in (m, n))
    zeros, basis = np.zeros(N_OTHERS), np.zeros((N_OTHERS, 0))
    return *empty, FeatureMap(np.zeros((n, 0), dtype), zeros, zeros, basis)


def _raw_features(pattern, loadings, dtype, tau):
    """One, logarithm of the number of entries, and sums of loadings, float64."""
    counts = pattern.counts[:, None]
    raw = [np.ones_like(counts, np.float64), np.log1p(counts)]
    if loadings.shape[1]:
        sums = pattern @ loadings.astype(dtype, copy=False)
        raw.append(sums / np.sqrt(counts + tau))
    return np.hstack(raw)


def _clipped(raw, pattern, limits):
    """Raw features between limits, zero where nothing is observed."""
    clipped = np.clip(raw, limits.low, limits.high)
    return clipped * (pattern.counts > 0)[:, None]


def _orthonormal_features(pattern, loadings, singular, dtype, tau):
    """Features of rows that are orthonormal, and the map that makes them."""
    raw = _raw_features(pattern, loadings, dtype, tau)
    is_empty = (pattern.counts == 0)[:, None]
    low = np.asarray(np.where(is_empty, np.inf, raw).min(axis=0))
    high = np.asarray(np.where(is_empty, -np.inf, raw).max(axis=0))
    low[1], high[1] = _quantiles_of_log_count(pattern)
    feature_map = FeatureMap(loadings, low, high, np.zeros((len(low), 0)), tau)
    raw = _clipped(raw, pattern, feature_map)
    gram = np.asarray(raw.T @ raw)
    sizes = np.sqrt(np.diag(gram))
    gram = gram / np.maximum(np.outer(sizes, sizes), TINY)
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
    values = (raw @ basis).astype(dtype)
    return Features(values, scales), feature_map._replace(basis=basis)


def _quantiles_of_log_count(pattern):
    """Quantiles of the logarithm of the number of entries, of rows that have any."""
    counts, n_rows = pattern.count_histogram()
    last_places = np.cumsum(n_rows[counts > 0])
    counts = np.log1p(counts[counts > 0])
    quantiles = np.array([RARE_QUANTILE, 1 - RARE_QUANTILE])
    places = quantiles * (last_places[-1] - 1)
    below, above = (
        counts[np.searchsorted(last_places, whole, side="right")]
        for whole in (np.floor(places), np.ceil(places))
    )
    return below + (places - np.floor(places)) * (above - below)


class StandardizedResiduals:
    """The operator N of standardized residuals of independence; it is not formed."""

    def __init__(self, pattern, dtype, tau=TAU):
        self.pattern, self.shape = pattern, pattern.shape
        self.dtype, self.tau = dtype, tau

    @property
    def T(self):
        """The same with rows and columns exchanged."""
        return StandardizedResiduals(self.pattern.T, self.dtype, self.tau)

    def __matmul__(self, V):
        row_counts, column_counts = self.pattern.counts, self.pattern.T.counts
        V = (V / np.sqrt(column_counts + self.tau)[:, None]).astype(self.dtype)
        expected = np.asarray(column_counts.astype(self.dtype) @ V)
        expected = expected / self.pattern.n_entries
        of_rows = np.stack([row_counts, 1 / np.sqrt(row_counts + self.tau)], axis=1)
        of_rows = of_rows.astype(self.dtype)
        return (self.pattern @ V - of_rows[:, :1] * expected) * of_rows[:, 1:]
