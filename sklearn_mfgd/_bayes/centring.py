r"""Move the mean of the row factors into the column biases.

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


def centre(state, statistics):
    """Move the mean of the row factors of a model with column biases, no features.

    The statistics are those of the moved factors, except for `systems` and `targets`.
    """
    rank = state.rank
    row_moments = statistics.rows.second_moments
    column_moments = statistics.columns.second_moments
    precision = state.row_prior.precision_matrix[:rank, :rank]
    bias_precision = state.column_prior.precision[-1]
    system = statistics.rows.count * precision
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
    W = state.W.copy()
    W[:, :rank] -= delta.astype(W.dtype)
    shear = np.eye(rank + 1)  # of [h, c]
    shear[-1, :rank] = delta
    return replace(state, W=W, columns=state.columns.transformed(shear)), statistics
