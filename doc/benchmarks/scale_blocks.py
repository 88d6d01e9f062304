"""Synthetic ratings in blocks of rows on disk, and how to read them again.

Rows and columns have entries by power laws, as in `sparse_contestants.synthetic`. The
values are biases and eight planted factors with noise of deviation `NOISE`, so no model
can be expected to predict held-out entries with a smaller root mean squared error. A
block is made, written and forgotten before the next one, so that the memory which this
takes does not grow with the number of entries. The same seed gives the same numbers.

In a folder, block 7 is ``00007.indptr.npy``, ``.indices.npy`` and ``.values.npy``, the
arrays of a CSR matrix, and ``00007.held_out.npy``, entries that are in no block: a
structured array of row (within the block), column and value. ``about.json`` says what
the folder holds.
"""

import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import sparse

NOISE = 0.8
PLANTED_RANK = 8
ROW_EXPONENT, COLUMN_EXPONENT = 0.7, 1.2
HELD_OUT_SHARE = 0.01  # on top of the entries of the blocks
ENTRIES_A_BLOCK = 2_500_000
HELD_OUT = np.dtype([("row", np.int32), ("column", np.int32), ("value", np.float32)])
PARTS = ("values", "indices", "indptr")


class Ratings(NamedTuple):
    """What a folder of blocks holds."""

    folder: str
    n_entries: int
    n_rows: int
    n_columns: int
    n_blocks: int
    seed: int = 0

    @property
    def shape(self):
        return self.n_rows, self.n_columns

    @property
    def csr_bytes(self):
        """Bytes of all entries as one CSR matrix of float32 and int32."""
        return 8 * self.n_entries + 4 * (self.n_rows + 1)

    @property
    def bounds(self):
        """First row of each block, and the number of rows."""
        return np.linspace(0, self.n_rows, self.n_blocks + 1).astype(int)

    def __str__(self):
        size = f"{self.n_rows:,} x {self.n_columns:,}, {self.n_entries:,} entries"
        return f"{size} in {self.n_blocks} blocks, {self.csr_bytes / 2**20:,.0f} MiB"


def shape_of(millions):
    """Rows and columns for so many million entries."""
    return 10_000 * millions, 1_000 * millions


