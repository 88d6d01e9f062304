"""The beginning of every fit: entries to hold out, and factors to start from."""

from functools import partial

import numpy as np
from scipy import sparse

from .._data.holdout import hold_out, validation_error
from .._data.matrix import CompleteMatrix
from .init import factors_from_means, initial_biases, random_factors, svd_factors
from .parameters import FitParameters


def split_for_early_stopping(matrix, parameters: FitParameters, biases, rng):
    """Hold out entries if `early_stopping` asks for it.

    Returns the entries to train on, and a function of W and H, or None: the root mean
    squared error of the entries that were held out.
    """
    if not parameters.early_stopping:
        return matrix, None
    refuse_unstored_zeros(matrix, "early_stopping=True")
    training, held_out = hold_out(matrix, parameters.validation_fraction, rng)
    return training, validation_error(held_out, biases)


def starting_factors(matrix, objective, penalties, parameters, rng, H=None):
    """Return W and H to start from, whose last columns are biases if there are any.

    Given column factors `H` come with the row factors that they imply. Without them,
    `init` decides: a given pair, singular vectors of the data, or random numbers.
    """
    if H is not None:
        return objective.least_squares(H, penalties[0].ridge), H
    b, c = initial_biases(objective, penalties)
    if isinstance(parameters.init, str):
        W, H = _factors_of_data(matrix, objective, (b, c), penalties, parameters, rng)
    else:
        W, H = (np.array(factors, b.dtype) for factors in parameters.init)
    # Rows and columns without entries stay at their prior: no gradient moves them.
    W[matrix.counts(axis=1) == 0] = 0
    H[matrix.counts(axis=0) == 0] = 0
    return np.column_stack([W, b]), np.column_stack([H, c])


def _factors_of_data(matrix, objective, biases, penalties, parameters, rng):
    """Return the factors of ``init="svd"`` or "random" for what biases leave."""
    b, c = biases
    n_entries = len(b) * len(c)
    random = parameters.init == "random"
    if random and parameters.reg != "auto":
        weight = matrix.weight()
        start = partial(random_factors, rank=parameters.rank, weight=weight, rng=rng)
    else:
        start = partial(
            svd_factors,
            rank=parameters.rank,
            share=matrix.n_observed / n_entries,
            shrink=penalties[0].ridge[0] * matrix.n_observed / matrix.weight(),
            # Learned precisions soon decide which factors survive: even random factors
            # must come from the data, or the result would depend on the seed.
            rng=rng if random else None,
        )
    if matrix.n_observed == n_entries or objective.column_bias:
        return start(objective, b, c)
    return factors_from_means(objective, parameters.rank, start)


def refuse_unstored_zeros(matrix, why: str) -> None:
    """Refuse to list the entries of a sparse X whose unstored entries are zeros."""
    if isinstance(matrix, CompleteMatrix) and sparse.issparse(matrix.values):
        raise ValueError(
            f"{why} visits or hides single entries of X, which would store all the "
            "zeros of a sparse X. Pass a dense X, use another value, or, where what is "
            "not stored is missing, MaskedGradientMF."
        )
