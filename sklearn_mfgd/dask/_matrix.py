"""The observed entries of a collection, as a fit asks for them.

What `ObservedMatrix` answers for entries in memory is answered here by a map over parts
and a sum. Nothing whose size grows with the rows reaches the client.
"""

from dataclasses import replace
from itertools import pairwise
from operator import getitem
from typing import NamedTuple

import numpy as np

from .._bayes.side import SideStatistics
from .._data.holdout import (
    HeldOut,
    hold_out,
    hold_out_positions,
    squared_error,
    validation_error,
)
from .._data.matrix import ObservedMatrix
from .._data.row_blocks import blocks_of_rows, row_blocks_of
from .._kernels.linalg import exact_sum, exact_total
from .._kernels.rows import Rows
from ._parted import Parts, add_pairs

# Numbers in the sums of a range of columns.
MAX_SUMS = 2**25


class PartedMatrix(NamedTuple):
    """A matrix with missing entries, in parts; no row or column is empty."""

    parts: Parts  # of `Rows`, centred
    sizes: tuple[int, ...]  # entries of each part
    n_columns: int
    dtype: np.dtype
    has_weights: bool
    mean: float

    in_memory = False

    @property
    def shape(self):
        return sum(self.parts.lengths), self.n_columns

    @property
    def n_observed(self):
        return sum(self.sizes)

    def counts(self, axis):
        """Number of observed entries of each column (axis 0) or row (axis 1)."""
        if axis:
            return self.parts.array(row_counts, (), np.int64)
        return self.parts.total(_ask, "counts", 0)

    def column_means(self):
        """Mean of each column."""
        sums, totals = self.column_sums(1), self.column_sums(0)
        return sums / np.where(totals > 0, totals, 1) + self.mean

    def column_sums(self, power):
        """Weighted sum of this power of the values of each column, float64."""
        return self.parts.total(_ask, "column_sums", power)

    def weight(self):
        """Sum of the weights of the entries."""
        if not self.has_weights:
            return float(self.n_observed)
        return self.parts.exact_total(sum_of_weights, 1.0)

    def largest_weight(self):
        """Largest weight of an entry."""
        if not self.has_weights:
            return 1.0
        return self.parts.total(_largest_weight, add=max)

    def mean_square(self):
        """Weighted mean of the squared values."""
        return self.parts.total(_sum_of_squares) / self.weight()

    def squared_error(self, model):
        """Weighted squared error of the rows, folded in to a fitted model."""
        return self.parts.exact_total(_squared_error, model)

    def with_unit_weights(self):
        """The same with weights of mean one, or none, and the mean that they had."""
        if not self.has_weights:
            return self, 1.0
        largest = self.largest_weight()
        mean = self.parts.exact_total(sum_of_weights, largest) / self.n_observed
        scaled = self.parts.map(_scaled_weights, largest, mean).stored()
        return self._replace(parts=scaled, has_weights=mean != 1), mean * largest

    def astype(self, dtype):
        """The same in another precision."""
        if dtype == self.dtype:
            return self
        parts = self.parts.map(Rows.astype, dtype).stored()
        return self._replace(parts=parts, dtype=np.dtype(dtype))

    def listed(self):
        """The same: its entries are a list."""
        return self


@hold_out.register
def _(entries: PartedMatrix, fraction: float, random_state):
    hidden = hold_out_positions(entries.n_observed, fraction, random_state)
    ends = np.cumsum(entries.sizes)
    pieces = np.split(hidden, np.searchsorted(hidden, ends[:-1]))
    pieces = [
        piece - (end - size)
        for piece, end, size in zip(pieces, ends, entries.sizes, strict=True)
    ]
    engine, rows = entries.parts.engine, entries.parts.values
    pairs = zip(rows, pieces, strict=True)
    values = [engine.call(_split_off, *pair) for pair in pairs]
    both = entries.parts._replace(values=values).stored()
    n_hidden = [len(piece) for piece in pieces]
    sizes = tuple(np.subtract(entries.sizes, n_hidden).tolist())
    training = entries._replace(parts=both.map(getitem, 0), sizes=sizes)
    return training, PartedHeldOut(both.map(getitem, 1))


