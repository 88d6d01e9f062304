"""A sweep over rows in time: rows, columns, residual processes, noise, priors.

All rows are updated by one pass of filter and smoother. The means of a column and of
its residual are updated together, by generalized least squares (GLS).
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .._kernels import chains
from .chain_prior import ChainStatistics
from .covariance import FullCovariance
from .moments import (
    diagonal,
    moments_of,
    n_pairs,
    packed_size,
    total,
    unpack,
)
from .residual_process import Spread
from .side import SideStatistics, update_side
from .smoothing import filter_rows, right_hand_sides, row_targets, smoothed
from .time_state import TimeData, TimeState


class _RowsUpdate(NamedTuple):
    """Posterior of the rows, and what it adds up to for the columns."""

    statistics: ChainStatistics
    systems: np.ndarray  # (n, size), sums of E[v v'], v = [w, 1, b]
    targets: np.ndarray  # (n, .), sums of x E[v]
    covariances: np.ndarray | None  # (n, q (q + 1) / 2), sums of the covariances


def sweep(data: TimeData, state: TimeState, *, learn_columns: bool):
    """Update rows, columns if they are to be learned, residuals, noise and priors."""
    model, axis = data.model, data.axis
    update = update_rows(data, state, with_covariances=learn_columns)
    W = update.statistics.means
    row_prior, value = state.row_prior.update(update.statistics, axis)
    if learn_columns:
        state = _update_columns(data, state, update)
    columns, biases = state.columns, model.biases
    errors = data.entries.errors(W, columns.means, biases)
    problem = data.entries.columns._replace(values=errors)
    spread = _spread(data, update, columns, errors, state.column_prior)
    residuals, factors, squares, log_det = state.residuals.update(
        problem, model.counts, spread, state.noise
    )
    log_det_columns = state.column_log_det
    if not (factors == 1).all():
        covariances = columns.covariances * factors[:, None]
        columns = FullCovariance(columns.means, covariances, columns.biased)
        log_det_columns += columns.means.shape[1] * float(np.log(factors).sum())
    squares = squares + spread.of_rows + spread.of_column * factors
    noise = state.noise.update(model.counts, squares, model.dtype)
    processes, residual = (residuals.timescales, residuals.ratios), None
    if residuals.ratios.any():
        residual, _ = chains.process_means(problem, *processes)
    statistics = _column_statistics(columns, log_det_columns)
    column_prior = state.column_prior.update(statistics)
    residuals = residuals.with_probabilities()
    value += noise.elbo(model.counts, squares) - 0.5 * log_det
    value += column_prior.elbo(statistics) + residuals.elbo()
    state = replace(
        state,
        W=W,
        columns=columns,
        column_log_det=log_det_columns,
        row_prior=row_prior,
        column_prior=column_prior,
        noise=noise,
        residuals=residuals,
        residual=residual,
    )
    return state, value


def update_rows(data: TimeData, state: TimeState, *, with_covariances) -> _RowsUpdate:
    """Filter and smooth the rows given columns and residuals."""
    model, prior = data.model, state.row_prior
    biases, rank = model.biases, state.rank
    regressors = state.columns.regressors(state.alpha, model.dtype)
    moments, linear, sum_of_moments = regressors
    linear = linear.astype(np.float64, copy=False)
    rows = data.entries.rows_less(state.residual)
    targets = row_targets(rows, linear, rank, biases)
    systems = (
        (block.range, _in_order(block, moments, sum_of_moments))
        for block in model.data.blocks
    )
    given = targets, prior, data.axis, rank, biases
    blocks = right_hand_sides(systems, *given)
    filtered = filter_rows(blocks, prior, data.axis)
    means, squares, lagged = np.empty((3, *targets.shape))
    n, of_covariances = len(linear), None
    of_columns = np.zeros((n, packed_size(rank, biases.row)))
    if with_covariances:
        of_covariances = np.zeros((n, n_pairs(means.shape[1])))
    backwards = zip(smoothed(filtered), reversed(model.data.blocks), strict=True)
    for (at, states), block in backwards:
        means[at], lagged[at] = states.means, states.lagged
        spread = states.covariances
        squares[at] = states.means**2 + spread[:, diagonal(len(prior.precision))]
        order = block.order
        of_rows = states.means[order], spread[order]
        in_model = [each.astype(model.dtype, copy=False) for each in of_rows]
        row_moments = moments_of(*in_model, biases.row)
        _add_over_rows(block, row_moments, of_columns)
        if with_covariances:
            _add_over_rows(block, in_model[1], of_covariances)
    lagged[:-1] += means[:-1] * means[1:]
    statistics = ChainStatistics(means, squares, lagged, filtered.log_det)
    regressors = np.insert(means, rank, 1.0, axis=1)
    column_targets = data.entries.target_sums(regressors)
    return _RowsUpdate(statistics, of_columns, column_targets, of_covariances)


def _add_over_rows(block, values, out):
    """Add sums over the rows that have an entry in each column."""
    values = np.ascontiguousarray(values)
    block.add_over_rows(values, total(values), out)


def _in_order(block, moments, sum_of_moments):
    """Systems of the rows of a block, in the order of the rows."""
    systems = block.sum_over_columns(moments, sum_of_moments)
    in_order = np.empty((len(block.system_index), systems.shape[1]))
    in_order[block.order] = systems[block.system_index]
    return in_order


def _update_columns(data, state, update):
    """Posterior of the columns: means by GLS, covariances given the residuals."""
    model = data.model
    biases, alpha, prior = model.biases, state.alpha, state.column_prior
    rank, n = state.rank, len(alpha)
    sums = update.systems, np.arange(n), update.targets
    given = np.zeros((n, 0)), prior, biases[::-1]
    found, _ = update_side(
        sums, *given, scale=alpha, covariances=True, statistics=False
    )
    means, has_process = found.means.copy(), state.residuals.ratios > 0
    if has_process.any():
        processes = state.residuals.timescales, state.residuals.ratios
        W = update.statistics.means
        products = chains.whitened_products(data.entries.columns, W, biases, *processes)
        width = rank + biases.column
        whitened = unpack(products[has_process], width + 1)
        spread = unpack(update.covariances[has_process], W.shape[1])
        system = whitened[:, :width, :width].copy()
        system[:, :rank, :rank] += spread[:, :rank, :rank]
        right = whitened[:, width, :width].copy()
        if biases.row:
            right[:, :rank] -= spread[:, rank, :rank]
        system += prior.precision_matrix / alpha[has_process, None, None]
        means[has_process] = np.linalg.solve(system, right[..., None])[..., 0]
    columns = FullCovariance(means, found.covariances, biases.column)
    log_det = float(found.logdets.sum())
    return replace(state, columns=columns, column_log_det=log_det)


def _spread(data, update, columns, errors, column_prior):
    """What covariances add to the expected squared errors of the columns."""
    model, (A, z) = data.model, (update.systems, columns.means)
    biases, targets = model.biases, update.targets
    q = z.shape[1]
    rank, (a, b) = q - biases.column, np.tril_indices(q)
    weighted = A[:, : n_pairs(q)] * np.where(a == b, 1.0, 2.0)
    of_column = np.einsum("jk,jk->j", weighted, columns.covariances)
    squares = model.squares + np.einsum("jk,jk->j", weighted, z[:, a] * z[:, b])
    squares -= 2 * np.einsum("jk,jk->j", targets[:, :q], z)
    if biases.row:  # w b, b and b^2 are last
        with_bias = A[:, n_pairs(rank + 1) :]
        squares += 2 * np.einsum("jk,jk->j", with_bias[:, :q], z)
        squares += with_bias[:, -1] - 2 * targets[:, -1]
    of_rows = np.maximum(squares - data.entries.sum_by_columns(errors**2), 0.0)
    of_prior = columns.variances @ column_prior.precision
    return Spread(of_rows, of_column, of_prior, q)


def _column_statistics(columns, log_det):
    """What the prior of the columns needs of their posterior."""
    rank_and_one = columns.means.shape[1] - columns.biased + 1
    return SideStatistics(
        count=len(columns.means),
        second_moments=unpack(total(columns.moments()), rank_and_one + columns.biased),
        feature_products=np.zeros((0, columns.means.shape[1])),
        log_det=log_det,
    )
