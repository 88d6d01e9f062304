"""The fitted model of variational Bayes: the posterior of the columns."""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtri, stdtrit

from .._data.row_blocks import BLOCK
from .._kernels import dispatch
from .._kernels.rows import Biases
from .._optim.objective import objective_of
from . import diagonal_covariance
from .missingness import FeatureMap
from .moments import diagonal, expectations, moments_of, n_pairs, packed_size


class VariationalModel(NamedTuple):
    """Posterior of the columns with entries, and the priors of all else.

    The last of the columns stands for those without entries: it has the prior. See
    `RidgeModel` for the contract of a fitted model.
    """

    means: np.ndarray  # of [h, c]
    covariances: np.ndarray  # of [h, c], packed or diagonal
    noise_precision: np.ndarray  # (n,), mean of its posterior
    predictive_noise: np.ndarray  # (n,), posterior mean of one over that precision
    row_precision: np.ndarray  # of the prior of [w, b]
    column_precision: np.ndarray
    slopes: np.ndarray  # (n_features, q): the prior mean of [w, b] is features @ slopes
    feature_map: FeatureMap  # of rows
    biases: Biases
    dof: np.ndarray | None  # (n,), degrees of freedom of each deviation; None: many
    columns: np.ndarray | None = None  # row of `means` for each column; None: all

    has_variances = True

    @classmethod
    def of(cls, problem, state, feature_map, weight):
        """Make one of what a fit ended with, rotated to the axes of the priors.

        `weight` is the weight of an entry that counted as one.
        """
        prior_variances = 1 / state.column_prior.precision
        if state.covariances.shape[1] != len(prior_variances):
            packed = np.zeros(n_pairs(len(prior_variances)))
            packed[diagonal(len(prior_variances))] = prior_variances
            prior_variances = packed
        scale = 1 / state.alpha[0] if problem.noise == "shared" else state.noise.level
        prior_variances = prior_variances.astype(state.covariances.dtype)
        predictive = state.noise.mean_variance(problem.counts)
        return cls(
            means=np.vstack([state.H, np.zeros_like(state.H[:1])]),
            covariances=np.vstack([state.covariances, prior_variances]),
            noise_precision=np.append(state.alpha, 1 / scale) / weight,
            predictive_noise=weight * np.append(predictive, scale),
            row_precision=state.row_prior.precision,
            column_precision=state.column_prior.precision,
            slopes=state.row_prior.slopes,
            feature_map=feature_map,
            biases=Biases(problem.row_bias, problem.column_bias),
            dof=_degrees_of_freedom(problem, state) if problem.flat_bias else None,
        )

    @property
    def rank(self):
        """Number of factors."""
        return self.means.shape[1] - self.biases.column

    n_factors = rank

    @property
    def H(self):
        """Means of [h, c] of all columns, (n, rank) or (n, rank + 1)."""
        return self._of_columns(self.means)

    @property
    def noise_variance(self):
        """Variance of the noise of an entry of weight one, of all columns."""
        return self._of_columns(1 / self.noise_precision)

    def _of_columns(self, values):
        return values[:-1] if self.columns is None else values[self.columns]

    def over(self, columns):
        """Make the same model of columns with these rows of `means`; None: all."""
        return self._replace(columns=columns)

    def take(self, columns):
        """Make the same model of some of the columns."""
        numbers = self.columns
        if numbers is None:
            numbers = np.arange(len(self.means) - 1)
        return self._replace(columns=numbers[columns])

    def fold_in(self, matrix):
        """Posterior means [w, b] of new rows, each by itself, (m, q)."""
        return self.row_posteriors(matrix)[0]

    def reconstruct(self, matrix):
        """Yield row factors of blocks of rows, and half of their squared residuals."""
        matrix = matrix.listed()
        W, H = self.fold_in(matrix), self.H.astype(matrix.dtype, copy=False)
        yield W, objective_of(matrix, self.biases).value(W, H)

    def row_posteriors(self, matrix, *, with_covariances=False):
        """Return means of new rows, each by itself, and packed covariances or None.

        If the data or the fit are in double precision, so is all that is solved.
        """
        rows = matrix.listed().rows
        if self.columns is not None:
            rows = rows.renumber(self.columns, len(self.means) - 1)
        if not self._full:
            return self._fold_in_independent(rows, with_covariances)
        m, q = rows.shape[0], len(self.row_precision)
        rank = q - self.biases.row
        W = np.empty((m, q), rows.values.dtype)
        dtype = np.result_type(W, self.means)
        covariances = None
        if with_covariances:
            covariances = np.empty((m, n_pairs(q)), W.dtype)
        moments = moments_of(self.means, self.covariances, self.biases.column)
        moments = moments.astype(dtype, copy=False)
        moments *= self.noise_precision.astype(dtype)[:, None]
        linear = expectations(moments, rank)
        prior = np.zeros(n_pairs(q))
        prior[diagonal(q)] = self.row_precision
        pull = self.slopes * self.row_precision
        step = max(1, BLOCK // (packed_size(rank, True) + len(self.slopes)))
        for start in range(0, m, step):
            part = slice(start, min(start + step, m))
            own = rows.between(part.start, part.stop).astype(dtype)
            targets = dispatch.product(own.weighted_values, linear)
            targets[:, :q] += self.feature_map(own) @ pull
            found = dispatch.posterior(
                dispatch.product(own.weights_matrix, moments),
                np.arange(own.shape[0]),
                targets,
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
        return self.covariances.shape[1] == n_pairs(self.means.shape[1])

    def _fold_in_independent(self, rows, with_covariances):
        dtype = np.result_type(rows.values, self.H)
        found = diagonal_covariance.update(
            rows.astype(dtype).scale_weights(self.noise_precision),
            self.means.astype(dtype, copy=False),
            self.covariances.astype(dtype, copy=False),
            np.ones(rows.shape[0]),
            self.row_precision,
            self.biases,
        )
        means = found.means.astype(rows.values.dtype, copy=False)
        if not with_covariances:
            return means, None
        return means, _packed_diagonal(found.variances.astype(means.dtype))

    def variances(self, W, covariances, rows, columns):
        """Variance of entries, due to noise, row and column, (n_entries,) float64.

        W (m, q) and covariances (m, q, q) are the posteriors of the rows.
        """
        row_bias, column_bias = self.biases
        rank = W.shape[1] - row_bias
        columns = columns if self.columns is None else self.columns[columns]
        rows, of_rows = np.unique(rows, return_inverse=True)
        columns, of_columns = np.unique(columns, return_inverse=True)
        H = self.means[columns].astype(np.float64)
        spread = self.covariances[columns].astype(np.float64)
        spread = spread if self._full else _packed_diagonal(spread)
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
        result = self.predictive_noise[columns][of_columns]
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


def _packed_diagonal(variances):
    q = variances.shape[1]
    packed = np.zeros((len(variances), n_pairs(q)), variances.dtype)
    packed[:, diagonal(q)] = variances
    return packed
