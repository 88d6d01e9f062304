"""What a kernel is asked: its arguments, in one frozen object for each kind of problem.

`numpy_kernels` and `compiled` both take these objects, so that an argument is described
here once. With ``row_bias`` the last column of W is a bias b of each row; with
``column_bias`` the last column of H is a bias c of each column.
"""

from typing import NamedTuple

import numpy as np

from .rows import Rows


class RowProblem(NamedTuple):
    """Rows of entries, and the factors of the columns that explain them.

    Row i has the regressors ``g_j = [h_j, 1]`` (without the 1 if it has no bias) and
    the targets ``x_ij - c_j``, for the columns j of its entries.
    """

    rows: Rows
    H: np.ndarray  # (n_columns, rank + column_bias)
    row_bias: bool
    column_bias: bool

    @property
    def width(self):
        """Coefficients of a row: its factors and its bias."""
        return self.H.shape[1] - self.column_bias + self.row_bias


class StochasticProblem(NamedTuple):
    """Entries in the order of their steps, and what the steps depend on and change."""

    entries: tuple  # rows, columns (int32), values, weights or None; each (n_entries,)
    W: np.ndarray  # (n_rows, rank + row_bias), changed in place
    H: np.ndarray  # (n_columns, rank + column_bias), changed in place
    row_bias: bool
    column_bias: bool
    # The pairs that follow are for rows and for columns.
    ridge_shares: tuple  # part of the ridge that one entry of each row or column bears
    squares: tuple  # None, or sums of squared gradients (n, 2): of factors, the bias
    # And these for factors and for biases.
    ridges: tuple
    etas: tuple
    scales: tuple  # of the squares in ``eta / sqrt(1 + scale * squares)``


class PosteriorProblem(NamedTuple):
    """Moments of one side, summed over the entries of each row of the other side."""

    sums: np.ndarray  # (n_systems, size): sums of the packed moments of [h, 1, c]
    system_index: np.ndarray  # (n_rows,) int64: the system of each row
    targets: np.ndarray  # (n_rows, rank + 1 or + 2): sums of ``x [h, 1, c]``
    scale: np.ndarray  # (n_rows,) float64
    prior: np.ndarray  # (q (q + 1) / 2,) float64: packed precision before any entry
    least_eigenvalue: float  # of the prior
    row_bias: bool
    column_bias: bool


class Posteriors(NamedTuple):
    """Gaussian posteriors of the coefficients z = [w, b] of every row."""

    means: np.ndarray  # (n_rows, q)
    moments: np.ndarray  # (n_rows, size): packed moments of [w, 1, b]
    covariances: np.ndarray | None  # (n_rows, q (q + 1) / 2): packed, of z
    logdets: np.ndarray  # (n_rows,): log-determinants of the covariances
    gains: np.ndarray  # (n_rows,): mean times right-hand side


class ChainProblem(NamedTuple):
    """Rows in the order of time, each with what its entries say of its state z."""

    # (m, at least q (q + 1) / 2) float64: packed precisions S; None after elimination
    systems: np.ndarray | None
    targets: np.ndarray  # (m, q) float64: b
    persistence: np.ndarray  # (m + 1, q) float64: phi from the row before, below 1
    precision: np.ndarray  # (q,) float64: lambda of the stationary process


class SmoothedStates(NamedTuple):
    """Posterior of the states of rows given all of them."""

    means: np.ndarray  # (m, q)
    covariances: np.ndarray | None  # (m, q (q + 1) / 2), packed
    lagged: np.ndarray | None  # (m, q): covariance of each coefficient with the next


class ProcessProblem(NamedTuple):
    """Entries column by column, in each column in the order of time."""

    indptr: np.ndarray  # (n + 1,) int64
    indices: np.ndarray  # (n_entries,) int32: rows
    values: np.ndarray  # (n_entries,) float64
    weights: np.ndarray | None  # (n_entries,) float64: zero where a value is missing
    gaps: np.ndarray  # (n_entries,) float64: time since the entry before, or infinite
