"""Blocks of rows: the unit of memory, and sums over their entries.

Blocks can be mapped independently, and what they return be added up in their order.
"""

from functools import singledispatch
from typing import NamedTuple

import numpy as np

from .._kernels import dispatch
from .._kernels.rows import Rows
from .observed import rows_of

# Numbers that the moments of a block of rows may take, and those that the sums over the
# rows of a block may take at a time.
BLOCK, SUMS = 2**21, 2**20


class RowBlock(NamedTuple):
    """Some of the rows, and how to sum over their entries.

    Rows with the same missing entries form a group, which has one system.
    """

    rows: slice | np.ndarray
    by_rows: Rows
    by_columns: Rows  # without the columns that have no entry
    columns: slice | np.ndarray  # those of `by_columns`
    system_index: np.ndarray  # the group of each row
    # What is missing of each group, and by columns; None: sums are over entries.
    missing: tuple[Rows, Rows] | None = None

    @property
    def range(self) -> slice:
        """The rows as a slice; the block may hold them in another order."""
        if isinstance(self.rows, slice):
            return self.rows
        start = int(self.rows.min())
        return slice(start, start + len(self.rows))

    @property
    def order(self) -> slice | np.ndarray:
        """Places within `range` of the rows as the block holds them."""
        if isinstance(self.rows, slice):
            return slice(None)
        return self.rows - self.rows.min()

    def sum_over_columns(self, moments, total) -> np.ndarray:
        """Sum moments of columns over the entries of each group; `total` is of all."""
        if self.missing is None:
            return dispatch.product(self.by_rows.weights_matrix, moments)
        return _total_less(total, self.missing[0], moments)

    def targets_of_rows(self, regressors) -> np.ndarray:
        """Sum entry times regressors of its column over the entries of each row."""
        return dispatch.product(self.by_rows.weighted_values, regressors)

    def add_over_rows(self, moments, total, out) -> None:
        """Add moments of the rows, summed over the entries of each column, to `out`."""
        for place, at in self._column_ranges(moments.shape[1]):
            if self.missing is None:
                entries = self.by_columns.between(*place)
                out[at] += dispatch.product(entries.weights_matrix, moments)
            else:
                missing = self.missing[1].between(*place)
                out[at] += _total_less(total, missing, moments)

    def add_targets_of_columns(self, regressors, out) -> None:
        """Add entry times regressors of its row, summed over each column, to `out`."""
        for place, at in self._column_ranges(regressors.shape[1]):
            values = self.by_columns.between(*place).weighted_values
            out[at] += dispatch.product(values, regressors)

    def add_squares_of_columns(self, scales, out) -> None:
        """Add squared entry times scale of its row, summed over columns, to `out`."""
        entries = self.by_columns
        values = entries.weighted_values.values * entries.values
        squared = entries._replace(values=values, weights=None)
        scales = scales.astype(values.dtype)[:, None]
        out[self.columns] += dispatch.product(squared, scales)[:, 0]

    def _column_ranges(self, size):
        """Ranges of `by_columns` with sums of some `SUMS` numbers, and their place."""
        n, step = self.by_columns.shape[0], max(1, SUMS // size)
        for start in range(0, n, step):
            stop = min(start + step, n)
            all_columns = isinstance(self.columns, slice)
            at = slice(start, stop) if all_columns else self.columns[start:stop]
            yield (start, stop), at


def _total_less(total, missing, moments):
    """Sums over all less those over the missing entries."""
    total = total.astype(moments.dtype)
    if missing.indices.size == 0:
        return np.repeat(total[None], missing.shape[0], axis=0)
    sums = dispatch.product(missing, moments)
    return np.subtract(total, sums, out=sums)


def block_slices(n_rows: int, size: int) -> list[slice]:
    """Slices of the rows, each of as many as have `BLOCK` numbers, `size` a row."""
    step = max(1, BLOCK // size)
    return [slice(k, min(k + step, n_rows)) for k in range(0, n_rows, step)]


class LocalBlocks(NamedTuple):
    """The blocks of all rows, in this process.

    What a fit asks of its rows, wherever they are, is what these methods answer: the
    sum, or the rows, of what some work makes of the blocks. `along` are arrays that
    have a row for each of the rows.
    """

    blocks: list[RowBlock]

    def total(self, work, along, *given):
        """What ``work(blocks, *along, *given)`` adds up over all rows."""
        return work(self.blocks, *along, *given)

    def rows(self, work, along, *given) -> np.ndarray:
        """What ``work(blocks, *along, *given)`` makes of each row, in their order."""
        return work(self.blocks, *along, *given)


@singledispatch
def row_blocks_of(matrix, size: int):
    """Cut the observed entries into blocks of rows with moments of `size` numbers."""
    return LocalBlocks(blocks_of_rows(matrix.rows, size))


def blocks_of_rows(rows: Rows, size: int) -> list[RowBlock]:
    """Cut rows into blocks with moments of `size` numbers."""
    m, n = rows.shape
    # Where most is observed, sums are those over all less those over the missing.
    dense = rows.indices.size > 0.5 * m * n
    make_block = _block_of_missing if rows.weights is None and dense else _block
    return [make_block(rows, place) for place in block_slices(m, size)]


def _block(rows, place):
    """Block that sums over the entries, each row with a system of its own."""
    block = rows.between(place.start, place.stop)
    columns, by_columns = slice(None), block.transpose()
    counts = np.diff(by_columns.indptr)
    occurring = np.flatnonzero(counts)
    if len(occurring) < len(counts):
        columns = occurring.astype(np.int32)
        indptr = np.append(by_columns.indptr[occurring], by_columns.indptr[-1])
        by_columns = by_columns._replace(indptr=indptr)
    return RowBlock(place, block, by_columns, columns, np.arange(block.shape[0]))


def _block_of_missing(rows, place):
    """Block that sums over the missing entries, rows with the same ones together."""
    values = rows.between(place.start, place.stop)
    is_missing = np.ones(values.shape, bool)
    is_missing[values.row_numbers, values.indices] = False
    missing = rows_of(is_missing, is_missing)._replace(values=None)
    groups, representatives = _groups_of_equal_rows(missing)
    missing_of_groups = missing
    if len(representatives) < len(groups):
        order = np.argsort(groups, kind="stable")  # the rows of a group in sequence
        missing_of_groups = missing.take(representatives)
        values, missing = values.take(order), missing.take(order)
        place, groups = place.start + order, groups[order]
    missing = missing_of_groups, missing.transpose()
    return RowBlock(place, values, values.transpose(), slice(None), groups, missing)


def _groups_of_equal_rows(rows):
    """Group of each row, and one row of each group; each row alone if few are equal.

    Rows that differ have the same sum of random numbers once in 2^64 pairs.
    """
    rng = np.random.RandomState(0)
    numbers = rng.randint(0, 2**63, size=rows.n_columns, dtype=np.uint64) * 2 + 1
    sums = np.zeros(rows.indices.size + 1, np.uint64)
    np.cumsum(numbers[rows.indices], out=sums[1:])
    keys = sums[rows.indptr[1:]] - sums[rows.indptr[:-1]]
    _, representatives, groups = np.unique(keys, return_index=True, return_inverse=True)
    if len(representatives) > 0.8 * len(keys):
        return np.arange(len(keys)), np.arange(len(keys))
    return groups, representatives
