"""Rows in time given the columns: filter forward, smooth back, in blocks of rows.

Of each row the filter keeps q (q + 1) / 2 numbers; all else is made block by block.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from .._kernels import chains, dispatch
from .._kernels.chains import Filtered
from .._kernels.problems import ChainProblem, SmoothedStates
from .chain_prior import ChainPrior
from .moments import packed_size
from .time_axis import TimeAxis


class FilteredBlock(NamedTuple):
    """A block of rows after the forward pass."""

    rows: slice
    problem: ChainProblem  # without its systems
    filtered: Filtered


class RowRegressors(NamedTuple):
    """What rows need of the columns, over the noise of each."""

    moments: np.ndarray  # packed E[v v'], v = [h, 1, c]
    linear: np.ndarray  # E[v]
    total: np.ndarray  # sum of the moments


def row_targets(rows, linear, rank: int, biases) -> np.ndarray:
    """Sums of x E[h], and of x for the bias, over the entries of each row, (m, q)."""
    columns = np.ascontiguousarray(linear[:, : rank + biases.row])
    return dispatch.product(rows.weighted_values, columns)


def without_column_bias(targets, systems, rank: int, biases) -> np.ndarray:
    """Take the sums of E[h c], and of E[c], from targets of the same rows."""
    if not biases.column:
        return targets
    cross = systems[:, packed_size(rank, False) :]  # h c, c, c^2
    return targets - cross[:, : rank + biases.row]


def filter_rows(
    blocks: Iterable, targets, prior: ChainPrior, axis: TimeAxis, rank: int, biases
) -> list[FilteredBlock]:
    """Forward pass over blocks, pairs of a slice of the rows and their systems."""
    message, filtered = chains.first_message(prior.precision), []
    pull = prior.pull(axis)
    for rows, systems in blocks:
        of_rows = without_column_bias(targets[rows], systems, rank, biases)
        persistence = axis.persistence(prior.timescales, rows.start, rows.stop)
        problem = ChainProblem(
            systems, of_rows + pull[rows], persistence, prior.precision
        )
        found = chains.filter_states(problem, message)
        problem = problem._replace(systems=None)
        filtered.append(FilteredBlock(rows, problem, found))
    return filtered


def smoothed(
    blocks: list[FilteredBlock], *, with_covariances=True
) -> Iterator[tuple[FilteredBlock, SmoothedStates]]:
    """Backward pass: yield blocks and the posterior of their rows, the last first."""
    after = chains.nothing_after(blocks[0].problem.targets.shape[1])
    for block in reversed(blocks):
        given = block.problem, block.filtered, after
        yield block, chains.smooth_states(*given, with_covariances=with_covariances)


def solve_means(blocks: list[FilteredBlock], targets) -> np.ndarray:
    """Means of the rows for other targets, without covariances, (m, q)."""
    message = chains.first_message(blocks[0].problem.precision)
    again = []
    for block in blocks:
        problem = block.problem._replace(targets=targets[block.rows])
        filtered = chains.filter_means(problem, block.filtered, message)
        again.append(block._replace(problem=problem, filtered=filtered))
    means = np.empty_like(targets)
    for block, states in smoothed(again, with_covariances=False):
        means[block.rows] = states.means
    return means
