"""A ridge scaled by the data, for ``reg="auto"``.

If X were noise of standard deviation s, observed with probability p, a ridge of

    s sqrt(p) (sqrt(m) + sqrt(n)),

the expected norm of that noise, would shrink every factor to zero (Koltchinskii,
Lounici & Tsybakov, Annals of Statistics 2011). The data's own standard deviation for s
thus gives the largest ridge worth trying. How much of the data is noise, only hidden
entries can tell: a few sweeps are made for each of eight shares of that ridge, and the
share with the least error on hidden entries is taken. Biases get the same ridge divided
by the standard deviation, as if X were standardized, because they are in units of X and
factors in units of its root.
"""

import numpy as np

from ._entries import hold_out, validation_error
from ._init import initial_biases, svd_factors
from ._model import Ridge, sides_of
from ._solvers import descend

# From large to small: a fit with a small ridge is slow from anywhere but one with a
# slightly larger.
SHARES = 2.0 ** -np.arange(8)
HIDDEN = 0.1  # share of the entries that is hidden
N_SWEEPS = 3  # of least squares for each share, each starting where the last one ended
ENOUGH = 1000  # hidden entries; fewer are drawn again, at most `MAX_DRAWS` times
MAX_DRAWS = 5


def default_ridge(entries, biases, rank):
    """Choose a ridge by entries hidden from a short fit.

    The hidden entries are the same at every call: this is part of the model, not of its
    random state.

    Returns
    -------
    Ridge
        In the units of `entries`.
    """
    m, n = entries.shape
    deviation = np.sqrt(entries.mean_square())
    if deviation == 0:
        return Ridge(0.0, 0.0)
    weight = np.sqrt(entries.weight(power=2) / (m * n))
    largest = weight * (np.sqrt(m) + np.sqrt(n))
    if entries.n_observed < 2 / HIDDEN:  # too few to hide any
        return Ridge(deviation * largest / 10, largest / 10)
    rng = np.random.RandomState(0)
    n_draws = int(np.clip(ENOUGH / (HIDDEN * entries.n_observed), 1, MAX_DRAWS))
    errors = sum(
        _error_path(*hold_out(entries, HIDDEN, rng), biases, rank, deviation, largest)
        for _ in range(n_draws)
    )
    share = SHARES[np.argmin(errors)]
    return Ridge(share * deviation * largest, share * largest)


def _error_path(training, held_out, biases, rank, deviation, largest):
    """Squared error on the hidden entries for each share."""
    objective = training.objective(row_bias=biases.row, column_bias=biases.column)
    validate = validation_error(held_out, biases)
    errors, factors = [], None
    for ridge in SHARES * largest:
        sides = sides_of(rank, biases, Ridge(ridge * deviation, ridge))
        if factors is None:
            b, c = initial_biases(objective, sides)
            share = training.n_observed / (len(b) * len(c))
            W, H = svd_factors(objective, b, c, rank, share, 0.0)
            factors = np.column_stack([W, b]), np.column_stack([H, c])
        descent = descend(
            objective,
            *factors,
            sides,
            solver="als",
            eta="auto",
            max_iter=N_SWEEPS,
            tol=0,
        )
        factors = descent.W, descent.H
        errors.append(validate(*factors) ** 2)
    return np.array(errors)
