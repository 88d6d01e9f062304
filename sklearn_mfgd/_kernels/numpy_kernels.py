"""Kernels over observed entries, in NumPy: the specification of the compiled ones.

Entries come by rows, as in a CSR matrix: entry k of row i, ``indptr[i] <= k <
indptr[i + 1]``, has the column ``indices[k]``, the value ``values[k]`` and the weight
``weights[k]``, 1 where `weights` is None. A kernel fills rows `start` to `stop` of its
result, in place, and looks at no other row.

With ``row_bias`` the last column of W is a bias b of each row, with ``column_bias`` the
last column of H a bias c of each column, so that row i has the regressors ``g_j = [h_j,
1]`` and the targets ``x_ij - c_j``.

`compiled` has the same functions, compiled.
"""

import numpy as np
from scipy import sparse

from .linalg import one_blas_thread, row_slices, solve_each

# A block of rows with more than this share of its entries observed is multiplied out
# whole: that is quicker than to gather the factors of every entry.
DENSE = 0.05


def least_squares(
    H,
    indptr,
    indices,
    values,
    weights,
    row_bias,
    column_bias,
    ridge,
    draws,
    W,
    singular,
    start,
    stop,
):
    """Minimize ``sum_j s_ij (x_ij - c_j - w_i.g_j)^2 + ridge_i.w_i^2`` of every row.

    Parameters
    ----------
    ridge : float64 ndarray of shape (1, r) or (n_rows, r)
        Penalty of each coefficient, of all rows or of each.
    draws : ndarray of shape (n_rows, r) or None
        Standard normal numbers: with them the solution is drawn from the Gaussian whose
        precision is the system, U'U, by adding ``inv(U) draws``.
    W : ndarray of shape (n_rows, r)
        Filled with the solution: of minimum norm where a row's system is singular,
        zeros in a row without entries.
    singular : uint8 ndarray of shape (n_rows,)
        Filled with 0; the compiled twin, which does not solve singular systems, marks
        them by 1.
    """
    design, offset = regressors(H.astype(np.float64), row_bias, column_bias)
    rank = design.shape[1]
    singular[start:stop] = 0
    for block in row_slices(stop - start, rank**2):
        rows = range(start, stop)[block]
        systems, targets = (
            np.zeros((len(rows), rank, rank)),
            np.zeros((len(rows), rank)),
        )
        with one_blas_thread():
            for k, i in enumerate(rows):
                own = slice(indptr[i], indptr[i + 1])
                x = design[indices[own]]
                y = values[own] - offset[indices[own]]
                weighted = x if weights is None else weights[own, None] * x
                systems[k] = weighted.T @ x
                targets[k] = weighted.T @ y
            penalty = np.broadcast_to(ridge, (len(W), rank))[rows.start : rows.stop]
            systems[:, np.arange(rank), np.arange(rank)] += penalty
            least = penalty.min(initial=np.inf)
            own = slice(rows.start, rows.stop)
            W[own] = solve_each(systems, targets, len(H), least)
            if draws is not None:
                roots = np.linalg.cholesky(systems).transpose(0, 2, 1)
                W[own] += np.linalg.solve(roots, draws[own, :, None])[..., 0]


def gradient(
    H,
    indptr,
    indices,
    values,
    weights,
    row_bias,
    column_bias,
    W,
    gradient,
    sums,
    start,
    stop,
):
    """Sum ``s_ij e_ij g_j`` over each row, and ``s_ij e_ij^2``, e = W G' + c - X.

    Without W the values themselves take the place of e, and 1 without values.

    Parameters
    ----------
    W, gradient : ndarray of shape (n_rows, r)
    sums : float64 ndarray of shape (n_rows,)
    """
    design, _ = regressors(H, row_bias, column_bias)
    own = slice(indptr[start], indptr[stop])
    if W is None:
        error = np.ones(indptr[stop] - indptr[start], H.dtype)
        error = error if values is None else values[own]
    else:
        error = _errors(
            H, indptr, indices, values, row_bias, column_bias, W, start, stop
        )
    change = error if weights is None else error * weights[own]
    pattern = indices[own], indptr[start : stop + 1] - indptr[start]
    shape = (stop - start, len(H))
    gradient[start:stop] = sparse.csr_array((change, *pattern), shape) @ design
    squares = error.astype(np.float64) * change
    sums[start:stop] = sparse.csr_array((squares, *pattern), shape).sum(axis=1)


