"""Means and variances of predicted entries, given posteriors of rows and columns."""

import numpy as np

from .._kernels import dispatch
from .moments import diagonal, moments_of, n_pairs

# Numbers of packed covariances that are made at a time.
BLOCK = 2**22


def spread_of_entries(W, covariances, columns, row_bias, rows, places) -> np.ndarray:
    """Variance of predictions due to rows and columns, without noise, float64.

    Rows have the means W (m, q) and packed covariances; `columns` is a
    `FullCovariance`. The entries are at (rows, places).
    """
    rank = columns.rank
    # E[v v'] of columns, v = [h, 1], times the covariances of rows; and v v' of rows,
    # v = [w, 1], times those of columns: packed, these are dot products.
    column_moments = columns.moments()[:, : n_pairs(rank + row_bias)]
    W = W[:, :rank].astype(np.float64)
    row_squares = moments_of(W, np.zeros((len(W), n_pairs(rank))), False)
    row_squares = row_squares[:, : n_pairs(rank + columns.biased)]
    row_spread = _weighted(covariances.astype(np.float64), rank + row_bias)
    column_spread = columns.covariances.astype(np.float64)
    column_spread = _weighted(column_spread, rank + columns.biased)
    variances = dispatch.entry_products(row_spread, column_moments, rows, places)
    variances += dispatch.entry_products(row_squares, column_spread, rows, places)
    return variances


def _weighted(packed, length):
    """Packed matrices of which the dot product with others is that of all entries."""
    weights = np.full(n_pairs(length), 2.0)
    weights[diagonal(length)] = 1.0
    return packed * weights


def entry_moments(rows, W, covariances, columns, biases):
    """Means and variances of the predictions of listed entries, block by block.

    Rows have the means W and packed covariances.
    """
    means, variances = np.empty(rows.indices.size), np.empty(rows.indices.size)
    H, rank = columns.means, columns.rank
    step = max(1, BLOCK // covariances.shape[1])
    for start in range(0, len(W), step):
        place = slice(start, min(start + step, len(W)))
        block = rows.between(place.start, place.stop)
        entries = slice(rows.indptr[place.start], rows.indptr[place.stop])
        numbers, of = block.row_numbers, W[place]
        p = dispatch.entry_products(of[:, :rank], H[:, :rank], numbers, block.indices)
        p = p.astype(np.float64)
        if biases.row:
            p += of[numbers, -1]
        if biases.column:
            p += H[block.indices, -1]
        means[entries] = p
        variances[entries] = spread_of_entries(
            of, covariances[place], columns, biases.row, numbers, block.indices
        )
    return means, variances
