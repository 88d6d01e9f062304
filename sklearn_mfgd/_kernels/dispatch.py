"""Kernels over all rows: cut into ranges, shared out among threads.

A range costs about `OPERATIONS`. What the kernels are asked is described in `problems`,
what they compute in `numpy_kernels`.
"""

from functools import partial
from itertools import pairwise

import numpy as np

from . import backend, numpy_kernels
from .linalg import exact_sum
from .problems import PosteriorProblem, Posteriors, RowProblem, StochasticProblem
from .rows import Rows
from .threads import OPERATIONS, share_out


def least_squares(rows: Rows, H, biases, ridge, draws=None) -> np.ndarray:
    """Minimize the penalized squared error of every row, (n_rows, width).

    The ridge has one number per coefficient, (width,), or one per row and coefficient,
    (n_rows, width). With `draws`, standard normal numbers of that shape, sample the
    rows from the Gaussian of which this is minus the logarithm of the density.
    """
    problem = _row_problem(rows, H, biases)
    width = problem.width
    W = np.empty((rows.shape[0], width), H.dtype)
    needs_fallback = np.zeros(len(W), np.uint8)
    ridge = np.atleast_2d(np.asarray(ridge, np.float64))
    solve = backend.kernels.least_squares
    work = partial(solve, problem, ridge, draws, W, needs_fallback)
    ranges = _row_ranges(rows, width**2 + 20 * width, width**3 / 3 + 100)
    share_out(work, ranges, thread_limit())
    chosen = np.flatnonzero(needs_fallback)
    if chosen.size:  # in float64 and by eigenvalues
        problem = problem._replace(rows=rows.take(chosen))
        ridge = ridge if len(ridge) == 1 else ridge[chosen]
        draws = None if draws is None else draws[chosen]
        arrays = ridge, draws, W[chosen], needs_fallback[chosen]
        numpy_kernels.least_squares(problem, *arrays, 0, chosen.size)
        W[chosen] = arrays[2]
    return W


def non_negative(rows: Rows, H, ridge, start) -> np.ndarray:
    """Minimize as `least_squares` over coefficients that are not negative.

    A row starts from its coefficients in `start`, (n_rows, width), does not rise from
    there, and has no bias.
    """
    problem = _row_problem(rows, H, (False, False))
    W, width = np.array(start, H.dtype, order="C"), problem.width
    ridge = np.atleast_2d(np.asarray(ridge, np.float64))
    work = partial(backend.kernels.non_negative, problem, ridge, W)
    ranges = _row_ranges(rows, width**2 + 20 * width, width**3 + 100)
    share_out(work, ranges, thread_limit())
    return W


def non_negative_shared(system, targets, start, n_passes=0) -> np.ndarray:
    """Minimize ``w.A w / 2 - b.w`` over w >= 0 in every row, float64.

    The rows share the system A, (r, r), and start from `start`, (n_rows, r). With
    `n_passes` they only descend, by that number of passes over their coefficients.
    """
    W = np.array(start, np.float64, order="C")
    system, targets = (np.ascontiguousarray(a, np.float64) for a in (system, targets))
    work = partial(backend.kernels.non_negative_shared, system, targets, n_passes, W)
    cost = n_passes * len(system) ** 2 or len(system) ** 3
    share_out(work, equal_ranges(len(W), cost + 100), thread_limit())
    return W


def loss_and_gradient(rows: Rows, W, H, biases) -> tuple[float, np.ndarray]:
    """Half the sum of squared residuals, and its gradient in W."""
    problem = _row_problem(rows, H, biases)
    W, sums = np.ascontiguousarray(W), np.empty(rows.shape[0])
    gradient = np.empty((rows.shape[0], problem.width), H.dtype)
    work = partial(backend.kernels.gradient, problem, W, gradient, sums)
    share_out(work, _row_ranges(rows, *_linear_cost(H)), thread_limit())
    return 0.5 * sum(exact_sum(sums)), gradient


def product(rows: Rows, V: np.ndarray) -> np.ndarray:
    """Multiply the sparse matrix of the values, 1 without, by V, (n_columns, r)."""
    out = np.empty((rows.shape[0], V.shape[1]), V.dtype)
    problem = _row_problem(rows._replace(weights=None), V, (False, False))
    work = partial(backend.kernels.product, problem, out)
    share_out(work, _row_ranges(rows, *_linear_cost(V)), thread_limit())
    return out