def squares(
    H, indptr, indices, values, weights, row_bias, column_bias, W, sums, start, stop
):
    """Sum ``s_ij e_ij^2`` over each row; without values ``s_ij (w_i.g_j)^2``.

    Parameters
    ----------
    W : ndarray of shape (n_rows, r)
    sums : float64 ndarray of shape (n_rows,)
    """
    own = slice(indptr[start], indptr[stop])
    error = _errors(H, indptr, indices, values, row_bias, column_bias, W, start, stop)
    squares = np.square(error, dtype=np.float64)
    if weights is not None:
        squares *= weights[own]
    pattern = indices[own], indptr[start : stop + 1] - indptr[start]
    matrix = sparse.csr_array((squares, *pattern), (stop - start, len(H)))
    sums[start:stop] = matrix.sum(axis=1)


def residuals(
    H, indptr, indices, values, weights, row_bias, column_bias, W, out, start, stop
):
    """Write ``w_i.g_j + c_j - x_ij`` of each entry to `out`, (n_entries,)."""
    own = slice(indptr[start], indptr[stop])
    out[own] = _errors(
        H, indptr, indices, values, row_bias, column_bias, W, start, stop
    )


def entry_products(W, H, rows, columns, out, start, stop):
    """Multiply ``W[rows[k]] . H[columns[k]]`` for k from `start` to `stop`."""
    for part in row_slices(stop - start, W.shape[1]):
        part = slice(start + part.start, min(start + part.stop, stop))
        out[part] = np.einsum("ij,ij->i", W[rows[part]], H[columns[part]])


def sgd(
    rows,
    columns,
    values,
    weights,
    W,
    H,
    row_bias,
    column_bias,
    row_share,
    column_share,
    row_squares,
    column_squares,
    ridge,
    bias_ridge,
    eta,
    bias_eta,
    scale,
    bias_scale,
    start,
    stop,
):
    """Step against the gradient of one entry after the other, from `start` to `stop`.

    Entry (i, j) with the error e moves w_i by ``-eta (s_ij e h_j + ridge row_share_i
    w_i)`` and h_j likewise, biases by the same with a factor of 1.

    Parameters
    ----------
    rows, columns : int32 ndarray of shape (n_entries,)
    W, H : ndarray
        Changed in place.
    row_share, column_share : ndarray of shape (n_rows,) and (n_columns,)
        The part of the ridge that one entry of a row or column bears.
    row_squares, column_squares : ndarray of shape (., 2), or None
        Squared gradients summed so far, of factors and of biases. With them a step is
        divided by ``sqrt(1 + scale * sum)`` [1]_.

    References
    ----------
    .. [1] W.-S. Chin, Y. Zhuang, Y.-C. Juan, C.-J. Lin, "A Learning-Rate Schedule for
       Stochastic Gradient Methods to Matrix Factorization", PAKDD 2015.
    """
    rank = H.shape[1] - column_bias
    sides = (
        (W, rows, row_bias, row_share, row_squares),
        (H, columns, column_bias, column_share, column_squares),
    )

    def damped(eta, scale, squares, place, square):
        """Length of a step, and what its gradient adds to the sum."""
        if squares is None:
            return eta
        step = eta / np.sqrt(1 + scale * squares[place])
        squares[place] += square
        return step

    for k in range(start, stop):
        w, h = W[rows[k]], H[columns[k]]
        error = w[:rank] @ h[:rank] - values[k]
        error += (w[rank] if row_bias else 0) + (h[rank] if column_bias else 0)
        change = error if weights is None else error * weights[k]
        others = h[:rank].copy(), w[:rank].copy()
        for (factors, index, biased, share, squares), other in zip(
            sides, others, strict=True
        ):
            i = index[k]
            own, share = factors[i], share[i]
            step = damped(eta, scale, squares, (i, 0), change**2 * (other @ other))
            own[:rank] -= step * (change * other + ridge * share * own[:rank])
            if biased:
                step = damped(bias_eta, bias_scale, squares, (i, 1), change**2)
                own[rank] -= step * (change + bias_ridge * share * own[rank])


