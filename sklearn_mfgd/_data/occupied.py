"""The rows and columns with entries, which are all that a fit works on.

Ids are seldom contiguous: most columns of a matrix may be empty. Only the outputs have
a length for all of them.
"""

from typing import NamedTuple

import numpy as np

from .._kernels.rows import Rows


class Occupied(NamedTuple):
    """The rows and columns with an entry; what is fitted knows no others.

    An empty one adds nothing to any objective, and has its prior for a posterior.
    """

    shape: tuple  # of X
    rows: np.ndarray | None  # their numbers in X; None: all
    columns: np.ndarray | None

    @classmethod
    def of(cls, observed):
        """Find them; return them, and the same entries without the empty ones."""
        m, n = observed.shape
        if not isinstance(observed, Rows):  # complete
            return cls((m, n), None, None), observed
        rows = np.flatnonzero(np.diff(observed.indptr))
        has_entry = np.zeros(n, bool)
        has_entry[observed.indices] = True
        columns = np.flatnonzero(has_entry)
        occupied = cls(
            (m, n),
            rows if len(rows) < m else None,
            columns if len(columns) < n else None,
        )
        if occupied.rows is not None:
            indptr = np.append(observed.indptr[rows], observed.indptr[-1])
            observed = observed._replace(indptr=indptr)
        if occupied.columns is not None:
            observed = observed.renumber(occupied.numbers(), len(columns))
        return occupied, observed

    def numbers(self):
        """Number of each column of X among those here, their count for an empty one."""
        if self.columns is None:
            return None
        numbers = np.full(self.shape[1], len(self.columns), np.int32)
        numbers[self.columns] = np.arange(len(self.columns))
        return numbers

    def take_rows(self, W):
        """Those of the rows here."""
        return W if self.rows is None else W[self.rows]

    def take_columns(self, H):
        """Those of the columns here."""
        return H if self.columns is None else H[self.columns]

    def row_numbers(self, rows):
        """Numbers in X of a slice of the rows here."""
        return rows if self.rows is None else self.rows[rows]

    def spread_columns(self, values, empty=0):
        """Values of all columns of X, `empty` for the empty ones."""
        return _spread(values, self.columns, self.shape[1], empty)


def _spread(
    values: np.ndarray, numbers: np.ndarray | None, length: int, empty: float
) -> np.ndarray:
    """Put values at their numbers in an array of a length that is `empty` elsewhere."""
    if numbers is None:
        return values
    spread = np.full((length, *values.shape[1:]), empty, values.dtype)
    spread[numbers] = values
    return spread
