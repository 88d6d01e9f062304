"""The rows and columns with entries: where ids have gaps, most may be empty."""

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
        if len(rows) == m:
            rows = None
        else:
            indptr = np.append(observed.indptr[rows], observed.indptr[-1])
            observed = observed._replace(indptr=indptr)
        if len(columns) == n:
            return cls((m, n), rows, None), observed
        occupied = cls((m, n), rows, columns)
        return occupied, observed.renumber(occupied.numbers(), len(columns))

    def numbers(self):
        """Number of each column of X among those here, their count for an empty one."""
        if self.columns is None:
            return None
        numbers = np.full(self.shape[1], len(self.columns), np.int32)
        numbers[self.columns] = np.arange(len(self.columns))
        return numbers

    def take_rows(self, W):
        return W if self.rows is None else W[self.rows]

    def take_columns(self, H):
        return H if self.columns is None else H[self.columns]

    def row_numbers(self, rows):
        """Numbers in X of a slice of the rows here."""
        return rows if self.rows is None else self.rows[rows]

    def spread_columns(self, values, empty=0):
        """Values of all columns of X, `empty` for the empty ones."""
        if self.columns is None:
            return values
        spread = np.full((self.shape[1], *values.shape[1:]), empty, values.dtype)
        spread[self.columns] = values
        return spread
