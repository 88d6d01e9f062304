r"""Prior of the factors and the bias of one side, and its empirical Bayes update.

Factor k of all rows has the prior

.. math::

    w_k \sim N(F a_k, \, I / \lambda_k), \qquad
    a_{dk} \sim N(0, \, \theta_k \sigma_d^2 / \lambda_k)

with missingness features F, see `missingness`. Without features, or with
:math:`\theta_k = 0`, its mean is zero: automatic relevance determination (ARD). The
posterior of the slopes a is taken to be independent of that of w. As the columns of F
are orthonormal, with P = F' E[w] and :math:`s = \theta \sigma^2 / (1 + \theta
\sigma^2)` it has the mean s P, which is P shrunk, and the variance s / lambda. The ELBO
then has of a factor

.. math::

    \tfrac12 \Big[ m \log \lambda - \lambda \Big( \mathrm{E} |w|^2 - 2 \sum_d a_d P_d
    + \sum_d a_d^2 / s_d \Big) - \sum_d \log(1 + \theta \sigma_d^2) \Big].

The best lambda has a closed form for every theta; theta is chosen from a grid.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

# Shape, less one, and rate of the Gamma prior of a precision: nearly uninformative.
GAMMA_RATE = 1e-3

# Precision of biases whose prior is flat: columns of different quantities say nothing
# about the mean of one another. The data have unit variance.
FLAT_PRECISION = 1e-6

# Grid of theta: the features say nothing, or more and more.
SIGNAL_VARIANCES = np.append(0.0, np.logspace(-3, 5, 33))


class FeatureBasis(NamedTuple):
    """Features F T that are orthonormal where rows count by their scale."""

    T: np.ndarray  # (n_features, n_features)
    inverse: np.ndarray
    scales: np.ndarray  # (n_features,), sigma of these
    gram: np.ndarray  # F' diag(rho) F

    @classmethod
    def of(cls, gram, scales) -> "FeatureBasis":
        """Basis in which slopes are independent, as they are in that of F."""
        values, U = np.linalg.eigh(gram * np.outer(scales, scales))
        new = np.sqrt(np.maximum(values, np.finfo(float).tiny))
        return cls(scales[:, None] * U / new, (new * U / scales[:, None]).T, new, gram)


@dataclass(frozen=True)
class Prior:
    """Prior of z = [w, b] of every row of one side, along the axes of Q z.

    Means of factors are ``features @ slopes`` before the rotation Q.
    """

    precision: np.ndarray  # (q,), lambda of Q w and of b
    signal_variance: np.ndarray  # (q,), theta
    slopes: np.ndarray  # (n_features, q), not rotated
    feature_scales: np.ndarray  # (n_features,), sigma
    rotation: np.ndarray  # (rank, rank), Q
    flat_bias: bool = False  # nothing is known of the bias before it is seen

    @classmethod
    def of_mean_zero(cls, precision, feature_scales, rank: int, *, flat_bias=False):
        """Prior that does not use its features yet, along the axes of the factors."""
        given = precision, np.zeros_like(precision)
        given = *given, np.zeros((len(feature_scales), len(precision)))
        return cls(*given, feature_scales, np.eye(rank), flat_bias)._with(*given)

    @classmethod
    def with_slopes(cls, precision, slopes, biased: bool) -> "Prior":
        """Prior as a fitted model keeps it: along the axes of the factors."""
        unknown = np.full(len(precision), np.nan)
        rotation = np.eye(len(precision) - biased)
        return cls(precision, unknown, slopes, np.full(len(slopes), np.nan), rotation)

    @property
    def rank(self) -> int:
        """Number of factors."""
        return len(self.rotation)

    @cached_property
    def precision_matrix(self) -> np.ndarray:
        """Precision of factors that are not rotated, Q' diag(lambda) Q, and of b."""
        Q, matrix = self.rotation, np.diag(self.precision)
        matrix[: self.rank, : self.rank] = (Q.T * self.precision[: self.rank]) @ Q
        return matrix

    def pull(self, features) -> np.ndarray:
        """Precision times mean of each row: what the prior adds to its targets."""
        return features @ (self.slopes @ self.precision_matrix)

    def update(self, statistics) -> "Prior":
        """Prior of largest ELBO in this rotation, given the `SideStatistics`."""
        second = self._second_moments(statistics)
        products = rotate(statistics.feature_products, self.rotation)
        basis, scales = statistics.feature_basis, self.feature_scales
        if basis is not None:
            products, scales = basis.T.T @ products, basis.scales
        shares = shrinkage(SIGNAL_VARIANCES, scales)
        remaining = second - shares.T @ products**2  # (n_thetas, q)
        costs = (statistics.count + 2 * GAMMA_RATE) * np.log(remaining + 2 * GAMMA_RATE)
        costs += log_det_prior(SIGNAL_VARIANCES, scales)[:, None]
        best = costs.argmin(axis=0)
        slopes = shares[:, best] * products
        if basis is not None:
            slopes = basis.T @ slopes
        slopes = rotate(slopes, np.linalg.inv(self.rotation))
        remaining = remaining[best, np.arange(len(best))]
        precision = best_precision(remaining, statistics.count)
        return self._with(precision, SIGNAL_VARIANCES[best], slopes)

    def elbo(self, statistics) -> float:
        """What the ELBO has of this side: minus its divergence, and the priors' own."""
        log_det_rotation = np.linalg.slogdet(self.rotation)[1]
        value = 0.5 * statistics.log_det + statistics.count * log_det_rotation
        return float(value + self.elbo_of_coefficients(statistics).sum())

    def elbo_of_coefficients(self, statistics) -> np.ndarray:
        """What the ELBO has of each coefficient, except for determinants, (q,)."""
        log_precision = np.log(self.precision)
        value = statistics.count * (1 + log_precision)
        value -= self.precision * self.expected_squares(statistics)
        basis = statistics.feature_basis
        scales = self.feature_scales if basis is None else basis.scales
        value -= log_det_prior(self.signal_variance, scales)
        return 0.5 * value + GAMMA_RATE * (log_precision - self.precision)

    def expected_squares(self, statistics) -> np.ndarray:
        """Expected squared distance from the prior means, of slopes from zero, (q,)."""
        slopes = rotate(self.slopes, self.rotation)
        products = rotate(statistics.feature_products, self.rotation)
        basis, scales = statistics.feature_basis, self.feature_scales
        if basis is not None:
            slopes, products = basis.inverse @ slopes, basis.T.T @ products
            scales = basis.scales
        shares = shrinkage(self.signal_variance, scales)
        shares[shares == 0] = np.inf  # slopes are zero there
        second = self._second_moments(statistics)
        # E|w|^2 - 2 a'P + sum of a^2 / s
        return second + (slopes * (slopes / shares - 2 * products)).sum(axis=0)

    def centred_moments(self, statistics) -> np.ndarray:
        """Second moments of factors around the prior means, not rotated."""
        products = statistics.feature_products[:, : self.rank]
        slopes = self.slopes[:, : self.rank]
        cross = slopes.T @ products
        moments = statistics.second_moments[: self.rank, : self.rank]
        basis = statistics.feature_basis
        squares = slopes if basis is None else basis.gram @ slopes
        return moments - cross - cross.T + slopes.T @ squares

    def rotated(self) -> "Prior":
        """Prior of the factors Q w: its axes are theirs."""
        slopes = rotate(self.slopes, self.rotation)
        return replace(self, slopes=slopes, rotation=np.eye(self.rank))

    def with_factors(self, kept) -> "Prior":
        """Prior of some of the factors, and of the bias; not rotated."""
        kept = with_bias(kept, len(self.precision) > self.rank)
        return replace(
            self,
            precision=self.precision[kept],
            signal_variance=self.signal_variance[kept],
            slopes=self.slopes[:, kept],
            rotation=np.eye(np.count_nonzero(kept[: self.rank])),
        )

    def extrapolated(self, before: "Prior", share: float) -> "Prior":
        """Prior whose means move on by a share of their last change."""
        return replace(self, slopes=self.slopes + share * (self.slopes - before.slopes))

    def _second_moments(self, statistics):
        """Sum of E[z^2] over the side, of rotated factors and of the bias, (q,)."""
        Q, moments = self.rotation, statistics.second_moments
        factors = moments[: self.rank, : self.rank]
        squares = np.einsum("ka,ab,kb->k", Q, factors, Q)
        return np.append(squares, np.diag(moments)[self.rank + 1 :])

    def _with(self, precision, theta, slopes):
        if self.flat_bias:
            precision, theta, slopes = precision.copy(), theta.copy(), slopes.copy()
            precision[-1], theta[-1], slopes[:, -1] = FLAT_PRECISION, 0.0, 0.0
        return replace(self, precision=precision, signal_variance=theta, slopes=slopes)


def best_precision(squares, count: int) -> np.ndarray:
    """Precision of largest ELBO for `count` coefficients of these summed squares."""
    return (count + 2 * GAMMA_RATE) / (squares + 2 * GAMMA_RATE)


def shrinkage(signal_variance, feature_scales) -> np.ndarray:
    """Share s of P that the mean of the slopes is, (n_features, n_thetas)."""
    variances = np.square(feature_scales)[:, None] * signal_variance
    return variances / (1 + variances)


def log_det_prior(signal_variance, feature_scales) -> np.ndarray:
    """Sum of ``log(1 + theta sigma^2)`` over the features, (n_thetas,)."""
    return np.log1p(np.square(feature_scales)[:, None] * signal_variance).sum(axis=0)


def rotate(coefficients, rotation) -> np.ndarray:
    """Factors, or what is linear in them, along other axes; a bias stays."""
    rank = len(rotation)
    factors, bias = coefficients[:, :rank], coefficients[:, rank:]
    return np.column_stack([factors @ rotation.T, bias])


def with_bias(factors, biased: bool) -> np.ndarray:
    """Factors, and one for the bias if there is any: in a mask, it is kept."""
    return np.append(factors, np.ones(int(biased), factors.dtype))
