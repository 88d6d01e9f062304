"""Data as a fit takes them: what is observed, where, and in which units."""

from typing import NamedTuple

from .._kernels.rows import Biases
from .matrix import (
    CompleteMatrix,
    ObservedMatrix,
    matrix_of,
    scale_exponent,
    unit_exponent,
)
from .occupied import Occupied


class PreparedData(NamedTuple):
    """The observed entries in the units of the solvers; no row or column is empty."""

    matrix: CompleteMatrix | ObservedMatrix
    biases: Biases  # with those of columns the data are centred
    exponent: float  # the matrix is X / 4**exponent, less its mean
    occupied: Occupied

    @classmethod
    def of(cls, observed, biases, *, unit_variance):
        """Prepare what `observe` returns.

        With `unit_variance` the mean square becomes one. Otherwise the largest value
        is about one, and the exponent is an integer: nothing is rounded.
        """
        occupied, observed = Occupied.of(observed)
        exponent = scale_exponent(observed)
        matrix = matrix_of(observed, exponent=exponent, centred=biases.column)
        if unit_variance:
            exponent = unit_exponent(matrix, exponent)
            matrix = matrix_of(observed, exponent=exponent, centred=biases.column)
        return cls(matrix, biases, exponent, occupied)
