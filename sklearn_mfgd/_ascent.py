"""The way up the bound: sweeps with momentum, factors dropped on the way, and its end.

What features say is found slowly where most rows have few entries, and a column bias
moves slowly where a mean of the factors of rows can stand for it. These have momentum,
which starts again where the bound would fall [1]_.

References
----------
.. [1] B. O'Donoghue, E. Candès, "Adaptive Restart for Accelerated Gradient Schemes",
   Foundations of Computational Mathematics 15 (2015).
"""

import numpy as np

from ._bound import align, maximize_priors, turn, with_turned_priors
from ._moments import with_shifted_bias
from ._pruning import prune
from ._variational import sweep

# With features a fit goes on until the bound rises by less than this share of what is
# asked for, for so many sweeps: they cost little once most factors are dropped.
LAST = 0.15
PATIENCE = 3

# But not below this rise, which is nothing whatever the number of entries.
LEAST_RISE = 0.2


class Ending:
    """When factors are told apart, and when all is done.

    The bound has settled when it rises by less than `least` and no more than before:
    slow rises that grow are the way out of a saddle.
    """

    def __init__(self, least, has_features):
        self.least, self.has_features = least, has_features
        self.gain, self.n_settled, self.patience = np.inf, 0, 1
        self.telling_apart = self.told_apart = False

    def add(self, gain, same_rank):
        """Take note of a sweep; return whether it was the last.

        Parameters
        ----------
        gain : float
            Rise of the bound.
        same_rank : bool
            Whether no factor was dropped.
        """
        settled = gain < self.least and gain <= max(self.gain, 0)
        self.gain, self.n_settled = gain, self.n_settled + 1 if settled else 0
        if self.telling_apart and same_rank and self.n_settled >= self.patience:
            return True
        if same_rank and self.has_features:  # many sweeps are to come
            self.telling_apart = False
        self.telling_apart |= self.n_settled >= max(1, self.patience - 1)
        if self.telling_apart and not self.told_apart:
            self.told_apart = True
            if self.has_features:
                self.n_settled, self.patience = 0, PATIENCE
                self.least = min(self.least, max(LAST * self.least, LEAST_RISE))
        return False


def ascend(problem, state, track, *, max_iter, tol):
    """Sweep until the bound rises by less than `tol` for each entry.

    Then factors are told apart, and dropped where the bound is better without; it ends
    when there are no more of these.

    Parameters
    ----------
    problem : Problem
    state : State
        Where to start.
    track : Track
        Told of every sweep; it knows where this ended.
    max_iter : int
    tol : float

    Returns
    -------
    unpruned : State
        Before any factor was dropped.
    """
    ending = Ending(tol * problem.n_observed, problem.has_features)
    best = start = unpruned = state
    last, n_sweeps, n_ahead = -np.inf, 0, 0
    while n_sweeps < max_iter:
        before = best
        if ending.telling_apart:
            before, start = with_turned_priors(best), turn(problem, start)
        state, sums = sweep(problem, start)
        if ending.telling_apart and problem.blocks is not None:
            state = maximize_priors(problem, state, sums)
            state, sums = prune(problem, state, sums)
        state, value = align(problem, state, sums)
        if value < last and n_ahead > 1:  # too far ahead
            start, n_ahead = best, 0
            continue
        if not ending.told_apart:
            unpruned = state
        same_rank = state.W.shape == start.W.shape
        ended = ending.add(value - last, same_rank)
        best, last, n_sweeps = state, value, n_sweeps + 1
        track.add(state.W, state.H, value, _no_steps, ended, state)
        if track.converged:
            break
        start, n_ahead = state, n_ahead + 1
        if not (problem.has_features and same_rank):
            n_ahead = 0
        elif n_ahead > 1:
            start = _ahead(problem, state, before, (n_ahead - 1) / (n_ahead + 2))
    return unpruned


def _ahead(problem, state, before, share):
    """Let what is slow go on as it went, by a share of the way.

    That are the means of priors, and the column biases.
    """
    row_prior, column_prior = (
        now._replace(slopes=now.slopes + share * (now.slopes - old.slopes))
        for now, old in (
            (state.row_prior, before.row_prior),
            (state.column_prior, before.column_prior),
        )
    )
    state = state._replace(row_prior=row_prior, column_prior=column_prior)
    if not problem.column_bias:
        return state
    shift = share * (state.H[:, -1] - before.H[:, -1])
    H = state.H.copy()
    H[:, -1] += shift
    return state._replace(H=H, moments=with_shifted_bias(state.moments, shift))


def _no_steps():
    """Lengths of the steps: those of least squares, the full ones."""
    return np.ones(1)
