"""Second moments of factors and biases, and their sums over observed entries.

A column with the factors h and the bias c has the vector v = [h, 1, c], without biases
[h, 1]. Its moments E[v v'] are kept as the lower triangle, row by row, in one row of an
array: first the pairs of factors, then E[h] and 1, then E[h c], E[c] and E[c^2]. What a
row needs of its columns is linear in them:

    precision of [w, b]   the leading pairs, summed over the entries of the row
    right-hand side       sum of x E[v], less the moments with c

so that a row update is a sum over entries followed by a Cholesky factorization. Rows
are summed block by block: what is kept of them all is only what the columns need.
"""

import numpy as np


def n_pairs(length):
    """Entries of a lower triangle."""
    return length * (length + 1) // 2


def packed_size(rank, biased):
    """Numbers in the moments of one row or column."""
    return n_pairs(rank + 1 + biased)


def unpack(moments, length):
    """Symmetric matrices of the leading `length` rows, (..., length, length)."""
    lower = np.tril_indices(length)
    matrices = np.empty((*moments.shape[:-1], length, length), moments.dtype)
    matrices[..., lower[0], lower[1]] = moments[..., : lower[0].size]
    matrices[..., lower[1], lower[0]] = moments[..., : lower[0].size]
    return matrices


def pack(matrices):
    """Lower triangles of symmetric matrices."""
    lower = np.tril_indices(matrices.shape[-1])
    return matrices[..., lower[0], lower[1]]


def diagonal(length):
    """Places of the diagonal in a packed triangle."""
    k = np.arange(length)
    return k * (k + 3) // 2


def expectations(moments, rank):
    """E[v] out of packed moments, (n, rank + 1 or + 2)."""
    start = n_pairs(rank)
    linear = moments[:, start : start + rank + 1]
    if moments.shape[1] == packed_size(rank, False):
        return np.ascontiguousarray(linear)
    return np.column_stack([linear, moments[:, -2]])


def moments_of(means, covariances, biased):
    """Moments of columns of which mean and covariance of [h, c] are known."""
    n, q = means.shape
    rank = q - biased
    a, b = np.tril_indices(q)
    products = covariances + means[:, a] * means[:, b]
    moments = np.ones((n, packed_size(rank, biased)), means.dtype)
    pairs = n_pairs(rank)
    moments[:, :pairs] = products[:, :pairs]
    moments[:, pairs : pairs + rank] = means[:, :rank]
    if biased:
        moments[:, -(rank + 2) : -2] = products[:, pairs:-1]
        moments[:, -2], moments[:, -1] = means[:, -1], products[:, -1]
    return moments


def total(moments):
    """Sum of the moments of all rows, float64."""
    ones = np.ones(len(moments), moments.dtype)
    return (ones @ moments).astype(np.float64)
