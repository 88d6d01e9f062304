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
    filtered: Filtered


class FilteredRows(NamedTuple):
    """All rows after the forward pass."""

    blocks: list[FilteredBlock]
    prior: ChainPrior
    axis: TimeAxis

    @property
    def log_det(self) -> float:
        """Log determinant of the covariance of all rows."""
        return sum(block.filtered.log_det for block in self.blocks)

    def problem(self, rows: slice, targets, systems=None) -> ChainProblem:
        """What the kernels are asked of a block of rows."""
        timescales, precision = self.prior.timescales, self.prior.precision
        persistence = self.axis.persistence(timescales, rows.start, rows.stop)
        return ChainProblem(systems, targets, persistence, precision)


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


def right_hand_sides(blocks: Iterable, targets, prior, axis, rank: int, biases):
    """Yield slices of the rows, their systems, and targets with the pull of the prior.

    `blocks` are pairs of a slice and of the systems of its rows.
    """
    pull = prior.pull(axis)
    for rows, systems in blocks:
        of_rows = without_column_bias(targets[rows], systems, rank, biases)
        yield rows, systems, of_rows + pull[rows]


def filter_rows(blocks: Iterable, prior: ChainPrior, axis: TimeAxis) -> FilteredRows:
    """Forward pass over blocks, as `right_hand_sides` yields them."""
    message, filtered = chains.first_message(prior.precision), []
    result = FilteredRows(filtered, prior, axis)
    for rows, systems, right in blocks:
        problem = result.problem(rows, right, systems)
        found = chains.filter_states(problem, message)
        filtered.append(FilteredBlock(rows, found))
    return result


def smoothed(
    filtered: FilteredRows, *, with_covariances=True
) -> Iterator[tuple[slice, SmoothedStates]]:
    """Backward pass: yield slices and the posterior of their rows, the last first."""
    after = chains.nothing_after(len(filtered.prior.precision))
    for block in reversed(filtered.blocks):
        problem = filtered.problem(block.rows, block.filtered.targets)
        given = problem, block.filtered, after
        states = chains.smooth_states(*given, with_covariances=with_covariances)
        yield block.rows, states


def solve_means(filtered: FilteredRows, right) -> np.ndarray:
    """Means of the rows for other right-hand sides, without covariances, (m, q)."""
    message = chains.first_message(filtered.prior.precision)
    again = []
    for block in filtered.blocks:
        problem = filtered.problem(block.rows, right[block.rows])
        found = chains.filter_means(problem, block.filtered, message)
        again.append(block._replace(filtered=found))
    means = np.empty_like(right)
    others = filtered._replace(blocks=again)
    for rows, states in smoothed(others, with_covariances=False):
        means[rows] = states.means
    return means
