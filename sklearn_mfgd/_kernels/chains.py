"""Kernels of processes in time: they check nothing, allocate, and share out columns.

See `numpy_chains` for what is computed. Rows follow one another, so one thread does
them all, in stretches between which Ctrl-C is heard; columns are independent.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from . import backend, numpy_chains
from .dispatch import equal_ranges, thread_limit
from .problems import ChainProblem, ProcessProblem, SmoothedStates
from .threads import share_out


class Filtered(NamedTuple):
    """What elimination leaves of each row."""

    conditionals: np.ndarray  # (m, q (q + 1) / 2), packed covariance given the next row
    targets: np.ndarray  # (m, q), f + b
    log_det: float


def first_message(precision) -> tuple[np.ndarray, np.ndarray]:
    """Information on the first row: its prior. `filter_states` updates it."""
    return np.diag(precision).astype(np.float64), np.zeros(len(precision))


def nothing_after(q: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance after the last row. `smooth_states` updates them."""
    return np.zeros(q), np.zeros((q, q))


def filter_states(problem: ChainProblem, message) -> Filtered:
    """Eliminate rows from the first on; `message` is updated to the row after them."""
    problem = ChainProblem(*_contiguous(*problem))
    m, q = problem.targets.shape
    conditionals, targets = np.empty((m, q * (q + 1) // 2)), np.empty((m, q))
    given, log_det = (problem, message, conditionals, targets), 0.0
    for stretch in _stretches(m, q**3):
        part = backend.chain_kernels().filter_states(*given, *stretch)
        if part is None:  # indefinite by rounding, which NumPy's elimination bears
            part = numpy_chains.filter_states(*given, *stretch)
        log_det += part
    return Filtered(conditionals, targets, log_det)


def smooth_states(
    problem: ChainProblem, filtered: Filtered, after, *, with_covariances=True
) -> SmoothedStates:
    """Go back from the last row; `after` is updated to the first one."""
    problem = ChainProblem(None, *_contiguous(*problem[1:]))
    m, q = problem.targets.shape
    size = q * (q + 1) // 2
    out = SmoothedStates(np.empty((m, q)), None, None)
    if with_covariances:
        out = out._replace(covariances=np.empty((m, size)), lagged=np.empty((m, q)))
    given = problem, after, filtered.conditionals, filtered.targets, out
    for stretch in reversed(_stretches(m, 4 * q**3 if with_covariances else q**2)):
        backend.chain_kernels().smooth_states(*given, *stretch)
    return out


def filter_means(problem: ChainProblem, filtered: Filtered, message) -> Filtered:
    """Eliminate rows with other targets; `message` is that of `filter_states`."""
    problem = ChainProblem(None, *_contiguous(*problem[1:]))
    m, q = problem.targets.shape
    targets = np.empty((m, q))
    given = problem, message[1], filtered.conditionals, targets
    for stretch in _stretches(m, q**2):
        backend.chain_kernels().filter_means(*given, *stretch)
    return filtered._replace(targets=targets)


def process_likelihoods(problem: ProcessProblem, timescales, ratios):
    """Log determinants and whitened squares of candidates, each (n, n_candidates)."""
    log_dets, squares = np.empty((2, *ratios.shape))
    given = problem, *_contiguous(timescales, ratios), log_dets, squares
    _share_columns("process_likelihoods", given, 30 * ratios.shape[1])
    return log_dets, squares


def process_means(problem: ProcessProblem, timescales, ratios):
    """Posterior means and variances of the processes at the entries, (n_entries,)."""
    means, variances = np.empty((2, len(problem.values)))
    given = problem, *_contiguous(timescales, ratios), means, variances
    _share_columns("process_means", given, 50)
    return means, variances


def whitened_products(problem: ProcessProblem, W, biases, timescales, ratios):
    """Packed products of [g, y] of each column, whitened, (n, size)."""
    width = W.shape[1] - biases.row + biases.column + 1
    products = np.empty((len(problem.indptr) - 1, width * (width + 1) // 2))
    W, timescales, ratios = _contiguous(W, timescales, ratios)
    given = problem, W, biases, timescales, ratios, products
    _share_columns("whitened_products", given, width**2 + 20 * width)
    return products


def _share_columns(name, given, cost_of_entry):
    problem = given[0]
    n = len(problem.indptr) - 1
    cost = cost_of_entry * (len(problem.values) / max(1, n)) + 100
    share_out(
        partial(getattr(backend.chain_kernels(), name), *given),
        equal_ranges(n, cost),
        thread_limit(),
    )


def _contiguous(*arrays):
    return [
        None if array is None else np.ascontiguousarray(array, np.float64)
        for array in arrays
    ]


def _stretches(m, cost_of_row):
    return equal_ranges(m, cost_of_row + 1000)
