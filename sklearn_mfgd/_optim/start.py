"""What every fit begins with: entries to hold out, and factors to start from."""

from functools import partial

import numpy as np
from scipy import sparse

from .._data.holdout import hold_out, validation_error
from .._data.matrix import CompleteMatrix
from .init import factors_from_means, initial_biases, random_factors, svd_factors


def split_for_early_stopping(matrix, parameters, biases, rng):
    """Hold out entries where `early_stopping` asks for it.

    Returns
    -------
    training : CompleteMatrix or ObservedMatrix
    validate : callable (W, H) -> float, or None
        Root mean squared error of the entries that were held out.
    """
    if not parameters.early_stopping:
        return matrix, None
    refuse_unstored_zeros(matrix, "early_stopping=True")
    training, held_out = hold_out(matrix, parameters.validation_fraction, rng)
    return training, validation_error(held_out, biases)


def starting_factors(matrix, objective, penalties, parameters, rng, H=None):
    """Return W and H to start from, with a last column of biases where there are any.

    These are given column factors `H` with row factors that are solved for, the given
    pair of factors, singular vectors of the data, or random numbers.
    """
    if H is not None:
        return objective.least_squares(H, penalties[0].ridge), H
    b, c = initial_biases(objective, penalties)
    if isinstance(parameters.init, str):
        W, H = _factors_of_data(matrix, objective, (b, c), penalties, parameters, rng)
    else:
        W, H = (np.array(factors, b.dtype) for factors in parameters.init)
    # What was never observed stays at its prior: no gradient would ever move it.
    W[matrix.counts(axis=1) == 0] = 0
    H[matrix.counts(axis=0) == 0] = 0
    return np.column_stack([W, b]), np.column_stack([H, c])


def _factors_of_data(matrix, objective, biases, penalties, parameters, rng):
    b, c = biases
    n_places = len(b) * len(c)
    random = parameters.init == "random"
    if random and parameters.reg != "auto":
        weight = matrix.weight()
        start = partial(random_factors, rank=parameters.rank, weight=weight, rng=rng)
    else:
        start = partial(
            svd_factors,
            rank=parameters.rank,
            share=matrix.n_observed / n_places,
            shrink=penalties[0].ridge[0] * matrix.n_observed / matrix.weight(),
            # Learned precisions soon decide which factors last: even random ones must
            # be of the data, or the result would depend on the seed.
            rng=rng if random else None,
        )
    if matrix.n_observed == n_places or objective.column_bias:
        return start(objective, b, c)
    return factors_from_means(objective, parameters.rank, start)


def refuse_unstored_zeros(matrix, why):
    """Refuse to list the entries of sparse data whose unstored entries are zeros."""
    if isinstance(matrix, CompleteMatrix) and sparse.issparse(matrix.values):
        raise ValueError(
            f"{why} visits or hides single entries of X, which would store all the "
            "zeros of a sparse X. Pass a dense X, use another value, or, where what is "
            "not stored is missing, MaskedGradientMF."
        )
