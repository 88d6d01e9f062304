"""The evidence lower bound, and the basis and the priors that maximize it.

Factors are determined up to a basis: W Q' and H inv(Q) predict the same. The bound
depends on Q by the priors alone, which take the factors for independent, so it is
largest where the second moments of both sides are diagonal. Instead of turning all
factors after every sweep only the priors are turned the other way; see `State`.
"""

from typing import NamedTuple

import numpy as np

from .._kernels.linalg import row_slices
from .moments import moments_of, pack, unpack
from .noise import evidence as noise_evidence
from .priors import VAGUE, best_prior, evidence, spread, turned, with_flat_bias


def bound(problem, state, sums):
    """The evidence lower bound, up to constants of the priors."""
    value = 2 * noise_evidence(state.noise, problem.counts, sums.squares)
    size = np.linalg.slogdet(state.basis)[1]
    for side, prior, logdet, turns in zip(
        sides(problem, state.basis, sums),
        (state.row_prior, state.column_prior),
        (sums.row_logdet, sums.column_logdet),
        (2 * size, -2 * size),
        strict=True,
    ):
        precision, count = prior.precision, side.count
        value += logdet + count * (turns + len(precision) + np.log(precision).sum())
        value -= precision @ side.spread(prior)
        value -= evidence(prior.strength, side.scales).sum()
        value += 2 * VAGUE * (np.log(precision) - precision).sum()
    return 0.5 * float(value)


class SideSums(NamedTuple):
    """What is summed up of one side, its factors turned by a basis."""

    count: int
    second: np.ndarray  # (q,), E[z^2]
    products: np.ndarray  # (n_features, q), features times E[z], not turned
    scales: np.ndarray  # of the features
    basis: np.ndarray
    flat_bias: bool

    def spread(self, prior):
        """Expected squares of the distances from the means of a prior."""
        return spread(self.second, self.products, prior, self.scales, self.basis)

    def best_prior(self):
        """The prior of largest bound."""
        prior = best_prior(
            self.second, self.products, self.count, self.scales, self.basis
        )
        return with_flat_bias(prior) if self.flat_bias else prior


def sides(problem, basis, sums):
    """Rows and columns in the basis of the rows."""
    inverse = np.linalg.inv(basis).T
    features = problem.row_features, problem.column_features
    return tuple(
        SideSums(count, second_moments(total, own), products, of_side.scales, own, flat)
        for count, total, products, of_side, own, flat in zip(
            problem.shape,
            (sums.rows, sums.columns),
            (sums.row_products, sums.column_products),
            features,
            (basis, inverse),
            (False, problem.flat_bias),
            strict=True,
        )
    )


def align(problem, state, sums):
    """Maximize the bound in the basis and the priors."""
    best = maximize_priors(problem, state, sums)
    value = bound(problem, best, sums)
    if problem.blocks is None:
        return best, value
    rank = len(state.basis)
    second = (
        _centred(sums.rows, sums.row_products, best.row_prior.slopes, rank),
        _centred(sums.columns, sums.column_products, best.column_prior.slopes, rank),
    )
    basis = diagonalizing_basis(*second, *problem.shape)
    if basis is None:
        return best, value
    other = maximize_priors(problem, state._replace(basis=basis), sums)
    other_value = bound(problem, other, sums)
    return (other, other_value) if other_value > value else (best, value)


def _centred(total_moments, products, slopes, rank):
    """Second moments of the factors around the means of their prior."""
    products, slopes = products[:, :rank], slopes[:, :rank]
    both = slopes.T @ products
    return total_moments[:rank, :rank] - both - both.T + slopes.T @ slopes


def diagonalizing_basis(rows, columns, m, n):
    """The Q in which both second moments are diagonal and of the best size.

    Multiplying a factor by the root of u on one side and dividing it on the other
    changes the bound by that of the logarithms of u, of its moments and of the
    determinants: its maximum is the positive root of a quadratic equation.
    """
    try:
        L = np.linalg.cholesky(rows)
    except np.linalg.LinAlgError:  # rounding: stay
        return None
    sizes, U = np.linalg.eigh(L.T @ columns @ L)
    sizes, U = np.maximum(sizes[::-1], np.finfo(float).tiny), U[:, ::-1]
    a, b, c = n + 2 * VAGUE, VAGUE * (n - m), -(m + 2 * VAGUE) * sizes
    u = (np.sqrt(b**2 - a * c) - b) / a
    return np.sqrt(u)[:, None] * np.linalg.solve(L.T, U).T


def second_moments(total_moments, basis):
    """E[z^2] summed over a side, of turned factors and of the bias if there is one."""
    rank = len(basis)
    own = np.einsum("ka,ab,kb->k", basis, total_moments[:rank, :rank], basis)
    return np.append(own, np.diag(total_moments)[rank + 1 :])


def maximize_priors(problem, state, sums):
    """The same state with the priors of largest bound in its basis."""
    of_rows, of_columns = sides(problem, state.basis, sums)
    return state._replace(
        row_prior=of_rows.best_prior(), column_prior=of_columns.best_prior()
    )


def turn(problem, state):
    """The same state with the factors themselves in the basis of the precisions."""
    if problem.blocks is None:
        return state
    Q, rank = state.basis, len(state.basis)
    T = np.linalg.inv(Q).T
    W, H = state.W.copy(), state.H.copy()
    W[:, :rank], H[:, :rank] = W[:, :rank] @ Q.T, H[:, :rank] @ T.T
    whole = np.eye(H.shape[1])
    whole[:rank, :rank] = T
    whole = whole.astype(state.covariances.dtype)
    covariances = np.empty_like(state.covariances)
    for part in row_slices(len(H), len(whole) ** 2):
        old = unpack(state.covariances[part], len(whole))
        covariances[part] = pack(whole @ old @ whole.T)
    return with_turned_priors(state)._replace(
        W=W,
        H=H,
        moments=moments_of(H, covariances, problem.column_bias),
        covariances=covariances,
        basis=np.eye(rank),
    )


def with_turned_priors(state):
    """The same state but for the means of priors, in the basis of the precisions."""
    Q, row_prior, column_prior = state.basis, state.row_prior, state.column_prior
    T = np.linalg.inv(Q).T
    return state._replace(
        row_prior=row_prior._replace(slopes=turned(row_prior.slopes, Q)),
        column_prior=column_prior._replace(slopes=turned(column_prior.slopes, T)),
    )
