"""The way up the bound: sweeps with momentum, trials with fewer factors.

Column factors, noise and the means of priors go on as they went in the sweep before,
the further the longer that went well; where the bound would fall, that starts again
[1]_. In the end, fits with fewer factors are tried: they may have a larger bound, to
which no continuous way leads.

References
----------
.. [1] B. O'Donoghue, E. Candès, "Adaptive Restart for Accelerated Gradient Schemes",
   Foundations of Computational Mathematics 15 (2015).
"""

import numpy as np

from .centring import centre
from .elbo import align, maximize_priors, turn
from .model import sweep
from .moments import moments_of
from .noise import LEAST_NOISE
from .pruning import SMALL, candidates, prune
from .stopping import StoppingRule, still_to_rise

# Sweeps in which a fit with fewer factors has to do better.
TRIAL = 30

# Where so few factors are left, what the pattern says of a factor that was dropped may
# have been lost: a fit starts again with a few.
LOST, AGAIN = 1, 4

# A side so short can have so few factors that to start again with half of them costs
# little; and the noise of a column of so few entries can be explained by a factor. The
# other fit is taken only if its bound is larger by this for each entry: where bounds
# are about the same, more factors predict better.
SHORT, MUCH = 20, 0.02


def ascend(problem, state, track, *, max_iter, tol, start_of=None):
    """Sweep until the bound rises by less than `tol` for each entry.

    Then factors are told apart, and dropped where the bound is better without; it ends
    when there are no more of these. It also ends where single precision will not do.

    Parameters
    ----------
    problem : Problem
    state : State
        Where to start.
    track : History
        Told of every sweep; it knows where this ended.
    max_iter : int
    tol : float
    start_of : callable (rank) -> State, optional
        Where to start with fewer factors. If the smaller side is short, that is tried.

    Returns
    -------
    unpruned : State
        Before any factor was dropped.
    """
    has_features, short = problem.has_features, min(problem.shape) <= SHORT
    small = short or problem.n_observed <= SMALL
    extrapolates = small and not has_features
    ending = StoppingRule(
        tol * problem.n_observed, has_features=has_features, extrapolates=extrapolates
    )
    best = start = unpruned = state
    last, n_sweeps, n_ahead = -np.inf, 0, 0
    while n_sweeps < max_iter:
        before = best
        if ending.rotates:
            before, start = turn(problem, best), turn(problem, start)
        swept = sweep(problem, start)
        if ending.rotates and problem.blocks is not None:
            swept = maximize_priors(problem, *swept), swept[1]
            state, value = _settle(problem, *prune(problem, *swept))
        else:
            state, value = _settle(problem, *swept)
        if value < last and n_ahead > 1:  # too far ahead
            start, n_ahead = best, 0
            continue
        if not ending.has_rotated:
            unpruned = state
        same_rank = state.W.shape == start.W.shape
        ended = ending.add(value - last, same_rank)
        if ended and problem.blocks is not None:
            better = _try(problem, candidates(problem, *swept), value)
            if better is None and start_of is not None and short:
                ranks = [len(state.basis) // 2**k for k in range(1, 5)]
                starts = [start_of(rank) for rank in ranks if rank > 0]
                better = _try(problem, starts, value + MUCH * problem.n_observed)
            lost = has_features and len(state.basis) <= LOST
            if better is None and lost and start_of is not None:
                better = _again(problem, start_of(AGAIN), value, max_iter, tol)
                start_of = None  # once is enough
            if better is not None:
                (state, value), ended, same_rank = better, False, False
        best, last, n_sweeps = state, value, n_sweeps + 1
        track.add(state.W, state.H, value, _no_steps, ended, state)
        if track.converged or state.asks_for_double:
            break
        start, n_ahead = state, n_ahead + 1
        if not same_rank:
            n_ahead = 0
        elif n_ahead > 1:
            start = _ahead(problem, state, before, _momentum(n_ahead))
    return unpruned


def _settle(problem, state, sums):
    """Maximize the bound in all but the posteriors; return its value, too."""
    if problem.moves_means:
        state, sums = centre(problem, state, sums)
    state, value = align(problem, state, sums)
    if not np.isfinite(value):
        raise ValueError(
            f"The evidence lower bound has become {value}: the values of X or its "
            "weights differ by too many orders of magnitude for their precision, "
            f"{problem.dtype}. Scale the columns, clip outliers, or pass X as float64."
        )
    return state, value


def _try(problem, starts, value):
    """Look for a larger bound from other places with fewer factors.

    Returns
    -------
    state : State
    value : float
        Or None where none was found.
    """
    for start in starts:
        best, last, gain = start, -np.inf, 0.0
        for n in range(TRIAL):
            before = best
            best, now = _settle(problem, *sweep(problem, start))
            if now > value:
                return best, now
            last_gain, gain, last = gain, now - last, now
            if n > 3 and now + still_to_rise(gain, last_gain) < value:
                break
            start = turn(problem, best)
            if n > 0:
                start = _ahead(problem, start, turn(problem, before), _momentum(n + 1))
    return None


def _again(problem, start, value, max_iter, tol):
    """Look for a larger bound by another fit; return as `_try` does."""
    track = _Last()
    ascend(problem, start, track, max_iter=max_iter, tol=tol)
    return (track.state, track.value) if track.value > value else None


class _Last:
    """What stands in for a `History` where nobody is told of the sweeps."""

    def __init__(self):
        self.state, self.value, self.converged = None, -np.inf, False

    def add(self, W, H, value, sizes, converged, state):
        """Take note of a sweep."""
        self.state, self.value, self.converged = state, value, converged


def _momentum(n_ahead):
    """Share of the last change that a sweep starts ahead with."""
    return (n_ahead - 1) / (n_ahead + 2)


def _ahead(problem, state, before, share):
    """Let everything go on as it went, by a share of the way."""
    row_prior, column_prior = (
        now._replace(slopes=now.slopes + share * (now.slopes - old.slopes))
        for now, old in (
            (state.row_prior, before.row_prior),
            (state.column_prior, before.column_prior),
        )
    )
    H = state.H + state.H.dtype.type(share) * (state.H - before.H)
    alpha = state.alpha * (state.alpha / before.alpha) ** share
    alpha = np.minimum(alpha, 1 / LEAST_NOISE[problem.dtype])
    moments = None
    if problem.blocks is not None:
        moments = moments_of(H, state.covariances, problem.column_bias)
    return state._replace(
        row_prior=row_prior,
        column_prior=column_prior,
        H=H,
        moments=moments,
        noise=state.noise._replace(alpha=alpha),
    )


def _no_steps():
    """Lengths of the steps: those of least squares, the full ones."""
    return np.ones(1)
