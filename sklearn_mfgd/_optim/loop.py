"""The loop of every solver: sweep until F, or the held-out error, stops falling.

The loop decides when the descent has converged, and notices when a fixed step diverges.
What a sweep is, and how it answers a rise of F, is the business of a method,
`AlternatingSweeps` or `StochasticEpochs`:

=======================  =============================================================
``sweep(last, gain)``    the next `Iterate`, given the last one and the gain of F to it
``ceiling(start)``       the F above which a sweep counts as diverging
``step_bound(iterate)``  a fixed step under which F should fall
``full_step_descends``   whether that is certain, as for exact steps
``tolerated_rise``       the rise, as a share of F, that a step found by trial may cause
``rounding``             the rise, as a share of F, that is rounding
``probation``            sweeps before a fixed step that may be too long can converge
=======================  =============================================================
"""

from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np

from .divergence import DivergenceError, descending_step, refuse_infinite
from .penalty import penalized_loss
from .sgd import StochasticEpochs
from .sweeps import AlternatingSweeps, Iterate

# Sweeps in a row above the ceiling of F that count as divergence. A fixed step may
# overshoot a little and come back; after this many it never did.
MAX_RISES = 5

# The largest ratio of two gains that is extrapolated as that of a geometric series.
MAX_GAIN_RATIO = 0.99


class Descent(NamedTuple):
    """The result of a descent."""

    W: np.ndarray | None  # None where they follow from H and nothing asks for them
    H: np.ndarray
    n_iter: int
    converged: bool  # or ended on purpose, by `validate` or `monitor`
    step: float  # the fixed one, or the median of the steps of the last sweep
    loss_curve: list[float]  # F after each sweep
    validation_curve: list[float]  # held-out error after each sweep; empty without
    state: Any = None  # what else the method knows at (W, H)


class History:
    """Record the sweeps from W and H on, find the best, and decide on early stopping.

    `tol`, `validate`, `n_iter_no_change` and `monitor` are as for `descend`. If
    `more_follows`, another ascent goes on where this one has converged.
    """

    def __init__(
        self, W, H, *, tol, validate, n_iter_no_change, monitor, more_follows=False
    ):
        self._tol, self._max_stale = tol, n_iter_no_change
        self.more_follows, self.stopped = more_follows, False
        self._validate, self._monitor = validate, monitor
        self._losses, self._errors = [], []
        self._last = self._best = W, H, None
        self._least_error, self._reference, self._n_stale = np.inf, np.inf, 0
        self._step_sizes, self.converged = None, False
        if monitor is not None:
            monitor(self.descent())

    @property
    def validates(self) -> bool:
        """Whether each sweep has to come with its row factors."""
        return self._validate is not None

    def add(self, W, H, loss, step_sizes, converged, state=None) -> None:
        """Record a sweep; ``step_sizes()`` are the lengths of its steps."""
        self._last, self._step_sizes = (W, H, state), step_sizes
        self._losses.append(loss)
        self.converged = converged
        if self._validate is not None:
            self._check_held_out()
            self.converged = converged or self._n_stale >= self._max_stale
        if self._monitor is not None:
            self.stopped = bool(self._monitor(self.descent()))
            self.converged = self.stopped or self.converged

    def _check_held_out(self) -> None:
        """Keep the iterate of least error, and count the sweeps without improvement."""
        error = self._validate(*self._last[:2])
        if not np.isfinite(error):
            raise ValueError(
                f"The error of the entries that early_stopping=True holds out is "
                f"{error} after sweep {len(self._losses)}: the factors are too large "
                "to multiply. Use a larger reg, or early_stopping=False."
            )
        # The first error improves on none: with tol=1, infinity times 0 is NaN.
        improved = not self._errors or error < self._reference * (1 - self._tol)
        self._errors.append(error)
        self._n_stale = 0 if improved else self._n_stale + 1
        if improved:
            self._reference = error
        if error < self._least_error:
            self._least_error, self._best = error, self._last

    def descent(self) -> Descent:
        """Return the result of a descent that ends here."""
        W, H, state = self._last if self._validate is None else self._best
        sizes = self._step_sizes() if self._losses else np.zeros(0)
        sizes = sizes[sizes > 0]  # a row without observed entries makes no step
        step = float(np.median(sizes)) if sizes.size else 0.0
        curves = self._losses, self._errors
        ended = self.converged and (self.stopped or not self.more_follows)
        return Descent(W, H, len(self._losses), ended, step, *curves, state)