def posterior(
    sums, system_index, targets, scale, prior, biases, *, with_covariances=False
) -> Posteriors:
    """`Posteriors` of the rows of a `PosteriorProblem`."""
    row_bias, column_bias = map(bool, biases)
    rank = targets.shape[1] - 1 - column_bias
    n_rows, q = len(system_index), rank + row_bias
    prior_matrix = np.zeros((q, q))
    prior_matrix[np.tril_indices(q)] = prior
    least = np.linalg.eigvalsh(prior_matrix).min(initial=np.inf)
    given = sums, system_index, targets, scale, prior
    problem = PosteriorProblem(*given, least, row_bias, column_bias)
    size = (rank + 1) * (rank + 2) // 2 + row_bias * (rank + 2)
    dtype = sums.dtype
    posteriors = Posteriors(
        means=np.empty((n_rows, q), dtype),
        moments=np.empty((n_rows, size), dtype),
        covariances=np.empty((n_rows, prior.size), dtype) if with_covariances else None,
        logdets=np.empty(n_rows),
        gains=np.empty(n_rows),
    )
    needs_fallback = np.zeros(n_rows, np.uint8)
    work = partial(backend.kernels.posterior, problem, posteriors, needs_fallback)
    share_out(work, equal_ranges(n_rows, 2 * q**3 + 200), thread_limit())
    chosen = np.flatnonzero(needs_fallback)
    if chosen.size:  # by eigenvalues
        given = sums, system_index[chosen], targets[chosen], scale[chosen], prior
        problem = PosteriorProblem(*given, *problem[5:])
        found = Posteriors(*(None if a is None else a[chosen] for a in posteriors))
        marks = needs_fallback[chosen]
        numpy_kernels.posterior(problem, found, marks, 0, chosen.size)
        for array, of_chosen in zip(posteriors, found, strict=True):
            if array is not None:
                array[chosen] = of_chosen
    return posteriors


def squares(rows: Rows, W, H, biases) -> np.ndarray:
    """Sum of the squared residuals of each row, (n_rows,)."""
    sums = np.empty(rows.shape[0])
    problem, W = _row_problem(rows, H, biases), np.ascontiguousarray(W)
    work = partial(backend.kernels.squares, problem, W, sums)
    share_out(work, _row_ranges(rows, *_linear_cost(H)), thread_limit())
    return sums


def loss(rows: Rows, W, H, biases) -> float:
    """Half the sum of squared residuals."""
    return 0.5 * sum(exact_sum(squares(rows, W, H, biases)))


def curvature(rows: Rows, D, H, biases) -> np.ndarray:
    """Sum of ``(d_i . g_j)^2`` over each row, (n_rows,)."""
    return squares(rows._replace(values=None), D, H, biases)


def residuals(rows: Rows, W, H, biases) -> np.ndarray:
    """Approximation less data of each entry, (n_entries,)."""
    out = np.empty(rows.indices.size, H.dtype)
    problem, W = _row_problem(rows, H, biases), np.ascontiguousarray(W)
    work = partial(backend.kernels.residuals, problem, W, out)
    share_out(work, _row_ranges(rows, *_linear_cost(H)), thread_limit())
    return out


def entry_products(W, H, rows, columns) -> np.ndarray:
    """Multiply ``W[rows[k]] . H[columns[k]]`` for every k."""
    dtype = np.result_type(W, H)
    W, H = (np.ascontiguousarray(factors, dtype) for factors in (W, H))
    rows, columns = (np.ascontiguousarray(k, np.int64) for k in (rows, columns))
    out = np.empty(len(rows), dtype)
    work = partial(backend.kernels.entry_products, W, H, rows, columns, out)
    share_out(work, equal_ranges(len(rows), 20 + H.shape[1]), thread_limit())
    return out


def stochastic_steps(
    entries, ranges, W, H, biases, shares, squares, *, ridges, etas, scales
):
    """Make the steps of ranges of entries that have no row or column in common.

    All but the ranges are the fields of a `StochasticProblem`.
    """
    given = entries, W, H, *map(bool, biases), shares, squares
    problem = StochasticProblem(*given, ridges, etas, scales)
    step = max(1, int(OPERATIONS / (40 + 8 * H.shape[1])))

    def work(start, stop):
        for first in range(start, stop, step):  # so that Ctrl-C need not wait
            backend.kernels.sgd(problem, first, min(first + step, stop))

    is_small = sum(stop - start for start, stop in ranges) < step
    share_out(work, ranges, 1 if is_small else thread_limit())


def _row_problem(rows, H, biases):
    return RowProblem(rows, np.ascontiguousarray(H), *map(bool, biases))


def _linear_cost(H):
    """Cost of an entry and of a row where each entry costs a product or two."""
    return 20 + 4 * H.shape[1], 100


def _row_ranges(rows, cost_of_entry, cost_of_row):
    """Cut the rows into ranges of like cost."""
    n_rows = rows.shape[0]
    cost = rows.indptr * float(cost_of_entry) + np.arange(n_rows + 1) * cost_of_row
    n_ranges = int(np.ceil(cost[-1] / OPERATIONS))
    cuts = np.searchsorted(cost, np.linspace(0, cost[-1], n_ranges + 1)[1:-1])
    return list(pairwise(np.unique([0, *cuts, n_rows]).tolist()))


def equal_ranges(length, cost):
    """Cut ``range(length)`` into ranges, if all of its numbers cost the same."""
    step = max(1, int(OPERATIONS / cost))
    return [(start, min(start + step, length)) for start in range(0, length, step)]


def thread_limit():
    """One thread for kernels in NumPy, which hold the GIL and run BLAS; else None."""
    return 1 if backend.kernels is numpy_kernels else None
