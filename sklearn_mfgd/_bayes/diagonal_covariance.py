"""The row update of `_variational` where the covariances of all columns are too large.

The posterior of every coefficient is taken to be independent of the others, with the
same bound. The means still solve the whole system of a row; the variances are one over
its diagonal. There is no basis in which to tell factors apart, so none are dropped.
"""

from typing import NamedTuple

import numpy as np

from .._kernels import dispatch

# Numbers that the moments of all columns may take; there are three such arrays.
LARGEST = 2**27


class Update(NamedTuple):
    """Posterior of one side."""

    means: np.ndarray  # (n_rows, q)
    variances: np.ndarray  # (n_rows, q)
    logdet: float
    gains: np.ndarray  # (n_rows,), means times right-hand sides


def update(rows, H, variances, scale, precision, biases):
    """Posterior of rows given means and variances of the columns.

    Parameters
    ----------
    rows : Rows
        Weighted by the precision of each entry's noise over the row's `scale`.
    H, variances : ndarray of shape (n_columns, .)
    scale : ndarray of shape (n_rows,)
        Precision of the noise of a row, 1 where columns have their own.
    precision : ndarray of shape (q,)
        Of the prior.
    biases : pair of bool
    """
    row_bias, column_bias = biases
    rank = H.shape[1] - column_bias
    squares = np.square(H[:, :rank])
    sums = dispatch.product(
        rows.weights_matrix, np.column_stack([variances[:, :rank], squares])
    )
    sums = sums.astype(np.float64)
    ridge = precision / scale[:, None]
    ridge[:, :rank] += sums[:, :rank]
    system = ridge.copy()
    system[:, :rank] += sums[:, rank:]
    if row_bias:
        ones = np.ones((len(H), 1), H.dtype)
        system[:, rank] += dispatch.product(rows.weights_matrix, ones)[:, 0]
    means = dispatch.least_squares(rows, H, biases, ridge)
    gains = dispatch.curvature(rows, means, H[:, :rank], (row_bias, False))
    gains = scale * (gains + (ridge * np.square(means, dtype=np.float64)).sum(axis=1))
    own = 1 / (system * scale[:, None])
    return Update(means, own.astype(H.dtype), float(np.log(own).sum()), gains)


def second_moments(of, rank):
    """Sum of E[v v'] over a side, v = [w, 1, b]: its diagonal."""
    second = of.variances.sum(axis=0, dtype=np.float64)
    second += np.square(of.means, dtype=np.float64).sum(axis=0)
    return np.diag(np.insert(second, rank, len(of.means)))


def of_biases(columns, of_rows):
    """Sum of ``E[b^2] - 2 x E[b]`` over the entries of each column."""
    bias, variance = of_rows.means[:, -1:], of_rows.variances[:, -1:]
    squares = dispatch.product(columns.weights_matrix, bias**2 + variance).astype(
        np.float64
    )
    return (squares - 2.0 * dispatch.product(columns.weighted_values, bias))[:, 0]
