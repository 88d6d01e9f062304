r"""Losses of single entries, by working values and weights.

A loss compares a value x with a prediction p, which is a sum of biases and products of
factors. Around a prediction m it is replaced by a quadratic,

.. math::

    \tfrac12 \omega (y - p)^2 + \text{const},

with a working weight :math:`\omega` and a working value y, so that rows are updated as
for squared error. The quadratic touches the loss at m. It lies above it everywhere
where the loss is a `Loss` with ``is_bound``: a step that lowers it lowers the loss.

=============  ======================================  ===============================
loss           minus the log likelihood of x           quadratic
=============  ======================================  ===============================
squared        :math:`(x - p)^2 / 2`                   itself
Student's t    :math:`\tfrac{\nu + 1}{2 \alpha}        scale mixture of normals [1]_
               \log(1 + \alpha (x - p)^2 / \nu)`
Huber          :math:`(x - p)^2 / 2`, linear beyond    reweighted least squares [2]_
               a threshold
logistic       :math:`\log(1 + e^p) - x p`             Jaakkola & Jordan [3]_
Poisson        :math:`e^p - x p`                       Fisher scoring, no bound [4]_
=============  ======================================  ===============================

Where factors have a posterior, m is the mean of a prediction, v its variance, and the
quadratic bounds the expected loss; with v = 0 it bounds the loss.

References
----------
.. [1] K. L. Lange, R. J. A. Little, J. M. G. Taylor, "Robust Statistical Modeling Using
   the t Distribution", Journal of the American Statistical Association 84 (1989).
.. [2] P. J. Huber, "Robust Estimation of a Location Parameter", Annals of Mathematical
   Statistics 35 (1964).
.. [3] T. S. Jaakkola, M. I. Jordan, "Bayesian Parameter Estimation via Variational
   Methods", Statistics and Computing 10 (2000).
.. [4] P. McCullagh, J. A. Nelder, "Generalized Linear Models", Chapman & Hall (1989).
"""

from typing import NamedTuple

import numpy as np
from scipy.special import expit, gammaln, logit, xlogy
from scipy.stats import nbinom, t

from .._data.standardize import NORMAL_RATIO

# Degrees of freedom of Student's t: where they start, their range, and one step.
FIRST_DOF, DOF_RANGE, DOF_STEP = 8.0, (1.0, 512.0), 2.0**0.5

# The threshold of Huber's loss in standard deviations of normal noise, of which it
# keeps 95 % of the efficiency (Holland & Welsch 1977).
HUBER_EFFICIENCY = 1.345

# Values further than this many robust deviations from the median of their column count
# as if they were there, in the start of a robust fit.
MAX_START_DEVIATIONS = 4.0

# A prediction of a count beyond this is a rate beyond any count.
LARGEST_LOG_RATE = 30.0

# Share of a mean that stands for a mean of zero, or of one: its logit is finite.
LEAST_SHARE = 1e-3


class Squared(NamedTuple):
    """Half the squared error."""

    is_bound = True
    has_unit_noise = False

    def value(self, x, p, precision):
        return 0.5 * np.square(x - p)

    def expected(self, x, m, v, precision):
        """Expected log likelihood, the best that the quadratic can say of it."""
        squares = np.square(x - m) + v
        return 0.5 * (np.log(precision / (2 * np.pi)) - precision * squares)

    def working(self, x, m, v, precision):
        """Working values, and working weights."""
        return x, np.ones_like(x)

    def mean(self, p, v):
        """Expected value given a prediction and its variance."""
        return p

    def variance(self, p, v, noise):
        """Variance of a value, given those of its prediction and of the noise."""
        return v + noise

    def sample(self, p, precision, rng):
        """Sample values given predictions."""
        return p + rng.standard_normal(len(p)) / np.sqrt(precision)


class StudentT(NamedTuple):
    """Minus the log density of a t distribution of learned degrees of freedom."""

    dof: float = FIRST_DOF

    is_bound = True
    has_unit_noise = False

    def value(self, x, p, precision):
        shape = 0.5 * (self.dof + 1) / precision
        return shape * np.log1p(precision * np.square(x - p) / self.dof)

    def expected(self, x, m, v, precision):
        half, rate = self.dof / 2, self.dof + precision * (np.square(x - m) + v)
        constant = gammaln(half + 0.5) - gammaln(half) + half * np.log(half)
        of_noise = 0.5 * np.log(precision / (2 * np.pi))
        return of_noise + constant - (half + 0.5) * np.log(rate / 2)

    def working(self, x, m, v, precision):
        squares = np.square(x - m) + v
        return x, (self.dof + 1) / (self.dof + precision * squares)

    def learned(self, x, m, v, precision):
        """The same with degrees of freedom of a larger likelihood, one step away."""
        steps = (1 / DOF_STEP, 1.0, DOF_STEP)
        candidates = [StudentT(float(np.clip(self.dof * k, *DOF_RANGE))) for k in steps]
        given = x, m, v, precision
        return max(candidates, key=lambda loss: loss.expected(*given).sum())

    def mean(self, p, v):
        return p

    def variance(self, p, v, noise):
        # That of the normal distribution whose 95 % interval is as wide.
        return v + noise * (t.ppf(0.975, self.dof) / 1.959964) ** 2

    def sample(self, p, precision, rng):
        return p + rng.standard_t(self.dof, len(p)) / np.sqrt(precision)


