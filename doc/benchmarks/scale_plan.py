"""What a sweep would take on a cluster that is not here: formulas, no measurements.

Nothing overlaps in them, and no worker is slower than another.
"""

from typing import NamedTuple

import numpy as np


class Cluster(NamedTuple):
    """What is planned, and the rates that were measured here."""

    n_entries: float
    n_rows: float
    n_columns: float
    rank: int
    workers: int
    cores: int  # of each worker, and of the client
    entry: dict  # seconds of one core by an entry in a sweep, without columns
    column: dict  # seconds of one core by the system of a column
    adding: float  # bytes in a second
    wire: float  # bytes in a second into one machine

    @property
    def factors(self):
        """Bytes of the factors and biases of a row or column."""
        return 4 * (self.rank + 2)

    @property
    def sums(self):
        """Bytes of the sums of all columns: symmetric systems with their targets."""
        size = self.rank + 2  # factors, bias, and one
        return 4 * self.n_columns * size * (size + 3) / 2

    @property
    def spreading(self):
        """Rounds until all workers have what one has: each round twice as many."""
        return np.ceil(np.log2(self.workers))


def planned_als(c):
    """Fit with a number for `reg`: bytes moved and held, and seconds.

    Row factors go to the columns, as there are less than 18 rows for each column.
    """
    m, n = c.n_rows * c.factors, c.n_columns * c.factors
    # One worker joins the row factors of all, and the others fetch them from there. The
    # columns go to the client, and from there to all workers.
    moved = m * (c.workers - 1) / c.workers + m * (c.workers - 1) + n * (1 + c.workers)
    critical = m + m * c.spreading + n * (2 + c.spreading)
    held = 2 * 8 * c.n_entries / c.workers + m + n  # entries by rows and by columns
    cores = c.workers * c.cores
    rows = c.entry["als"] * c.n_entries / cores
    columns = c.column["als"] * c.n_columns / cores
    return moved, held, 2 * n, rows, columns, critical / c.wire


def planned_auto(c):
    """Fit with ``reg="auto"``: bytes moved and held, and seconds."""
    # Ranges of columns are added up in trees, side by side. The client solves the
    # columns and sends their second moments, which spread from worker to worker.
    moved = c.sums * ((c.workers - 1) + 1 + c.workers)
    critical = c.sums * (1 + 1 + 1 + c.spreading)  # trees, to and from the client
    blocks = 2 * 8 * c.n_entries / c.workers  # by rows and by columns
    held = blocks + 3 * c.sums  # moments, sums, and those of another block
    rows = c.entry["auto"] * c.n_entries / (c.workers * c.cores)
    columns = c.column["auto"] * c.n_columns / c.cores + c.sums / c.adding
    return moved, held, 6 * c.sums, rows, columns, critical / c.wire
