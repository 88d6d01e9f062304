r"""Priors, rotation and centre of the factors of largest evidence lower bound (ELBO).

Factors are determined up to a rotation Q, any invertible matrix: W Q' and H inv(Q)
predict the same. The ELBO depends on Q by the priors alone, which take the factors to
be independent, so it is largest where the second moments of both sides are diagonal.
Instead of rotating all factors after every sweep only the priors are rotated the other
way; see `State`.

Predictions are the same for :math:`w_i - \delta` and :math:`c_j + h_j \cdot \delta`.
A sweep moves along this direction slowly, as each side waits for the other; the step of
largest ELBO is known at once [1]_. It has to take from the prior of the rows more than
it gives to that of the biases:

.. math::

    (m \Lambda_w + \lambda_c \sum_j \mathrm{E}[h_j h_j^\top]) \, \delta
    = \Lambda_w \sum_i \mathrm{E}[w_i] - \lambda_c \sum_j \mathrm{E}[h_j c_j].

References
----------
.. [1] J. Luttinen, A. Ilin, "Transformations in Variational Bayesian Factor Analysis to
   Speed up Learning", Neurocomputing 73 (2010).
"""

from dataclasses import replace

import numpy as np

from .priors import GAMMA_RATE
from .row_scales import elbo as elbo_of_scales


def elbo(model, state, statistics) -> float:
    """The ELBO after a sweep, up to constants of the priors."""
    return (
        state.noise.elbo(model.counts, statistics.squares)
        + state.row_prior.elbo(statistics.rows)
        + state.column_prior.elbo(statistics.columns)
        + elbo_of_scales(statistics.rows.scale_sums, state.row_dof)
    )


def maximize_priors(state, statistics):
    """The same state with the priors of largest ELBO in its rotation."""
    row_prior = state.row_prior.update(statistics.rows)
    column_prior = state.column_prior.update(statistics.columns)
    return replace(state, row_prior=row_prior, column_prior=column_prior)


def optimize_rotation(model, state, statistics):
    """Maximize the ELBO in the rotation and the priors; return its value, too."""
    best = maximize_priors(state, statistics)
    value = elbo(model, best, statistics)
    if not model.can_rotate:
        return best, value
    rotation = diagonalizing_rotation(
        best.row_prior.centred_moments(statistics.rows),
        best.column_prior.centred_moments(statistics.columns),
        statistics.rows.count,
        statistics.columns.count,
    )
    if rotation is None:
        return best, value
    # The means of the priors may not be best in the new axes: compare.
    rotated = maximize_priors(state.with_rotation(rotation), statistics)
    rotated_value = elbo(model, rotated, statistics)
    return (rotated, rotated_value) if rotated_value > value else (best, value)


def diagonalizing_rotation(row_moments, column_moments, m: int, n: int):
    """The Q in which both second moments are diagonal and of the best size, or None.

    Scaling a factor by the root of u on one side and dividing it on the other changes
    the ELBO by the logarithms of u, of the moments and of the determinants: it is
    largest at the positive root of a quadratic equation in u. Larger factors are first.
    """
    try:
        L = np.linalg.cholesky(row_moments)
    except np.linalg.LinAlgError:  # singular by rounding: keep the rotation
        return None
    # Of the rows L^-1 makes the identity, and so does U' L^-1; of the columns U' L'
    # makes the diagonal matrix of these sizes.
    sizes, U = np.linalg.eigh(L.T @ column_moments @ L)
    sizes, U = np.maximum(sizes[::-1], np.finfo(float).tiny), U[:, ::-1]
    # a u^2 + 2 b u + c = 0
    a, b, c = n + 2 * GAMMA_RATE, GAMMA_RATE * (n - m), -(m + 2 * GAMMA_RATE) * sizes
    u = (np.sqrt(b**2 - a * c) - b) / a
    return np.sqrt(u)[:, None] * np.linalg.solve(L.T, U).T


def centre(state, statistics):
    """Move the mean of the row factors, if columns have biases and rows no features.

    The statistics are those of the moved factors, except for `systems` and `targets`.
    """
    rank = state.rank
    row_moments = statistics.rows.second_moments
    column_moments = statistics.columns.second_moments
    precision = state.row_prior.precision_matrix[:rank, :rank]
    bias_precision = state.column_prior.precision[-1]
    system = row_moments[rank, rank] * precision
    system += bias_precision * column_moments[:rank, :rank]
    right = precision @ row_moments[:rank, rank]
    right -= bias_precision * column_moments[-1, :rank]
    delta = np.linalg.solve(system, right)
    # Of v = [w, 1, b] and of [h, 1, c].
    row_shift, column_shift = np.eye(len(row_moments)), np.eye(len(column_moments))
    row_shift[:rank, rank] = -delta
    column_shift[-1, :rank] = delta
    row_moments = row_shift @ row_moments @ row_shift.T
    column_moments = column_shift @ column_moments @ column_shift.T
    statistics = statistics._replace(
        rows=replace(statistics.rows, second_moments=row_moments),
        columns=replace(statistics.columns, second_moments=column_moments),
    )
    shear = np.eye(rank + 1)  # of [h, c]
    shear[-1, :rank] = delta
    return replace(state, columns=state.columns.transformed(shear)), statistics
