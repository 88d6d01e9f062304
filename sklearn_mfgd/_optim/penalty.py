"""The ridge of factors and biases, in the units of the solvers."""

from typing import NamedTuple

import numpy as np

from .._data.units import times_power

# In the units of the solvers, where data are of order one, a ridge of this size leaves
# nothing of any factor. A larger one would overflow.
LARGEST_RIDGE = 1e30


class Ridge(NamedTuple):
    """Penalties in the units of the user."""

    factors: float
    biases: float


class Penalty(NamedTuple):
    """How the columns of one factor are penalized and measured."""

    ridge: np.ndarray  # penalty of each column
    unit: np.ndarray  # the user's gradient step eta=1, in the units of the solver

    def value(self, F):
        """Penalty of a factor matrix: half the sum of ridge times square."""
        return 0.5 * float(np.einsum("ij,ij->j", F, F) @ self.ridge)


def penalties_of(rank, biases, ridge, exponent=0):
    """Penalty and unit of every column of W and of H."""
    with np.errstate(over="ignore"):
        scaled = times_power(float(ridge.factors), -2 * exponent)
    scaled = min(float(scaled), LARGEST_RIDGE)
    factors, bias = np.full(rank, scaled), min(ridge.biases, LARGEST_RIDGE)
    unit = np.full(rank, times_power(1.0, 2 * exponent))
    with_bias = Penalty(np.append(factors, bias), np.append(unit, 1.0))
    without = Penalty(factors, unit)
    return tuple(with_bias if biased else without for biased in biases)
