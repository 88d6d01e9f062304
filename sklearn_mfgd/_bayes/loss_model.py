"""The fitted model of variational Bayes with losses other than squared error."""

from typing import NamedTuple

import numpy as np

from .._optim.column_losses import ColumnLosses, predictions_at
from .._optim.loss_model import LossModelMixin, of_columns
from .covariance import posterior_of
from .moments import pack, unpack
from .posterior import VariationalModel
from .predictions import ColumnTerms, entry_moments
from .priors import Prior
from .working import partly, working_rows

# Rounds of working values and weights that fold a row in, the change of a prediction
# that ends them, and how far a round goes where its quadratic is no bound.
MAX_ROUNDS, SETTLED, DAMPED_SHARE = 200, 1e-6, 0.5


class _VariationalLossFields(NamedTuple):
    base: VariationalModel
    losses: ColumnLosses
    null: np.ndarray
    ranges: np.ndarray


class VariationalLossModel(LossModelMixin, _VariationalLossFields):
    """Posterior of the columns; rows fold in by rounds of working quadratics."""

    @classmethod
    def of(cls, base, losses, rows) -> "VariationalLossModel":
        """Make one of the model of predictions and the rows that it was fitted to."""
        return cls(base, *of_columns(losses, rows))

    def fold_in(self, matrix) -> np.ndarray:
        """Posterior means [w, b] of new rows, each by itself, (m, q)."""
        return self.row_posteriors(matrix)[0]

    def row_posteriors(self, matrix, *, with_covariances=False):
        """Return means of new rows, each by itself, and packed covariances or None."""
        rows = matrix.listed().rows
        dtype = rows.values.dtype
        rows = rows.astype(np.float64)
        if self.base.columns is not None:
            rows = rows.renumber(self.base.columns, len(self.base.means) - 1)
        known = self.base.over(None)
        start = self.losses.start(rows, self.ranges)
        W, covariances = _posteriors(known, start)
        moving = np.arange(len(W))
        columns = posterior_of(known.means, known.covariances, known.biases.column)
        working = start
        for _ in range(MAX_ROUNDS):
            given = rows.take(moving)
            about = W[moving], covariances[moving], columns, known.biases
            m, v = entry_moments(given, *about)
            working = self._working(given, working, (m, v))
            found = _posteriors(known, working)
            W[moving], covariances[moving] = found
            after = entry_moments(given, *found, columns, known.biases)[0]
            still = _moved(given, np.abs(after - m))
            if not still.any():
                break
            working = working.take(np.flatnonzero(still))
            moving = moving[still]
        W = W.astype(dtype)
        return W, covariances.astype(dtype) if with_covariances else None

    def _working(self, rows, before, moments):
        """Working values and weights of rows, damped where they bound nothing."""
        precision = self.base.noise_precision
        share = 1.0 if self.losses.is_bound else DAMPED_SHARE
        return partly(
            before, working_rows(rows, self.losses, moments, precision), share
        )

    def spread(self, W, covariances, rows, columns):
        """Variance of the predictions of entries given rows."""
        known = self.base
        posterior = posterior_of(known.means, known.covariances, known.biases.column)
        terms = ColumnTerms.of(posterior, known.biases)
        return terms.spread_at(W, pack(covariances), rows, known.numbers[columns])

    def variances(self, W, covariances, rows, columns):
        """Variance of entries given rows, columns and what a loss leaves to chance."""
        known, v = self.base, self.spread(W, covariances, rows, columns)
        columns = known.numbers[columns]
        p = predictions_at(W, known.means, known.biases, rows, columns)
        p += self.losses.intercept
        noise = known.predictive_noise[columns]
        return self.losses.apply("variance", columns, p, v, noise)

    def sample(self, matrix, places, rng):
        """Sample entries at places (rows, columns), given sampled columns, float64."""
        model = self._replace(base=self.base.with_sampled_columns(rng))
        W, covariances = model.row_posteriors(matrix, with_covariances=True)
        roots = np.linalg.cholesky(unpack(covariances.astype(np.float64), W.shape[1]))
        W = W + (roots @ rng.standard_normal((*W.shape, 1)))[..., 0]
        rows, columns = places
        columns = self.base.numbers[columns]
        known = model.base
        p = predictions_at(W, known.means, known.biases, rows, columns)
        return self.losses.sample(columns, p, known.noise_precision[columns], rng)


def _posteriors(model, rows):
    """Means and packed covariances of rows of working values and weights."""
    columns = posterior_of(model.means, model.covariances, model.biases.column)
    prior = Prior.with_slopes(model.row_precision, model.slopes, model.biases.row)
    given = model.feature_map, prior, model.biases, model.noise_precision
    return columns.fold_in(rows, *given, True)


def _moved(rows, changes):
    """Rows with a prediction that still changes."""
    largest = np.zeros(rows.shape[0])
    np.maximum.at(largest, rows.row_numbers, changes)
    return largest > SETTLED
