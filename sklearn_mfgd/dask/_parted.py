"""Values in parts, one for each range of consecutive rows: map over them, and add."""

from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from dask.delayed import Delayed

from .._kernels.linalg import (
    column_norms,
    exact_squares,
    exact_sum,
    inner,
    inner_of_rows,
)
from ._engine import Engine
from ._lazy import array_of


class Parts(NamedTuple):
    """Delayed values, one for each range of consecutive rows."""

    engine: Engine
    values: list[Delayed]
    lengths: tuple[int, ...]  # rows of each

    @property
    def offsets(self) -> np.ndarray:
        """First row of each part, and the end of the last."""
        return np.concatenate([[0], np.cumsum(self.lengths)])

    def map(self, function, *given, along=()) -> "Parts":
        """Call ``function(value, *rows, *given)`` for every part, once it is needed.

        `along` are arrays with a row for each row; each part gets its rows of them.
        """
        chunks = [self._split(array) for array in along]
        given = [self.engine.shared(value) for value in given]
        values = [
            self.engine.call(function, *of_part, *given, n_parts=len(self.values))
            for of_part in zip(self.values, *chunks, strict=True)
        ]
        return self._replace(values=values)

    def total(self, function, *given, along=(), add=None) -> Any:
        """Sum of what `map` makes."""
        summed = self.map(function, *given, along=along).summed(add)
        return self.engine.compute(summed)[0]

    def summed(self, add=None) -> Delayed:
        """Sum of the values, in the order of a fixed binary tree."""
        values, add = self.values, add or _add
        while len(values) > 1:
            pairs = zip(values[::2], values[1::2], strict=False)
            unpaired = values[len(values) - len(values) % 2 :]
            values = [self.engine.call(add, *pair) for pair in pairs] + unpaired
        return values[0]

    def exact_total(self, function, *given, along=()) -> Any:
        """Sum of what `map` makes, pairs as of `exact_sum`: the same for any parts."""
        return sum(self.total(function, *given, along=along, add=add_pairs))

    def stored(self) -> "Parts":
        """The same values, computed and kept."""
        return self._replace(values=self.engine.store(self.values))

    def array(self, function, shape, dtype, *given, along=()) -> da.Array:
        """Array of what `function` returns for each part; its rows have this shape."""
        values = self.engine.keep(self.map(function, *given, along=along).values)
        return array_of(values, self.lengths, shape, dtype)

    def _split(self, array) -> list:
        """The rows of each part."""
        if isinstance(array, da.Array):
            whole_rows = {axis: -1 for axis in range(1, array.ndim)}
            array = array.rechunk({0: self.lengths, **whole_rows})
            return array.to_delayed(optimize_graph=False).ravel().tolist()
        return np.split(array, self.offsets[1:-1])


def _add(a, b):
    return a + b


def add_pairs(a, b):
    """Add (high, low) pairs, see `exact_sum`, or arrays of such pairs."""
    both = np.stack([a, b])
    return np.stack(exact_sum(both[..., 0], both[..., 1]), axis=-1)


@inner.register
def _(A: da.Array, B, weights=1.0):
    sums = inner_of_rows(A, B, weights)
    pairs = sums.map_blocks(_exact_pair, chunks=(2,), dtype=float)
    return sum(exact_sum(*np.reshape(pairs.compute(optimize_graph=False), (-1, 2)).T))


@column_norms.register
def _(A: da.Array):
    A = A.rechunk({1: -1})
    k = A.shape[1]
    pairs = A.map_blocks(exact_squares, chunks=(2, k), dtype=float)
    pairs = pairs.compute(optimize_graph=False)
    pairs = pairs.reshape(A.numblocks[0], 2, k)
    return np.sqrt(sum(exact_sum(*pairs.swapaxes(0, 1))))


def _exact_pair(values):
    return np.array(exact_sum(values))
