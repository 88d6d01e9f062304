"""Data as a fit takes them: what is observed, where, and in which units."""

from typing import Any, NamedTuple

import numpy as np

from .._kernels.rows import Biases, Rows
from .matrix import (
    CompleteMatrix,
    ObservedMatrix,
    matrix_of,
    units_of_largest,
    units_of_size,
    units_of_variance,
)
from .occupied import Occupied
from .units import Units


class PreparedData(NamedTuple):
    """The observed entries in the units of the solvers; no row or column is empty."""

    matrix: CompleteMatrix | ObservedMatrix
    biases: Biases  # with those of columns the data are centred
    units: Units  # in which the matrix is X less its mean
    occupied: Occupied
    losses: Any = None  # of the columns of the matrix; None: all are squared

    @classmethod
    def raw(cls, observed: Rows, biases):
        """Prepare values in their own units and around no mean."""
        occupied, observed = Occupied.of(observed)
        return cls(ObservedMatrix(observed, 0.0), biases, Units(), occupied)

    @classmethod
    def around(cls, observed: Rows, biases, centre, deviation, *, unit_variance):
        """Prepare values with a given centre and deviation."""
        occupied, observed = Occupied.of(observed)
        units = units_of_largest(deviation)
        if unit_variance and deviation > 0:
            units = Units(float(np.log2(deviation) / 2))
        mean = units.enter(centre)
        return cls(matrix_of(observed, units, mean=mean), biases, units, occupied)

    @classmethod
    def of(cls, observed, biases, *, unit_variance):
        """Prepare what `observe` returns: of size one, or of variance one."""
        occupied, observed = Occupied.of(observed)
        units = units_of_size(observed)
        matrix = matrix_of(observed, units, centred=biases.column)
        if unit_variance:
            about = matrix.mean_square(), matrix.mean, matrix.dtype
            units = units_of_variance(*about, units)
            matrix = matrix_of(observed, units, centred=biases.column)
        return cls(matrix, biases, units, occupied)

    @classmethod
    def following(cls, observed, biases, units, mean, columns):
        """Prepare a later batch in the units of the first one, around its mean.

        Columns of these numbers had entries before, and are there if they have none.
        """
        occupied, observed = Occupied.of(observed)
        shape, rows, occurring = occupied
        every = np.arange(shape[1])
        occurring = every if occurring is None else occurring
        columns = np.union1d(columns, occurring)
        if isinstance(observed, Rows):
            numbers = np.searchsorted(columns, occurring).astype(np.int32)
            observed = observed.renumber(numbers, len(columns))
        matrix = matrix_of(observed, units, mean=mean)
        columns = None if len(columns) == len(every) else columns
        return cls(matrix, biases, units, Occupied(shape, rows, columns))
