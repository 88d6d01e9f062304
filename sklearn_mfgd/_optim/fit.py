"""A fit with a given ridge: start, descent, fitted model."""

from contextlib import nullcontext
from functools import partial

import numpy as np

from .._data.matrix import CompleteMatrix
from .._data.units import in_range, times_power
from .._kernels.linalg import one_blas_thread
from .loop import descend
from .objective import objective_of
from .penalty import Ridge, penalties_of
from .ridge_model import RidgeModel
from .sgd import stochastic_descend
from .start import refuse_unstored_zeros, split_for_early_stopping, starting_factors

CURVE = "objective"

# Up to this rank the exact rows of "als" cost no more than the sweeps that they save;
# it depends less on the condition of the data than "scaled" does.
CHEAP_RANK = 64

# Below this many operations a product of data and factors is for one thread.
SMALL_PRODUCT = 1e8


def fit(matrix, parameters, *, biases, exponent, start, rng, monitor):
    """Minimize the penalized squared error; return a RidgeModel and a Descent.

    The data are over ``4**exponent``, but the step of the Descent is in their units.
    `start` are column factors to start from instead of `init`, or None. After each
    sweep ``monitor(descent, model)`` may end the fit by returning True; ``model()`` is
    the fitted model if it ended there.
    """
    if parameters.solver == "sgd":
        refuse_unstored_zeros(matrix, "solver='sgd'")
        matrix = matrix.listed()
    training, validate = split_for_early_stopping(matrix, parameters, biases, rng)
    _refuse_large_weights(training)
    objective = objective_of(training, biases)
    ridge = Ridge(parameters.reg, parameters.reg)
    penalties = penalties_of(parameters.rank, biases, ridge, exponent)

    def model_at(descent):
        return RidgeModel.of(descent.H, penalties[0].ridge, biases)

    def in_units_of_X(descent):
        if parameters.eta != "auto" or parameters.solver not in ("gd", "sgd"):
            return descent
        return descent._replace(step=descent.step / times_power(1.0, 2 * exponent))

    def watch(descent):
        return monitor(in_units_of_X(descent), partial(model_at, descent))

    solver = choose_solver(parameters, matrix)
    method = partial(descend, solver=solver)
    if solver == "sgd":
        method = partial(stochastic_descend, rng=rng)
    with one_blas_thread() if _is_small(matrix, parameters.rank) else nullcontext():
        W, H = starting_factors(training, objective, penalties, parameters, rng, start)
        descent = method(
            objective,
            W,
            H,
            penalties,
            eta=parameters.eta,
            max_iter=parameters.max_iter,
            tol=parameters.tol,
            validate=validate,
            n_iter_no_change=parameters.n_iter_no_change,
            monitor=monitor and watch,
        )
    return model_at(descent), in_units_of_X(descent)


def choose_solver(parameters, matrix):
    """Settle ``solver="auto"`` by which entries are observed, and by the rank."""
    if parameters.solver != "auto":
        return parameters.solver
    if isinstance(matrix, CompleteMatrix):  # one system for all rows: products only
        return "scaled"
    # "als" squares the rank for every entry: beyond, worth it where there are few.
    per_row = 2 * matrix.n_observed / sum(matrix.shape)
    few = per_row <= 2 * parameters.rank
    return "als" if few or parameters.rank <= CHEAP_RANK else "scaled"


def curve_in_units(curve, exponent, n_observed):
    """The objective after each sweep in the units of the data."""
    return in_range(curve, 4 * exponent).tolist()


def _is_small(matrix, rank):
    """Whether products are small, or made by the kernels: BLAS needs no threads."""
    m, n = matrix.shape
    return not isinstance(matrix, CompleteMatrix) or 2 * m * n * rank < SMALL_PRODUCT


def _refuse_large_weights(matrix):
    """Refuse weights whose sums with values would overflow."""
    if np.log2(matrix.weight()) > 0.9 * np.finfo(matrix.dtype).maxexp:
        raise ValueError(
            f"entry_weight is too large to sum up: its sum is {matrix.weight():.3g}. "
            "Divide it, and reg, by a constant."
        )
