"""Blocks of rows: what fits into memory at a time, and sums over their entries."""

from typing import NamedTuple

import numpy as np

from .._kernels import dispatch
from .._kernels.rows import Rows

# Numbers that the moments of a block of rows may take.
BLOCK = 2**21


# Where more than this share is observed, the holes are counted instead.
COUNT_HOLES = 0.5


class RowBlock(NamedTuple):
    """Some of the rows, and how to sum over their entries."""

    rows: slice | np.ndarray
    by_rows: Rows  # values times weights
    by_columns: Rows
    which: np.ndarray  # the pattern of each row
    row_pattern: Rows  # of each pattern, entries or holes
    column_pattern: Rows

    def sum_over_columns(self, moments, everything):
        """Moments of the columns, summed over the entries of each pattern of rows.

        Parameters
        ----------
        moments : ndarray of shape (n_columns, size)
        everything : ndarray of shape (size,) or None
            Their sum, where the holes are to be taken away from it.
        """
        return _sums(self.row_pattern, moments, everything)

    def sum_over_rows(self, moments, everything):
        """Moments of the rows, summed over the entries of each column."""
        return _sums(self.column_pattern, moments, everything)


def _sums(pattern, moments, everything):
    if everything is None:
        return dispatch.product(pattern, moments)
    whole = everything.astype(moments.dtype)
    if pattern.indices.size == 0:
        return np.repeat(whole[None], pattern.shape[0], axis=0)
    sums = dispatch.product(pattern, moments)
    return np.subtract(whole, sums, out=sums)


def row_blocks_of(rows, size):
    """Cut the observed entries into blocks of rows whose moments are of a fixed size.

    Parameters
    ----------
    rows : Rows
    size : int
        Numbers that the moments of a row take.

    Returns
    -------
    blocks : list of RowBlock
    holes : bool
        Whether the patterns hold the holes.
    """
    m, n = rows.shape
    holes = rows.weights is None and rows.indices.size > COUNT_HOLES * m * n
    step = max(1, BLOCK // size)
    found = []
    for start in range(0, m, step):
        part = slice(start, min(start + step, m))
        found.append(_block(rows, part, holes))
    return found, holes


def _block(rows, part, holes):
    own = rows.between(part.start, part.stop)
    which, pattern, own = (
        np.arange(own.shape[0]),
        own.weights_matrix,
        own.weighted_values,
    )
    if not holes:
        columns = own.transpose()
        column_pattern = columns.weights_matrix
        if pattern.values is not None:
            column_pattern = pattern.transpose()
        return RowBlock(part, own, columns, which, pattern, column_pattern)
    pattern = _complement(own)
    which, representatives = _shared_patterns(pattern)
    by_rows = pattern
    if len(representatives) < len(which):
        order = np.argsort(which, kind="stable")  # rows of a pattern one by one
        own, by_rows = own.take(order), pattern.take(representatives)
        pattern = pattern.take(order)
        part, which = part.start + order, which[order]
    return RowBlock(part, own, own.transpose(), which, by_rows, pattern.transpose())


def _complement(rows):
    """The entries that are not observed."""
    missing = np.ones(rows.shape, bool)
    missing[rows.row_numbers, rows.indices] = False
    counts = np.count_nonzero(missing, axis=1)
    indices = np.nonzero(missing)[1].astype(np.int32)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return Rows(indptr, indices, None, None, rows.n_columns)


def _shared_patterns(rows):
    """Number the patterns of the rows: that of each row, and a row of each.

    Rows are told apart by sums of random numbers of their columns: two patterns would
    be taken for one once in 2^64 pairs.
    """
    rng = np.random.RandomState(0)
    numbers = rng.randint(0, 2**63, size=rows.n_columns, dtype=np.uint64) * 2 + 1
    sums = np.zeros(rows.indices.size + 1, np.uint64)
    np.cumsum(numbers[rows.indices], out=sums[1:])
    keys = sums[rows.indptr[1:]] - sums[rows.indptr[:-1]]
    _, representatives, which = np.unique(keys, return_index=True, return_inverse=True)
    if len(representatives) > 0.8 * len(keys):
        return np.arange(len(keys)), np.arange(len(keys))
    return which, representatives
