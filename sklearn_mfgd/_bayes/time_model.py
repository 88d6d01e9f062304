"""The fitted model of rows in time; see `RidgeModel` for its contract."""

from typing import NamedTuple

import numpy as np
from scipy.stats import truncnorm

from .._data.timeline import Timeline
from .._kernels.dispatch import entry_products
from .._optim.objective import objective_of
from .._optim.ridge_model import ModelOfBase
from .chain_prior import ChainPrior
from .covariance import posterior_of
from .moments import n_pairs, unpack
from .posterior import VariationalModel
from .seasons import Seasons
from .time_axis import TimeAxis
from .time_fold_in import KnownColumns, RowsInTime
from .timed_entries import TimedEntries


class _TimeModelFields(NamedTuple):
    base: VariationalModel  # of exchangeable rows: columns, noise, precisions
    timescales: np.ndarray  # (q,), of [w, b]
    slopes: np.ndarray  # (d, q), of the seasons
    seasons: Seasons
    seasonal_shares: np.ndarray  # (q,), of the prior variance
    residual_timescales: np.ndarray  # (n + 1,), the last of columns without entries
    residual_ratios: np.ndarray  # (n + 1,), variance over that of the noise
    widening: float  # of deviations, so that intervals cover hidden entries
    has_dates: bool  # or numbers
    timeline: Timeline | None = None
    fitted_W: np.ndarray | None = None  # of the rows of the fit, while it ends


