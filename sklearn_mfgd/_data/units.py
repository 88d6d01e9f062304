"""The shape of a model: its biases, its ridge, its units.

Solvers work on data divided by ``4**k``, factors divided by ``2**k`` and biases
divided by ``4**k``. There the objective is F / 16**k when the ridge on factors is
``reg / 4**k`` and that on biases is ``reg``. With a number for `reg`, k is an integer
and nothing is rounded; with ``reg="auto"`` it is the k for which the data have unit
mean square.
"""

import numpy as np


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


def rescale(factors, biased, exponent):
    """Multiply factors by ``2**exponent`` and a last column of biases by its square."""
    scaled = times_power(factors, exponent)
    if biased:
        scaled[:, -1] = times_power(factors[:, -1], 2 * exponent)
    return scaled
