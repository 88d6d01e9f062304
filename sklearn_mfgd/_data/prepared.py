"""Data as a fit takes them: what is observed, where, and in which units."""

from typing import NamedTuple

from .._kernels.rows import Biases
from .matrix import (
    CompleteMatrix,
    ObservedMatrix,
    matrix_of,
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
