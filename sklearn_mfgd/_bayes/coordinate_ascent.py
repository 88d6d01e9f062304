"""Coordinate ascent on the ELBO: sweeps with momentum, trials with fewer factors.

Column factors, noise and the means of priors are extrapolated along their last change,
the further the longer that went well; where the ELBO would fall, momentum starts again
[1]_. In the end, fits with fewer factors are tried: they may have a larger ELBO, to
which no continuous way leads.

References
----------
.. [1] B. O'Donoghue, E. Candès, "Adaptive Restart for Accelerated Gradient Schemes",
   Foundations of Computational Mathematics 15 (2015).
"""

from dataclasses import replace

import numpy as np

from .model import Model, State
from .noise import MIN_VARIANCE
from .pruning import SMALL_TABLE, candidates, prune
from .rotation import centre, maximize_priors, optimize_rotation
from .row_scales import best_dof
from .side import SweepStatistics
from .stopping import StoppingRule, remaining_rise

# Sweeps in which a fit with fewer factors has to do better.
TRIAL_SWEEPS = 30

# Where so few factors are left, what the missingness features say of a factor that was
# dropped may have been lost: a fit starts again with a few.
FEW_FACTORS, RESTART_RANK = 1, 4

# Of raters the features say more: the fit starts again with what they explain.
FEW_RATER_FACTORS, RATER_RESTART_RANK = 3, 16

# A side so short can have so few factors that to start again with half of them costs
# little; and the noise of a column of so few entries can be explained by a factor. The
# other fit is taken only if its ELBO is larger by this for each entry: where ELBOs are
# about the same, more factors predict better.
SHORT_SIDE, MIN_GAIN_PER_ENTRY = 20, 0.02


def sweep(model: Model, state: State) -> tuple[State, SweepStatistics]:
    """Update all rows, then all columns, then the noise."""
    update = state.columns.update_sides(model, state)
    prior, columns = state.column_prior, update.columns
    # For z = [h, c], the sums A and B of its entries, the mean m of the prior and the
    # right-hand side R, the expected squared error E[z'Az] - 2 E[z]'B is at the optimum
    # q - E[z' Lambda z] + 2 E[z]' Lambda m - E[z]'R, over alpha.
    prior_terms = columns.quadratic_form(prior.precision_matrix)
    pull = prior.pull(model.column_features.values)
    prior_terms = prior_terms - 2 * np.einsum("jk,jk->j", pull, columns.means)
    explained = columns.means.shape[1] - prior_terms - update.quadratic_forms
    of_values = update.of_rows.squares if state.row_dof else model.squares
    squares = of_values + explained / state.alpha + update.bias_terms
    squares = np.maximum(squares, 0.0)  # not below by rounding
    noise = state.noise.update(model.counts, squares, model.dtype)
    row_dof = state.row_dof
    if row_dof:
        row_dof = best_dof(update.of_rows.scale_sums, row_dof)
    state = replace(state, columns=columns, noise=noise, row_dof=row_dof)
    return state, SweepStatistics(update.of_rows, update.of_columns, squares)


def ascend(
    model: Model, state, history, *, max_iter, tol, start_of=None, unpruned=False
):
    """Sweep from a state, or from where `start_of()` starts, until the ELBO settles.

    That is where it rises by less than `tol` for each entry. Where there are features,
    some factors are dropped before. Then factors are rotated, and dropped where the
    ELBO is better without; the ascent ends when there are no more of these, or where
    single precision will not do. The history is told of every sweep and knows where
    this ended. If the smaller side is short, fewer factors are tried from where
    `start_of(rank)` starts. If asked for the `unpruned` state, return that before any
    factor was dropped, and drop none before all can be rotated.
    """
    has_features = model.has_features
    is_small = min(model.shape) <= SHORT_SIDE or model.n_observed <= SMALL_TABLE
    stopping = StoppingRule(
        tol * model.n_observed,
        has_features,
        extrapolates=is_small and not has_features,
        thins=has_features and not unpruned,
    )
    trials = _Trials(model, start_of, max_iter, tol)
    if state is None:  # nobody else keeps it
        state = start_of()
    best = start = state
    before_pruning = state if unpruned else None
    best_value, n_sweeps, n_accelerated = -np.inf, 0, 0
    while n_sweeps < max_iter:
        before, share = best, stopping.dropped_share
        if share > 0:
            before = best.rotated()
            start = before if start is best else start.rotated(like=before)
        state = swept = statistics = None  # their sums take as much room as the next
        state, statistics = sweep(model, start)
        swept = state, statistics
        if share > 0 and model.can_rotate:
            swept = maximize_priors(state, statistics), statistics
            state, statistics = prune(model, *swept, share)
        state, value = maximize_others(model, state, statistics)
        if value < best_value and n_accelerated > 1:  # extrapolated too far
            start, n_accelerated = best, 0
            continue
        if unpruned and not stopping.has_rotated:
            before_pruning = state
        same_rank = state.rank == start.rank
        ended = stopping.add(value - best_value, same_rank)
        if ended and model.can_rotate:
            better = trials.better(swept, state, value)
            if better is not None:
                (state, value), ended, same_rank = better, False, False
        best, best_value, n_sweeps = state, value, n_sweeps + 1
        W = model.row_means(state) if history.validates else None
        history.add(W, state.H, value, full_step, ended, state)
        if history.converged or state.needs_float64:
            break
        start, n_accelerated = state, n_accelerated + 1 if same_rank else 0
        if n_accelerated > 1:
            start = extrapolate(model, state, before, n_accelerated)
    return before_pruning


