"""The loop of every solver: sweep until F, or the held-out error, stops falling.

What a sweep is, and how it answers a rise of F, is the business of `AlternatingSweeps`
and `StochasticEpochs`. The loop records the sweeps, decides when the descent has
converged, and notices when a fixed step diverges.
"""

import numpy as np

from .divergence import DivergenceError, descending_step, refuse_infinite
from .history import Descent, History
from .penalty import penalized_loss
from .sgd import StochasticEpochs
from .sweeps import AlternatingSweeps, Iterate

# Sweeps in a row above the ceiling of F that count as divergence. A fixed step may
# overshoot a little and come back; after this many it never did.
MAX_RISES = 5

# The largest ratio of two gains that is extrapolated as that of a geometric series.
MAX_GAIN_RATIO = 0.99


def descend(
    objective,
    W,
    H,
    penalties,
    *,
    solver,
    eta,
    max_iter,
    tol,
    rng=None,
    validate=None,
    n_iter_no_change=5,
    monitor=None,
) -> Descent:
    """Sweep until the penalized objective F, or the held-out error, stops falling.

    Parameters
    ----------
    objective : CompleteObjective or ObservedObjective
        The latter for ``solver="sgd"``.
    W, H : ndarray of shape (m, .) and (n, .)
        Where to start. Neither is changed.
    penalties : pair of Penalty
        For W and for H.
    solver : {"gd", "scaled", "als", "sgd"}
    eta : "auto" or float
    max_iter : int
        The largest number of sweeps.
    tol : float
        Stop when the decrease of F still to come, extrapolated geometrically from the
        last two sweeps, is below ``tol * F``.
    rng : RandomState, optional
        Shuffles the entries for ``solver="sgd"``.
    validate : callable (W, H) -> float, optional
        Error on entries that the objective does not see. With it the iterate of least
        error is returned, and `n_iter_no_change` sweeps without improvement end the
        descent.
    n_iter_no_change : int
    monitor : callable (Descent) -> bool, optional
        Called before the first sweep and after each, with what would be returned if
        the descent ended there. It ends when this returns True.

    Returns
    -------
    Descent

    Raises
    ------
    DivergenceError
        When a fixed step makes F non-finite, or keeps it above its start; for "sgd",
        above that of no factors.
    ValueError
        When F is not finite at the start, or with the best steps.
    """
    if solver == "sgd":
        method = StochasticEpochs(objective, penalties, W, H, eta=eta, rng=rng)
    else:
        method = AlternatingSweeps(objective, penalties, W, H, solver=solver, eta=eta)
    start = penalized_loss(objective, penalties, W, H)
    refuse_infinite(start, 0)
    first = lowest = iterate = Iterate(W, H, start)
    eps = float(np.finfo(W.dtype).eps)
    exact = (10 * eps) ** 2 * objective.total  # below it, changes of F are rounding
    ceiling, probation = method.ceiling(start), method.probation(first)
    gain, n_rises = np.inf, 0
    history = History(
        W,
        H,
        tol=tol,
        validate=validate,
        n_iter_no_change=n_iter_no_change,
        monitor=monitor,
    )
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
            stable_step = _stable_step(method, first, lowest, max_iter)
            raise DivergenceError(eta, n_iter, stable_step)
        lowest = min(lowest, iterate, key=lambda candidate: candidate.loss)
        converged = iterate.converged
        if converged is None:
            # Gains g, g r, g r^2, ... still to come sum up to g / (1 - r).
            ratio = max(gain, 0) / last_gain if last_gain > 0 else 0.0
            threshold = (1 - min(ratio, MAX_GAIN_RATIO)) * tol * loss
            rounding = min(tol, method.rounding) * loss
            converged = -rounding <= gain < threshold or loss <= exact
        converged = converged and n_iter > probation
        history.add(iterate.W, iterate.H, loss, iterate.step_sizes, converged)
        if history.converged:
            break
    return history.descent()


def _stable_step(method, first: Iterate, lowest: Iterate, max_iter: int) -> float:
    """Find a step under which F falls from the start, over as many sweeps as the fit's.

    Begin at the smaller of the bounds at the start and at the lowest F seen, as the
    curvature grows on the way to some minima.
    """
    if method.stable_step is not None:
        return method.stable_step

    def losses(eta):
        """F after each sweep from the start."""
        fixed, iterate = method.with_step(first, eta), first
        for _ in range(max_iter):
            iterate = fixed.sweep(iterate, np.inf)
            yield iterate.loss

    longest = min(method.step_bound(first), method.step_bound(lowest), method.eta / 2)
    return descending_step(longest, losses, first.loss, method.tolerated_rise)