def posterior(
    sums,
    which,
    targets,
    scale,
    prior,
    least,
    row_bias,
    column_bias,
    means,
    moments,
    covariances,
    logdets,
    gains,
    singular,
    start,
    stop,
):
    """Gaussian posterior of the coefficients z = [w, b] of every row.

    With the moments of the other side summed over the entries of the row, see
    `_moments`, the precision of z is ``P = prior + scale * E[g g']``, g = [h, 1], and
    its mean solves ``P z = scale * (sum of x g - E[c g])``.

    Parameters
    ----------
    sums : ndarray of shape (n_systems, size)
        Sums of packed moments of [h, 1, c].
    which : int64 ndarray of shape (n_rows,)
        The system of each row.
    targets : ndarray of shape (n_rows, rank + 1 or + 2)
        Sums of ``x [h, 1, c]``.
    scale : float64 ndarray of shape (n_rows,)
    prior : float64 ndarray of shape (q * (q + 1) / 2,)
        Packed precision of z before any entry.
    least : float
        Its smallest eigenvalue. No entry takes away from what the prior knows, so where
        P has a smaller one, that is rounding.
    means : ndarray of shape (n_rows, q)
        Filled with the mean.
    moments : ndarray of shape (n_rows, size of this side)
        Filled with the packed moments of [w, 1, b].
    covariances : ndarray of shape (n_rows, q * (q + 1) / 2) or None
        Filled with the packed covariance of z.
    logdets, gains : float64 ndarray of shape (n_rows,)
        Filled with the logarithm of the determinant of the covariance, and with the
        product of the mean and the right-hand side.
    singular : uint8 ndarray of shape (n_rows,)
        Filled with 0; the compiled twin marks by 1 what it leaves to this one: rows
        whose P rounding made indefinite.
    """
    q = means.shape[1]
    rank = q - row_bias
    lower = np.tril_indices(q)
    singular[start:stop] = 0
    for block in row_slices(stop - start, 4 * q * q):
        rows = slice(start + block.start, min(start + block.stop, stop))
        system = sums[which[rows]].astype(np.float64)
        factor = scale[rows, None]
        right = targets[rows, :q].astype(np.float64)
        if column_bias:
            right -= system[:, -(rank + 2) :][:, :q]
        right *= factor
        P = np.empty((len(right), q, q))
        P[:, lower[0], lower[1]] = prior + factor * system[:, : prior.size]
        P[:, lower[1], lower[0]] = P[:, lower[0], lower[1]]
        S, logdets[rows] = _invert(P, least)
        mean = np.einsum("kab,kb->ka", S, right)
        second = S + mean[:, :, None] * mean[:, None]
        packed = np.ones((len(right), moments.shape[1]))
        factors = np.tril_indices(rank)
        n_pairs = factors[0].size
        packed[:, :n_pairs] = second[:, factors[0], factors[1]]
        packed[:, n_pairs : n_pairs + rank] = mean[:, :rank]
        if row_bias:
            packed[:, -(rank + 2) : -2] = second[:, rank, :rank]
            packed[:, -2], packed[:, -1] = mean[:, rank], second[:, rank, rank]
        means[rows], moments[rows] = mean, packed
        if covariances is not None:
            covariances[rows] = S[:, lower[0], lower[1]]
        gains[rows] = np.einsum("ka,ka->k", mean, right)


def _invert(P, least):
    """Inverses of P and the logarithms of their determinants."""
    try:
        diagonals = np.diagonal(np.linalg.cholesky(P), axis1=1, axis2=2)
        if not (diagonals**2 < least / 2).any():
            return np.linalg.inv(P), -2 * np.log(diagonals).sum(axis=1)
    except np.linalg.LinAlgError:
        pass
    values, vectors = np.linalg.eigh(P)
    values = np.maximum(values, least)
    S = (vectors / values[:, None]) @ vectors.transpose(0, 2, 1)
    return S, -np.log(values).sum(axis=1)


def regressors(H, row_bias, column_bias):
    """Split H into the regressors of a row, (n, r), and its offsets c, (n,)."""
    design, offset = H, np.zeros(len(H), H.dtype)
    if column_bias:
        design, offset = H[:, :-1], H[:, -1]
    if row_bias:
        design = np.column_stack([design, np.ones(len(H), H.dtype)])
    return design, offset


def _errors(H, indptr, indices, values, row_bias, column_bias, W, start, stop):
    """Approximation less data at the entries of rows `start` to `stop`."""
    design, offset = regressors(H, row_bias, column_bias)
    first, n_rows = indptr[start], stop - start
    errors = np.empty(indptr[stop] - first, W.dtype)
    dense = errors.size > DENSE * n_rows * len(H)
    width = len(H) if dense else W.shape[1] * errors.size // max(1, n_rows)
    for block in row_slices(n_rows, width):
        rows = range(start, stop)[block]
        own = slice(indptr[rows.start], indptr[rows.stop])
        here = np.repeat(
            np.arange(len(rows)), np.diff(indptr[rows.start : rows.stop + 1])
        )
        pair = W[rows.start : rows.stop], design
        if dense:
            product = (pair[0] @ design.T)[here, indices[own]]
        else:
            product = np.einsum("ij,ij->i", pair[0][here], design[indices[own]])
        if values is not None:
            product += offset[indices[own]]
            product -= values[own]
        errors[own.start - first : own.stop - first] = product
    return errors
