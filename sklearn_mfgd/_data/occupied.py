"""The rows and columns with entries, which are all that a fit works on.

Ids are seldom contiguous: most columns of a matrix may be empty. What is made of their
number are the outputs alone.
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
        """Find them, and the same entries among them alone."""
        shape = observed.shape
        if not isinstance(observed, Rows):  # complete
            return cls(shape, None, None), observed
        rows = np.flatnonzero(np.diff(observed.indptr))
        columns = np.zeros(shape[1], bool)
        columns[observed.indices] = True
        columns = np.flatnonzero(columns)
        if len(rows) == shape[0]:
            rows = None
        else:
            indptr = np.append(observed.indptr[rows], observed.indptr[-1])
            observed = observed._replace(indptr=indptr)
        if len(columns) == shape[1]:
            columns = None
        found = cls(shape, rows, columns)
        if columns is not None:
            observed = observed.renumber(found.numbers(), len(columns))
        return found, observed

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
        """What is known of columns, for all columns of X."""
        return _spread(values, self.columns, self.shape[1], empty)


def _spread(values, places, length, empty):
    if places is None:
        return values
    spread = np.full((length, *values.shape[1:]), empty, values.dtype)
    spread[places] = values
    return spread