def write_ratings(folder, millions, seed=0):
    """Write so many million ratings into a folder, or take those that are there."""
    n_entries, (n_rows, n_columns) = 1_000_000 * millions, shape_of(millions)
    n_blocks = max(4, n_entries // ENTRIES_A_BLOCK)
    ratings = Ratings(str(folder), n_entries, n_rows, n_columns, n_blocks, seed)
    about = Path(folder, "about.json")
    if about.exists():
        there = Ratings(**json.loads(about.read_text()) | {"folder": str(folder)})
        if there != ratings:
            raise SystemExit(f"{folder} holds other ratings: {there}. Name another.")
        return ratings
    start = time.perf_counter()
    Path(folder).mkdir(parents=True, exist_ok=True)
    maker = _Maker(ratings)
    for number in range(n_blocks):
        maker.write(number)
    about.write_text(json.dumps(ratings._asdict()))  # last: now all is there
    print(f"  wrote {ratings} in {time.perf_counter() - start:.0f} s", flush=True)
    return ratings


def load_block(folder, number, n_columns):
    """One block as a CSR matrix whose arrays are mapped from disk."""
    values, indices, indptr = (
        np.load(_file(folder, number, part), mmap_mode="r") for part in PARTS
    )
    return sparse.csr_array((values, indices, indptr), (len(indptr) - 1, n_columns))


def delayed_blocks(ratings):
    """The blocks as Dask's delayed objects: a worker maps the files that it needs."""
    import dask

    load = dask.delayed(load_block, pure=True)
    folder, n_columns = ratings.folder, ratings.n_columns
    return [load(folder, number, n_columns) for number in range(ratings.n_blocks)]


def load_held_out(ratings, number):
    """Row within the block, column and value of the entries that a block lacks."""
    table = np.load(_file(ratings.folder, number, "held_out"))
    return table["row"], table["column"], table["value"]


def load_together(ratings):
    """All blocks as one CSR matrix in memory; nothing of its size is made besides."""
    n_entries = ratings.n_entries
    values, indices = np.empty(n_entries, np.float32), np.empty(n_entries, np.int32)
    indptr = np.zeros(ratings.n_rows + 1, np.int32)
    start = 0
    for number, first in enumerate(ratings.bounds[:-1]):
        block = load_block(ratings.folder, number, ratings.n_columns)
        stop, n_rows = start + block.nnz, block.shape[0]
        values[start:stop], indices[start:stop] = block.data, block.indices
        indptr[first + 1 : first + n_rows + 1] = start + block.indptr[1:]
        start = stop
    return sparse.csr_array((values, indices, indptr), ratings.shape)


class _Maker:
    """Makes blocks, one at a time."""

    def __init__(self, ratings):
        self.ratings = ratings
        rng = np.random.default_rng([ratings.seed, ratings.n_blocks])
        self.row_law = _power_law(ratings.n_rows, ROW_EXPONENT, rng)
        column_law = _power_law(ratings.n_columns, COLUMN_EXPONENT, rng)
        self.column_law = np.cumsum(column_law) / column_law.sum()
        size = (ratings.n_columns, PLANTED_RANK + 1)
        self.H = rng.standard_normal(size, np.float32)
        # Entries before each block, so that they add up to the number asked for.
        shares = np.append(0, np.cumsum(self.row_law))[ratings.bounds]
        self.n_before = np.rint(ratings.n_entries * shares / shares[-1]).astype(int)

    def write(self, number):
        ratings = self.ratings
        rng = np.random.default_rng([ratings.seed, ratings.n_blocks, number])
        first, stop = ratings.bounds[number : number + 2]
        n_stored = self.n_before[number + 1] - self.n_before[number]
        n_hidden = int(HELD_OUT_SHARE * n_stored)
        i, j = self._places(self.row_law[first:stop], n_stored + n_hidden, rng)
        x = self._values(i, j, stop - first, rng)
        hidden = np.zeros(len(i), bool)
        hidden[rng.choice(len(i), n_hidden, replace=False, shuffle=False)] = True
        held_out = np.empty(n_hidden, HELD_OUT)
        held_out["row"], held_out["column"] = i[hidden], j[hidden]
        held_out["value"] = x[hidden]
        counts = np.bincount(i[~hidden], minlength=stop - first)
        arrays = {
            "values": x[~hidden],
            "indices": j[~hidden],
            "indptr": np.append(0, np.cumsum(counts)).astype(np.int32),
            "held_out": held_out,
        }
        for part, array in arrays.items():
            np.save(_file(ratings.folder, number, part), array)

    def _places(self, row_law, n_entries, rng):
        """Rows (of the block) and columns of entries, each place once, in order."""
        n_columns, n_draws = self.ratings.n_columns, n_entries
        keys = np.empty(0, np.int64)
        while len(keys) < n_entries:
            n_draws = 5 * n_draws // 4
            counts = rng.multinomial(n_draws, row_law / row_law.sum())
            i = np.repeat(np.arange(len(row_law)), counts)
            j = np.searchsorted(self.column_law, rng.random(n_draws))
            keys = np.sort(i * n_columns + j)
            keys = keys[np.append(True, np.diff(keys) > 0)]
        # Thinned evenly: a random choice would take longer than all the rest.
        keys = keys[np.linspace(0, len(keys) - 1, n_entries).astype(np.int64)]
        return [part.astype(np.int32) for part in np.divmod(keys, n_columns)]

    def _values(self, i, j, n_rows, rng):
        W = rng.standard_normal((n_rows, PLANTED_RANK + 1), np.float32)
        x = 3.5 + 0.4 * (W[i, -1] + self.H[j, -1])
        size = np.float32(0.5 * PLANTED_RANK**-0.5)
        for k in range(PLANTED_RANK):
            x += size * W[i, k] * self.H[j, k]
        x += np.float32(NOISE) * rng.standard_normal(len(x), np.float32)
        return x


def _power_law(length, exponent, rng):
    weights = (np.arange(length) + 0.01 * length) ** -exponent
    return rng.permutation(weights)


def _file(folder, number, part):
    return Path(folder, f"{number:05d}.{part}.npy")
