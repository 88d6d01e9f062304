r"""Noise of the columns: a precision for each, about a level that they share, or one.

For columns of their own,

.. math::

    \alpha_j \sim \mathrm{Gamma}(\nu / 2, \, \nu \ell / 2),

so that a column with few entries has about the variance :math:`\ell` of the others. Its
posterior with the expected squared error :math:`q_j` of its :math:`n_j` entries is a
Gamma distribution of the shape :math:`(n_j + \nu) / 2` and the mean

.. math::

    \alpha_j = \frac{n_j + \nu}{q_j + \nu \ell};

level and strength :math:`\nu` are those of largest bound. Where the noise of columns
differs much, the strength comes out small.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import gammaln

from .priors import VAGUE

# Least variance of the noise, the data having one of order one: where nothing is left
# to explain, sums of squares are rounding.
LEAST_NOISE = {np.dtype(np.float64): 1e-8, np.dtype(np.float32): 1e-6}

# Below this variance single precision is left: the squared error of a column, which is
# found as a difference, would not be known to more than three digits.
LEAST_NOISE_OF_SINGLE = 1e-3

# Where the strength starts and how far it may go, by steps of so many times.
FIRST_STRENGTH = 4.0
STRENGTHS = 1.0, 64.0
STEP = 2.0**0.5

N_ROUNDS = 3


class Noise(NamedTuple):
    """Precision of the noise of each column, and what it is drawn to."""

    alpha: np.ndarray  # (n,)
    level: float
    strength: float  # as many entries as it counts for; 0: one precision for all

    def mean_variance(self, counts):
        """Mean of one over the precision, which is more than one over its mean.

        Parameters
        ----------
        counts : ndarray of shape (n,)
            Entries of each column.
        """
        known = counts + self.strength if self.strength else counts.sum() + 2 * VAGUE
        return np.maximum(known / np.maximum(known - 2, 1), 1) / self.alpha


def best_noise(noise, counts, squares, dtype):
    """The noise of largest bound after a sweep.

    Parameters
    ----------
    noise : Noise
        Of the last sweep.
    counts, squares : ndarray of shape (n,)
        Entries of each column and their expected squared error.
    dtype : dtype
    """
    largest = 1 / LEAST_NOISE[np.dtype(dtype)]
    if noise.strength == 0:
        alpha = (counts.sum() + 2 * VAGUE) / (squares.sum() + 2 * VAGUE)
        return noise._replace(alpha=np.full(len(counts), min(alpha, largest)))
    for _ in range(N_ROUNDS):
        level = len(counts) / noise.alpha.sum()
        candidates = []
        for factor in (1.0, 1 / STEP, STEP):
            strength = np.clip(noise.strength * factor, *STRENGTHS)
            alpha = (counts + strength) / (squares + strength * level)
            found = Noise(np.minimum(alpha, largest), level, strength)
            candidates.append((evidence(found, counts, squares), found))
        noise = max(candidates, key=lambda pair: pair[0])[1]
    return noise


def evidence(noise, counts, squares):
    """What the bound has of the noise, but for a constant."""
    alpha, level, strength = noise
    value = counts @ np.log(alpha / (2 * np.pi)) - alpha @ squares
    if strength == 0:
        return 0.5 * float(value + 2 * VAGUE * (np.log(alpha[0]) - alpha[0]))
    half, shape = strength / 2, (counts + strength) / 2
    value += strength * (np.log(alpha) - level * alpha).sum()
    value += 2 * (gammaln(shape) - shape * np.log(shape) + shape).sum()
    value += 2 * len(alpha) * (half * np.log(half * level) - gammaln(half))
    return 0.5 * float(value)
