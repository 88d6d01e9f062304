"""Factors that the evidence lower bound is better without.

A factor that explains nothing settles where one of its precisions is large; its moments
never vanish. What the bound loses without factor k is known from the sums of a sweep:
with T the moments of the columns times those of their rows, summed,

    2 E[h_k] . targets - 2 sum_l T[k, l] + T[k, k]

of explained error, against the evidence of both sides that they differ from the prior.
"""

import numpy as np

from ._bound import sides
from ._linalg import blocks
from ._moments import moments_of, n_pairs, unpack
from ._priors import VAGUE, evidence


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
    lost, shared = _explained(problem, state, sums)
    row_evidence, column_evidence = sums.row_evidence, sums.column_evidence
    gain = -0.5 * lost
    for side, prior, surprise in zip(
        sides(problem, state.basis, sums),
        (state.row_prior, state.column_prior),
        (row_evidence, column_evidence),
        strict=True,
    ):
        precision, far = prior.precision[:rank], side.spread(prior)[:rank]
        gain += 0.5 * (surprise - side.count * (1 + np.log(precision)))
        gain += 0.5 * (precision * far + evidence(prior.strength, side.scales)[:rank])
        gain -= VAGUE * (np.log(precision) - precision)
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


def _explained(problem, state, sums):
    """What the squared error, weighted by the noise, gains without each factor.

    Returns
    -------
    lost : ndarray of shape (rank,)
    shared : ndarray of shape (rank, rank)
        Half of what two factors lose together less than one by one.
    """
    rank = len(state.basis)
    linear, bias = np.zeros(rank), np.zeros(rank)
    shared = np.zeros((rank, rank))
    ends = n_pairs(rank + 1)
    for part in blocks(len(state.H), rank**2):
        moments = state.moments[part].astype(np.float64)
        moments *= state.alpha[part, None]
        systems = sums.systems[part].astype(np.float64)
        products = moments[:, : n_pairs(rank)] * systems[:, : n_pairs(rank)]
        shared += unpack(products.sum(axis=0), rank)
        h = moments[:, n_pairs(rank) : ends - 1]  # E[h], E[h c] against E[w b], E[w]
        linear += np.einsum("ja,ja->a", h, sums.targets[part, :rank])
        if problem.row_bias:
            bias += np.einsum("ja,ja->a", h, systems[:, ends : ends + rank])
        if problem.column_bias:
            with_bias = moments[:, ends : ends + rank]
            of_rows = systems[:, n_pairs(rank) : ends - 1]
            bias += np.einsum("ja,ja->a", with_bias, of_rows)
    lost = 2 * linear - 2 * bias - 2 * shared.sum(axis=1) + np.diag(shared)
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
