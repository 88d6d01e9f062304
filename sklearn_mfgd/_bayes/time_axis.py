r"""The times of rows, and the precision of processes over them.

A stationary Ornstein–Uhlenbeck process of variance one has the correlation
:math:`\exp(-|t - s| / \tau)`. Between neighbours with the correlation :math:`\phi_t`
and :math:`u_t = 1 / (1 - \phi_t^2)` its precision P is tridiagonal, with

.. math::

    P_{tt} = u_t + \phi_{t+1}^2 u_{t+1}, \qquad P_{t, t+1} = -\phi_{t+1} u_{t+1},
    \qquad \log \det P = \sum_t \log u_t.
"""

import numpy as np

from .._kernels.numpy_chains import correlation
from .seasons import Seasons

# Largest correlation of neighbours: ties in time share all but this of the variance.
MAX_PERSISTENCE = np.sqrt(1 - 1e-8)

# Timescales that a process may have: this factor apart, from half of the usual step to
# the first that is no shorter than the span.
TIMESCALE_STEP = 2.0


class TimeAxis:
    """Times of the rows of one matrix, sorted, and the seasons at them."""

    def __init__(self, timeline, seasons: Seasons):
        self.gaps, self.scales = timeline.gaps, seasons.scales
        self.has_dates = timeline.has_dates
        self.features = seasons.features(timeline.times)
        self._eigen: dict = {}

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.gaps)

    def persistence(self, timescales, start=0, stop=None) -> np.ndarray:
        """Correlation of each row with the one before, and of the row after the last.

        Shape (stop - start + 1, n_timescales); the first row of a series, and what
        comes after the last of all, have zeros.
        """
        stop = self.n_rows if stop is None else stop
        gaps = np.append(self.gaps, np.inf)[start : stop + 1]
        return persistence(gaps[:, None], np.asarray(timescales))

    def times_precision(self, Y, timescale: float) -> np.ndarray:
        """P Y for the process of this timescale."""
        phi = self.persistence([timescale])
        outward = 1 / (1 - phi**2)
        step = (phi * outward)[1:-1]
        product = (outward[:-1] + phi[1:] ** 2 * outward[1:]) * Y
        product[1:] -= step * Y[:-1]
        product[:-1] -= step * Y[1:]
        return product

    def expected_form(self, squares, lagged, timescale: float) -> np.ndarray:
        """E[y' P y] of columns y, given E[y_t^2] and E[y_t y_{t+1}] of each row."""
        phi = self.persistence([timescale])[:, 0]
        outward = 1 / (1 - phi**2)
        form = (outward[:-1] + phi[1:] ** 2 * outward[1:]) @ squares
        return form - 2 * (phi * outward)[1:] @ lagged

    def log_det(self, timescale: float) -> float:
        """Log determinant of P."""
        return -float(np.log1p(-(self.persistence([timescale]) ** 2)).sum())

    def gram_eigen(self, timescale: float) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues and vectors of F' P F, for the features F with their scales."""
        if timescale not in self._eigen:
            F = self.features * self.scales
            values, vectors = np.linalg.eigh(F.T @ self.times_precision(F, timescale))
            self._eigen[timescale] = np.maximum(values, 0), vectors
        return self._eigen[timescale]

    def sample(self, timescales, rng) -> np.ndarray:
        """Sample processes of variance one, (m, n_timescales)."""
        normal = rng.standard_normal((self.n_rows, len(timescales)))
        for t in range(1, self.n_rows):
            phi = persistence(self.gaps[t], timescales)
            normal[t] = phi * normal[t - 1] + np.sqrt(1 - phi**2) * normal[t]
        return normal


def persistence(gaps, timescales) -> np.ndarray:
    """Correlation over gaps, below one, so that the precision is finite."""
    return np.minimum(correlation(gaps, timescales), MAX_PERSISTENCE)


def timescales_for(timeline) -> np.ndarray:
    """Timescales to choose from: zero, for white noise, and longer and longer ones."""
    span = timeline.span / timeline.step
    n = int(np.ceil(np.log(max(4 * span, 8)) / np.log(TIMESCALE_STEP)))
    return np.append(0.0, timeline.step / 2 * TIMESCALE_STEP ** np.arange(n))
