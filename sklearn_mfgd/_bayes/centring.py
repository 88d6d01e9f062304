r"""The mean of the row factors, which column biases can stand for.

Predictions are the same for :math:`w_i - \delta` and :math:`c_j + h_j \cdot \delta`.
A sweep moves along this direction slowly, as each side waits for the other; the step of
largest bound is known at once [1]_. It has to take from the prior of the rows more than
it gives to that of the biases:

.. math::

    (m \Lambda_w + \lambda_c \sum_j \mathrm{E}[h_j h_j^\top]) \, \delta
    = \Lambda_w \sum_i \mathrm{E}[w_i] - \lambda_c \sum_j \mathrm{E}[h_j c_j].

References
----------
.. [1] J. Luttinen, A. Ilin, "Transformations in Variational Bayesian Factor Analysis to
   Speed up Learning", Neurocomputing 73 (2010).
"""

import numpy as np

from .._kernels.linalg import row_slices
from .moments import moments_of, pack, unpack


def centre(problem, state, sums):
    """Move the mean of the row factors into the column biases.

    Parameters
    ----------
    problem : Problem
        With column biases and without features.
    state : State
    sums : Sums
        Of the last sweep.

    Returns
    -------
    state : State
    sums : Sums
        Of the moved factors, but for `systems` and `targets`.
    """
    rank, Q = len(state.basis), state.basis
    precision = (Q.T * state.row_prior.precision[:rank]) @ Q
    of_bias = state.column_prior.precision[-1]
    system = problem.shape[0] * precision + of_bias * sums.columns[:rank, :rank]
    right = precision @ sums.rows[:rank, rank] - of_bias * sums.columns[-1, :rank]
    delta = np.linalg.solve(system, right)
    of_rows, of_columns = np.eye(len(sums.rows)), np.eye(len(sums.columns))
    of_rows[:rank, rank] = -delta
    of_columns[-1, :rank] = delta
    sums = sums._replace(
        rows=of_rows @ sums.rows @ of_rows.T,
        columns=of_columns @ sums.columns @ of_columns.T,
    )
    W, H = state.W.copy(), state.H.copy()
    W[:, :rank] -= delta.astype(W.dtype)
    H[:, -1] += H[:, :rank] @ delta.astype(H.dtype)
    shear = np.eye(rank + 1, dtype=H.dtype)
    shear[-1, :rank] = delta
    covariances = np.empty_like(state.covariances)
    for part in row_slices(len(H), len(shear) ** 2):
        old = unpack(state.covariances[part], len(shear))
        covariances[part] = pack(shear @ old @ shear.T)
    moments = moments_of(H, covariances, True)
    state = state._replace(W=W, H=H, covariances=covariances, moments=moments)
    return state, sums
