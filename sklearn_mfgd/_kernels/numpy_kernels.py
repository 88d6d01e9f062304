"""Reference implementation of the kernels, in NumPy: the specification of `compiled`.

A kernel takes a problem, see `problems`, and fills rows (or entries) `start` to `stop`
of the arrays that it is given for its results, in place; it looks at no other row. Of a
row i with the regressors ``g_j = [h_j, 1]`` it sees the values ``x_ij`` and the weights
``s_ij`` (1 without) of its entries.
"""

import numpy as np
from scipy import sparse

from . import non_negative as constrained
from .blas import one_blas_thread
from .linalg import row_slices, solve_each
from .problems import PosteriorProblem, Posteriors, RowProblem, StochasticProblem

# A block of rows with more than this share of its entries observed is multiplied out
# whole: that is quicker than to gather the factors of every entry.
DENSE_SHARE = 0.05


def least_squares(problem: RowProblem, ridge, draws, out, needs_fallback, start, stop):
    """Minimize ``sum_j s_ij (x_ij - c_j - w_i.g_j)^2 + ridge_i.w_i^2`` of every row.

    The float64 `ridge` is one of all rows, (1, width), or one of each, (n_rows, width).
    With `draws`, standard normal numbers of the shape of `out`, the solution is sampled
    from the Gaussian whose precision is the system, U'U, by adding ``inv(U) draws``.
    The solution, in `out`, has minimum norm where a row's system is singular, and is
    zero in a row without entries. `compiled`, which does not solve singular systems,
    marks them by 1 in `needs_fallback`, uint8, and leaves them to this function.
    """
    needs_fallback[start:stop] = 0
    for block in row_slices(stop - start, problem.width**2):
        block = slice(start + block.start, min(start + block.stop, stop))
        with one_blas_thread():
            systems, targets, penalty = _systems(problem, ridge, block)
            least_eigenvalue = penalty.min(initial=np.inf)
            out[block] = solve_each(systems, targets, len(problem.H), least_eigenvalue)
            if draws is not None:
                # U w = draws has the covariance inv(U'U).
                U = np.linalg.cholesky(systems).transpose(0, 2, 1)
                out[block] += np.linalg.solve(U, draws[block, :, None])[..., 0]


def _systems(problem, ridge, block):
    """Systems, targets and penalties of rows: (G'SG + ridge) w = G'S (x - c).

    The g_j of a row are the rows of G.
    """
    rows, width, n_rows = problem.rows, problem.width, block.stop - block.start
    design, offset = _regressors(problem, np.float64)
    systems, targets = np.empty((n_rows, width, width)), np.empty((n_rows, width))
    for k, i in enumerate(range(block.start, block.stop)):
        entries = slice(rows.indptr[i], rows.indptr[i + 1])
        columns = rows.indices[entries]
        G = design[columns]
        SG = G if rows.weights is None else rows.weights[entries, None] * G
        systems[k] = SG.T @ G
        targets[k] = SG.T @ (rows.values[entries] - offset[columns])
    penalty = np.broadcast_to(ridge, (rows.shape[0], width))[block]
    diagonal = np.arange(width)
    systems[:, diagonal, diagonal] += penalty
    return systems, targets, penalty


def non_negative(problem: RowProblem, ridge, out, start, stop):
    """Minimize what `least_squares` does over coefficients that are not negative.

    The rows start from what `out` holds, and have no bias. See `non_negative.minimize`.
    """
    for block in row_slices(stop - start, problem.width**2):
        block = slice(start + block.start, min(start + block.stop, stop))
        with one_blas_thread():
            systems, targets, _ = _systems(problem, ridge, block)
            out[block] = constrained.minimize(systems, targets, out[block])


def non_negative_shared(system, targets, n_passes, out, start, stop):
    """The same for rows that share a system, float64.

    With `n_passes`, rows descend by that number of passes over their coefficients; with
    0, to the minimum.
    """
    if n_passes:
        rows = slice(start, stop)
        out[rows] = constrained.descend(system, targets[rows], out[rows], n_passes)
        return
    for block in row_slices(stop - start, system.size):
        block = slice(start + block.start, min(start + block.stop, stop))
        systems = np.broadcast_to(system, (block.stop - block.start, *system.shape))
        with one_blas_thread():
            out[block] = constrained.minimize(systems, targets[block], out[block])


