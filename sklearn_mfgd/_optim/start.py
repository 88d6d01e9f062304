"""The beginning of every fit: entries to hold out, and factors to start from."""

from functools import partial

import numpy as np
from scipy import sparse

from .._data.holdout import hold_out, validation_error
from .._data.matrix import CompleteMatrix
from .._data.weighted_zeros import WeightedZeros
from .column_losses import root_mean_deviance
from .init import factors_from_means, initial_biases, random_factors, svd_factors


def split_for_early_stopping(matrix, parameters, biases, rng, losses=None):
    """Hold out entries if `early_stopping` asks for it.

    Returns the entries to train on, and the root mean squared error of those held out
    as a function of W and H, or None. With other losses the square is twice the loss.
    """
    if not parameters.early_stopping:
        return matrix, None
    refuse_unstored_zeros(matrix, "early_stopping=True")
    training, held_out = hold_out(matrix, parameters.validation_fraction, rng)
    if losses is not None:
        return training, root_mean_deviance(held_out, losses, biases)
    return training, validation_error(held_out, biases)


def starting_factors(matrix, objective, penalties, parameters, rng, H=None):
    """Return [w, b] and [h, c] to start from: those of `init`, unless H is given."""
    if H is not None:
        return objective.least_squares(H, penalties[0].ridge), H
    b, c = initial_biases(objective, penalties)
    if isinstance(parameters.init, str):
        start = _start_of_data(matrix, penalties, parameters, rng)
        if matrix.n_observed == len(b) * len(c) or objective.column_bias:
            W, H = start(objective, b, c)
        else:
            W, H = factors_from_means(objective, parameters.rank, start)
    else:
        W, H = (np.array(factors, b.dtype) for factors in parameters.init)
    # Rows and columns without entries stay at their prior: no gradient moves them.
    W = _zero_if_empty(W, matrix.counts(axis=1))
    H = _zero_if_empty(H, matrix.counts(axis=0))
    return np.hstack([W, b]), np.hstack([H, c])


def _zero_if_empty(factors, counts):
    """Factors, made zero in rows without entries; `counts` are those of each row."""
    observed = counts > 0
    if observed.all():
        return factors
    return factors * observed[:, None].astype(factors.dtype)


def _start_of_data(matrix, penalties, parameters, rng):
    """Return the ``start(objective, b, c)`` of ``init="svd"`` or "random"."""
    rank, weight = parameters.rank, matrix.weight()
    random = parameters.init == "random"
    if random and parameters.reg != "auto":
        return partial(random_factors, rank=rank, weight=weight, rng=rng)
    share = matrix.n_observed / (matrix.shape[0] * matrix.shape[1])
    shrink = penalties[0].ridge[0] * matrix.n_observed / weight
    # Learned precisions soon decide which factors survive: even random factors must
    # come from the data, or the result would depend on the seed.
    rng = rng if random else None
    return partial(svd_factors, rank=rank, share=share, shrink=shrink, rng=rng)


def refuse_unstored_zeros(matrix, why: str) -> None:
    """Refuse to list the entries of a sparse X whose unstored entries are zeros."""
    stores_no_zeros = isinstance(matrix, WeightedZeros) or (
        isinstance(matrix, CompleteMatrix) and sparse.issparse(matrix.values)
    )
    if stores_no_zeros:
        raise ValueError(
            f"{why} visits or hides single entries of X, which would store all the "
            "zeros of a sparse X. Pass a dense X, use another value (a number for "
            "reg), or, where what is not stored is missing, MaskedGradientMF."
        )
