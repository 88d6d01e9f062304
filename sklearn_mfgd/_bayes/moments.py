"""Packed second moments of factors and biases: the one place that knows the layout.

A column with the factors h and the bias c has the vector v = [h, 1, c], without biases
[h, 1]. Its moments E[v v'] are kept as the lower triangle, row by row, in one row of an
array: first the pairs of factors, then E[h] and 1, then E[h c], E[c] and E[c^2]. What a
row needs of its columns is linear in them:

    precision of [w, b]   the leading pairs, summed over the entries of the row
    right-hand side       sum of x E[v], less the moments with c

so that a row update is a sum over entries followed by a Cholesky factorization.
"""

import numpy as np


def n_pairs(length: int) -> int:
    """Entries of a lower triangle."""
    return length * (length + 1) // 2


def packed_size(rank: int, biased: bool) -> int:
    """Numbers in the moments of one row or column."""
    return n_pairs(rank + 1 + biased)


def unpack(moments, length: int) -> np.ndarray:
    """Symmetric matrices of the leading `length` rows, (..., length, length)."""
    lower = np.tril_indices(length)
    matrices = np.empty((*moments.shape[:-1], length, length), moments.dtype)
    matrices[..., lower[0], lower[1]] = moments[..., : lower[0].size]
    matrices[..., lower[1], lower[0]] = moments[..., : lower[0].size]
    return matrices


def pack(matrices) -> np.ndarray:
    """Lower triangles of symmetric matrices."""
    lower = np.tril_indices(matrices.shape[-1])
    return matrices[..., lower[0], lower[1]]


def diagonal(length: int) -> np.ndarray:
    """Places of the diagonal in a packed triangle."""
    k = np.arange(length)
    return k * (k + 3) // 2


def packed_diagonal(variances) -> np.ndarray:
    """Packed diagonal matrices."""
    n, q = variances.shape
    packed = np.zeros((n, n_pairs(q)), variances.dtype)
    packed[:, diagonal(q)] = variances
    return packed


def packed_submatrix(packed, kept) -> np.ndarray:
    """Packed matrices of the coefficients that a mask keeps."""
    a, b = np.tril_indices(len(kept))
    return packed[..., kept[a] & kept[b]]


def packed_trace_weights(matrix) -> np.ndarray:
    """Packed A' such that the dot product with a packed S is the trace of A S."""
    return pack(2 * matrix - np.diag(np.diag(matrix)))


def pair_moments(moments, rank: int) -> np.ndarray:
    """E[h h'], packed."""
    return moments[..., : n_pairs(rank)]


def factor_means(moments, rank: int) -> np.ndarray:
    """E[h]."""
    return moments[..., n_pairs(rank) : n_pairs(rank) + rank]


def bias_products(moments, rank: int) -> np.ndarray:
    """E[h c]."""
    return moments[..., n_pairs(rank + 1) : n_pairs(rank + 1) + rank]


def bias_squares(moments) -> np.ndarray:
    """E[c^2]."""
    return moments[..., -1]


def expectations(moments, rank: int) -> np.ndarray:
    """E[v] out of packed moments, (n, rank + 1 or + 2)."""
    start = n_pairs(rank)
    linear = moments[:, start : start + rank + 1]
    if moments.shape[1] == packed_size(rank, False):
        return np.ascontiguousarray(linear)
    return np.column_stack([linear, moments[:, -2]])


def moments_of(means, covariances, biased: bool) -> np.ndarray:
    """Moments of columns from the mean and the packed covariance of [h, c]."""
    n, q = means.shape
    rank = q - biased
    moments = np.ones((n, packed_size(rank, biased)), means.dtype)
    for k in range(rank):
        of = slice(n_pairs(k), n_pairs(k + 1))
        np.multiply(means[:, k, None], means[:, : k + 1], out=moments[:, of])
    pairs = n_pairs(rank)
    moments[:, :pairs] += covariances[:, :pairs]
    moments[:, pairs : pairs + rank] = means[:, :rank]
    if biased:
        products = covariances[:, pairs:] + means[:, -1:] * means
        moments[:, -(rank + 2) : -2] = products[:, :-1]
        moments[:, -2], moments[:, -1] = means[:, -1], products[:, -1]
    return moments


def total(moments) -> np.ndarray:
    """Sum of the moments of all rows, float64."""
    ones = np.ones(len(moments), moments.dtype)
    return (ones @ moments).astype(np.float64)
