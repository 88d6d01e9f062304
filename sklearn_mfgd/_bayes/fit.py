"""A fit that learns what regularizes it: start, coordinate ascent, samples."""

from functools import partial

import numpy as np

from .._kernels.linalg import one_blas_thread
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
from .draws import DrawsModel
from .elbo import turn
from .gibbs import draw
from .model import covariances_are_diagonal, first_state, problem_of
from .posterior import VariationalModel

CURVE = "ELBO"

# Of the biases and factors that a fit starts from; the data have unit variance.
FIRST_RIDGE = Ridge(0.1, 3.0)


def fit(matrix, parameters, *, biases, units, start, rng, monitor):
    """Learn the posterior of the factors, their priors and the noise.

    The data have unit variance. Returns a VariationalModel or a DrawsModel, and a
    Descent; the arguments are those of `_optim.fit.fit`.
    """
    with one_blas_thread():
        refuse_unstored_zeros(matrix, "reg='auto'")
        matrix = matrix.listed()
        training, validate = split_for_early_stopping(matrix, parameters, biases, rng)
        training, weight = training.with_unit_weights()
        ascent = _Ascent(training, weight, parameters, biases, start, rng)
        model, descent = ascent.run(parameters, validate, monitor)
        if parameters.n_draws == 0:
            return model, descent
        if validate is not None:  # samples are of all entries
            training = matrix.with_unit_weights()[0]
        numbers = np.random.default_rng(rng.randint(2**31))
        return ascent.sample(model, training, parameters.n_draws, numbers), descent


def curve_in_units(curve, units, n_observed):
    """The evidence lower bound after each sweep, of the data in their units."""
    return units.leave_log_density(np.array(curve), n_observed).tolist()


class _Ascent:
    """A problem, where its ascent starts, and what comes of it."""

    def __init__(self, training, weight, parameters, biases, start, rng):
        self.weight, self.biases, self.noise = weight, biases, parameters.noise
        if start is None and isinstance(parameters.init, str):
            # More factors could explain nothing.
            rank = min(parameters.rank, *training.shape)
            parameters = parameters._replace(rank=rank)
        self.rank = parameters.rank
        if start is not None:
            self.rank = start.shape[1] - biases.column
        objective = objective_of(training, biases)
        penalties = penalties_of(self.rank, biases, FIRST_RIDGE)
        self.factors = starting_factors(
            training, objective, penalties, parameters, rng, start
        )
        self.rows = training.rows
        *self.features, self.feature_map = _features(
            training, objective, parameters, self.rank, biases
        )
        self.problem = self.unpruned = None

    def pose(self, dtype):
        """Make the problem in this precision."""
        features = [each.astype(dtype) for each in self.features]
        rows = self.rows.astype(dtype)
        self.problem = problem_of(rows, self.rank, self.biases, self.noise, features)

    def start_of(self, rank):
        """Make the state to start from with the leading factors alone."""
        dtype = self.problem.dtype
        fewer = np.arange(self.rank) < rank
        factors = (
            F[:, np.append(fewer, np.ones(int(biased), bool))].astype(dtype)
            for F, biased in zip(self.factors, self.biases, strict=True)
        )
        return first_state(self.problem, *factors, self.rows.astype(dtype))

    def run(self, parameters, validate, monitor):
        """Ascend, in double precision from where single precision does not do."""
        self.pose(self.rows.values.dtype)
        state = first_state(self.problem, *self.factors, self.rows)

        history = History(
            *self.factors,
            tol=parameters.tol,
            validate=validate,
            n_iter_no_change=parameters.n_iter_no_change,
            monitor=monitor and (lambda now: monitor(now, partial(self.model_at, now))),
        )
        n_left = parameters.max_iter
        while True:
            self.unpruned = ascend(
                self.problem,
                state,
                history,
                max_iter=n_left,
                tol=parameters.tol,
                start_of=self.start_of,
            )
            descent = history.descent()
            n_left = parameters.max_iter - descent.n_iter
            if not descent.state.asks_for_double or n_left == 0:
                return self.model_at(descent), descent
            self.pose(np.dtype(np.float64))
            state = descent.state.astype(np.float64)

    def model_at(self, descent):
        """Make the fitted model if the ascent ends there."""
        state = turn(self.problem, descent.state)
        return VariationalModel.of(self.problem, state, self.feature_map, self.weight)

    def sample(self, model, matrix, n_draws, rng):
        """Sample from the posterior, starting before any factor was dropped."""
        rows = matrix.rows.astype(self.unpruned.H.dtype)
        state = turn(self.problem, self.unpruned)
        features = self.problem.row_features, self.problem.column_features
        samples = draw(rows, state, self.biases, features, n_draws, rng)
        samples = [
            sample._replace(
                H=sample.H.astype(matrix.dtype, copy=False),
                noise_precision=sample.noise_precision / self.weight,
            )
            for sample in samples
        ]
        return DrawsModel.of(samples, model)


def _features(training, objective, parameters, rank, biases):
    """Features of rows and of columns, and the map from rows to features."""
    complete = training.n_observed == np.prod(training.shape)
    diagonal = covariances_are_diagonal(training.shape, rank, biases)
    if not parameters.pattern or complete or diagonal:
        return missingness.nothing(*training.shape, training.dtype)
    return missingness.describe(objective.rows, objective.T.rows)