class Huber(NamedTuple):
    """Half the squared error, which grows linearly beyond a threshold."""

    threshold: float = np.inf

    is_bound = True
    has_unit_noise = False

    def value(self, x, p, precision):
        error = np.abs(x - p)
        inner = np.minimum(error, self.threshold)
        return inner * (error - 0.5 * inner)

    def working(self, x, m, v, precision):
        error, weights = np.abs(x - m), np.ones_like(x)
        beyond = error > self.threshold  # of an infinite threshold no ratio is taken
        weights[beyond] = self.threshold / error[beyond]
        return x, weights

    def learned(self, x, m, v, precision):
        """The same with the threshold for the noise that is left, if that is less.

        The loss falls with the threshold, so that the objective never rises.
        """
        deviation = NORMAL_RATIO * np.median(np.abs(x - m))
        if deviation == 0:  # most are fitted exactly
            return self
        return Huber(float(min(self.threshold, HUBER_EFFICIENCY * deviation)))

    def mean(self, p, v):
        return p


class Logistic(NamedTuple):
    """Minus the log likelihood of zeros and ones, given the logit of a one."""

    is_bound = True
    has_unit_noise = True
    refused = "Values other than 0 and 1"

    def outside(self, x):
        """Which values cannot be."""
        return (x != 0) & (x != 1)

    def start(self, x):
        """Predictions to start from, and the weights of their squared errors."""
        return 4 * x - 2, np.full_like(x, 0.25)

    def link(self, mean):
        return logit(np.clip(mean, LEAST_SHARE, 1 - LEAST_SHARE))

    def value(self, x, p, precision):
        return np.logaddexp(0, p) - x * p

    def expected(self, x, m, v, precision):
        root = np.sqrt(np.square(m) + v)
        return (x - 0.5) * m - 0.5 * root - np.logaddexp(0, -root)

    def working(self, x, m, v, precision):
        root = np.maximum(np.sqrt(np.square(m) + v), 1e-6)
        weights = np.tanh(root / 2) / (2 * root)
        return (x - 0.5) / weights, weights

    def mean(self, p, v):
        # Not the mean over v: the bound shrinks logits by about as much already.
        return expit(p)

    def variance(self, p, v, noise):
        mean = self.mean(p, v)
        return mean * (1 - mean)

    def quantiles(self, mean, variance, probability):
        return (probability > 1 - mean).astype(np.float64)

    def sample(self, p, precision, rng):
        return (rng.uniform(size=len(p)) < expit(p)).astype(np.float64)


class Poisson(NamedTuple):
    """Minus the log likelihood of counts given the logarithm of their rate."""

    is_bound = False
    has_unit_noise = True
    refused = "Negative values"

    def outside(self, x):
        return x < 0

    def start(self, x):
        return np.log(x + 0.5), x + 0.5

    def link(self, mean):
        return np.log(np.maximum(mean, LEAST_SHARE))

    def value(self, x, p, precision):
        # Half the deviance, which is zero where the rate is the count.
        return np.exp(p) - x + xlogy(x, np.maximum(x, 1e-300)) - x * p

    def expected(self, x, m, v, precision):
        return x * m - _rate(m, v) - gammaln(x + 1)

    def working(self, x, m, v, precision):
        weights = np.maximum(_rate(m, v), 1e-6)
        return m + (x - weights) / weights, weights

    def mean(self, p, v):
        return np.exp(p + np.minimum(v / 2, LARGEST_LOG_RATE))

    def variance(self, p, v, noise):
        mean = self.mean(p, v)
        return mean + np.square(mean) * np.expm1(np.minimum(v, LARGEST_LOG_RATE))

    def quantiles(self, mean, variance, probability):
        # The negative binomial distribution of this mean and variance.
        excess = np.maximum(variance - mean, 1e-9 * mean)
        size = np.square(mean) / excess
        return nbinom.ppf(probability, size, size / (size + mean))

    def sample(self, p, precision, rng):
        return rng.poisson(np.exp(np.minimum(p, LARGEST_LOG_RATE))).astype(np.float64)


Loss = Squared | StudentT | Huber | Logistic | Poisson

LOSSES = {
    "squared": Squared,
    "student_t": StudentT,
    "huber": Huber,
    "logistic": Logistic,
    "poisson": Poisson,
}


def _rate(m, v):
    """Expected rate of a normal logarithm."""
    return np.exp(np.minimum(m + v / 2, LARGEST_LOG_RATE))