class TimeModel(ModelOfBase, _TimeModelFields):
    """What is known of the columns, of the prior of rows in time, and of residuals.

    A batch of rows is folded in at the times of a timeline, which `at` sets.
    """

    has_variances = has_times = True

    @classmethod
    def of(cls, base, state, seasons, axis):
        """Make one of what a fit in time ended with."""
        prior, residuals = state.row_prior, state.residuals
        seasonal = prior.mean(axis).var(axis=0) * prior.precision
        return cls(
            base=base._replace(slopes=np.zeros((0, len(prior.precision)))),
            timescales=prior.timescales,
            slopes=prior.slopes,
            seasons=seasons,
            seasonal_shares=seasonal / (1 + seasonal),
            residual_timescales=np.append(residuals.timescales, 0.0),
            residual_ratios=np.append(residuals.ratios, 0.0),
            widening=1.0,
            has_dates=axis.has_dates,
            fitted_W=state.W,
        )

    @classmethod
    def of_exchangeable(cls, base, W, has_dates):
        """Make one of a fit that has not come to the times yet."""
        n, q = len(base.means), W.shape[1]
        nothing = np.zeros((0, q))
        base = base._replace(slopes=nothing)
        of_rows, of_columns = np.zeros(q), np.zeros(n)
        given = of_rows, nothing, Seasons.none(), of_rows, of_columns, of_columns
        return cls(base, *given, 1.0, has_dates, fitted_W=W)

    @property
    def residual_timescale(self):
        """Timescale of the residual of each column, zero where there is none."""
        return self.residual_timescales[self.base.numbers]

    @property
    def residual_variance(self):
        """Variance of the residual of each column, zero where there is none."""
        return self.residual_ratios[self.base.numbers] * self.noise_variance

    def at(self, timeline: Timeline | None) -> "TimeModel":
        """Return the same model for a batch of rows at these times."""
        if timeline is not None and timeline.has_dates != self.has_dates:
            kinds = ("numbers", "dates")
            raise ValueError(
                f"times must be {kinds[self.has_dates]}, as in fit; got "
                f"{kinds[timeline.has_dates]}."
            )
        return self._replace(timeline=timeline, fitted_W=None)

    def fold_in(self, matrix):
        """Posterior means [w, b] of rows given all rows of the batch, (m, q)."""
        return self._restored(self._rows(matrix).W, matrix)

    def reconstruct(self, matrix):
        """Yield row factors, and half of their squared residuals, as one block."""
        matrix = matrix.listed()
        fitted, H = self.fitted_W, self.H.astype(matrix.dtype, copy=False)
        W = self.fold_in(matrix) if fitted is None else self._restored(fitted, matrix)
        yield W, objective_of(matrix, self.biases).value(W, H)

    def row_posteriors(self, matrix, *, with_covariances=False):
        """Return means of rows, and packed covariances or None."""
        rows = self._rows(matrix)
        W = self._restored(rows.W, matrix)
        if not with_covariances:
            return W, None
        covariances = np.empty((len(W), n_pairs(W.shape[1])))
        for at, of_block in rows.smoothed():
            covariances[at] = of_block
        return W, self._restored(covariances, matrix)

    def variances(self, W, covariances, rows, columns):
        """Variance of entries if only the row factors are known."""
        variances = self.base.variances(W, covariances, rows, columns)
        numbers = self.base.numbers[columns]
        spread = self.residual_ratios[numbers] * self.base.predictive_noise[numbers]
        return (variances + spread) * self.widening**2

    def press(self, seen, hidden, columns):
        """Squared error of hidden entries, see `RidgeModel`."""
        seen_columns, hidden_columns = columns
        rows = hidden.listed().rows
        numbers = self.base.numbers[hidden_columns][rows.indices]
        folded = self.take(seen_columns)._rows(seen)
        errors = self._predict(folded, rows.row_numbers, numbers)[0] - rows.values
        weights = 1.0 if rows.weights is None else rows.weights
        return float(np.sum(weights * errors**2))

    def predict(self, matrix, rows, columns, *, with_variances=False):
        """Expected values at places, and their variances or None, float64."""
        numbers = self.base.numbers[columns]
        return self._predict(self._rows(matrix), rows, numbers, with_variances)

    def sample(self, matrix, places, rng, limits=None):
        """Sample entries at places (rows, columns) from their posterior, float64.

        Columns are sampled; then rows, residuals and noise from their priors. What the
        observed entries have more than such a sample has changes its rows and residuals
        by their posterior means, which makes it one of the posterior [1]_.

        References
        ----------
        .. [1] J. Durbin, S. J. Koopman, "A Simple and Efficient Simulation Smoother for
           State Space Time Series Analysis", Biometrika 89 (2002).
        """
        rows, columns = places
        at, numbers = self._places(rows), self.base.numbers[columns]
        model = self._replace(base=self.base.with_sampled_columns(rng))
        folded, H = model._rows(matrix), model.base.means
        axis, entries = folded.axis, folded.entries.columns
        W = axis.sample(self.timescales, rng) / np.sqrt(self.row_precision)
        W += folded.known.prior.mean(axis)
        deviations = 1 / np.sqrt(self.base.noise_precision)
        residuals = axis.sample(self.residual_timescales, rng)
        residuals *= deviations * np.sqrt(self.residual_ratios)
        of_entries = np.repeat(np.arange(len(H) - 1), folded.entries.counts)
        noise = deviations[of_entries] * rng.standard_normal(len(of_entries))
        if entries.weights is not None:
            noise /= np.sqrt(entries.weights)
        simulated = self._approximation(W, entries.indices, of_entries, H) + noise
        simulated += residuals[entries.indices, of_entries]
        change, errors = folded.change_for(entries.values - simulated)
        x = self._approximation(W + change, at, numbers, H) + residuals[at, numbers]
        x += self._residual_at(folded, errors, at, numbers)[0]
        if limits is None:
            return x + deviations[numbers] * rng.standard_normal(len(rows))
        lower, upper = ((limit - x) / deviations[numbers] for limit in limits)
        noise = truncnorm.ppf(rng.uniform(size=len(rows)), lower, upper)
        return x + deviations[numbers] * noise

    def _rows(self, matrix):
        """Fold in the rows of a matrix, sorted by time."""
        timeline, base = self.timeline, self.base
        rows = matrix.listed().rows
        if base.columns is not None:
            rows = rows.renumber(base.columns, len(base.means) - 1)
        axis = TimeAxis(timeline, self.seasons)
        known = base.means[:-1], base.covariances[:-1]
        columns = posterior_of(*known, base.biases.column).as_full().astype(np.float64)
        given = base.row_precision, self.timescales, self.slopes
        prior = ChainPrior(*given, grid=self.timescales)
        given = KnownColumns(
            columns,
            base.noise_precision[:-1],
            prior,
            self.residual_timescales[:-1],
            self.residual_ratios[:-1],
            base.biases,
        )
        entries = TimedEntries.of(rows.take(timeline.order), timeline)
        return RowsInTime(given, entries, axis)

    def _predict(self, folded, rows, numbers, with_variances=False):
        """Predict places in columns with these numbers in the fit."""
        at = self._places(rows)
        x = self._approximation(folded.W, at, numbers, self.base.means)
        residual, spread = self._residual_at(folded, folded.errors, at, numbers)
        x += residual
        if not with_variances:
            return x, None
        variances, order = np.empty(len(x)), np.argsort(at, kind="stable")
        # Numbers count the columns that the fit knows; the last is of any other.
        base = self.base.over(np.arange(len(self.base.means)))
        for of_rows, packed in folded.smoothed():
            bounds = np.searchsorted(at[order], [of_rows.start, of_rows.stop])
            some = order[slice(*bounds)]
            covariances = unpack(packed, folded.W.shape[1])
            given = folded.W[of_rows], covariances, at[some] - of_rows.start
            variances[some] = base.variances(*given, numbers[some])
        variances += spread * self.base.predictive_noise[numbers]
        return x, variances * self.widening**2

    def _residual_at(self, folded, errors, rows, numbers):
        """Residuals at places; none is known of columns without entries in the fit."""
        known = np.flatnonzero(numbers < len(self.base.means) - 1)
        means, variances = np.zeros((2, len(rows)))
        given = errors, rows[known], numbers[known]
        means[known], variances[known] = folded.residual_at(*given)
        return means, variances

    def _approximation(self, W, rows, numbers, H):
        """Factors and biases at places of sorted rows."""
        row_bias, column_bias = self.biases
        rank = W.shape[1] - row_bias
        x = entry_products(W[:, :rank], H[:, :rank].astype(W.dtype), rows, numbers)
        if column_bias:
            x += H[numbers, rank]
        if row_bias:
            x += W[rows, rank]
        return x

    def _places(self, rows):
        """Places in the sorted batch of rows of X."""
        place = np.empty(len(self.timeline.order), np.intp)
        place[self.timeline.order] = np.arange(len(place))
        return place[rows]

    def _restored(self, sorted_rows, matrix):
        """Rows in the order of X, in the precision of the matrix."""
        restored = self.timeline.restore(sorted_rows)
        return restored.astype(matrix.dtype, copy=False)
