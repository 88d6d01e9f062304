"""A fit that learns what regularizes it: start, coordinate ascent, samples."""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from .._data.matrix import ObservedMatrix
from .._kernels.blas import one_blas_thread
from .._kernels.rows import Biases
from .._optim.loop import History
from .._optim.objective import objective_of
from .._optim.penalty import Ridge, penalties_of
from .._optim.start import (
    refuse_unstored_zeros,
    split_for_early_stopping,
    starting_factors,
)
from . import missingness
from .coordinate_ascent import ascend
from .covariance import covariances_are_diagonal
from .draws import DrawsModel
from .gibbs import draw
from .missingness import FeatureMap, Features
from .model import first_state, model_of
from .posterior import VariationalModel
from .time_ascent import N_TIME_SWEEPS
from .time_fit import TimedFit, refuse_diagonal_covariances

CURVE = "ELBO"

# With row biases, rows are taken to be raters if less than this share of the entries is
# observed. Rows of a denser table are better without scales: its noise is often so small
# that scales only fit how far the factors of a row are from normal.
RATER_SHARE = 0.5

# Of the biases and factors that a fit starts from; the data have unit variance.
FIRST_RIDGE = Ridge(0.1, 3.0)


def fit(matrix, parameters, *, biases, units, start, rng, monitor, timeline=None):
    """Learn the posterior of the factors, their priors and the noise.

    The data have unit variance. Returns a VariationalModel, a TimeModel or a
    DrawsModel, and a Descent; the arguments are those of `_optim.fit.fit`, and the
    times of the rows or None.
    """
    with one_blas_thread():
        refuse_unstored_zeros(matrix, "reg='auto'")
        matrix = matrix.listed()
        if timeline is not None:
            refuse_diagonal_covariances(matrix, parameters.rank, biases)
            parameters = parameters._replace(pattern=False)
            matrix = matrix._replace(rows=matrix.rows.take(timeline.order))
        training, validate = split_for_early_stopping(matrix, parameters, biases, rng)
        training, weight = training.with_unit_weights()
        begin = Beginning.of(training, parameters, biases, start, rng)
        if timeline is not None:  # rows are moments, not raters
            begin = begin._replace(of_raters=False)
        model = begin.model(training.dtype)
        timed = None if timeline is None else TimedFit.of(begin, timeline, weight)

        def fitted_at(descent):
            if timed is not None:
                return timed.fitted_at(model, descent.state)
            state = descent.state.rotated()
            return VariationalModel.of(model, state, begin.feature_map, weight)

        history = History(
            None if validate is None else begin.factors[0],
            begin.factors[1],
            tol=parameters.tol,
            validate=validate,
            n_iter_no_change=parameters.n_iter_no_change,
            monitor=monitor and (lambda now: monitor(now, partial(fitted_at, now))),
            more_follows=timed is not None,
        )
        state, max_iter = None, parameters.max_iter
        if timed is not None:  # leave some sweeps for rows in time
            max_iter = max(1, max_iter - N_TIME_SWEEPS)
        n_left = max_iter
        while n_left > 0:  # again where single precision turns out not to do
            options = {"max_iter": n_left, "tol": parameters.tol}
            options["unpruned"] = parameters.n_draws > 0
            start_of = partial(begin.state, model)
            unpruned = ascend(model, state, history, **options, start_of=start_of)
            descent = history.descent()
            if not descent.state.needs_float64:
                break
            n_left = max_iter - descent.n_iter
            if n_left > 0:
                model = begin.model(np.float64)
                state = descent.state.astype(np.float64)
        if timed is not None and not history.stopped:
            del state, unpruned
            descent = timed.ascend(model, history, parameters.max_iter)
            fitted = fitted_at(descent)
            model = replace(model, data=None)  # to learn again needs the room
            widening = timed.widening(descent.state, model.dtype)
            return fitted._replace(widening=widening), descent
        fitted = fitted_at(descent)
        if parameters.n_draws == 0:
            return fitted, descent
        if validate is not None:  # samples are of all entries, with their weights
            training, weight = matrix.with_unit_weights()
        samples = _samples(training, model, unpruned, parameters.n_draws, rng)
        samples = [sample.of_weight(weight).astype(matrix.dtype) for sample in samples]
        return DrawsModel.of(samples, fitted), descent


