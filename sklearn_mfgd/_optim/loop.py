"""Alternating descent on the two factors.

A sweep is one step of all rows of W given H, then one step of all rows of H given W;
the steps are in `_steps`. Once the gains of ``"scaled"`` and ``"als"`` shrink slowly, a
sweep starts from a point extrapolated along the last change of both factors, as
Nesterov's method does; where that would raise F it is taken back and begins anew [1]_,
[2]_.

References
----------
.. [1] B. O'Donoghue, E. Candes, "Adaptive Restart for Accelerated Gradient Schemes",
   Foundations of Computational Mathematics 15 (2015).
.. [2] D. Mitchell, N. Ye, H. De Sterck, "Nesterov Acceleration of Alternating Least
   Squares for Canonical Tensor Decomposition", Numerical Linear Algebra with
   Applications 27 (2020).
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from .divergence import (
    DivergenceError,
    descending_step,
    gradient_bound,
    refuse_infinite,
)
from .steps import STEPS

# Sweeps in a row above the starting F that count as divergence. A fixed step may
# overshoot a little and come back; a row of this many never did.
PATIENCE = 5

# Gains that keep more than this share of the one before call for acceleration: below,
# plain sweeps converge faster than extrapolated ones.
SLOW = 0.7

# Gains that shrink like a geometric series of this ratio or more count as one of it.
LONGEST = 0.99

# Sweeps that a fixed step longer than 2/L has to prove itself before it may converge.
PROBATION = 50


class Descent(NamedTuple):
    """Where `descend` arrived and how."""

    W: np.ndarray
    H: np.ndarray
    n_iter: int
    converged: bool  # or ended on purpose, by `validate` or `monitor`
    step: float  # the fixed one, or the median of the last sweep's exact ones
    loss_curve: list  # F after each sweep
    validation_curve: list  # held-out error after each sweep, empty without
    state: tuple | None = None  # what else the method knows at (W, H)


class History:
    """What is kept of the sweeps: the curves, the best iterate, and who is told.

    Parameters
    ----------
    W, H : ndarray
        Where the descent starts.
    tol, validate, n_iter_no_change, monitor
        See `descend`.
    """

    def __init__(self, W, H, *, tol, validate, n_iter_no_change, monitor):
        self._tol, self._patience = tol, n_iter_no_change
        self._validate, self._monitor = validate, monitor
        self._losses, self._errors = [], []
        self._best, self._reference, self._stale = (np.inf, W, H, None), np.inf, 0
        self._now, self.converged = (W, H, None), False
        self._sizes = lambda: np.zeros(0)
        if monitor is not None:
            monitor(self.descent())

    def add(self, W, H, loss, sizes, converged, state=None):
        """Note a sweep; `sizes` () are the lengths of its steps."""
        self._now, self._sizes, self.converged = (W, H, state), sizes, converged
        self._losses.append(loss)
        if self._validate is not None:
            self._check_held_out()
            self.converged = converged or self._stale >= self._patience
        if self._monitor is not None:
            self.converged = self._monitor(self.descent()) or self.converged

    def _check_held_out(self):
        """Keep the iterate of least error, and count the sweeps without a gain."""
        W, H, state = self._now
        error = self._validate(W, H)
        if not np.isfinite(error):
            raise ValueError(
                f"The error of the entries that early_stopping=True holds out is "
                f"{error} after sweep {len(self._losses)}: the factors are too large "
                "to multiply. Use a larger reg, or early_stopping=False."
            )
        self._errors.append(error)
        # The first one is a gain whatever tol is: infinity less a share is no number.
        first = len(self._errors) == 1
        gained = first or error < self._reference * (1 - self._tol)
        self._stale = 0 if gained else self._stale + 1
        if gained:
            self._reference = error
        if first or error < self._best[0]:
            self._best = error, W, H, state

    def descent(self):
        """What to return if it ended here."""
        *factors, state = self._now if self._validate is None else self._best[1:]
        sizes = self._sizes()
        taken = sizes[sizes > 0]
        step = float(np.median(taken)) if taken.size else 0.0
        n_iter = len(self._losses)
        curves = self._losses, self._errors
        return Descent(*factors, n_iter, self.converged, step, *curves, state)


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
    validate=None,
    n_iter_no_change=5,
    monitor=None,
):
    """Sweep until the penalized objective F, or the held-out error, stops falling.

    Parameters
    ----------
    objective : CompleteObjective or ObservedObjective
    W, H : ndarray of shape (m, .) and (n, .)
        Where to start. Neither is changed.
    penalties : pair of Penalty
        For W and for H.
    solver : {"gd", "scaled", "als"}
    eta : "auto" or float
    max_iter : int
        The largest number of sweeps.
    tol : float
        Stop when F, its gains going on shrinking as they do, has less than this share
        of itself left to fall.
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
        When a fixed step makes F non-finite, or keeps it above its start.
    ValueError
        When F is not finite at the start, or with the best steps.
    """
    eps = float(np.finfo(W.dtype).eps)
    with np.errstate(over="ignore", invalid="ignore"):
        start = objective.value(W, H) + penalties[0].value(W) + penalties[1].value(H)
    refuse_infinite(start, 0)
    # A fit to the last digit: below this, changes of F are rounding.
    exact = (10 * eps) ** 2 * objective.total
    slack = min(tol, 100 * eps)  # a rise so small is rounding too
    # At a minimum even a step that is too long moves nothing, until it has magnified
    # the rounding: an SVD is such a start.
    too_long = eta != "auto" and eta > 2 * _bound(objective, W, H, penalties, solver)
    patience = PROBATION if too_long else 0
    sweep = partial(_sweep, objective, penalties, STEPS[solver])
    accelerate = eta == "auto" and solver != "gd"
    lowest, first = (start, W, H), (W, H)
    before, previous, gain, run, rising = (W, H), start, np.inf, 0, 0
    track = History(
        W,
        H,
        tol=tol,
        validate=validate,
        n_iter_no_change=n_iter_no_change,
        monitor=monitor,
    )
    for n_iter in range(1, max_iter + 1):
        (W, H), earlier = _extrapolate((W, H), before, run), (W, H)
        W, H, loss, sizes = sweep(eta, W, H)
        if run and not loss <= previous:  # overshot: restart from where it was
            run, gain = 0, np.inf
            W, H, loss, sizes = sweep(eta, *earlier)
        elif accelerate and (run or previous - loss > SLOW * gain):
            run += 1
        before, last_gain, gain = earlier, gain, previous - loss
        rising = rising + 1 if loss > start * (1 + np.sqrt(eps)) else 0
        if eta == "auto":
            refuse_infinite(loss, n_iter)
            # So near to singular a step misses: what F had reached is kept.
            if gain < -(np.sqrt(eps) * previous + eps * start + exact):
                track.add(*earlier, previous, partial(np.asarray, sizes), False)
                break
        elif not np.isfinite(loss) or rising == PATIENCE:
            bound = _bound(objective, *lowest[1:], penalties, solver)
            stable = min(bound, _bound(objective, *first, penalties, solver))
            if solver == "gd":
                trial = partial(_trial, sweep, first, max_iter)
                longest = min(stable, eta / 2)
                stable = descending_step(longest, trial, start, hover=np.sqrt(eps))
            raise DivergenceError(eta, n_iter, stable)
        lowest = min(lowest, (loss, W, H), key=lambda iterate: iterate[0])
        ratio = min(max(gain, 0) / last_gain, LONGEST) if last_gain > 0 else 0.0
        converged = -slack * loss < gain < (1 - ratio) * tol * loss or loss <= exact
        previous = loss
        track.add(
            W, H, loss, partial(np.asarray, sizes), converged and n_iter > patience
        )
        if track.converged:
            break
    return track.descent()


def _extrapolate(iterate, before, run):
    """Go on along the last change of both factors, further the longer it went well."""
    if run == 0:
        return iterate
    momentum = run / (run + 3)
    return tuple(
        now + now.dtype.type(momentum) * (now - then)
        for now, then in zip(iterate, before, strict=True)
    )


def _sweep(objective, penalties, step, eta, W, H):
    """One step of either side; F is infinite where a fixed step overflowed."""
    with np.errstate(over="ignore", invalid="ignore"):
        W_step = step(objective, W, H, penalties[0], eta)
        W = W_step.factors
        if not np.isfinite(W).all():
            return W, H, np.inf, W_step.sizes
        H_step = step(objective.T, H, W, penalties[1], eta)
        H, loss = H_step.factors, H_step.loss
        if loss is None:
            loss = objective.value(W, H) + penalties[1].value(H)
        loss += penalties[0].value(W)
    return W, H, loss, np.concatenate([W_step.sizes, H_step.sizes])


def _bound(objective, W, H, penalties, solver):
    """Bound the steps that descend; the full step is exact for als, safe for scaled."""
    return gradient_bound(objective, W, H, penalties) if solver == "gd" else 1.0


def _trial(sweep, factors, max_iter, eta):
    """F after each sweep from the start."""
    for _ in range(max_iter):
        *factors, loss, _ = sweep(eta, *factors)
        yield loss
