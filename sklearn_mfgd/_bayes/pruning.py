"""Factors that the evidence lower bound is better without.

A factor that explains nothing settles where one of its precisions is large; its moments
never vanish. What the bound loses without factor k is known from the sums of a sweep:
with T the moments of the columns times those of their rows, summed,

    2 E[h_k] . targets - 2 sum_l T[k, l] + T[k, k]

of explained error, against the evidence of both sides that they differ from the prior.
"""

import numpy as np

from .._kernels.linalg import row_slices
from .elbo import sides
from .moments import diagonal, moments_of, n_pairs, unpack
from .priors import VAGUE, evidence

# Factors that are tried to do without, one by one.
N_CANDIDATES = 3

# Tables of so few entries are worth a trial where the guess is a loss, of this for each
# entry at the most.
SMALL = 50_000
HOPE = 0.05


def prune(problem, state, sums):
    """Drop factors as long as the bound rises.

    Parameters
    ----------
    problem : Problem
    state : State
        In the basis of the last sweep.
    sums : Sums
        Of the last sweep.

    Returns
    -------
    state : State
    sums : Sums
    """
    rank = len(state.basis)
    lost_by_column, shared = _explained(problem, state, sums)
    lost = lost_by_column.sum(axis=0)
    row_evidence, column_evidence = sums.row_evidence, sums.column_evidence
    gain = _gain_of_priors(problem, state, sums) - 0.5 * lost
    kept = np.ones(rank, bool)
    row_logdet, column_logdet = sums.row_logdet, sums.column_logdet
    added = 0.0
    while kept.sum() > 1:
        k = np.argmax(np.where(kept, gain, -np.inf))
        if gain[k] <= 0:
            break
        kept[k] = False
        row_logdet += row_evidence[k]
        column_logdet += column_evidence[k]
        added += lost[k]
        # What two factors explain together is not lost twice.
        lost = lost + 2 * shared[k]
        gain = gain - shared[k]
    if kept.all():
        return state, sums
    errors = sums.squares + added / state.alpha.sum()  # only their weighted sum counts
    sums = sums._replace(
        rows=_drop(sums.rows, kept),
        columns=_drop(sums.columns, kept),
        row_products=sums.row_products[:, _and_bias(kept, problem.row_bias)],
        column_products=sums.column_products[:, _and_bias(kept, problem.column_bias)],
        row_logdet=row_logdet,
        column_logdet=column_logdet,
        squares=errors,
    )
    return _without(problem, state, kept), sums


def candidates(problem, state, sums):
    """Fits without a factor that may have a larger bound, once all else has followed.

    A factor that explains the noise of one column alone is not dropped by `prune`, as
    the noise of that column is small as long as there is this factor. What the bound
    gains where the noise alone makes up for it is a cautious guess.

    Returns
    -------
    candidates : list of State
        Each without one factor, the most promising first.
    """
    rank = len(state.basis)
    if rank == 1 or problem.noise != "column":
        return []
    lost, _ = _explained(problem, state, sums)
    strength, level = state.noise.strength, state.noise.level
    counts = (problem.counts + strength)[:, None]
    rate = (sums.squares + strength * level)[:, None]
    more = np.maximum(lost / state.alpha[:, None], -0.5 * rate)
    gain = _gain_of_priors(problem, state, sums)
    gain -= 0.5 * (counts * np.log1p(more / rate)).sum(axis=0)
    small = problem.n_observed <= SMALL
    least = -HOPE * problem.n_observed if small else 0.0
    found = []
    for k in np.argsort(-gain)[:N_CANDIDATES]:
        if gain[k] <= least:
            break
        alpha = counts[:, 0] / (rate[:, 0] + more[:, k])
        noise = state.noise._replace(alpha=np.minimum(alpha, state.alpha))
        without = _without(problem, state, np.arange(rank) != k)
        found.append(without._replace(noise=noise))
    return found


def _gain_of_priors(problem, state, sums):
    """What the bound gains without each factor, but for the error, (rank,)."""
    rank = len(state.basis)
    gain = np.zeros(rank)
    for side, prior, surprise in zip(
        sides(problem, state.basis, sums),
        (state.row_prior, state.column_prior),
        (sums.row_evidence, sums.column_evidence),
        strict=True,
    ):
        precision, far = prior.precision[:rank], side.spread(prior)[:rank]
        gain += 0.5 * (surprise - side.count * (1 + np.log(precision)))
        gain += 0.5 * (precision * far + evidence(prior.strength, side.scales)[:rank])
        gain -= VAGUE * (np.log(precision) - precision)
    return gain


def _explained(problem, state, sums):
    """What the squared error, weighted by the noise, gains without each factor.

    Returns
    -------
    lost : ndarray of shape (n_columns, rank)
    shared : ndarray of shape (rank, rank)
        Half of what two factors lose together less than one by one.
    """
    rank = len(state.basis)
    lost, shared = np.empty((len(state.H), rank)), np.zeros((rank, rank))
    a, b = np.tril_indices(rank)
    ends = n_pairs(rank + 1)
    for part in row_slices(len(state.H), rank**2):
        moments = state.moments[part].astype(np.float64)
        moments *= state.alpha[part, None]
        systems = sums.systems[part].astype(np.float64)
        products = moments[:, : n_pairs(rank)] * systems[:, : n_pairs(rank)]
        shared += unpack(products.sum(axis=0), rank)
        h = moments[:, n_pairs(rank) : ends - 1]  # E[h], E[h c] against E[w b], E[w]
        own = 2 * h * sums.targets[part, :rank]
        if problem.row_bias:
            own -= 2 * h * systems[:, ends : ends + rank]
        if problem.column_bias:
            with_bias = moments[:, ends : ends + rank]
            own -= 2 * with_bias * systems[:, n_pairs(rank) : ends - 1]
        own += products[:, diagonal(rank)]
        for k in range(rank):
            own[:, k] -= 2 * products[:, (a == k) | (b == k)].sum(axis=1)
        lost[part] = own
    return lost, shared


def _drop(matrix, kept):
    """Rows and columns of the factors that are kept, and of what follows them."""
    kept = np.append(kept, np.ones(len(matrix) - len(kept), bool))
    return matrix[np.ix_(kept, kept)]


def _and_bias(kept, biased):
    return np.append(kept, np.ones(int(biased), bool))


def _without(problem, state, kept):
    of_rows = _and_bias(kept, problem.row_bias)
    of_columns = _and_bias(kept, problem.column_bias)
    a, b = np.tril_indices(len(of_columns))
    covariances = state.covariances[:, of_columns[a] & of_columns[b]]
    W, H = state.W[:, of_rows], state.H[:, of_columns]
    return state._replace(
        W=W,
        H=H,
        moments=moments_of(H, covariances, problem.column_bias),
        covariances=covariances,
        basis=np.eye(kept.sum()),
        row_prior=state.row_prior.take(of_rows),
        column_prior=state.column_prior.take(of_columns),
    )
