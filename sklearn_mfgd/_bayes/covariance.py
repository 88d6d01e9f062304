"""Posterior of the columns: with full covariances, or with diagonal ones.

In diagonal ones every coefficient is independent of the others, with the same ELBO;
there is no rotation that could separate factors, so none are dropped.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from .._data.row_blocks import block_slices, row_blocks_of
from .._kernels import dispatch
from .._kernels.linalg import row_slices
from .moments import (
    bias_squares,
    diagonal,
    expectations,
    moments_of,
    n_pairs,
    pack,
    packed_diagonal,
    packed_size,
    packed_submatrix,
    packed_trace_weights,
    pair_moments,
    total,
    unpack,
)
from .side import SideStatistics, update_side

# Numbers that the moments of all columns may take; there are three such arrays.
MAX_MOMENTS = 2**27


class SidesUpdate(NamedTuple):
    """Posteriors of both sides, and what follows from them."""

    W: np.ndarray
    columns: "FullCovariance | DiagonalCovariance"
    of_rows: SideStatistics
    of_columns: SideStatistics
    quadratic_forms: np.ndarray  # (n,), mean times right-hand side of each column
    bias_terms: np.ndarray | float  # (n,), sum of E[b^2] - 2 x E[b] over the entries


@dataclass(frozen=True)
class FullCovariance:
    """Gaussian posterior of every column, its coefficients correlated."""

    means: np.ndarray  # (n, q), of [h, c]
    covariances: np.ndarray  # (n, q * (q + 1) / 2), packed
    moments: np.ndarray  # (n, size), packed E[v v']
    biased: bool

    can_rotate = True

    @classmethod
    def of(cls, means, covariances, biased: bool) -> "FullCovariance":
        """Posterior of these means and packed covariances."""
        moments = moments_of(means, covariances, biased)
        return cls(means, covariances, moments, biased)

    @classmethod
    def of_variances(cls, means, variances, biased: bool) -> "FullCovariance":
        """Posterior to start from, not correlated yet."""
        covariances = packed_diagonal(variances.astype(means.dtype))
        return cls.of(means, covariances, biased)

    @property
    def variances(self) -> np.ndarray:
        """Variance of each coefficient, (n, q)."""
        return self.covariances[:, diagonal(self.means.shape[1])]

    def as_full(self) -> "FullCovariance":
        """The same as this type."""
        return self

    @staticmethod
    def data_of(rows, rank: int, row_bias: bool):
        """The entries as `update_sides` needs them: blocks of rows."""
        return row_blocks_of(rows, packed_size(rank, row_bias))

    def update_sides(self, model, state) -> SidesUpdate:
        """Update rows block by block, then the columns by the sums of the blocks."""
        regressors = self.regressors(state.alpha, model.dtype)
        given = regressors, state.row_prior, model.biases
        W = np.empty((model.shape[0], len(state.row_prior.precision)), model.dtype)
        features, statistics = model.row_features.values, None
        # Updates need no order; the sum has one, as rounding depends on it.
        for block in model.data:
            means, of_block = _update_block(block, features[block.rows], *given)
            W[block.rows] = means
            if statistics is None:
                statistics = of_block
            else:
                statistics += of_block
        systems, targets = statistics.systems, statistics.targets
        sums = systems, np.arange(len(systems)), targets
        given = model.column_features.values, state.column_prior, model.biases[::-1]
        found, column_statistics = update_side(
            sums, *given, scale=state.alpha, covariances=True
        )
        columns = replace(
            self,
            means=found.means,
            covariances=found.covariances,
            moments=found.moments,
        )
        bias_terms = 0.0
        if model.biases.row:
            row_bias_squares = bias_squares(systems).astype(np.float64)
            bias_terms = row_bias_squares - 2.0 * targets[:, -1]
        return SidesUpdate(
            W, columns, statistics, column_statistics, found.gains, bias_terms
        )

    def fold_in(
        self, rows, feature_map, prior, biases, noise_precision, with_covariances
    ):
        """Means of new rows given the columns, and packed covariances or None.

        The rows are centred, their prior is not rotated. What is found has their
        precision; if they or the columns are double, so is all that is solved.
        """
        m, q = rows.shape[0], len(prior.precision)
        W = np.empty((m, q), rows.values.dtype)
        dtype = np.result_type(W, self.means)
        covariances = np.empty((m, n_pairs(q)), W.dtype) if with_covariances else None
        moments, linear, _ = self.regressors(noise_precision, dtype)
        size = packed_size(prior.rank, True) + len(prior.slopes)
        for place in block_slices(m, size):
            block = rows.between(place.start, place.stop).astype(dtype)
            systems = dispatch.product(block.weights_matrix, moments)
            targets = dispatch.product(block.weighted_values, linear)
            sums = systems, np.arange(block.shape[0]), targets
            given = feature_map.transform(block), prior, biases
            found, _ = update_side(
                sums, *given, covariances=with_covariances, statistics=False
            )
            W[place] = found.means
            if with_covariances:
                covariances[place] = found.covariances
        return W, covariances

    def regressors(self, noise_precision, dtype):
        """What rows need: packed E[v v'] and E[v] over the noise, the former's sum."""
        moments = self.moments.astype(dtype, copy=False)
        moments = moments * noise_precision.astype(dtype)[:, None]
        rank = self.means.shape[1] - self.biased
        return moments, expectations(moments, rank), total(moments)

    def quadratic_form(self, matrix) -> np.ndarray:
        """E[z' A z] of each column; A has no entry between a factor and the bias."""
        rank = self.means.shape[1] - self.biased
        pairs = pair_moments(self.moments, rank)
        value = pairs @ packed_trace_weights(matrix[:rank, :rank])
        if self.biased:
            value = value + matrix[rank, rank] * bias_squares(self.moments)
        return value

    def transformed(self, matrix) -> "FullCovariance":
        """Posterior of A z: its mean is A E[z], its covariance A S A'."""
        means = (self.means @ matrix.T).astype(self.means.dtype, copy=False)
        matrix = matrix.astype(self.covariances.dtype)
        covariances = np.empty_like(self.covariances)
        for place in row_slices(len(means), len(matrix) ** 2):
            old = unpack(self.covariances[place], len(matrix))
            covariances[place] = pack(matrix @ old @ matrix.T)
        return FullCovariance.of(means, covariances, self.biased)

    def with_coefficients(self, kept) -> "FullCovariance":
        """Posterior of some of the coefficients."""
        covariances = packed_submatrix(self.covariances, kept)
        return FullCovariance.of(self.means[:, kept], covariances, self.biased)

    def with_means(self, means) -> "FullCovariance":
        """Posterior of the same covariances around other means."""
        return FullCovariance.of(means, self.covariances, self.biased)

    def astype(self, dtype) -> "FullCovariance":
        """The same in another precision."""
        arrays = self.means, self.covariances, self.moments
        return FullCovariance(*(a.astype(dtype) for a in arrays), self.biased)


def _update_block(block, features, regressors, prior, biases):
    """Means of a block of rows, and its statistics with what it adds to the columns.

    It writes nothing: blocks may run in any order and anywhere.
    """
    moments, linear, sum_of_moments = regressors
    systems = block.sum_over_columns(moments, sum_of_moments)
    sums = systems, block.system_index, dispatch.product(block.by_rows, linear)
    posteriors, statistics = update_side(sums, features, prior, biases)
    moments = posteriors.moments
    systems = block.sum_over_rows(moments, pack(statistics.second_moments))
    targets = dispatch.product(block.by_columns, expectations(moments, prior.rank))
    return posteriors.means, replace(statistics, systems=systems, targets=targets)


@dataclass(frozen=True)
class DiagonalCovariance:
    """Gaussian posterior of every column or row, its coefficients independent.

    The means still solve the whole system; the variances are one over its diagonal.
    """

    means: np.ndarray  # (n, q), of [h, c]
    variances: np.ndarray  # (n, q)
    biased: bool

    can_rotate = False

    @classmethod
    def of_variances(cls, means, variances, biased: bool) -> "DiagonalCovariance":
        """Posterior to start from."""
        return cls(means, variances.astype(means.dtype), biased)

    @staticmethod
    def data_of(rows, rank: int, row_bias: bool):
        """The entries as `update_sides` needs them: by rows and by columns."""
        return rows, rows.transpose()

    @property
    def covariances(self) -> np.ndarray:
        """What a fitted model keeps."""
        return self.variances

    def as_full(self) -> FullCovariance:
        """The same as the other type, which needs more memory."""
        return FullCovariance.of_variances(self.means, self.variances, self.biased)

    def update_sides(self, model, state) -> SidesUpdate:
        """Update all rows, then all columns."""
        rows, columns = model.data
        given = np.ones(rows.shape[0]), state.row_prior, model.biases
        of_rows, row_log_det, _ = self._update_other_side(
            rows.scale_weights(state.alpha), *given
        )
        given = state.alpha, state.column_prior, model.biases[::-1]
        of_columns, column_log_det, gains = of_rows._update_other_side(columns, *given)
        bias_terms = of_rows._bias_terms(columns) if model.biases.row else 0.0
        statistics = (
            of_rows._statistics(model.row_features.values, row_log_det),
            of_columns._statistics(model.column_features.values, column_log_det),
        )
        return SidesUpdate(of_rows.means, of_columns, *statistics, gains, bias_terms)

    def fold_in(
        self, rows, feature_map, prior, biases, noise_precision, with_covariances
    ):
        """Posterior of new rows, see `FullCovariance.fold_in`."""
        dtype = np.result_type(rows.values, self.means)
        weighted = rows.astype(dtype).scale_weights(noise_precision)
        given = np.ones(rows.shape[0]), prior, biases
        of_rows, _, _ = self.astype(dtype)._update_other_side(weighted, *given)
        of_rows = of_rows.astype(rows.values.dtype)
        covariances = packed_diagonal(of_rows.variances) if with_covariances else None
        return of_rows.means, covariances

    def quadratic_form(self, matrix) -> np.ndarray:
        """E[z' A z] of each column; A is diagonal."""
        second = self.variances + np.square(self.means, dtype=np.float64)
        return second @ np.diag(matrix)

    def with_means(self, means) -> "DiagonalCovariance":
        """Posterior of the same variances around other means."""
        return replace(self, means=means)

    def astype(self, dtype) -> "DiagonalCovariance":
        """The same in another precision."""
        arrays = self.means, self.variances
        return DiagonalCovariance(
            *(a.astype(dtype, copy=False) for a in arrays), self.biased
        )

    def _update_other_side(self, rows, scale, prior, biases):
        """Posterior of the rows that have this one as their columns.

        The weights of `rows` are the precision of each entry's noise over the `scale`
        of its row. Also returns the log determinants, summed, and the mean times the
        right-hand side of each row.
        """
        rank, H = prior.rank, self.means
        squares = np.square(H[:, :rank])
        summed = np.column_stack([self.variances[:, :rank], squares])
        sums = dispatch.product(rows.weights_matrix, summed).astype(np.float64)
        # Variances of the columns act on the rows as a ridge does.
        ridge = prior.precision / scale[:, None]
        ridge[:, :rank] += sums[:, :rank]
        system_diagonal = ridge.copy()
        system_diagonal[:, :rank] += sums[:, rank:]
        if biases[0]:
            ones = np.ones((len(H), 1), H.dtype)
            counts = dispatch.product(rows.weights_matrix, ones)
            system_diagonal[:, rank] += counts[:, 0]
        means = dispatch.least_squares(rows, H, biases, ridge)
        quadratic = dispatch.curvature(rows, means, H[:, :rank], (biases[0], False))
        quadratic += (ridge * np.square(means, dtype=np.float64)).sum(axis=1)
        variances = 1 / (system_diagonal * scale[:, None])
        posterior = DiagonalCovariance(means, variances.astype(H.dtype), biases[0])
        return posterior, float(np.log(variances).sum()), scale * quadratic

    def _statistics(self, features, log_det):
        rank = self.means.shape[1] - self.biased
        second = self.variances.sum(axis=0, dtype=np.float64)
        second += np.square(self.means, dtype=np.float64).sum(axis=0)
        return SideStatistics(
            count=len(self.means),
            second_moments=np.diag(np.insert(second, rank, len(self.means))),
            feature_products=(features.T @ self.means).astype(np.float64),
            log_det=log_det,
        )

    def _bias_terms(self, columns):
        """Sum of ``E[b^2] - 2 x E[b]`` over the entries of each column."""
        bias, variance = self.means[:, -1:], self.variances[:, -1:]
        squares = dispatch.product(columns.weights_matrix, bias**2 + variance)
        linear = dispatch.product(columns.weighted_values, bias)
        return (squares.astype(np.float64) - 2.0 * linear)[:, 0]


def covariances_are_diagonal(shape, rank: int, biases) -> bool:
    """Whether full covariances of all columns would take too much memory."""
    return shape[1] * packed_size(rank, biases.row) > MAX_MOMENTS


def posterior_of(means, covariances, biased: bool):
    """Posterior of columns from what a fitted model keeps of it."""
    if covariances.shape[1] == means.shape[1] and means.shape[1] > 1:
        return DiagonalCovariance(means, covariances, biased)
    return FullCovariance.of(means, covariances, biased)
