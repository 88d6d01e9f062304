"""Means and variances of predicted entries, given posteriors of rows and columns."""

from typing import NamedTuple

import numpy as np

from .._kernels import dispatch
from .._kernels.rows import Biases
from .._optim.column_losses import predictions_at
from .moments import diagonal, moments_of, n_pairs

# Numbers of packed covariances that are made at a time.
BLOCK = 2**22


class ColumnTerms(NamedTuple):
    """What the variance of predictions needs of columns, packed."""

    rank: int
    biases: Biases
    moments: np.ndarray  # E[v v'], v = [h, 1]: for the covariances of rows
    spread: np.ndarray  # covariances of [h, c]: for v v' of rows, v = [w, 1]

    @classmethod
    def of(cls, columns, biases) -> "ColumnTerms":
        """The terms of a `FullCovariance`."""
        rank = columns.rank
        moments = columns.moments()[:, : n_pairs(rank + biases.row)]
        spread = columns.covariances.astype(np.float64)
        return cls(rank, biases, moments, _weighted(spread, rank + biases.column))

    def spread_at(self, W, covariances, rows, places) -> np.ndarray:
        """Variance of predictions due to rows and columns, without noise, float64.

        Rows have the means W (m, q) and packed covariances. The entries are at (rows,
        places).
        """
        # Packed, the traces of products of matrices are dot products.
        W = W[:, : self.rank].astype(np.float64)
        squares = moments_of(W, np.zeros((len(W), n_pairs(self.rank))), False)
        squares = squares[:, : n_pairs(self.rank + self.biases.column)]
        covariances = covariances.astype(np.float64)
        covariances = _weighted(covariances, self.rank + self.biases.row)
        places = rows, places
        variances = dispatch.entry_products(covariances, self.moments, *places)
        variances += dispatch.entry_products(squares, self.spread, *places)
        return variances


def _weighted(packed, length):
    """Weigh packed matrices so that their dot products are those of full ones."""
    weights = np.full(n_pairs(length), 2.0)
    weights[diagonal(length)] = 1.0
    return packed * weights


def entry_moments(rows, W, covariances, columns, biases):
    """Means and variances of the predictions of listed entries, block by block.

    Rows have the means W and packed covariances.
    """
    means, variances = np.empty(rows.indices.size), np.empty(rows.indices.size)
    terms = ColumnTerms.of(columns, biases)
    step = max(1, BLOCK // covariances.shape[1])
    for start in range(0, len(W), step):
        place = slice(start, min(start + step, len(W)))
        block = rows.between(place.start, place.stop)
        entries = slice(rows.indptr[place.start], rows.indptr[place.stop])
        places, of = (block.row_numbers, block.indices), W[place]
        means[entries] = predictions_at(of, columns.means, biases, *places)
        variances[entries] = terms.spread_at(of, covariances[place], *places)
    return means, variances