def gradient(problem, W, out, sums, start, stop):
    """Sum ``s_ij e_ij g_j`` over each row, and ``s_ij e_ij^2``, e = W G' + c - X.

    `out` has the shape of W, (n_rows, width); `sums` is float64, (n_rows,).
    """
    error = _residuals(problem, W, start, stop)
    change = error * _weights(problem, start, stop)
    design, _ = _regressors(problem)
    out[start:stop] = _matrix(problem, change, start, stop) @ design
    squares = error.astype(np.float64) * change
    sums[start:stop] = _matrix(problem, squares, start, stop).sum(axis=1)


def product(problem, out, start, stop):
    """Sum ``x_ij h_j`` over each row, without biases and weights; no values are 1."""
    entries = _entries(problem, start, stop)
    values, n_entries = problem.rows.values, entries.stop - entries.start
    values = np.ones(n_entries, out.dtype) if values is None else values[entries]
    out[start:stop] = _matrix(problem, values, start, stop) @ problem.H


def squares(problem, W, out, start, stop):
    """Sum ``s_ij e_ij^2`` over each row in float64; no values: ``s_ij (w_i.g_j)^2``."""
    squares = np.square(_residuals(problem, W, start, stop), dtype=np.float64)
    squares *= _weights(problem, start, stop)
    out[start:stop] = _matrix(problem, squares, start, stop).sum(axis=1)


def residuals(problem, W, out, start, stop):
    """Write ``e_ij = w_i.g_j + c_j - x_ij`` of each entry to `out`, (n_entries,)."""
    out[_entries(problem, start, stop)] = _residuals(problem, W, start, stop)


def entry_products(W, H, rows, columns, out, start, stop):
    """Multiply ``W[rows[k]] . H[columns[k]]`` for k from `start` to `stop`."""
    for block in row_slices(stop - start, W.shape[1]):
        block = slice(start + block.start, min(start + block.stop, stop))
        out[block] = np.einsum("ij,ij->i", W[rows[block]], H[columns[block]])


def sgd(problem: StochasticProblem, start, stop):
    """Step against the gradient of one entry after the other, from `start` to `stop`.

    Entry (i, j) with the error e moves w_i by ``-eta (s_ij e h_j + ridge share_i w_i)``
    and h_j likewise, biases by the same with a factor of 1. With `squares`, a step is
    divided by ``sqrt(1 + scale * sum)``, of the squared gradients so far [1]_.

    References
    ----------
    .. [1] W.-S. Chin, Y. Zhuang, Y.-C. Juan, C.-J. Lin, "A Learning-Rate Schedule for
       Stochastic Gradient Methods to Matrix Factorization", PAKDD 2015.
    """
    rows, columns, values, weights = problem.entries
    W, H = problem.W, problem.H
    biases = row_bias, column_bias = problem.row_bias, problem.column_bias
    rank, (ridge, bias_ridge) = H.shape[1] - column_bias, problem.ridges

    def step_size(kind, squares, index, square):
        """Length of a step of factors (kind 0) or a bias (1); adds to the sum."""
        eta = problem.etas[kind]
        if squares is None:
            return eta
        size = eta / np.sqrt(1 + problem.scales[kind] * squares[index, kind])
        squares[index, kind] += square
        return size

    for k in range(start, stop):
        i, j = rows[k], columns[k]
        w, h = W[i], H[j]
        error = w[:rank] @ h[:rank] - values[k]
        error += (w[rank] if row_bias else 0) + (h[rank] if column_bias else 0)
        change = error if weights is None else error * weights[k]
        # Both sides step from where they were: a copy of the factors of each other.
        of_row, of_column = (w, h[:rank].copy(), i), (h, w[:rank].copy(), j)
        for side, (factors, others, index) in enumerate((of_row, of_column)):
            share, squares = problem.ridge_shares[side][index], problem.squares[side]
            size = step_size(0, squares, index, change**2 * (others @ others))
            factors[:rank] -= size * (change * others + ridge * share * factors[:rank])
            if biases[side]:
                size = step_size(1, squares, index, change**2)
                factors[rank] -= size * (change + bias_ridge * share * factors[rank])


