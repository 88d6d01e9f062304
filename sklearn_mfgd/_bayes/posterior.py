"""The fitted model of variational Bayes: the posterior of the columns."""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtri, stdtrit

from .._kernels.rows import Biases
from .._optim.objective import objective_of
from .._optim.ridge_model import press_of_factors
from .._optim.start import refuse_unstored_zeros
from .column_fold_in import fold_in_columns
from .covariance import FullCovariance, posterior_of
from .missingness import FeatureMap
from .moments import diagonal, n_pairs, pack, unpack
from .predictions import ColumnTerms
from .priors import Prior
from .row_scales import mean_variance_of_prior


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
    noise_dof: float = 0.0  # of the prior of the noise, in entries; 0: it is shared
    memory: Any = None  # a `Memory`, if more batches may come
    row_dof: float = 0.0  # of the scales of rows, see `row_scales`; 0: all are one

    has_variances, has_times = True, False

    @classmethod
    def of(cls, model, state, feature_map, weight):
        """Make one of what a fit ended with, rotated to the axes of the priors.

        `weight` is the weight of an entry that counted as one.
        """
        scale = 1 / state.alpha[0] if model.noise == "shared" else state.noise.scale
        predictive = state.noise.mean_variance(model.counts)
        prior = np.zeros_like(state.H[:1]), 1 / state.column_prior.precision[None]
        unseen = type(state.columns).of_variances(*prior, model.biases.column)
        return cls(
            means=np.vstack([state.H, unseen.means]),
            covariances=np.vstack([state.columns.covariances, unseen.covariances]),
            noise_precision=np.append(state.alpha, 1 / scale) / weight,
            predictive_noise=weight * np.append(predictive, scale),
            row_precision=state.row_prior.precision,
            column_precision=state.column_prior.precision,
            slopes=state.row_prior.slopes,
            feature_map=feature_map,
            biases=model.biases,
            dof=_degrees_of_freedom(model, state) if model.flat_bias else None,
            noise_dof=state.noise.dof,
            row_dof=state.row_dof,
        )

    @property
    def rank(self):
        """Number of factors."""
        return self.means.shape[1] - self.biases.column

    n_factors = rank

    @property
    def numbers(self):
        """Row of `means` for each column."""
        return np.arange(len(self.means) - 1) if self.columns is None else self.columns

    @property
    def H(self):
        """Means of [h, c] of all columns, (n, rank) or (n, rank + 1)."""
        return self.means[self.numbers]

    @property
    def noise_variance(self):
        """Variance of the noise of an entry of weight one, of all columns.

        Where rows have scales, it is that of an average row.
        """
        variance = 1 / self.noise_precision[self.numbers]
        return variance * mean_variance_of_prior(self.row_dof)

    def over(self, columns):
        """Make the same model of columns with these rows of `means`; None: all."""
        return self._replace(columns=columns)

    def take(self, columns):
        """Make the same model of some of the columns."""
        return self._replace(columns=self.numbers[columns])

    def with_sampled_columns(self, rng):
        """Make the same model of known columns, sampled from their posterior."""
        q = self.means.shape[1]
        full = posterior_of(self.means, self.covariances, self.biases.column).as_full()
        roots = np.linalg.cholesky(unpack(full.covariances.astype(np.float64), q))
        normal = rng.standard_normal((len(roots), q, 1))
        means = self.means + (roots @ normal)[..., 0]
        return self._replace(means=means, covariances=np.zeros_like(full.covariances))

    def fold_in(self, matrix):
        """Posterior means [w, b] of new rows, each by itself, (m, q)."""
        return self.row_posteriors(matrix)[0]

    def reconstruct(self, matrix):
        """Yield row factors of blocks of rows, and half of their squared residuals."""
        matrix = matrix.listed()
        W, H = self.fold_in(matrix), self.H.astype(matrix.dtype, copy=False)
        yield W, objective_of(matrix, self.biases).value(W, H)

    def press(self, seen, hidden, columns):
        """Squared error of hidden entries, see `RidgeModel`."""
        return press_of_factors(self, seen, hidden, columns)

    def row_posteriors(self, matrix, *, with_covariances=False):
        """Return means of new rows, each by itself, and packed covariances or None."""
        rows = matrix.listed().rows
        if self.columns is not None:
            rows = rows.renumber(self.columns, len(self.means) - 1)
        columns = posterior_of(self.means, self.covariances, self.biases.column)
        prior = Prior.with_slopes(self.row_precision, self.slopes, self.biases.row)
        given = self.feature_map, prior, self.biases, self.noise_precision
        return columns.fold_in(rows, *given, with_covariances, row_dof=self.row_dof)

    def with_new_columns(self, matrix, W, covariances, reg):
        """The same model with the columns of a matrix, given its rows.

        Covariances of the rows are packed, or None: the rows are known.
        """
        refuse_unstored_zeros(matrix, "fold_in_columns with reg='auto'")
        rows, row_bias = matrix.listed().rows, self.biases.row
        dtype = np.result_type(rows.values, self.means)
        if covariances is None:
            covariances = np.zeros((len(W), n_pairs(W.shape[1])))
        of_rows = FullCovariance(W.astype(dtype), covariances.astype(dtype), row_bias)
        found = fold_in_columns(
            rows.astype(dtype),
            of_rows,
            self.column_precision,
            self.biases,
            scale=1 / self.noise_precision[-1],
            dof=self.noise_dof,
        )
        covariances, n_new = found.covariances, len(found.means)
        if self.covariances.shape[1] != covariances.shape[1]:  # independent ones
            covariances = covariances[:, diagonal(found.means.shape[1])]
        noise = 1 / found.noise_precision
        dof = None
        if self.dof is not None:
            variances = unpack(found.covariances, found.means.shape[1])
            variances = np.diagonal(variances, axis1=1, axis2=2)
            dof = _left(found.counts, variances, self.column_precision)
        if self.noise_dof:
            known = found.counts + self.noise_dof
            noise = noise * np.maximum(known / np.maximum(known - 2, 1), 1)
        else:
            noise = np.full(n_new, self.predictive_noise[-1])
        last, numbers = len(self.means) - 1, self.numbers
        numbers = np.where(numbers == last, last + n_new, numbers)
        parts = {
            "means": found.means,
            "covariances": covariances,
            "noise_precision": found.noise_precision,
            "predictive_noise": noise,
        }
        if dof is not None:
            parts["dof"] = dof
        for name, new in parts.items():  # the last is that of columns without entries
            old = getattr(self, name)
            new = new.astype(old.dtype)
            parts[name] = np.concatenate([old[:-1], new, old[-1:]])
        numbers = np.append(numbers, last + np.arange(n_new)).astype(np.int32)
        feature_map = self.feature_map.with_columns(n_new)
        return self._replace(**parts, columns=numbers, feature_map=feature_map)

    def variances(self, W, covariances, rows, columns):
        """Variance of entries, due to noise, row and column, (n_entries,) float64.

        W (m, q) and covariances (m, q, q) are the posteriors of the rows. Their scales
        are not among these: the noise has that of the prior.
        """
        rows, of_rows = np.unique(rows, return_inverse=True)
        columns, of_columns = np.unique(self.numbers[columns], return_inverse=True)
        means = self.means[columns].astype(np.float64)
        column_covariances = self.covariances[columns].astype(np.float64)
        posterior = posterior_of(means, column_covariances, self.biases.column)
        noise = self.predictive_noise[columns] * mean_variance_of_prior(self.row_dof)
        result = noise[of_columns]
        terms = ColumnTerms.of(posterior.as_full(), self.biases)
        packed = pack(covariances[rows])
        result += terms.spread_at(W[rows], packed, of_rows, of_columns)
        if self.dof is not None:
            result *= np.square(student_over_normal(self.dof[columns]))[of_columns]
        return result


def _degrees_of_freedom(model, state):
    """Entries of each column less the coefficients that they determine, (n + 1,).

    A coefficient counts by the share of its prior variance that the entries take away
    (MacKay, "Bayesian Interpolation", Neural Computation 4, 1992). One is left where
    there are two entries; of an empty column nothing is known.
    """
    precision = state.column_prior.precision
    return np.append(_left(model.counts, state.columns.variances, precision), 0)


def _left(counts, variances, precision):
    """Degrees of freedom that the entries of columns leave to their noise."""
    determined = len(precision) - variances @ precision
    return np.where(counts > 1, np.maximum(counts - determined, counts > 1), 0)


def student_over_normal(dof):
    """Ratio of the quantiles of an interval for 95 % if the variance is an estimate.

    Infinite without degrees of freedom.
    """
    dof = np.asarray(dof, np.float64)
    quantiles = stdtrit(np.maximum(dof, 1), 0.975) / ndtri(0.975)
    return np.where(dof >= 1, quantiles, np.inf)
