r"""Noise of the columns: a precision for each, shrunk to a common scale, or one of all.

Where columns have their own,

.. math::

    \alpha_j \sim \mathrm{Gamma}(\nu / 2, \, \nu \ell / 2),

so that a column with few entries has about the variance :math:`\ell` of the others. Its
posterior with the expected squared error :math:`q_j` of its :math:`n_j` entries is a
Gamma distribution of the shape :math:`(n_j + \nu) / 2` and the mean

.. math::

    \alpha_j = \frac{n_j + \nu}{q_j + \nu \ell};

the scale :math:`\ell` and the degrees of freedom :math:`\nu` are those of largest ELBO.
Where the noise of columns differs much, :math:`\nu` comes out small.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import gammaln

from .priors import GAMMA_RATE

# Smallest variance of the noise, for data of variance one: where nothing is left to
# explain, sums of squares are rounding.
MIN_VARIANCE = {np.dtype(np.float64): 1e-8, np.dtype(np.float32): 1e-6}

# Below this variance a fit leaves single precision: the squared error of a column is
# computed as a difference and would have fewer than three correct digits.
FLOAT32_MIN_VARIANCE = 1e-3

# Where the degrees of freedom start, their range, and the factor of one step.
FIRST_DOF = 4.0
DOF_RANGE = 1.0, 64.0
DOF_STEP = 2.0**0.5

N_ROUNDS = 3


class Noise(NamedTuple):
    """Precision of the noise of each column, and the prior that it is shrunk to."""

    alpha: np.ndarray  # (n,)
    scale: float
    dof: float  # as many entries as the prior counts for; 0: one precision of all
    # Which columns have the precision one: their loss has no noise to learn.
    known: np.ndarray | None = None

    def of_known(self, known) -> "Noise":
        """The same with a precision of one in some columns, chosen by a mask."""
        return self._replace(alpha=np.where(known, 1.0, self.alpha), known=known)

    def _unknown(self):
        """Noise of the other columns, if there are any."""
        return Noise(self.alpha[~self.known], self.scale, self.dof)

    def update(self, counts, squares, dtype) -> "Noise":
        """Noise of largest ELBO, given entries and expected squared error per column.

        Coordinate ascent on scale, nu and alpha: nu moves by one step of a grid.
        """
        if self.known is not None:
            if self.known.all():
                return self
            sums = counts[~self.known], squares[~self.known]
            found, alpha = self._unknown().update(*sums, dtype), self.alpha.copy()
            alpha[~self.known] = found.alpha
            return found._replace(alpha=alpha, known=self.known)
        largest = 1 / MIN_VARIANCE[np.dtype(dtype)]
        if self.dof == 0:
            alpha = (counts.sum() + 2 * GAMMA_RATE) / (squares.sum() + 2 * GAMMA_RATE)
            return self._replace(alpha=np.full(len(counts), min(alpha, largest)))
        noise = self
        for _ in range(N_ROUNDS):
            scale = len(counts) / noise.alpha.sum()
            candidates = []
            for factor in (1.0, 1 / DOF_STEP, DOF_STEP):
                dof = np.clip(noise.dof * factor, *DOF_RANGE)
                alpha = (counts + dof) / (squares + dof * scale)
                candidates.append(Noise(np.minimum(alpha, largest), scale, dof))
            noise = max(candidates, key=lambda each: each.elbo(counts, squares))
        return noise

    def elbo(self, counts, squares) -> float:
        """What the ELBO has of the noise, except for a constant."""
        if self.known is not None:
            n = counts[self.known].sum()
            value = -0.5 * float(n * np.log(2 * np.pi) + squares[self.known].sum())
            others = counts[~self.known], squares[~self.known]
            return value + (0.0 if self.known.all() else self._unknown().elbo(*others))
        alpha, scale, dof = self[:3]
        value = counts @ np.log(alpha / (2 * np.pi)) - alpha @ squares
        if dof == 0:
            value += 2 * GAMMA_RATE * (np.log(alpha[0]) - alpha[0])
            return 0.5 * float(value)
        half, shape = dof / 2, (counts + dof) / 2
        value += dof * (np.log(alpha) - scale * alpha).sum()
        value += 2 * (gammaln(shape) - shape * np.log(shape) + shape).sum()
        value += 2 * len(alpha) * (half * np.log(half * scale) - gammaln(half))
        return 0.5 * float(value)

    def mean_variance(self, counts) -> np.ndarray:
        """Mean of 1 / alpha, which is more than one over the mean of alpha."""
        known = counts + self.dof if self.dof else counts.sum() + 2 * GAMMA_RATE
        mean = np.maximum(known / np.maximum(known - 2, 1), 1) / self.alpha
        return mean if self.known is None else np.where(self.known, 1.0, mean)
