r"""Prior of rows in time: factors are processes around a seasonal mean.

Factor k of the rows, sorted by time, has the prior

.. math::

    w_k \sim N(F a_k, \, P(\tau_k)^{-1} / \lambda_k), \qquad
    a_{dk} \sim N(0, \, \theta_k \sigma_d^2 / \lambda_k)

with the precision P of a process of the timescale :math:`\tau_k`, see `time_axis`,
and seasonal features F, see `seasons`. With :math:`\tau_k = 0` and
:math:`\theta_k = 0` this is `Prior` without features. Let the columns of F have their
scales, G = F' P F and p = F' P E[w]. The posterior of a has the mean
:math:`\theta (I + \theta G)^{-1} p`, and the ELBO then has of a factor

.. math::

    \tfrac12 \Big[ m \log \lambda - \lambda \Big( \mathrm{E}[w' P w]
    - p' \theta (I + \theta G)^{-1} p \Big) + \log \det P
    - \log \det (I + \theta G) \Big].

The best lambda has a closed form; theta and tau are chosen from grids, tau one step at
a time. The bias of a row is one more coefficient of this kind.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .priors import GAMMA_RATE, best_precision
from .time_axis import TimeAxis

# Grid of theta: seasons say nothing, or more and more.
SEASON_VARIANCES = np.append(0.0, np.logspace(-3, 3, 13))


class ChainStatistics(NamedTuple):
    """What the update of the prior needs of the posterior of the rows."""

    means: np.ndarray  # (m, q)
    squares: np.ndarray  # (m, q), E[z_t^2]
    lagged: np.ndarray  # (m, q), E[z_t z_{t+1}]; nothing of the last row
    log_det: float  # of the covariance of all rows


@dataclass(frozen=True)
class ChainPrior:
    """Prior of z = [w, b] of rows in time."""

    precision: np.ndarray  # (q,), lambda
    timescales: np.ndarray  # (q,), tau
    slopes: np.ndarray  # (d, q), a
    grid: np.ndarray  # timescales to choose from, increasing

    def mean(self, axis: TimeAxis) -> np.ndarray:
        """Prior mean of the rows, (m, q)."""
        return axis.features @ self.slopes

    def pull(self, axis: TimeAxis) -> np.ndarray:
        """Precision times mean: what the prior adds to the targets of rows, (m, q)."""
        pull, mean = np.zeros((axis.n_rows, len(self.precision))), self.mean(axis)
        for timescale in np.unique(self.timescales):
            of = (self.timescales == timescale) & self.slopes.any(axis=0)
            if of.any():
                product = axis.times_precision(mean[:, of], timescale)
                pull[:, of] = self.precision[of] * product
        return pull

    def update(self, statistics: ChainStatistics, axis: TimeAxis):
        """Return the prior of largest ELBO, and what the ELBO then has of the rows."""
        m, q = statistics.means.shape
        numbers = np.searchsorted(self.grid, self.timescales)
        costs, forms = np.full(q, np.inf), np.empty(q)
        timescales, slopes = self.timescales.copy(), self.slopes.copy()
        for number, timescale in enumerate(self.grid):
            tried = np.flatnonzero(np.abs(numbers - number) <= 1)
            if tried.size == 0:
                continue
            best = _best_season(statistics, axis, timescale, tried)
            better = best.costs < costs[tried]
            tried = tried[better]
            costs[tried], forms[tried] = best.costs[better], best.forms[better]
            timescales[tried], slopes[:, tried] = timescale, best.slopes[:, better]
        precision = best_precision(forms, m)
        prior = ChainPrior(precision, timescales, slopes, self.grid)
        count = m + 2 * GAMMA_RATE
        value = q * (count * (np.log(count) - 1) + m) - costs.sum()
        return prior, 0.5 * float(value + statistics.log_det)


class _Best(NamedTuple):
    """The best theta of some coefficients for one timescale."""

    costs: np.ndarray  # minus twice the ELBO, except for what no choice changes
    forms: np.ndarray  # expected form around the prior mean, with the cost of slopes
    slopes: np.ndarray  # (d, n)


def _best_season(statistics, axis, timescale, chosen):
    """Find theta for each of the chosen coefficients."""
    of = statistics.squares[:, chosen], statistics.lagged[:, chosen]
    form = axis.expected_form(*of, timescale)
    eigenvalues, vectors = axis.gram_eigen(timescale)
    weighted = axis.times_precision(statistics.means[:, chosen], timescale)
    products = vectors.T @ (axis.scales[:, None] * (axis.features.T @ weighted))
    shares = SEASON_VARIANCES / (1 + np.outer(eigenvalues, SEASON_VARIANCES))
    forms = np.maximum(form - shares.T @ products**2, 0.0)  # (n_thetas, n)
    costs = (axis.n_rows + 2 * GAMMA_RATE) * np.log(forms + 2 * GAMMA_RATE)
    log_dets = np.log1p(np.outer(SEASON_VARIANCES, eigenvalues)).sum(axis=1)
    costs += log_dets[:, None] - axis.log_det(timescale)
    best, k = costs.argmin(axis=0), np.arange(len(chosen))
    slopes = axis.scales[:, None] * (vectors @ (shares[:, best] * products))
    return _Best(costs[best, k], forms[best, k], slopes)
