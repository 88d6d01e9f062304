"""The loop of every solver: sweep until F, or the held-out error, stops falling.

The loop records the sweeps, decides when the descent has converged, and notices when a
fixed step diverges. What a sweep is, and how it answers a rise of F, is the business of
a method, `AlternatingSweeps` or `StochasticEpochs`:

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

from collections.abc import Callable
from copy import deepcopy

import numpy as np

from .divergence import DivergenceError, descending_step, refuse_infinite
from .history import Descent, History
from .penalty import Penalty, penalized_loss
from .sgd import StochasticEpochs
from .sweeps import AlternatingSweeps, Iterate

# Sweeps in a row above the ceiling of F that count as divergence. A fixed step may
# overshoot a little and come back; after this many it never did.
MAX_RISES = 5

# The largest ratio of two gains that is extrapolated as that of a geometric series.
MAX_GAIN_RATIO = 0.99


def descend(
    objective,
    W: np.ndarray,
    H: np.ndarray,
    penalties: tuple[Penalty, Penalty],
    *,
    solver: str,
    eta: float | str,
    max_iter: int,
    tol: float,
    rng: np.random.RandomState | None = None,
    validate: Callable[[np.ndarray, np.ndarray], float] | None = None,
    n_iter_no_change: int = 5,
    monitor: Callable[[Descent], bool] | None = None,
) -> Descent:
    """Sweep until the decrease of F still to come is below ``tol * F``.

    With `validate`, the error on entries that the objective does not see, stop after
    `n_iter_no_change` sweeps without improvement and return the iterate of least error.
    The monitor sees the start and every sweep, and ends the descent by returning True.
    """
    rng_at_start = deepcopy(rng)
    method = _method(objective, penalties, solver, eta, rng)

    def trial_of(shorter):
        """The same method with another step, in the same order of entries."""
        return _method(objective, penalties, solver, shorter, deepcopy(rng_at_start))

    start = penalized_loss(objective, penalties, W, H)
    refuse_infinite(start, 0)
    first = lowest = iterate = Iterate(W, H, start)
    eps = float(np.finfo(W.dtype).eps)
    exact = (10 * eps) ** 2 * objective.total  # below it, changes of F are rounding
    ceiling, probation = method.ceiling(start), 0
    if eta != "auto" and method.probation and eta > 2 * method.step_bound(first):
        probation = method.probation
    gain, n_rises = np.inf, 0
    stopping = {"tol": tol, "validate": validate, "n_iter_no_change": n_iter_no_change}
    history = History(W, H, monitor=monitor, **stopping)
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


def _method(objective, penalties, solver: str, eta: float | str, rng):
    if solver == "sgd":
        return StochasticEpochs(objective, penalties, eta, rng)
    return AlternatingSweeps(objective, penalties, eta, solver)


def _stable_step(method, trial_of, first: Iterate, lowest: Iterate, max_iter: int):
    """Return a fixed step under which F falls from the start, for `max_iter` sweeps.

    The search begins at the smaller of the bounds at the start and at the lowest F, as
    the curvature of F grows on the way to some minima.
    """
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
