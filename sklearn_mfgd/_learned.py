"""What a fit with learned regularization knows of the columns, and how rows fold in."""

from typing import NamedTuple

import numpy as np

from . import _diagonal, _engine
from ._linalg import blocks
from ._model import Biases
from ._moments import (
    BLOCK,
    diagonal,
    expectations,
    moments_of,
    n_pairs,
    packed_size,
    unpack,
)


class Learned(NamedTuple):
    """Posterior of the columns, and the precisions of the rest."""

    H: np.ndarray  # means of [h, c]
    covariances: np.ndarray  # of [h, c], packed or diagonal
    noise_precision: np.ndarray  # (n,)
    row_precision: np.ndarray  # of [w, b]
    column_precision: np.ndarray
    biases: Biases

    @property
    def rank(self):
        """Number of factors."""
        return self.H.shape[1] - self.biases.column

    def astype(self, dtype):
        """The same in another precision."""
        return self._replace(
            H=self.H.astype(dtype, copy=False),
            covariances=self.covariances.astype(dtype, copy=False),
        )

    def take(self, columns):
        """The same for some of the columns."""
        return self._replace(
            H=self.H[columns],
            covariances=self.covariances[columns],
            noise_precision=self.noise_precision[columns],
        )

    def fold_in(self, rows, *, with_covariances=False):
        """Posterior of rows, each by itself.

        Parameters
        ----------
        rows : Rows
            Centred entries.

        Returns
        -------
        W : ndarray of shape (n_rows, q)
            Means of [w, b].
        covariances : ndarray of shape (n_rows, q * (q + 1) / 2) or None
            Packed.
        """
        if not self._full:
            return self._fold_in_independent(rows, with_covariances)
        m, q = rows.shape[0], len(self.row_precision)
        rank = q - self.biases.row
        W = np.empty((m, q), self.H.dtype)
        covariances = None
        if with_covariances:
            covariances = np.empty((m, n_pairs(q)), W.dtype)
        moments = moments_of(self.H, self.covariances, self.biases.column)
        moments *= self.noise_precision.astype(W.dtype)[:, None]
        linear = expectations(moments, rank)
        prior = np.zeros(n_pairs(q))
        prior[diagonal(q)] = self.row_precision
        step = max(1, BLOCK // packed_size(rank, True))
        for start in range(0, m, step):
            part = slice(start, min(start + step, m))
            own = rows.between(part.start, part.stop)
            found = _engine.posterior(
                _engine.product(own.counted, moments),
                np.arange(own.shape[0]),
                _engine.product(own.weighted, linear),
                np.ones(own.shape[0]),
                prior,
                self.biases,
                with_covariances=with_covariances,
            )
            W[part] = found.means
            if with_covariances:
                covariances[part] = found.covariances
        return W, covariances

    @property
    def _full(self):
        return self.covariances.shape[1] == n_pairs(self.H.shape[1])

    def _fold_in_independent(self, rows, with_covariances):
        found = _diagonal.update(
            rows.weigh(self.noise_precision),
            self.H,
            self.covariances,
            np.ones(rows.shape[0]),
            self.row_precision,
            self.biases,
        )
        if not with_covariances:
            return found.means, None
        return found.means, _packed_diagonal(found.variances)

    def variances(self, W, covariances, rows, columns):
        """Variance of entries: of the noise, of the row, of the column.

        Parameters
        ----------
        W : ndarray of shape (m, q)
        covariances : ndarray of shape (m, q, q)
            Of the rows.
        rows, columns : ndarray of shape (n_entries,)

        Returns
        -------
        variances : ndarray of shape (n_entries,), float64
        """
        row_bias, column_bias = self.biases
        rank = W.shape[1] - row_bias
        result = 1 / self.noise_precision[columns]
        for part in blocks(len(rows), 2 * (rank + 1) ** 2):
            i, j = rows[part], columns[part]
            of_rows = covariances[i].astype(np.float64)
            packed = self.covariances[j].astype(np.float64)
            packed = packed if self._full else _packed_diagonal(packed)
            of_columns = unpack(packed, rank + column_bias)
            w = np.ones((len(i), rank + column_bias))
            h = np.ones((len(i), rank + row_bias))
            w[:, :rank], h[:, :rank] = W[i, :rank], self.H[j, :rank]
            own = result[part]
            own += np.einsum("ka,kab,kb->k", h, of_rows, h, optimize=True)
            own += np.einsum("ka,kab,kb->k", w, of_columns, w, optimize=True)
            pair = of_rows[:, :rank, :rank], of_columns[:, :rank, :rank]
            own += np.einsum("kab,kab->k", *pair)
            result[part] = own
        return result


def _packed_diagonal(variances):
    q = variances.shape[1]
    packed = np.zeros((len(variances), n_pairs(q)), variances.dtype)
    packed[:, diagonal(q)] = variances
    return packed