def _samples(training, model, state, n_draws, rng):
    """Sample the posterior, starting from a state before any factor was dropped."""
    state = state.rotated()
    return draw(
        training.rows.astype(state.H.dtype),
        model.row_means(state),
        state,
        model.biases,
        (model.row_features, model.column_features),
        n_draws,
        np.random.default_rng(rng.randint(2**31)),
    )


def curve_in_units(curve, units, n_observed):
    """The evidence lower bound after each sweep, of the data in their units."""
    return units.leave_log_density(np.array(curve), n_observed).tolist()


class Beginning(NamedTuple):
    """The data of a fit, and where its ascent starts."""

    matrix: ObservedMatrix
    factors: tuple[np.ndarray, np.ndarray]
    row_features: Features
    column_features: Features
    feature_map: FeatureMap
    biases: Biases
    noise: str
    of_raters: bool = False

    @classmethod
    def of(cls, training, parameters, biases, start, rng):
        """Find starting factors, and describe which entries are observed."""
        if start is None and isinstance(parameters.init, str):
            # More factors could explain nothing.
            rank = min(parameters.rank, *training.shape)
            parameters = parameters._replace(rank=rank)
        elif start is not None:
            parameters = parameters._replace(rank=start.shape[1] - biases.column)
        objective = objective_of(training, biases)
        penalties = penalties_of(parameters.rank, biases, FIRST_RIDGE)
        given = penalties, parameters, rng, start
        factors = starting_factors(training, objective, *given)
        share = training.n_observed / np.prod(training.shape)
        complete, of_raters = share == 1, all(biases) and share < RATER_SHARE
        diagonal = covariances_are_diagonal(training, parameters.rank, biases)
        if not parameters.pattern or complete or diagonal:
            found = missingness.no_features(*training.shape, training.dtype)
        else:
            found = missingness.fit_features(
                objective.pattern, training.dtype, of_raters=of_raters
            )
        of_raters = of_raters and parameters.noise == "column"
        return cls(training, factors, *found, biases, parameters.noise, of_raters)

    def model(self, dtype):
        """Make the model in this precision."""
        rank = self.factors[0].shape[1] - self.biases.row
        sides = self.row_features, self.column_features
        given = self.biases, self.noise, [side.astype(dtype) for side in sides]
        model = model_of(self.matrix.astype(dtype), rank, *given)
        return replace(model, of_raters=self.of_raters)

    def state(self, model, rank=None, *, of_features=False):
        """Make the state to start from, with the leading factors alone if so asked.

        Or else with those that the features explain of the data.
        """
        if of_features:
            return self._state_of_features(model, rank)
        factors = []
        for F, biased in zip(self.factors, self.biases, strict=True):
            n_factors = F.shape[1] - biased
            kept = [F[:, :n_factors][:, :rank], F[:, n_factors:]]
            factors.append(np.hstack(kept).astype(model.dtype))
        return first_state(model, *factors, self.matrix.astype(model.dtype))

    def _state_of_features(self, model, rank):
        """Start from F A and G B with A B' of some rank next to F' X G, over its share.

        X are the data without biases, zero where missing: of a random share of the
        entries F' X G is that share of what it is of all.
        """
        sides = self.row_features.values, self.column_features.values
        biases = [
            factors[:, factors.shape[1] - biased :]
            for factors, biased in zip(self.factors, self.biases, strict=True)
        ]
        data = objective_of(self.matrix, self.biases).deflate(*biases)
        explained = np.asarray(sides[0].T @ (data @ sides[1]), np.float64)
        U, sizes, V = np.linalg.svd(explained)
        share = self.matrix.n_observed / np.prod(self.matrix.shape)
        roots = np.sqrt(sizes[:rank] / share)
        balance = (self.matrix.shape[0] / self.matrix.shape[1]) ** 0.25
        U, V = U[:, : len(roots)] * roots, V[: len(roots)].T * roots
        coefficients = U * balance, V / balance
        factors = [
            np.hstack([side @ part.astype(side.dtype), bias]).astype(model.dtype)
            for side, part, bias in zip(sides, coefficients, biases, strict=True)
        ]
        return first_state(model, *factors, self.matrix.astype(model.dtype))
