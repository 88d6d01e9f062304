r"""Rows with a scale of their own: the same factors, in larger or smaller numbers.

Raters differ in how much of a rating scale they use. Noise and deviations from the
prior mean of a row are larger or smaller together,

.. math::

    x_{ij} \sim N(\cdot, \, 1 / (s_{ij} \alpha_j \rho_i)), \quad
    w_i \sim N(A' f_i, \, \Lambda^{-1} / \rho_i), \quad
    \rho_i \sim \mathrm{Gamma}(\nu / 2, \nu / 2),

which marginally is a multivariate t distribution [1]_. Given the columns, the posterior
of :math:`(w_i, \rho_i)` is a normal-gamma distribution: with P and m of `side`, where
the scale is one,

.. math::

    w_i \mid \rho_i \sim N(m_i, \, P_i^{-1} / \rho_i), \quad
    \rho_i \sim \mathrm{Gamma}\Big( \frac{n_i + \nu}{2}, \frac{r_i + \nu}{2} \Big),

    r_i = \sum_j \alpha_j s_{ij} \mathrm{E}[(x_{ij} - c_j)^2]
        + \mu_i^\top \Lambda \mu_i - m_i^\top P_i m_i

with the prior mean :math:`\mu_i`. So the means of rows do not depend on their scales;
columns weigh rows by them. The degrees of freedom :math:`\nu` are those of largest
ELBO: large ones where all rows have about the same scale.

References
----------
.. [1] K. L. Lange, R. J. A. Little, J. M. G. Taylor, "Robust Statistical Modeling Using
   the t Distribution", Journal of the American Statistical Association 84 (1989).
"""

from typing import NamedTuple

import numpy as np
from scipy.special import digamma, gammaln

from .._kernels import dispatch
from .moments import bias_squares, moments_of, n_pairs

# Where the degrees of freedom start, their range, and the factor of one step. With more
# than two the variance of a row that was not seen is finite.
FIRST_DOF = 16.0
DOF_RANGE = 3.0, 2.0**14
DOF_STEP = 2.0**0.5

# Numbers that the ELBO needs of the scales.
N_SUMS = 4


class RowScales(NamedTuple):
    """Posterior of the scales of rows, independent Gamma distributions."""

    shape: np.ndarray  # (m,)
    rate: np.ndarray

    @classmethod
    def of(cls, counts, squares, dof: float) -> "RowScales":
        """Posterior given entries and the least expected squares r of each row."""
        return cls((counts + dof) / 2, (np.maximum(squares, 0.0) + dof) / 2)

    @property
    def means(self) -> np.ndarray:
        """E[rho]."""
        return self.shape / self.rate

    @property
    def mean_variances(self) -> np.ndarray:
        """E[1 / rho]."""
        return self.rate / (self.shape - 1)

    def sums(self, counts) -> np.ndarray:
        """What the ELBO needs of the rows: it adds up over blocks, (4,).

        The number of rows, the sums of E[rho] and E[log rho], and what entries and
        entropy have of the ELBO whatever the prior is.
        """
        shape = self.shape
        logs = digamma(shape) - np.log(self.rate)
        entropy = shape - np.log(self.rate) + gammaln(shape)
        entropy += (1 - shape) * digamma(shape)
        fixed = 0.5 * counts @ logs + entropy.sum()
        return np.array([len(shape), self.means.sum(), logs.sum(), fixed])


def best_dof(sums, dof: float) -> float:
    """Degrees of freedom of larger ELBO, one step of a grid away, or the same."""
    tried = (
        np.clip(dof * factor, *DOF_RANGE) for factor in (1, 1 / DOF_STEP, DOF_STEP)
    )
    return float(max(tried, key=lambda each: elbo(sums, each)))


def elbo(sums, dof: float) -> float:
    """What the ELBO has of the scales, except for the expected squared error."""
    if dof == 0:
        return 0.0
    count, means, logs, fixed = sums
    half = dof / 2
    prior = count * (half * np.log(half) - gammaln(half))
    return float(prior + (half - 1) * logs - half * means + fixed)


def scales_of(rows, precision, sums, posteriors, features, prior, dof) -> RowScales:
    """Posterior of the scales of the rows of which `posteriors` are those at scale one.

    `precision` is that of the noise of each column, `sums` are as for `update_side`.
    """
    (systems, system_index, targets), rank = sums, prior.rank
    values = rows.weighted_values.values * rows.values
    squared = rows._replace(values=values, weights=None)
    precision = np.ascontiguousarray(precision, values.dtype)[:, None]
    squares = dispatch.product(squared, precision)[:, 0].astype(np.float64)
    if targets.shape[1] > rank + 1:  # the columns have biases c
        squares += bias_squares(systems)[system_index] - 2.0 * targets[:, -1]
    if features.shape[1]:
        pull = prior.pull(features)
        squares += np.einsum("ia,ia->i", pull, features @ prior.slopes)
    counts = np.diff(rows.indptr)
    return RowScales.of(counts, squares - posteriors.gains, dof)


def scaled_moments(posteriors, scales, biased: bool) -> np.ndarray:
    """Packed E[rho v v'] of rows: their covariances are divided by the scale."""
    means = posteriors.means
    none = np.zeros((len(means), n_pairs(means.shape[1])), means.dtype)
    squares = moments_of(means, none, biased)
    squares *= (scales - 1).astype(means.dtype)[:, None]
    squares += posteriors.moments
    return squares


def mean_variance_of_prior(dof: float) -> float:
    """E[1 / rho] of a row without entries; one if rows have no scales."""
    return dof / (dof - 2) if dof else 1.0
