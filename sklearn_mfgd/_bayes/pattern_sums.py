"""Missingness features of batches of rows, and of the columns in all of them.

The directions are those of the first batch. A new row has features by what is observed
of it; the basis is changed after each batch so that the features of all rows so far are
orthonormal, as `priors` takes them to be. The raw features of a column are a sum over
the rows that have an entry there, to which each batch adds its own.
"""

from typing import Any, NamedTuple

import numpy as np

from .missingness import (
    N_OTHERS,
    FeatureMap,
    Features,
    _orthonormal_features,
    _raw_features,
)


class PatternSums(NamedTuple):
    """What is kept of the pattern of all batches."""

    feature_map: FeatureMap  # of rows
    row_scales: np.ndarray  # (n_features,)
    column_features: np.ndarray  # (n, n_features of columns)
    column_scales: np.ndarray
    loading_sums: np.ndarray  # (n, n_directions), of the rows with an entry there
    expected: np.ndarray  # (n_directions,), the same over all entries

    @classmethod
    def of(cls, feature_map, row_features, column_features, pattern):
        """Begin with the features of a first batch."""
        sums = cls(
            feature_map,
            row_features.scales,
            column_features.values,
            column_features.scales,
            np.zeros_like(feature_map.loadings, np.float64),
            np.zeros(feature_map.loadings.shape[1]),
        )
        return sums._plus(pattern) if sums.has_features else sums

    @property
    def has_features(self) -> bool:
        """Whether missingness may say anything about the factors."""
        return self.feature_map.basis.shape[1] > 0

    def with_columns(self, insert) -> "PatternSums":
        """The same with columns that have no entries so far."""
        loadings = insert(self.feature_map.loadings)
        return self._replace(
            feature_map=self.feature_map._replace(loadings=loadings),
            column_features=insert(self.column_features),
            loading_sums=insert(self.loading_sums),
        )

    def with_batch(self, pattern, counts, dtype, forget_factor, fade):
        """Take up a batch of rows; `counts` are the entries of columns, with these.

        What was kept of columns is multiplied by the forgetting factor, and what was
        kept of rows by `fade`.
        Returns the sums, the features of the rows of the batch, and the triangle R by
        which the features of all rows so far changed: f R is what f was.
        """
        forgotten = self._replace(
            loading_sums=forget_factor * self.loading_sums,
            expected=forget_factor * self.expected,
        )
        sums = forgotten._plus(pattern)
        values = self.feature_map.of(pattern, np.float64)
        gram = fade * np.eye(values.shape[1]) + values.T @ values
        triangle = np.linalg.cholesky(gram).T
        basis = np.linalg.solve(triangle.T, self.feature_map.basis.T).T
        values = np.linalg.solve(triangle.T, values.T).T
        columns = sums._features_of_columns(counts, dtype)
        sums = sums._replace(
            feature_map=self.feature_map._replace(basis=basis),
            column_features=columns.values,
            column_scales=columns.scales,
        )
        return sums, Features(values.astype(dtype), self.row_scales), triangle

    def _plus(self, pattern):
        counts, tau = pattern.counts, self.feature_map.tau
        raw = _raw_features(pattern, self.feature_map.loadings, np.float64, tau)
        loadings = raw[:, N_OTHERS:] / np.sqrt(counts + tau)[:, None]
        if not loadings.shape[1]:
            return self
        return self._replace(
            loading_sums=self.loading_sums + pattern.T @ loadings,
            expected=self.expected + counts @ loadings,
        )

    def _features_of_columns(self, counts, dtype):
        """Features of the columns by all batches."""
        sums = self.loading_sums - np.outer(counts / counts.sum(), self.expected)
        unchanged = np.eye(sums.shape[1])
        given = _Summed(sums, counts), unchanged, self._singular_values(), dtype
        return _orthonormal_features(*given, self.feature_map.tau)[0]

    def _singular_values(self):
        """Those of the directions, over the largest."""
        is_kept = self.feature_map.basis.any(axis=1)[N_OTHERS:]
        singular = np.full(len(is_kept), self.row_scales.min(initial=1.0))
        singular[is_kept] = self.row_scales[len(self.row_scales) - is_kept.sum() :]
        return singular


class _Summed:
    """What `missingness` asks of a pattern whose sums are known already."""

    def __init__(self, sums, counts: Any):
        self.sums, self.counts = sums, counts

    def count_histogram(self):
        """The different numbers of entries, and how many columns have each."""
        return np.unique(self.counts, return_counts=True)

    def __matmul__(self, transform):
        return self.sums @ transform
