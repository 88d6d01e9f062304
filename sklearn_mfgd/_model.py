"""The shape of a model: its biases, its ridge, its units.

Solvers work on data divided by ``4**k``, factors divided by ``2**k`` and biases
divided by ``4**k``. There the objective is F / 16**k when the ridge on factors is
``reg / 4**k`` and that on biases is ``reg``. With a number for `reg`, k is an integer
and nothing is rounded; with ``reg="auto"`` it is the k for which the data have unit
mean square.
"""

from typing import NamedTuple

import numpy as np

# In the units of the solvers, where data are of order one, a ridge of this size leaves
# nothing of any factor. A larger one would overflow.
LARGEST_RIDGE = 1e30


def times_power(x, exponent):
    """Multiply x by ``2**exponent``: without rounding where that is an integer."""
    whole = np.floor(np.asarray(exponent, np.float64))
    scaled = np.ldexp(x, whole.astype(np.int64))
    if np.all(whole == exponent):
        return scaled
    return scaled * np.exp2(exponent - whole).astype(np.asarray(scaled).dtype)


def in_range(x, exponent):
    """Multiply x by ``2**exponent``; what is too large becomes the largest float.

    Squares of data near the ends of the range of floats are beyond it.
    """
    with np.errstate(over="ignore"):
        scaled = times_power(x, exponent)
    largest = np.finfo(np.float64).max
    return np.clip(scaled, -largest, largest)


class Biases(NamedTuple):
    """Which biases a model has."""

    row: bool
    column: bool


class Ridge(NamedTuple):
    """Penalties in the units of the user."""

    factors: float
    biases: float


class Side(NamedTuple):
    """How the columns of one factor are penalized and measured."""

    ridge: np.ndarray  # penalty of each column
    unit: np.ndarray  # the user's gradient step eta=1, in the units of the solver


def sides_of(rank, biases, ridge, exponent=0):
    """Penalty and unit of every column of W and of H."""
    with np.errstate(over="ignore"):
        scaled = times_power(float(ridge.factors), -2 * exponent)
    scaled = min(float(scaled), LARGEST_RIDGE)
    factors, bias = np.full(rank, scaled), min(ridge.biases, LARGEST_RIDGE)
    unit = np.full(rank, times_power(1.0, 2 * exponent))
    with_bias = Side(np.append(factors, bias), np.append(unit, 1.0))
    without = Side(factors, unit)
    return tuple(with_bias if biased else without for biased in biases)


def rescale(factors, biased, exponent):
    """Multiply factors by ``2**exponent`` and a last column of biases by its square."""
    scaled = times_power(factors, exponent)
    if biased:
        scaled[:, -1] = times_power(factors[:, -1], 2 * exponent)
    return scaled