def maximize_others(model, state, statistics):
    """Maximize the ELBO in all but the posteriors; return its value, too."""
    if model.biases.column and not model.has_features and model.can_rotate:
        state, statistics = centre(state, statistics)
    state, value = optimize_rotation(model, state, statistics)
    if not np.isfinite(value):
        raise ValueError(
            f"The evidence lower bound has become {value}: the values of X or its "
            "weights differ by too many orders of magnitude for their precision, "
            f"{model.dtype}. Scale the columns, clip outliers, or pass X as float64."
        )
    return state, value


class _Trials:
    """States with fewer factors that are tried where an ascent has settled."""

    def __init__(self, model, start_of, max_iter, tol):
        self.model, self.start_of = model, start_of
        self.max_iter, self.tol = max_iter, tol

    def better(self, swept, state, value):
        """A state of larger ELBO than `value`, and its own; None if none was found."""
        model, start_of = self.model, self.start_of
        better = _first_better(model, candidates(model, *swept), value)
        if better is not None or start_of is None:
            return better
        if min(model.shape) <= SHORT_SIDE:
            ranks = [state.rank // 2**k for k in range(1, 5)]
            starts = [start_of(rank) for rank in ranks if rank > 0]
            gain = MIN_GAIN_PER_ENTRY * model.n_observed
            better = _first_better(model, starts, value + gain)
        raters = model.has_row_scales
        few = FEW_RATER_FACTORS if raters else FEW_FACTORS
        if better is None and model.has_features and state.rank <= few:
            self.start_of, last = None, _LastSweep()  # once is enough
            rank = RATER_RESTART_RANK if raters else RESTART_RANK
            start = start_of(rank, of_features=True) if raters else start_of(rank)
            options = {"max_iter": self.max_iter, "tol": self.tol, "unpruned": raters}
            ascend(model, start, last, **options)
            better = (last.state, last.value) if last.value > value else None
        return better


def _first_better(model, starts, value):
    """The first state, and its ELBO, that exceeds a value in a few sweeps, or None."""
    for start in starts:
        state, last_value, gain = start, -np.inf, 0.0
        for n in range(TRIAL_SWEEPS):
            before = state
            state, new_value = maximize_others(model, *sweep(model, start))
            if new_value > value:
                return state, new_value
            last_gain, gain, last_value = gain, new_value - last_value, new_value
            if n > 3 and new_value + remaining_rise(gain, last_gain) < value:
                break
            start = state.rotated()
            if n > 0:
                start = extrapolate(model, start, before.rotated(), n + 1)
    return None


class _LastSweep:
    """What stands in for a `History` where nobody is told of the sweeps."""

    def __init__(self):
        self.state, self.value = None, -np.inf
        self.converged = self.validates = False

    def add(self, W, H, value, sizes, converged, state):
        """Take note of a sweep."""
        self.state, self.value, self.converged = state, value, converged


def extrapolate(model, state, before, n_accelerated):
    """Move on by a share of the last change (Nesterov); alpha geometrically."""
    share = (n_accelerated - 1) / (n_accelerated + 2)
    H = state.H + state.H.dtype.type(share) * (state.H - before.H)
    alpha = state.alpha * (state.alpha / before.alpha) ** share
    alpha = np.minimum(alpha, 1 / MIN_VARIANCE[model.dtype])
    return replace(
        state,
        columns=state.columns.with_means(H),
        row_prior=state.row_prior.extrapolated(before.row_prior, share),
        column_prior=state.column_prior.extrapolated(before.column_prior, share),
        noise=state.noise._replace(alpha=alpha),
    )


def full_step():
    """Lengths of the steps: those of least squares."""
    return np.ones(1)