def posterior(problem: PosteriorProblem, out: Posteriors, needs_fallback, start, stop):
    """Gaussian posterior of the coefficients z = [w, b] of every row.

    With the moments of the other side summed over the entries of the row the precision
    of z is ``P = prior + scale * E[g g']``, g = [h, 1], and its mean solves
    ``P z = scale * (sum of x g - E[c g])``. `compiled` marks by 1 in `needs_fallback`,
    uint8, the rows that it leaves to this function: rounding made their P indefinite.
    """
    q = out.means.shape[1]
    rank = q - problem.row_bias
    lower, pairs = np.tril_indices(q), np.tril_indices(rank)
    n_pairs = pairs[0].size
    needs_fallback[start:stop] = 0
    for block in row_slices(stop - start, 4 * q * q):
        block = slice(start + block.start, min(start + block.stop, stop))
        # Packed: pairs of [h, 1], then, with biases of columns, c times [h, 1, c].
        system = problem.sums[problem.system_index[block]].astype(np.float64)
        scale = problem.scale[block, None]
        right = problem.targets[block, :q].astype(np.float64)
        if problem.column_bias:
            right -= system[:, -(rank + 2) :][:, :q]
        right *= scale
        P = np.empty((len(right), q, q))
        packed = problem.prior + scale * system[:, : problem.prior.size]
        P[:, lower[0], lower[1]] = P[:, lower[1], lower[0]] = packed
        S, out.logdets[block] = _invert(P, problem.least_eigenvalue)
        mean = np.einsum("kab,kb->ka", S, right)
        # E[z z'] = S + mean mean'
        second = S + mean[:, :, None] * mean[:, None]
        moments = np.ones((len(right), out.moments.shape[1]))
        moments[:, :n_pairs] = second[:, pairs[0], pairs[1]]
        moments[:, n_pairs : n_pairs + rank] = mean[:, :rank]
        if problem.row_bias:
            moments[:, -(rank + 2) : -2] = second[:, rank, :rank]
            moments[:, -2], moments[:, -1] = mean[:, rank], second[:, rank, rank]
        out.means[block], out.moments[block] = mean, moments
        if out.covariances is not None:
            out.covariances[block] = S[:, lower[0], lower[1]]
        out.gains[block] = np.einsum("ka,ka->k", mean, right)


def _invert(P, least_eigenvalue):
    """Inverses of P and the logarithms of their determinants.

    No entry takes away from what the prior knows: an eigenvalue of P below the least
    one of the prior is rounding.
    """
    try:
        diagonals = np.diagonal(np.linalg.cholesky(P), axis1=1, axis2=2)
        if not (diagonals**2 < least_eigenvalue / 2).any():
            return np.linalg.inv(P), -2 * np.log(diagonals).sum(axis=1)
    except np.linalg.LinAlgError:
        pass
    values, vectors = np.linalg.eigh(P)
    values = np.maximum(values, least_eigenvalue)
    S = (vectors / values[:, None]) @ vectors.transpose(0, 2, 1)
    return S, -np.log(values).sum(axis=1)


def regressors(H, row_bias, column_bias):
    """Split H into the regressors g_j of a row, (n, width), and its offsets c, (n,)."""
    design, offset = H, np.zeros(len(H), H.dtype)
    if column_bias:
        design, offset = H[:, :-1], H[:, -1]
    if row_bias:
        design = np.column_stack([design, np.ones(len(H), H.dtype)])
    return design, offset


def _regressors(problem, dtype=None):
    H = problem.H.astype(dtype or problem.H.dtype, copy=False)
    return regressors(H, problem.row_bias, problem.column_bias)


def _entries(problem, start, stop):
    return slice(problem.rows.indptr[start], problem.rows.indptr[stop])


def _weights(problem, start, stop):
    weights = problem.rows.weights
    return 1 if weights is None else weights[_entries(problem, start, stop)]


def _matrix(problem, values, start, stop):
    indptr = problem.rows.indptr[start : stop + 1] - problem.rows.indptr[start]
    indices = problem.rows.indices[_entries(problem, start, stop)]
    shape = (stop - start, len(problem.H))
    return sparse.csr_array((values, indices, indptr), shape)


def _residuals(problem, W, start, stop):
    """Approximation less data at the entries of rows `start` to `stop`."""
    rows, n_columns = problem.rows, len(problem.H)
    design, offset = _regressors(problem)
    first, n_rows = rows.indptr[start], stop - start
    result = np.empty(rows.indptr[stop] - first, W.dtype)
    is_dense = result.size > DENSE_SHARE * n_rows * n_columns
    width = n_columns if is_dense else W.shape[1] * result.size // max(1, n_rows)
    for block in row_slices(n_rows, width):
        block = slice(start + block.start, min(start + block.stop, stop))
        entries = slice(rows.indptr[block.start], rows.indptr[block.stop])
        columns = rows.indices[entries]
        counts = np.diff(rows.indptr[block.start : block.stop + 1])
        row_of_entry = np.repeat(np.arange(len(counts)), counts)
        if is_dense:
            values = (W[block] @ design.T)[row_of_entry, columns]
        else:
            values = np.einsum("ij,ij->i", W[block][row_of_entry], design[columns])
        if rows.values is not None:
            values += offset[columns]
            values -= rows.values[entries]
        result[entries.start - first : entries.stop - first] = values
    return result
