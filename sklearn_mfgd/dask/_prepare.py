"""Prepare a collection for a fit, in the units of the solvers: see `_data.prepared`."""

import numpy as np

from .._data.matrix import units_of_largest, units_of_variance
from .._data.observed import warn_if_constant
from .._data.occupied import Occupied
from .._data.prepared import PreparedData
from .._data.units import Units
from .._kernels.linalg import exact_sum, exact_total
from .._kernels.rows import Biases, Rows
from ._engine import Engine
from ._matrix import PartedMatrix
from ._parted import Parts

# Blocks with fewer entries than this are put together.
MIN_ENTRIES = 2**18


def prepare(engine: Engine, blocks, biases: Biases, *, unit_variance) -> PreparedData:
    """Prepare blocks of observed entries: of size one, or of variance one.

    Every block is read once, and kept: in the memory of workers, or on disk.
    """
    given = Parts(engine, blocks.delayed, (0,) * len(blocks.delayed)).stored()
    facts = np.array(engine.compute(*given.map(_facts).values))
    n_rows, n_occupied, sizes, smallest, largest, weighted = facts.T
    n_entries = int(sizes.sum())
    if n_entries == 0:
        raise ValueError("There is nothing to fit: every entry of X is missing.")
    shape = int(n_rows.sum()), blocks.n_columns
    if smallest.min() == largest.max():
        warn_if_constant(np.broadcast_to(largest.max(), n_entries), shape)
    columns = np.flatnonzero(given.total(_occurring, add=np.logical_or))
    columns = None if len(columns) == shape[1] else columns
    occupied = Occupied(shape, None, columns)
    units = units_of_largest(max(largest.max(), -smallest.min()))
    has_weights = bool(weighted.any())
    weight = given.exact_total(_weight) if has_weights else float(n_entries)

    def mean_in(units):
        if not biases.column:
            return 0.0
        return given.exact_total(_sum_in, units) / weight

    mean = mean_in(units)
    if unit_variance:
        mean_square = given.exact_total(_squares_in, units, mean) / weight
        units = units_of_variance(mean_square, mean, blocks.dtype, units)
        mean = mean_in(units)
    groups = _groups(sizes)
    values = [
        engine.call(
            _prepared,
            engine.shared(occupied),
            units.exponent,
            mean,
            *given.values[start:stop],
            n_parts=len(groups),
        )
        for start, stop in groups
    ]
    lengths, of_groups = (
        tuple(int(of_blocks[start:stop].sum()) for start, stop in groups)
        for of_blocks in (n_occupied, sizes)
    )
    parts = Parts(engine, values, lengths).stored()
    engine.drop(given.values)
    n_columns = blocks.n_columns if columns is None else len(columns)
    about = of_groups, n_columns, blocks.dtype, has_weights, mean
    return PreparedData(PartedMatrix(parts, *about), biases, units, occupied)


def _groups(sizes) -> list[tuple[int, int]]:
    """Ranges of blocks that have enough entries together."""
    groups, start, n_entries = [], 0, 0
    for stop, size in enumerate(sizes, 1):
        n_entries += size
        if n_entries >= MIN_ENTRIES:
            groups.append((start, stop))
            start, n_entries = stop, 0
    if n_entries and groups and n_entries < MIN_ENTRIES:
        groups[-1] = groups[-1][0], len(sizes)
    elif n_entries:
        groups.append((start, len(sizes)))
    return groups


def _facts(rows: Rows):
    values = rows.values
    n_occupied = np.count_nonzero(np.diff(rows.indptr))
    smallest, largest = values.min(initial=np.inf), values.max(initial=-np.inf)
    weighted = rows.weights is not None
    return rows.shape[0], n_occupied, values.size, smallest, largest, weighted


def _occurring(rows: Rows):
    occurring = np.zeros(rows.n_columns, bool)
    occurring[rows.indices] = True
    return occurring


def _weight(rows: Rows):
    return exact_total(rows.weights)


def _sum_in(rows: Rows, units: Units):
    return exact_total(units.enter(rows.values), rows.weights)


def _squares_in(rows: Rows, units: Units, mean):
    values = units.enter(rows.values)
    values -= values.dtype.type(mean)
    return exact_sum([rows._replace(values=values).sum_of_squares])


def _prepared(occupied: Occupied, exponent, mean, *blocks: Rows) -> Rows:
    """Entries of several blocks in units of the solvers, without empty rows."""
    indptr = np.concatenate([[0], *(np.diff(rows.indptr) for rows in blocks)])
    indptr = np.append(0, np.cumsum(indptr[indptr > 0]))
    indices, values, weights = (
        None if arrays[0] is None else np.concatenate(arrays)
        for arrays in zip(*(rows[1:4] for rows in blocks), strict=True)
    )
    values = Units(exponent).enter(values)
    values -= values.dtype.type(mean)
    rows = Rows(indptr, indices, values, weights, occupied.shape[1])
    if occupied.columns is None:
        return rows
    return rows.renumber(occupied.numbers(), len(occupied.columns))
