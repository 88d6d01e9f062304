"""What a fit with learned regularization knows of the columns, and how rows fold in."""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtri, stdtrit

from .._kernels import dispatch
from .._kernels.rows import Biases
from .covariance import posterior_of
from .missingness import FeatureMap
from .moments import diagonal, moments_of, n_pairs, packed_diagonal
from .priors import Prior


class VariationalModel(NamedTuple):
    """Posterior of the columns, and the priors of the rest.

    The last of its columns stands for all that have no entry: it has the prior.
    """

    H: np.ndarray  # means of [h, c]
    covariances: np.ndarray  # of [h, c], packed or diagonal
    noise_precision: np.ndarray  # (n,)
    row_precision: np.ndarray  # of [w, b]
    column_precision: np.ndarray
    biases: Biases
    describe: FeatureMap  # of rows
    slopes: np.ndarray  # (n_features, q): [w, b] are about features @ slopes
    noise_variance: np.ndarray  # (n,), the mean of one over that precision
    dof: np.ndarray | None  # (n,), degrees of freedom of each deviation; None: many
    columns: np.ndarray | None = None  # which of them each column of X is; None: all

    @classmethod
    def of(cls, problem, state, describe, weight):
        """What a fit knows in the end.

        Parameters
        ----------
        problem : Problem
        state : State
            With the basis of the priors.
        describe : FeatureMap
            Of rows.
        weight : float
            The weight that counted as one.
        """
        prior = 1 / state.column_prior.precision
        if state.covariances.shape[1] != len(prior):
            prior, variances = np.zeros(n_pairs(len(prior))), prior
            prior[diagonal(len(variances))] = variances
        level = 1 / state.alpha[0] if problem.noise == "shared" else state.noise.scale
        precisions = np.append(state.alpha, 1 / level)
        return cls(
            np.vstack([state.H, np.zeros_like(state.H[:1])]),
            np.vstack([state.covariances, prior.astype(state.covariances.dtype)]),
            precisions / weight,
            state.row_prior.precision,
            state.column_prior.precision,
            Biases(*problem.biases),
            describe,
            state.row_prior.slopes,
            weight * np.append(state.noise.mean_variance(problem.counts), level),
            _degrees_of_freedom(problem, state) if problem.flat_bias else None,
        )

    @property
    def rank(self):
        """Number of factors."""
        return self.H.shape[1] - self.biases.column

    def take(self, columns):
        """The same for some of the columns."""
        numbers = np.arange(len(self.H) - 1) if self.columns is None else self.columns
        return self._replace(columns=numbers[columns])

    def fold_in(self, rows, *, with_covariances=False):
        """Posterior of rows, each by itself.

        Parameters
        ----------
        rows : Rows
            Centred entries. If these or the fit are in double precision, so is all
            that is solved.

        Returns
        -------
        W : ndarray of shape (n_rows, q)
            Means of [w, b].
        covariances : ndarray of shape (n_rows, q * (q + 1) / 2) or None
            Packed.
        """
        if self.columns is not None:
            rows = rows.renumber(self.columns, len(self.H) - 1)
        columns = posterior_of(self.H, self.covariances, self.biases.column)
        return columns.fold_in(
            rows,
            self.describe,
            Prior.with_slopes(self.row_precision, self.slopes, self.biases.row),
            self.biases,
            noise_precision=self.noise_precision,
            with_covariances=with_covariances,
        )

    @property
    def _full(self):
        return self.covariances.shape[1] == n_pairs(self.H.shape[1])

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
        columns = columns if self.columns is None else self.columns[columns]
        rows, of_rows = np.unique(rows, return_inverse=True)
        columns, of_columns = np.unique(columns, return_inverse=True)
        H = self.H[columns].astype(np.float64)
        spread = self.covariances[columns].astype(np.float64)
        spread = spread if self._full else packed_diagonal(spread)
        # E[v v'] of columns, v = [h, 1], times the covariances of rows; and v v' of
        # rows, v = [w, 1], times those of columns: packed, these are dot products.
        of_h = moments_of(H, spread, column_bias)[:, : n_pairs(rank + row_bias)]
        W = W[rows, :rank].astype(np.float64)
        of_w = moments_of(W, np.zeros((len(W), n_pairs(rank))), False)
        of_w = of_w[:, : n_pairs(rank + column_bias)]
        a, b = np.tril_indices(rank + row_bias)
        own = covariances[rows[:, None], a, b].astype(np.float64)
        own = _weighted(own, rank + row_bias)
        spread = _weighted(spread, rank + column_bias)
        result = self.noise_variance[columns][of_columns]
        result += dispatch.entry_products(own, of_h, of_rows, of_columns)
        result += dispatch.entry_products(of_w, spread, of_rows, of_columns)
        if self.dof is not None:
            result *= np.square(student_over_normal(self.dof[columns]))[of_columns]
        return result


def _degrees_of_freedom(problem, state):
    """Entries of each column less the coefficients that they determine, (n + 1,).

    A coefficient counts by the share of its prior variance that the entries take away
    (MacKay, "Bayesian Interpolation", Neural Computation 4, 1992). One is left where
    there are two entries; of an empty column nothing is known.
    """
    precision = state.column_prior.precision
    variances = state.covariances
    if variances.shape[1] != len(precision):
        variances = variances[:, diagonal(len(precision))]
    determined = len(precision) - variances @ precision
    dof = np.maximum(problem.counts - determined, problem.counts > 1)
    return np.append(np.where(problem.counts > 1, dof, 0), 0)


def student_over_normal(dof):
    """How much wider an interval for 95 % is where the variance is an estimate.

    The ratio of the quantiles of Student's t distribution and of the normal one,
    infinite without degrees of freedom.
    """
    dof = np.asarray(dof, np.float64)
    quantiles = stdtrit(np.maximum(dof, 1), 0.975) / ndtri(0.975)
    return np.where(dof >= 1, quantiles, np.inf)


def _weighted(packed, length):
    """Packed matrices of which the dot product with others is that of all entries."""
    weights = np.full(n_pairs(length), 2.0)
    weights[diagonal(length)] = 1.0
    return packed * weights
