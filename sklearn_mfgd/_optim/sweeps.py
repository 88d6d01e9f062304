"""One sweep of the deterministic solvers: a step of all rows of W, then of H.

Once the gains of ``"scaled"`` and ``"als"`` shrink slowly, a sweep starts from a point
extrapolated along the last change of both factors, as in Nesterov's method. Where that
would raise F, the sweep is repeated from the last iterate [1]_, [2]_.

References
----------
.. [1] B. O'Donoghue, E. Candes, "Adaptive Restart for Accelerated Gradient Schemes",
   Foundations of Computational Mathematics 15 (2015).
.. [2] D. Mitchell, N. Ye, H. De Sterck, "Nesterov Acceleration of Alternating Least
   Squares for Canonical Tensor Decomposition", Numerical Linear Algebra with
   Applications 27 (2020).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from .divergence import gradient_bound
from .penalty import penalized_loss
from .steps import STEPS

# A gain of more than this share of the one before calls for extrapolation. Where gains
# shrink faster, plain sweeps converge faster than extrapolated ones.
SLOW_GAIN_RATIO = 0.7

# Sweeps that a fixed step longer than 2/L must last before it may converge: at a
# minimum even such a step moves nothing until it has magnified the rounding.
PROBATION = 50


class Iterate(NamedTuple):
    """Factors, F, and how the sweep that led to them ended."""

    W: np.ndarray
    H: np.ndarray
    loss: float
    step_sizes: Callable[[], np.ndarray] | None = None
    restarted: bool = False  # its gain does not go on the series of the gains before
    converged: bool | None = None  # None: the gains decide


class AlternatingSweeps:
    """Sweeps of one step of either side, with the steps of a solver in `STEPS`."""

    def __init__(self, objective, penalties, eta: float | str, solver: str):
        self.objective, self.penalties, self.eta = objective, penalties, eta
        self._step = STEPS[solver]
        self._extrapolates = eta == "auto" and solver != "gd"
        self._solves_rows = eta == "auto" and solver == "als"  # W follows from H
        self._n_extrapolated, self._previous = 0, None
        eps = float(np.finfo(objective.dtype).eps)
        self.rounding, self.tolerated_rise = 100 * eps, np.sqrt(eps)
        self.probation = PROBATION
        # The full step of "als" is exact, and that of "scaled" never raises F.
        self.full_step_descends = solver != "gd"

    def ceiling(self, start: float) -> float:
        return start * (1 + self.tolerated_rise)

    def step_bound(self, at: Iterate) -> float:
        if self.full_step_descends:
            return 1.0
        return gradient_bound(self.objective, at.W, at.H, self.penalties)

    def sweep(self, last: Iterate, last_gain: float) -> Iterate:
        """Step both sides from the last iterate or, while that goes well, beyond it."""
        W, H = last[:2]
        if self.eta == "auto":
            self.objective.adapt(W, H)
        if self._n_extrapolated:
            momentum = self._n_extrapolated / (self._n_extrapolated + 3)
            momentum, (before_W, before_H) = H.dtype.type(momentum), self._previous
            H = H + momentum * (H - before_H)
            if not self._solves_rows:
                W = W + momentum * (W - before_W)
        new = self._step_both_sides(W, H)
        if self._n_extrapolated and not new.loss <= last.loss:
            self._n_extrapolated = 0
            new = self._step_both_sides(last.W, last.H)._replace(restarted=True)
        elif self._extrapolates:
            slow = last.loss - new.loss > SLOW_GAIN_RATIO * last_gain
            self._n_extrapolated += bool(self._n_extrapolated or slow)
        self._previous = last.W, last.H
        return new

    def _step_both_sides(self, W: np.ndarray, H: np.ndarray) -> Iterate:
        """Step W, then H; F is infinite where a fixed step overflows."""
        row_penalty, column_penalty = self.penalties
        with np.errstate(over="ignore", invalid="ignore"):
            row_step = self._step_rows(self.objective, W, H, row_penalty)
            W = row_step.factors
            if self.eta != "auto" and not np.isfinite(W).all():
                return Iterate(W, H, np.inf, partial(np.asarray, row_step.sizes))
            column_step = self._step_rows(self.objective.T, H, W, column_penalty)
            H, loss = column_step.factors, column_step.loss
            if loss is None or not self.objective.is_squared:
                loss = penalized_loss(self.objective, self.penalties, W, H)
            else:
                loss += row_penalty.value(W)
        sizes = np.concatenate([row_step.sizes, column_step.sizes])
        return Iterate(W, H, loss, partial(np.asarray, sizes))

    def _step_rows(self, objective, W, H, penalty):
        """One step of the rows of an objective, towards the minimum of a quadratic."""
        step = self._step(objective.quadratic(W, H), W, H, penalty, self.eta)
        if self.eta == "auto":
            step = step._replace(factors=objective.lower(W, step.factors, H, penalty))
        return step
