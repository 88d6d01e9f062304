"""A fit with a given ridge: start, descent, fitted model."""

from contextlib import nullcontext
from functools import partial

import numpy as np

from .._data.matrix import CompleteMatrix
from .._data.weighted_zeros import WeightedZeros
from .._kernels.blas import one_blas_thread
from . import weighted_zeros  # noqa: F401  registers the objective of these data
from .loop import descend
from .loss_model import RidgeLossModel
from .loss_objective import LossObjective
from .objective import objective_of, solve_rows
from .parameters import FitParameters, sides_of
from .penalty import Ridge, penalties_of
from .ridge_model import RidgeModel
from .start import refuse_unstored_zeros, split_for_early_stopping, starting_factors

CURVE = "objective"

# Up to this rank the exact rows of "als" cost no more than the sweeps that they save;
# "als" depends less on the condition of the data than "scaled" does.
MAX_CHEAP_RANK = 64

# A product of data and factors of fewer operations than this is for one thread.
MIN_SHARED_OPERATIONS = 1e8


def fit(
    matrix,
    parameters: FitParameters,
    *,
    biases,
    units,
    start,
    rng,
    monitor,
    losses=None,
):
    """Minimize the penalized loss; return the fitted model and the `Descent`.

    The matrix is in `units`; the step that is returned is in the units of the user.
    With `start`, its column factors replace those of `init`. The monitor sees every
    sweep with ``model()``, the fitted model if the descent ended there, and ends the
    descent by returning True. The `losses` are those of columns; None: all are squared.
    """
    parameters = parameters._replace(solver=choose_solver(parameters, matrix))
    if parameters.solver == "sgd":
        refuse_unstored_zeros(matrix, "solver='sgd'")
        matrix = matrix.listed()
    training, validate = split_for_early_stopping(
        matrix, parameters, biases, rng, losses
    )
    if np.log2(training.weight()) > 0.9 * np.finfo(training.dtype).maxexp:
        raise ValueError(  # as its sums with values would overflow
            f"entry_weight is too large to sum up: its sum is {training.weight():.3g}. "
            "Divide it, and reg, by a constant."
        )
    objective = begin = objective_of(training, biases)
    if losses is not None:
        objective = LossObjective(training.rows, losses, biases=biases)
        begin = objective.start()
        training = training._replace(rows=begin.rows)
    ridge = Ridge(parameters.reg, parameters.reg)
    sides = sides_of(parameters.non_negative)
    penalties = penalties_of(parameters.rank, biases, ridge, units.exponent, sides)

    def model_at(descent):
        model = RidgeModel.of(descent.H, penalties[0].ridge, biases, sides)
        if losses is None:
            return model
        return RidgeLossModel.of(model, objective.losses, matrix.rows)

    def in_units_of_X(descent):
        if parameters.eta != "auto" or parameters.solver not in ("gd", "sgd"):
            return descent
        return descent._replace(step=units.leave_step(descent.step))

    def watch(descent):
        return monitor(in_units_of_X(descent), partial(model_at, descent))

    # BLAS needs no threads if products are small, or if the kernels make them.
    n_operations = 2 * matrix.shape[0] * matrix.shape[1] * parameters.rank
    shared = (
        isinstance(matrix, CompleteMatrix) and n_operations >= MIN_SHARED_OPERATIONS
    )
    with nullcontext() if shared else one_blas_thread():
        W, H = starting_factors(training, begin, penalties, parameters, rng, start)
        objective.adapt(W, H)
        if losses is not None and start is not None:
            # Given column factors may be the best ones: rows of squared error are not.
            W = solve_rows(objective, H, penalties[0].ridge, sides[0])
        told = monitor and watch
        descent = descend(objective, W, H, penalties, parameters, rng, validate, told)
    return model_at(descent), in_units_of_X(descent)


def choose_solver(parameters: FitParameters, matrix) -> str:
    """Resolve ``solver="auto"`` from the number of observed entries and the rank."""
    if parameters.solver != "auto":
        return parameters.solver
    if parameters.non_negative:  # the minimum over a face is worth more than a step
        return "als"
    if isinstance(matrix, CompleteMatrix):  # one system for all rows: products only
        return "scaled"
    if isinstance(matrix, WeightedZeros):  # most systems are one system, corrected
        return "als"
    # The cost of "als" per entry is the square of the rank. At a large rank that is
    # worth it where rows and columns have few entries.
    entries_per_side = 2 * matrix.n_observed / sum(matrix.shape)
    few = entries_per_side <= 2 * parameters.rank
    cheap = few or parameters.rank <= MAX_CHEAP_RANK or not matrix.in_memory
    return "als" if cheap else "scaled"


def curve_in_units(curve, units, n_observed) -> list[float]:
    """Convert the objective after each sweep to the units of the data."""
    return units.leave_squares(curve).tolist()
