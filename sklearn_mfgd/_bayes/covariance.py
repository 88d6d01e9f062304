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
from .priors import FeatureBasis
from .row_scales import N_SUMS, scaled_moments, scales_of
from .side import SideStatistics, update_side

# Numbers that the moments of all columns may take; there are about six such arrays.
MAX_MOMENTS = 2**27

# How many times as many there may be where workers have blocks of rows, and the client
# has nothing else in memory: in single precision 4 GiB an array.
MAX_MOMENTS_RATIO = 8


class SidesUpdate(NamedTuple):
    """Posterior of the columns after that of the rows, and what both add up to."""

    columns: "FullCovariance | DiagonalCovariance"
    of_rows: SideStatistics
    of_columns: SideStatistics
    quadratic_forms: np.ndarray  # (n,), mean times right-hand side of each column
    bias_terms: np.ndarray | float  # (n,), sum of E[b^2] - 2 x E[b] over the entries


@dataclass(frozen=True)
class FullCovariance:
    """Gaussian posterior of every column, its coefficients correlated.

    Moments are not kept: they follow from means and covariances, and take as much room.
    """

    means: np.ndarray  # (n, q), of [h, c]
    covariances: np.ndarray  # (n, q * (q + 1) / 2), packed
    biased: bool

    can_rotate = True

    @classmethod
    def of_variances(cls, means, variances, biased: bool) -> "FullCovariance":
        """Posterior to start from, not correlated yet."""
        covariances = packed_diagonal(variances.astype(means.dtype))
        return cls(means, covariances, biased)

    @property
    def rank(self) -> int:
        """Number of factors."""
        return self.means.shape[1] - self.biased

    @property
    def variances(self) -> np.ndarray:
        """Variance of each coefficient, (n, q)."""
        return self.covariances[:, diagonal(self.means.shape[1])]

    def moments(self, place=slice(None)) -> np.ndarray:
        """Packed E[v v'] of some columns, (n, size)."""
        return moments_of(self.means[place], self.covariances[place], self.biased)

    def as_full(self) -> "FullCovariance":
        """The same as this type."""
        return self

    @staticmethod
    def data_of(matrix, rank: int, row_bias: bool):
        """The entries as `update_sides` needs them: blocks of rows."""
        return row_blocks_of(matrix, packed_size(rank, row_bias))

    def update_sides(self, model, state) -> SidesUpdate:
        """Update rows, and the columns by what the rows add up to."""
        of_rows = model.data.total(update_rows, *regressors_of_rows(model, state))
        if state.row_dof:
            scales = state.row_prior.feature_scales
            basis = FeatureBasis.of(of_rows.feature_gram, scales)
            of_rows = replace(of_rows, feature_basis=basis)
        systems, targets = of_rows.systems, of_rows.targets
        means = np.empty_like(self.means)
        covariances = np.empty_like(self.covariances)
        gains, of_columns = np.empty(len(means)), None
        features, biases = model.column_features.values, model.biases[::-1]
        for place in block_slices(len(means), systems.shape[1]):
            sums = systems[place], np.arange(len(means[place])), targets[place]
            found, statistics = update_side(
                sums,
                features[place],
                state.column_prior,
                biases,
                scale=state.alpha[place],
                covariances=True,
            )
            means[place], covariances[place] = found.means, found.covariances
            gains[place] = found.gains
            of_columns = statistics if of_columns is None else of_columns + statistics
        bias_terms = 0.0
        if model.biases.row:
            row_bias_squares = bias_squares(systems).astype(np.float64)
            bias_terms = row_bias_squares - 2.0 * targets[:, -1]
        columns = replace(self, means=means, covariances=covariances)
        return SidesUpdate(columns, of_rows, of_columns, gains, bias_terms)

    def row_means(self, model, state) -> np.ndarray:
        """Means of the rows given the columns, (m, q)."""
        return model.data.rows(means_of_rows, *regressors_of_rows(model, state))

    def fold_in(
        self,
        rows,
        feature_map,
        prior,
        biases,
        noise_precision,
        with_covariances,
        *,
        row_dof=0.0,
    ):
        """Means of new rows given the columns, and packed covariances or None.

        The rows are centred, their prior is not rotated. What is found has their
        precision; if they or the columns are double, so is all that is solved.
        `row_dof` are the degrees of freedom of the scales of rows, zero without these.
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
            if with_covariances and row_dof:
                given = noise_precision, sums, found, given[0], prior, row_dof
                scales = scales_of(block, *given)
                covariances[place] *= scales.mean_variances[:, None]
        return W, covariances

    def regressors(self, noise_precision, dtype):
        """What rows need: packed E[v v'] and E[v] over the noise, the former's sum."""
        n = len(self.means)
        moments = np.empty((n, packed_size(self.rank, self.biased)), dtype)
        for place in block_slices(n, moments.shape[1]):
            of_place = self.moments(place).astype(dtype, copy=False)
            weights = noise_precision[place].astype(dtype)[:, None]
            np.multiply(of_place, weights, out=moments[place])
        return moments, expectations(moments, self.rank), total(moments)

    def quadratic_form(self, matrix) -> np.ndarray:
        """E[z' A z] of each column; A has no entry between a factor and the bias."""
        rank, value = self.rank, np.empty(len(self.means))
        weights = packed_trace_weights(matrix[:rank, :rank])
        for place in block_slices(len(value), packed_size(rank, self.biased)):
            moments = self.moments(place)
            value[place] = pair_moments(moments, rank) @ weights
            if self.biased:
                value[place] += matrix[rank, rank] * bias_squares(moments)
        return value

    def transformed(self, matrix) -> "FullCovariance":
        """Posterior of A z: its mean is A E[z], its covariance A S A'."""
        means = (self.means @ matrix.T).astype(self.means.dtype, copy=False)
        matrix = matrix.astype(self.covariances.dtype)
        covariances = np.empty_like(self.covariances)
        for place in row_slices(len(means), len(matrix) ** 2):
            old = unpack(self.covariances[place], len(matrix))
            covariances[place] = pack(matrix @ old @ matrix.T)
        return FullCovariance(means, covariances, self.biased)

    def with_coefficients(self, kept) -> "FullCovariance":
        """Posterior of some of the coefficients."""
        covariances = packed_submatrix(self.covariances, kept)
        return FullCovariance(self.means[:, kept], covariances, self.biased)

    def with_means(self, means) -> "FullCovariance":
        """Posterior of the same covariances around other means."""
        return replace(self, means=means)

    def astype(self, dtype) -> "FullCovariance":
        """The same in another precision."""
        arrays = self.means, self.covariances
        return FullCovariance(*(a.astype(dtype) for a in arrays), self.biased)


def regressors_of_rows(model, state):
    """What `update_rows` and `means_of_rows` are given besides blocks of rows."""
    regressors = state.columns.regressors(state.alpha, model.dtype)
    given = regressors, state.row_prior, model.biases, state.row_dof
    return (model.row_features.values,), *given


def update_rows(blocks, features, regressors, prior, biases, dof) -> SideStatistics:
    """Update blocks of rows; return their statistics, with the sums of the columns.

    It writes nothing but the sums: blocks may be updated in any order and anywhere. The
    sums have an order, as rounding depends on it.
    """
    n, dtype = regressors[0].shape[0], regressors[0].dtype
    systems = np.zeros((n, packed_size(prior.rank, biases[0])), dtype)
    targets = np.zeros((n, prior.rank + 1 + biases[0]), dtype)
    statistics = SideStatistics.zero(prior, features.shape[1])
    squares = None
    if dof:
        squares, zeros = np.zeros(n), np.zeros(N_SUMS)
        gram = np.zeros((features.shape[1],) * 2)
        statistics = replace(statistics, scale_sums=zeros, feature_gram=gram)
    for block in blocks:
        moments, of_block, scales = update_block(
            block, features, regressors, prior, biases, dof
        )
        statistics += of_block
        block.add_over_rows(moments, pack(of_block.second_moments), systems)
        block.add_targets_of_columns(expectations(moments, prior.rank), targets)
        if dof:
            block.add_squares_of_columns(scales, squares)
    return replace(statistics, systems=systems, targets=targets, squares=squares)


def means_of_rows(blocks, features, regressors, prior, biases, dof) -> np.ndarray:
    """Posterior means of the rows of some blocks."""
    W = np.empty((len(features), len(prior.precision)), regressors[0].dtype)
    for block in blocks:
        sums = sums_of_block(block, regressors)
        given = features[block.rows], prior, biases
        W[block.rows] = update_side(sums, *given, statistics=False)[0].means
    return W


def sums_of_block(block, regressors):
    """What the entries of a block of rows add up to, for `update_side`."""
    moments, linear, sum_of_moments = regressors
    systems = block.sum_over_columns(moments, sum_of_moments)
    return systems, block.system_index, block.targets_of_rows(linear)


def update_block(block, features, regressors, prior, biases, dof):
    """Moments of a block of rows, their statistics, and their scales or None."""
    sums, features = sums_of_block(block, regressors), features[block.rows]
    posteriors, statistics = update_side(sums, features, prior, biases)
    if not dof:
        return posteriors.moments, statistics, None
    rows, precision = block.by_rows, regressors[0][:, n_pairs(prior.rank + 1) - 1]
    scales = scales_of(rows, precision, sums, posteriors, features, prior, dof)
    means = scales.means
    moments = scaled_moments(posteriors, means, biases[0])
    counts = np.diff(rows.indptr)
    given = moments, scales, features, posteriors.means, counts
    return moments, statistics.with_scales(*given), means


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
    def data_of(matrix, rank: int, row_bias: bool):
        """The entries as `update_sides` needs them: by rows and by columns."""
        return matrix.rows, matrix.rows.transpose()

    @property
    def covariances(self) -> np.ndarray:
        """What a fitted model keeps."""
        return self.variances

    def as_full(self) -> FullCovariance:
        """The same as the other type, which needs more memory."""
        return FullCovariance.of_variances(self.means, self.variances, self.biased)

    def update_sides(self, model, state) -> SidesUpdate:
        """Update all rows, then all columns."""
        columns = model.data[1]
        of_rows, row_log_det = self._update_rows(model, state)
        given = state.alpha, state.column_prior, model.biases[::-1]
        of_columns, column_log_det, gains = of_rows._update_other_side(columns, *given)
        bias_terms = of_rows._bias_terms(columns) if model.biases.row else 0.0
        statistics = (
            of_rows._statistics(model.row_features.values, row_log_det),
            of_columns._statistics(model.column_features.values, column_log_det),
        )
        return SidesUpdate(of_columns, *statistics, gains, bias_terms)

    def row_means(self, model, state) -> np.ndarray:
        """Means of the rows given the columns, (m, q)."""
        return self._update_rows(model, state)[0].means

    def _update_rows(self, model, state):
        rows = model.data[0].scale_weights(state.alpha)
        given = np.ones(rows.shape[0]), state.row_prior, model.biases
        return self._update_other_side(rows, *given)[:2]

    def fold_in(
        self,
        rows,
        feature_map,
        prior,
        biases,
        noise_precision,
        with_covariances,
        *,
        row_dof=0.0,
    ):
        """Posterior of new rows, see `FullCovariance.fold_in`; they have no scales."""
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


def covariances_are_diagonal(matrix, rank: int, biases) -> bool:
    """Whether full covariances of all columns would take too much memory.

    Beyond one process there is more of it, and they are always full.
    """
    n = matrix.shape[1]
    if matrix.in_memory:
        return take_too_much_memory(n, rank, biases)
    if take_too_much_memory(n / MAX_MOMENTS_RATIO, rank, biases):
        largest = np.sqrt(2 * MAX_MOMENTS_RATIO * MAX_MOMENTS / n) - 2
        raise ValueError(
            f"The covariances of {n} columns of rank={rank} take too much memory; use "
            f"a rank of at most {int(largest)}, or a number for reg."
        )
    return False


def take_too_much_memory(n_columns: float, rank: int, biases) -> bool:
    """Whether there is no room in one process for the covariances of columns."""
    return n_columns * packed_size(rank, biases.row) > MAX_MOMENTS


def posterior_of(means, covariances, biased: bool):
    """Posterior of columns from what a fitted model keeps of it."""
    if covariances.shape[1] == means.shape[1] and means.shape[1] > 1:
        return DiagonalCovariance(means, covariances, biased)
    return FullCovariance(means, covariances, biased)
