"""Factors that the evidence lower bound (ELBO) is better without.

A factor that explains nothing settles where one of its precisions is large; its moments
never vanish. What the error loses without factor k is known from the sums of a sweep:
with T the moments of the columns times those of their rows, summed,

    2 E[h_k] . targets - 2 sum_l T[k, l] + T[k, k],

to be weighed against what both sides pay for having the factor.
"""

from dataclasses import replace

import numpy as np

from .._kernels.linalg import row_slices
from .moments import bias_products, diagonal, factor_means, pair_moments, unpack
from .priors import with_bias
from .side import SweepStatistics

# Factors that are tried to do without, one by one.
N_CANDIDATES = 3

# Tables of so few entries are worth a trial even where the estimate is a loss, of at
# most this much per entry.
SMALL_TABLE = 50_000
MAX_LOSS_PER_ENTRY = 0.05


def prune(model, state, statistics, share=1.0):
    """Drop factors as long as the ELBO rises; the sweep was made without rotation.

    With a `share` below one, only this share of those that it is better without is
    dropped, the worst first.
    """
    explained, shared = _explained(model, state, statistics)
    explained = explained.sum(axis=0)
    delta_elbo = _delta_elbo_of_priors(state, statistics) - 0.5 * explained
    kept, added_error, n_least = np.ones(state.rank, bool), 0.0, 1
    if share < 1:
        n_least = max(1, state.rank - int(share * np.count_nonzero(delta_elbo > 0)))
    while kept.sum() > n_least:
        k = np.argmax(np.where(kept, delta_elbo, -np.inf))
        if delta_elbo[k] <= 0:
            break
        kept[k] = False
        added_error += explained[k]
        # What two factors explain together is not lost twice.
        explained = explained + 2 * shared[k]
        delta_elbo = delta_elbo - shared[k]
    if kept.all():
        return state, statistics
    of_rows, of_columns = (with_bias(kept, biased) for biased in model.biases)
    return state.with_factors(kept), SweepStatistics(
        statistics.rows.with_factors(kept, of_rows),
        statistics.columns.with_factors(kept, of_columns),
        # Of the errors only the sum weighted by the noise counts from here on.
        statistics.squares + added_error / state.alpha.sum(),
    )


def candidates(model, state, statistics):
    """States without one factor that may lead to a larger ELBO, most promising first.

    A factor that explains the noise of one column alone is not dropped by `prune`, as
    the noise of that column is small as long as there is this factor. What the ELBO
    gains where the noise alone makes up for it is a cautious estimate.
    """
    if state.rank == 1 or model.noise != "column":
        return []
    explained, _ = _explained(model, state, statistics)
    noise = state.noise
    # Twice shape and rate of the noise's posterior; the rate rises by the error that
    # the factor has explained.
    shape = (model.counts + noise.dof)[:, None]
    rate = (statistics.squares + noise.dof * noise.scale)[:, None]
    added_rate = np.maximum(explained / noise.alpha[:, None], -0.5 * rate)
    delta_elbo = _delta_elbo_of_priors(state, statistics)
    losses = shape * np.log1p(added_rate / rate)
    if noise.known is not None:  # whose noise makes up for nothing
        losses[noise.known] = explained[noise.known]
    delta_elbo -= 0.5 * losses.sum(axis=0)
    is_small = model.n_observed <= SMALL_TABLE
    least = -MAX_LOSS_PER_ENTRY * model.n_observed if is_small else 0.0
    found = []
    for k in np.argsort(-delta_elbo)[:N_CANDIDATES]:
        if delta_elbo[k] <= least:
            break
        alpha = shape[:, 0] / (rate[:, 0] + added_rate[:, k])
        alpha = np.minimum(alpha, noise.alpha)
        without = state.with_factors(np.arange(state.rank) != k)
        if noise.known is not None:
            alpha[noise.known] = 1.0
        found.append(replace(without, noise=noise._replace(alpha=alpha)))
    return found


def _delta_elbo_of_priors(state, statistics):
    """What the ELBO gains without each factor, except for the error, (rank,)."""
    delta_elbo = np.zeros(state.rank)
    priors = state.row_prior, state.column_prior
    for prior, side in zip(priors, statistics[:2], strict=True):
        # The determinants lose the factor's variance given all other factors.
        delta_elbo += 0.5 * side.log_conditional_precision
        delta_elbo -= prior.elbo_of_coefficients(side)[: state.rank]
    return delta_elbo


def _explained(model, state, statistics):
    """Squared error, weighted by the noise, that each factor explains of each column.

    And, (rank, rank), half of what two factors lose together less than one by one.
    """
    rank, (row_bias, column_bias) = state.rank, model.biases
    explained, shared = np.empty((len(state.H), rank)), np.zeros((rank, rank))
    a, b = np.tril_indices(rank)
    pairs_of_factor = np.equal.outer(a, range(rank)) | np.equal.outer(b, range(rank))
    pairs_of_factor = pairs_of_factor.astype(float)
    for place in row_slices(len(state.H), rank**2):
        moments = state.columns.moments(place).astype(np.float64)
        moments *= state.alpha[place, None]
        systems = statistics.rows.systems[place].astype(np.float64)
        targets = statistics.rows.targets[place, :rank]
        T = pair_moments(moments, rank) * pair_moments(systems, rank)
        shared += unpack(T.sum(axis=0), rank)
        h = factor_means(moments, rank)
        # The error is x less b and c: E[h] times the sums of x w - b w, less E[h c] w.
        terms = 2 * h * targets
        if row_bias:
            terms -= 2 * h * bias_products(systems, rank)
        if column_bias:
            terms -= 2 * bias_products(moments, rank) * factor_means(systems, rank)
        terms += T[:, diagonal(rank)] - 2 * T @ pairs_of_factor
        explained[place] = terms
    return explained, shared