def descend(objective, W, H, penalties, parameters, rng, validate=None, monitor=None):
    """Sweep until the decrease of F still to come is below ``tol * F``: a `Descent`.

    With ``validate(W, H)``, the error on entries that the objective does not see, stop
    after `n_iter_no_change` sweeps without improvement and return the iterate of least
    error. The monitor is given a `Descent` at the start and after every sweep, and ends
    the descent by returning True.
    """
    eta, tol, max_iter = parameters.eta, parameters.tol, parameters.max_iter
    rng_at_start = deepcopy(rng)

    def method_of(eta, rng):
        if parameters.solver == "sgd":
            return StochasticEpochs(objective, penalties, eta, rng)
        return AlternatingSweeps(objective, penalties, eta, parameters.solver)

    def trial_of(shorter):
        """The same method with another step, in the same order of entries."""
        return method_of(shorter, deepcopy(rng_at_start))

    method = method_of(eta, rng)
    start = penalized_loss(objective, penalties, W, H)
    refuse_infinite(start, 0)
    first = lowest = iterate = Iterate(W, H, start)
    eps = float(np.finfo(W.dtype).eps)
    exact = (10 * eps) ** 2 * objective.total  # below it, changes of F are rounding
    ceiling, probation = method.ceiling(start), 0
    if eta != "auto" and method.probation and eta > 2 * method.step_bound(first):
        probation = method.probation
    gain, n_rises = np.inf, 0
    stopping = {"validate": validate, "n_iter_no_change": parameters.n_iter_no_change}
    history = History(W, H, tol=tol, monitor=monitor, **stopping)
    for n_iter in range(1, max_iter + 1):
        last, iterate = iterate, method.sweep(iterate, gain)
        loss, last_gain = iterate.loss, np.inf if iterate.restarted else gain
        gain = last.loss - loss
        n_rises = n_rises + 1 if loss > ceiling else 0
        if eta == "auto":
            refuse_infinite(loss, n_iter)
            # Systems too near to singular for their precision: keep the last iterate.
            if gain < -(np.sqrt(eps) * last.loss + eps * start + exact):
                history.add(last.W, last.H, last.loss, iterate.step_sizes, False)
                break
        elif not np.isfinite(loss) or n_rises == MAX_RISES:
            stable = _stable_step(method, trial_of, first, lowest, max_iter)
            raise DivergenceError(eta, n_iter, stable)
        lowest = min(lowest, iterate, key=lambda candidate: candidate.loss)
        converged = iterate.converged
        if converged is None:
            # Gains g, g r, g r^2, ... from the last one on sum up to g / (1 - r).
            ratio = max(gain, 0) / last_gain if last_gain > 0 else 0.0
            threshold = (1 - min(ratio, MAX_GAIN_RATIO)) * tol * loss
            rounding = min(tol, method.rounding) * loss
            converged = -rounding <= gain < threshold or loss <= exact
        converged = converged and n_iter > probation
        history.add(iterate.W, iterate.H, loss, iterate.step_sizes, converged)
        if history.converged:
            break
    return history.descent()


def _stable_step(method, trial_of, first: Iterate, lowest: Iterate, max_iter) -> float:
    """Return a fixed step under which F falls from the start, for `max_iter` sweeps."""
    # The curvature of F grows on the way to some minima.
    bound = min(method.step_bound(first), method.step_bound(lowest))
    if method.full_step_descends:
        return bound

    def losses(eta):
        trial, iterate = trial_of(eta), first
        for _ in range(max_iter):
            iterate = trial.sweep(iterate, np.inf)
            yield iterate.loss

    longest = min(bound, method.eta / 2)
    return descending_step(longest, losses, first.loss, method.tolerated_rise)