class PartedHeldOut(NamedTuple):
    """Entries that the solver does not see, those of each part."""

    parts: Parts  # of `HeldOut`, rows numbered within the part


@validation_error.register
def _(held_out: PartedHeldOut, biases):
    def validate(W, H):
        add, given = add_pairs, (H, biases)
        sums = held_out.parts.total(squared_error, *given, along=(W,), add=add)
        squares, weight = sums.sum(axis=1)
        return float(np.sqrt(squares / weight))

    return validate


# What `SideStatistics.sums_of` returns.
NAMES_OF_SUMS = "systems", "targets", "squares"


class PartedBlocks(NamedTuple):
    """The blocks of a fit in parts; see `LocalBlocks`."""

    parts: Parts

    def total(self, work, along, *given):
        """What ``work(blocks, *along, *given)`` adds up over all rows.

        Where the sums of the columns are large, each range of columns is added up by
        itself, which may be on a worker of its own.
        """
        updates = self.parts.map(work, *given, along=along)
        moments_of_columns = given[0][0]
        n, size = moments_of_columns.shape
        n_ranges = -(-n * size // MAX_SUMS)
        cuts = np.linspace(0, n, n_ranges + 1).astype(int).tolist()
        # What a worker is sent cannot be written to, and may be needed once more.
        add = add_each if updates.engine.client else add_to_each
        statistics, *sums = updates.engine.compute(
            updates.map(SideStatistics.without_sums).summed(),
            *(
                updates.map(SideStatistics.sums_of, start, stop).summed(add)
                for start, stop in pairwise(cuts)
            ),
        )
        whole = sums[0]
        if len(sums) > 1:
            whole = map(np.concatenate, zip(*sums, strict=True))
        # Squares there are only of rows with scales.
        return replace(statistics, **dict(zip(NAMES_OF_SUMS, whole, strict=False)))

    def rows(self, work, along, *given):
        """What ``work(blocks, *along, *given)`` makes of each row."""
        regressors, prior = given[:2]
        width, dtype = len(prior.precision), regressors[0].dtype
        return self.parts.array(work, (width,), dtype, *given, along=along)


@row_blocks_of.register
def _(matrix: PartedMatrix, size: int):
    return PartedBlocks(matrix.parts.map(blocks_of_rows, size).stored())


def add_each(a, b):
    """Add what has the same place in two tuples."""
    return tuple(of_a + of_b for of_a, of_b in zip(a, b, strict=True))


def add_to_each(a, b):
    """Add what has the same place in two tuples of arrays to the first."""
    for of_a, of_b in zip(a, b, strict=True):
        of_a += of_b
    return a


def row_counts(rows):
    """Number of entries of each row."""
    return np.diff(rows.indptr)


def _ask(rows, name, argument):
    return getattr(ObservedMatrix(rows, 0.0), name)(argument)


def sum_of_weights(rows, largest):
    """Sum of the weights over the largest one, as two numbers."""
    return exact_total(rows.weights / rows.weights.dtype.type(largest))


def _sum_of_squares(rows):
    return rows.sum_of_squares


def _squared_error(rows, model):
    blocks = model.reconstruct(ObservedMatrix(rows, 0.0))
    return exact_sum([2 * loss for _, loss in blocks])


def _largest_weight(rows):
    return float(rows.weights.max(initial=0))


def _scaled_weights(rows, largest, mean):
    """Weights as `ObservedMatrix.with_unit_weights` makes them."""
    if mean == 1:
        return rows._replace(weights=None)
    number = rows.weights.dtype.type
    return rows._replace(weights=rows.weights / number(largest) / number(mean))


def _split_off(rows, positions):
    matrix = ObservedMatrix(rows, 0.0)
    return matrix.listed(hidden=positions).rows, HeldOut(*matrix.at(positions))
