"""The evidence lower bound, and the basis and the precisions that maximize it.

Factors are determined up to a basis: W Q' and H inv(Q) predict the same. The bound
depends on Q by the priors alone, which take the factors for independent, so it is
largest where the second moments of both sides are diagonal. Instead of turning all
factors after every sweep only the priors are turned the other way; see `State`.
"""

import numpy as np

from ._linalg import blocks
from ._moments import moments_of, pack, unpack

# Shape, less one, and rate of the Gamma prior of a precision: it says next to nothing.
VAGUE = 1e-3

# The noise of a column counts for as much as this many observations of it.
STRENGTH = 2.0


def bound(problem, state, sums):
    """The evidence lower bound, up to constants of the priors."""
    counts, alpha = problem.counts, state.alpha
    value = counts @ np.log(alpha / (2 * np.pi)) - alpha @ sums.squares
    turned = 2 * np.linalg.slogdet(state.basis)[1]
    for count, precision, second, logdet in (
        (
            problem.shape[0],
            state.row_precision,
            second_moments(sums.rows, state.basis),
            sums.row_logdet + problem.shape[0] * turned,
        ),
        (
            problem.shape[1],
            state.column_precision,
            second_moments(sums.columns, np.linalg.inv(state.basis).T),
            sums.column_logdet - problem.shape[1] * turned,
        ),
    ):
        value += logdet + count * (len(precision) + np.log(precision).sum())
        value -= precision @ second
        value += 2 * VAGUE * (np.log(precision) - precision).sum()
    if problem.noise == "shared":
        value += 2 * VAGUE * (np.log(alpha[0]) - alpha[0])
    else:
        level = state.level
        value += STRENGTH * (np.log(alpha * level) - level * alpha).sum()
    return 0.5 * float(value)


def align(problem, state, sums):
    """Maximize the bound in the basis and the precisions."""
    rank, found, bases = len(state.basis), [], [state.basis]
    if problem.blocks is not None:
        second = sums.rows[:rank, :rank], sums.columns[:rank, :rank]
        turned = diagonalizing_basis(*second, *problem.shape)
        bases += [] if turned is None else [turned]
    for basis in bases:
        candidate = maximize_precisions(problem, state._replace(basis=basis), sums)
        found.append((bound(problem, candidate, sums), candidate))
    value, state = max(found, key=lambda pair: pair[0])
    return state, value


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


def maximize_precisions(problem, state, sums):
    """The same state with the precisions of largest bound in its basis."""
    rows = second_moments(sums.rows, state.basis)
    columns = second_moments(sums.columns, np.linalg.inv(state.basis).T)
    return state._replace(
        row_precision=best_precisions(rows, problem.shape[0]),
        column_precision=best_precisions(columns, problem.shape[1]),
    )


def best_precisions(second, count):
    """Precisions of largest bound for `count` coefficients of these summed squares."""
    return (count + 2 * VAGUE) / (second + 2 * VAGUE)


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
    whole = whole.astype(problem.dtype)
    covariances = np.empty_like(state.covariances)
    for part in blocks(len(H), len(whole) ** 2):
        old = unpack(state.covariances[part], len(whole))
        covariances[part] = pack(whole @ old @ whole.T)
    moments = moments_of(H, covariances, problem.column_bias)
    return state._replace(
        W=W, H=H, moments=moments, covariances=covariances, basis=np.eye(rank)
    )
