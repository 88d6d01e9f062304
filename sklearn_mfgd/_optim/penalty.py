"""The ridge of factors and biases, in the units of the solvers."""

from typing import NamedTuple

import numpy as np

from .._data.units import times_power
from .._kernels.linalg import inner

# In the units of the solvers, where data are of order one, a ridge of this size leaves
# nothing of any factor. A larger one would overflow.
MAX_RIDGE = 1e30


class Ridge(NamedTuple):
    """Penalties in the units of the user."""

    factors: float
    biases: float


class Penalty(NamedTuple):
    """How the columns of one factor are penalized, constrained and measured."""

    ridge: np.ndarray  # penalty of each column
    unit: np.ndarray  # the user's gradient step eta=1, in the units of the solver
    non_negative: bool = False  # there is no bias, then

    def value(self, F: np.ndarray) -> float:
        """Half the sum of ridge times square of a factor matrix."""
        if not self.ridge.any():
            return 0.0
        return 0.5 * inner(F, F, self.ridge)

    def project(self, F: np.ndarray) -> np.ndarray:
        """Return the nearest factors that fulfil the constraint."""
        return np.maximum(F, 0) if self.non_negative else F


def penalties_of(
    rank, biases, ridge: Ridge, exponent=0, non_negative=(False, False)
) -> tuple[Penalty, Penalty]:
    """Penalty and unit of every column of W and of H, for data over 4**exponent."""
    with np.errstate(over="ignore"):  # reg / 4**exponent, see `_data.units`
        scaled = times_power(float(ridge.factors), -2 * exponent)
    factors = np.full(rank, min(float(scaled), MAX_RIDGE))
    unit = np.full(rank, times_power(1.0, 2 * exponent))
    bias = min(ridge.biases, MAX_RIDGE)
    with_bias = Penalty(np.append(factors, bias), np.append(unit, 1.0))
    return tuple(
        with_bias if biased else Penalty(factors, unit, constrained)
        for biased, constrained in zip(biases, non_negative, strict=True)
    )


def penalized_loss(objective, penalties, W: np.ndarray, H: np.ndarray) -> float:
    """F: the squared error and the ridge of both sides; infinite where it overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        return objective.penalized_value(W, H, *penalties)
