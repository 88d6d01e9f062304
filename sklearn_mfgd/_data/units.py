"""Powers of two between the data of a user and the numbers that solvers compute with.

Solvers work on data of order one, so that no square over- or underflows; `k` is the
exponent.

====================================  ===========  ============================
Quantity                              Unit         Because
====================================  ===========  ============================
data, biases, deviations, errors      ``4**k``
factors                               ``2**k``     their products are data
squares: objective, noise variance    ``16**k``
penalty of factors                    ``4**k``     times their square: a square
penalty of biases                     1            times their square: a square
prior precision of factors            ``4**-k``    one over their square
step size of descent                  ``4**-k``    times a gradient, ``8**k``
====================================  ===========  ============================

With a number for `reg`, k is an integer and nothing is rounded; with ``reg="auto"`` it
is the real number for which the data have unit mean square.
"""

from typing import NamedTuple

import numpy as np


class Units(NamedTuple):
    """The units of the solvers: data are divided by ``4**exponent`` there."""

    exponent: float = 0

    def enter(self, values):
        """Data in the units of the solvers, from those of the user."""
        if abs(self.exponent) < 30 and isinstance(values, np.ndarray):
            # As exact, and quicker: the power is a normal float of any type.
            return values * values.dtype.type(4.0**-self.exponent)
        return times_power(values, -2 * self.exponent)

    def leave(self, values):
        """Data, or their deviations, in the units of the user."""
        return times_power(values, 2 * self.exponent)

    def leave_in_range(self, values):
        """The same, where what is too large becomes the largest float."""
        return in_range(values, 2 * self.exponent)

    def leave_squares(self, squares):
        """Squares of data, such as objectives and variances, kept in range."""
        return in_range(squares, 4 * self.exponent)

    def leave_log_density(self, value, n_entries: int):
        """Log density of the data: each of the entries is measured in another unit."""
        return value - n_entries * self.exponent * np.log(4)

    def enter_factors(self, factors: np.ndarray, biased: bool) -> np.ndarray:
        """Factors in the units of the solvers; `biased`: the last column is a bias."""
        return Units(-self.exponent).leave_factors(factors, biased)

    def leave_factors(self, factors: np.ndarray, biased: bool) -> np.ndarray:
        """Factors in the units of the user; `biased`: the last column is a bias."""
        scaled = times_power(factors, self.exponent)
        if biased:
            scaled[:, -1] = times_power(factors[:, -1], 2 * self.exponent)
        return scaled

    def of_factors(self, rank: int, biased: bool) -> np.ndarray:
        """Size of the unit of each column of a factor matrix, a bias being the last."""
        return times_power(1.0, self.exponent * np.repeat([1, 2], [rank, biased]))

    def have_squares_of_factors(self, biased: bool) -> bool:
        """Whether squares of the units of factors, and of a bias, are floats."""
        # float64 ends at 2**1023, and units are multiplied with values of order one.
        return 2 * abs(self.exponent) * (1 + biased) <= 1000

    def leave_precisions(self, precisions):
        """Prior precisions of factors in the units of the user, kept in range."""
        return in_range(precisions, -2 * self.exponent)

    def leave_step(self, step):
        """Step size of descent in the units of the user."""
        return step / times_power(1.0, 2 * self.exponent)


def times_power(x: np.ndarray | float, exponent: np.ndarray | float):
    """Multiply x by ``2**exponent``: without rounding where that is an integer."""
    whole = np.floor(np.asarray(exponent, np.float64))
    scaled = np.ldexp(x, whole.astype(np.int64))
    if np.all(whole == exponent):
        return scaled
    return scaled * np.exp2(exponent - whole).astype(np.asarray(scaled).dtype)


def in_range(x: np.ndarray | float, exponent: float):
    """Multiply x by ``2**exponent``; what is too large becomes the largest float."""
    with np.errstate(over="ignore"):
        scaled = times_power(x, exponent)
    largest = np.finfo(np.float64).max
    return np.clip(scaled, -largest, largest)
