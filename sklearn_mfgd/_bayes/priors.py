r"""Where the factors and the bias of one side come from, and the best there is.

Factor k of all rows has the prior

.. math::

    w_k \sim N(F a_k, \, I / \lambda_k), \qquad
    a_{dk} \sim N(0, \, \theta_k \sigma_d^2 / \lambda_k)

with the features F of what is observed, see `_pattern`; without features, its mean is
zero. The posterior of a is taken to be independent of that of w. As the columns of F
are orthonormal, with P = F' E[w] and :math:`s = \theta \sigma^2 / (1 + \theta
\sigma^2)` it has the mean s P and the variance s / lambda: P, shrunk. What the bound
then has of a factor is

.. math::

    \tfrac12 \Big[ m \log \lambda - \lambda \Big( \mathrm{E} |w|^2 - 2 \sum_d a_d P_d
    + \sum_d a_d^2 / s_d \Big) - \sum_d \log(1 + \theta \sigma_d^2) \Big],

of which the best lambda is known for every theta, and the best theta is looked up.
"""

from typing import NamedTuple

import numpy as np

# Shape, less one, and rate of the Gamma prior of a precision: it says next to nothing.
VAGUE = 1e-3

# Precision of biases whose prior is flat: columns of different quantities say nothing
# about the mean of one another. The data have unit variance.
FLAT = 1e-6

# Values of theta: the pattern says nothing, or more and more.
STRENGTHS = np.append(0.0, np.logspace(-3, 5, 33))


class Prior(NamedTuple):
    """Of the factors of one side and its bias, in a basis Q."""

    precision: np.ndarray  # (q,), of Q z
    strength: np.ndarray  # (q,), theta
    slopes: np.ndarray  # (n_features, q): z is about features @ slopes, not turned

    def take(self, chosen):
        """The same of some of the factors."""
        return Prior(
            self.precision[chosen], self.strength[chosen], self.slopes[:, chosen]
        )


def first_prior(precision, n_features):
    """A prior of mean zero."""
    q = len(precision)
    return Prior(precision, np.zeros(q), np.zeros((n_features, q)))


def shrinkage(strength, scales):
    """Share of P that the mean of a is, (n_features, n_strengths)."""
    variances = np.square(scales)[:, None] * strength
    return variances / (1 + variances)


def evidence(strength, scales):
    """Sum of ``log(1 + theta sigma^2)`` over the features, (n_strengths,)."""
    return np.log1p(np.square(scales)[:, None] * strength).sum(axis=0)


def with_flat_bias(prior):
    """The same with next to no prior on the bias."""
    precision, strength, slopes = (array.copy() for array in prior)
    precision[-1], strength[-1], slopes[:, -1] = FLAT, 0.0, 0.0
    return Prior(precision, strength, slopes)


def best_precisions(second, count):
    """Precisions of largest bound for `count` coefficients of these summed squares."""
    return (count + 2 * VAGUE) / (second + 2 * VAGUE)


def best_prior(second, products, count, scales, basis):
    """The prior of largest bound.

    Parameters
    ----------
    second : ndarray of shape (q,)
        E[z^2] of the turned factors, summed over the side.
    products : ndarray of shape (n_features, q)
        Features times E[z], not turned.
    count : int
        Length of the side.
    scales : ndarray of shape (n_features,)
        Sigma.
    basis : ndarray of shape (rank, rank)
        Q.
    """
    products = turned(products, basis)
    shares = shrinkage(STRENGTHS, scales)
    left = second - shares.T @ products**2
    costs = (count + 2 * VAGUE) * np.log(left + 2 * VAGUE)
    costs += evidence(STRENGTHS, scales)[:, None]
    best = costs.argmin(axis=0)
    slopes = turned(shares[:, best] * products, np.linalg.inv(basis))
    left = left[best, np.arange(len(best))]
    return Prior(best_precisions(left, count), STRENGTHS[best], slopes)


def spread(second, products, prior, scales, basis):
    """Expected square of the distance from the prior mean, summed over the side.

    That of the slopes from zero is counted in.
    """
    slopes, products = turned(prior.slopes, basis), turned(products, basis)
    shares = shrinkage(prior.strength, scales)
    shares[shares == 0] = np.inf  # slopes are zero there
    return second + (slopes * (slopes / shares - 2 * products)).sum(axis=0)


def turned(F, basis):
    """Factors, or what is linear in them, in another basis; a bias stays."""
    rank = len(basis)
    return np.column_stack([F[:, :rank] @ basis.T, F[:, rank:]])
