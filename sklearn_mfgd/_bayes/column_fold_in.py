r"""New columns given rows: to columns what folding in is to rows.

The rows keep their posterior. The prior of the columns has the precisions that were
learned, and mean zero, as nothing is known of the pattern of a new column.

The noise of a new column is shrunk to the scale of the others as in a fit. But the rows
were learned without its entries: what the residuals r of the means have in common with
the variance of the rows is there already, :math:`\mathrm{E}[r^2] = \sigma^2 + h^\top S
h`. So the noise has what is left of the residuals without it.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .._kernels import dispatch
from .._kernels.linalg import row_slices
from .covariance import FullCovariance
from .missingness import no_features
from .moments import expectations, unpack
from .priors import Prior

# Rounds of updates of columns and of their noise, each given the other.
N_ROUNDS = 10


class NewColumns(NamedTuple):
    """Posterior of new columns."""

    means: np.ndarray  # (n, q) of [h, c]
    covariances: np.ndarray  # packed
    noise_precision: np.ndarray  # (n,), mean of its posterior
    counts: np.ndarray  # (n,), entries of each


def fold_in_columns(
    rows, of_rows: FullCovariance, precision, biases, *, scale, dof
) -> NewColumns:
    """Fold in the columns that the `rows` of entries have.

    `scale` is the noise variance that columns are shrunk to, as by `dof` entries; if
    that is zero, it is the noise of all columns.
    """
    columns = rows.transpose()
    counts = np.diff(columns.indptr)
    n, m = columns.shape
    nothing = no_features(n, m, columns.values.dtype)[2]
    no_slopes = np.zeros((0, len(precision)))
    prior = Prior.with_slopes(precision, no_slopes, biases.column)
    noise_precision, ones = np.full(n, 1 / scale), np.ones(m)
    for _ in range(N_ROUNDS if dof else 1):
        weights = np.repeat(noise_precision, counts).astype(columns.values.dtype)
        if columns.weights is not None:
            weights = weights * columns.weights
        weighted = columns._replace(weights=weights)
        given = nothing, prior, biases[::-1], ones
        means, covariances = of_rows.fold_in(weighted, *given, True)
        if not dof:
            break
        posterior = FullCovariance(means, covariances, biases.column)
        squares = noise_squares(columns, of_rows, posterior)
        noise_precision = (counts + dof) / (squares + dof * scale)
    return NewColumns(means, covariances, noise_precision, counts)


def noise_squares(columns, of_rows, of_columns) -> np.ndarray:
    """Sum of the squared noise of the entries of each column, (n,) float64.

    The entry of the row v = [w, 1, b] and the column u = [h, c, 1] is u . v.
    """
    rank, row_bias = of_rows.rank, of_rows.biased
    length, q = rank + 1 + row_bias, of_columns.means.shape[1]
    columns = columns.astype(np.float64)
    known = replace(of_rows, covariances=np.zeros_like(of_rows.covariances))
    systems, of_means = (
        dispatch.product(columns.weights_matrix, side.moments().astype(np.float64))
        for side in (of_rows, known)
    )
    targets = dispatch.product(
        columns.weighted_values, expectations(of_rows.moments(), rank).astype(float)
    )
    squares = columns._replace(values=columns.weighted_values.values * columns.values)
    values = dispatch.product(
        squares._replace(weights=None), np.ones((columns.n_columns, 1))
    )[:, 0]
    for place in row_slices(len(values), length**2):
        u = np.zeros((len(values[place]), length))
        u[:, :q] = of_columns.means[place]
        if row_bias:
            u[:, -1] = 1
        spread = unpack(of_columns.covariances[place], q)
        both, means = (unpack(each[place], length) for each in (systems, of_means))
        values[place] -= 2 * np.einsum("ja,ja->j", targets[place], u)
        values[place] += np.einsum("ja,jab,jb->j", u, 2 * means - both, u)
        values[place] += np.einsum("jab,jab->j", both[:, :q, :q], spread)
    return np.maximum(values, 0)
