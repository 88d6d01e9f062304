"""Blocks of rows: the unit of memory, and sums over their entries.

Blocks can be mapped independently, and what they return be added up in their order.
"""

from typing import NamedTuple

import numpy as np

from .._kernels import dispatch
from .._kernels.rows import Rows
from .observed import rows_of

# Numbers that the moments of a block of rows may take.
BLOCK = 2**21


class RowBlock(NamedTuple):
    """Some of the rows, and how to sum over their entries.

    Rows with the same missing entries form a group, which has one system.
    """

    rows: slice | np.ndarray
    by_rows: Rows  # values times weights
    by_columns: Rows
    system_index: np.ndarray  # the group of each row
    row_entries: Rows  # of each group: weights of its entries, or its missing entries
    column_entries: Rows  # the same by columns, of every row
    counts_missing: bool

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
        return self._sum(self.row_entries, moments, total)

    def sum_over_rows(self, moments, total) -> np.ndarray:
        """Sum moments of the rows over the entries of each column."""
        return self._sum(self.column_entries, moments, total)

    def _sum(self, entries, moments, total):
        if not self.counts_missing:
            return dispatch.product(entries, moments)
        total = total.astype(moments.dtype)
        if entries.indices.size == 0:  # nothing is missing
            return np.repeat(total[None], entries.shape[0], axis=0)
        sums = dispatch.product(entries, moments)
        return np.subtract(total, sums, out=sums)


def block_slices(n_rows: int, size: int) -> list[slice]:
    """Slices of the rows, each of as many as have `BLOCK` numbers, `size` a row."""
    step = max(1, BLOCK // size)
    return [slice(k, min(k + step, n_rows)) for k in range(0, n_rows, step)]


def row_blocks_of(rows: Rows, size: int) -> list[RowBlock]:
    """Cut the observed entries into blocks of rows with moments of `size` numbers."""
    m, n = rows.shape
    # Where most is observed, sums are those over all less those over the missing.
    dense = rows.indices.size > 0.5 * m * n
    make_block = _block_of_missing if rows.weights is None and dense else _block
    return [make_block(rows, place) for place in block_slices(m, size)]


def _block(rows, place):
    """Block that sums over the entries, each row with a system of its own."""
    block = rows.between(place.start, place.stop)
    values, weights = block.weighted_values, block.weights_matrix
    by_columns = values.transpose()
    # Without weights the positions of the entries are all there is to sum over.
    weights_by_columns = by_columns.weights_matrix
    if weights.values is not None:
        weights_by_columns = weights.transpose()
    systems = np.arange(values.shape[0])
    entries = weights, weights_by_columns
    return RowBlock(place, values, by_columns, systems, *entries, counts_missing=False)


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
    entries = missing_of_groups, missing.transpose()
    by_columns = values.transpose()
    return RowBlock(place, values, by_columns, groups, *entries, counts_missing=True)


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
