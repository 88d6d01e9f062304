r"""Rows of batches that are over: what they say of the columns, as sums that are kept.

While a batch is learned its rows follow the columns. Then they are given up, and what
is left of the rows are the sums that the update of the columns needs. With the
posterior N(m, S) of a row and the column h at that time, the sums of variational Bayes
have the curvature :math:`\mathrm{E}[w w^\top] = m m^\top + S`, by which a row that
says nothing would hold each column where it is. A row that is not updated any more has
to be integrated out instead: to first order in S, the likelihood of a column then has
the same gradient at h, but the curvature :math:`m m^\top`. So the targets of the column
become :math:`\sum x m - S h`.

When factors are moved to other axes, what is kept of the past moves with them.
"""

from dataclasses import dataclass, replace

import numpy as np

from .._kernels.linalg import row_slices
from .covariance import FullCovariance, regressors_of_rows, sums_of_block, update_rows
from .moments import moments_of, n_pairs, pack, packed_size, total, unpack
from .side import SideStatistics, update_side


@dataclass(frozen=True)
class RememberingCovariance(FullCovariance):
    """Posterior of columns that also know of rows which are no longer there."""

    past: SideStatistics
    row_bias: bool

    def update_sides(self, model, state):
        """Update the rows of a batch, then the columns by them and by the past."""
        data = _WithPast(model.data, self.past)
        return super().update_sides(replace(model, data=data), state)

    def transformed(self, matrix) -> "RememberingCovariance":
        """Posterior of A z, and the past of the rows that predict the same with it."""
        columns = super().transformed(matrix)
        # [w, 1] [h, c]' stays if [h, c] becomes A [h, c] and [w, 1] its inverse
        # transpose; a model without column biases has no 1 that could change.
        A = np.eye(self.rank + 1 + self.row_bias)
        q = len(matrix)
        A[:q, :q] = np.linalg.inv(matrix).T
        past = transformed(self.past, A, self.rank)
        return replace(self, **_means_and_covariances(columns), past=past)

    def astype(self, dtype) -> "RememberingCovariance":
        """The same in another precision."""
        past = replace(
            self.past,
            systems=self.past.systems.astype(dtype),
            targets=self.past.targets.astype(dtype),
        )
        columns = super().astype(dtype)
        return replace(self, **_means_and_covariances(columns), past=past)


class _WithPast:
    """Blocks of rows that add up to what they and the past have together."""

    def __init__(self, blocks, past: SideStatistics):
        self.blocks, self.past = blocks, past

    def total(self, work, along, *given):
        """Sum over the blocks, and the past."""
        return self.blocks.total(work, along, *given) + self.past


def _means_and_covariances(columns):
    return {"means": columns.means, "covariances": columns.covariances}


def transformed(past: SideStatistics, matrix, rank: int) -> SideStatistics:
    """The past of rows with A v in place of v = [w, 1, b]."""
    length = len(matrix)
    of_z = np.delete(np.arange(length), rank)  # without the 1
    systems = np.empty_like(past.systems)
    for place in row_slices(len(systems), length**2):
        old = unpack(past.systems[place].astype(np.float64), length)
        systems[place] = pack(matrix @ old @ matrix.T)
    return replace(
        past,
        second_moments=matrix @ past.second_moments @ matrix.T,
        feature_products=past.feature_products @ matrix[np.ix_(of_z, of_z)].T,
        log_det=past.log_det + 2 * past.count * np.linalg.slogdet(matrix)[1],
        systems=systems,
        targets=(past.targets @ matrix.T).astype(past.targets.dtype),
    )


def faded(past: SideStatistics, factor: float, factor_of_rows: float):
    """The past with other weights: of entries, and of rows, for which priors are."""
    sums = {
        name: None if value is None else factor_of_rows * value
        for name, value in vars(past).items()
    }
    for name in ("systems", "targets"):
        values = getattr(past, name)
        sums[name] = values * values.dtype.type(factor)
    return SideStatistics(**sums)


def given_up(model, state) -> tuple[SideStatistics, np.ndarray]:
    """Sums of the rows of a batch that are not updated any more, not rotated.

    And, (n,), what is to be added to the sum of squares of each column, so that its
    expected squared error is the same at the columns as they are.
    """
    given = regressors_of_rows(model, state)
    sums = model.data.total(update_rows, *given)
    of_means = model.data.total(_sums_of_means, *given)
    row_bias = model.biases.row
    rank, length = state.rank, state.rank + 1 + row_bias
    if row_bias:  # the variance of a row bias meets no column
        of_means[:, -1] = sums.systems[:, -1]
    targets = sums.targets.copy()
    squares = np.empty(len(targets))
    for place in row_slices(len(targets), length**2):
        spread = sums.systems[place].astype(np.float64) - of_means[place]
        spread = unpack(spread, length)[:, :rank]
        H = np.zeros((len(spread), length))  # of [h, 1]: its 1 meets the row bias
        H[:, :rank] = state.H[place, :rank]
        if row_bias:
            H[:, -1] = 1
        targets[place, :rank] -= np.einsum("jab,jb->ja", spread, H)
        quadratic = spread[:, :, :rank], H[:, :rank]
        squares[place] = -np.einsum("ja,jab,jb->j", quadratic[1], *quadratic)
    return replace(sums, systems=of_means, targets=targets), squares


def _sums_of_means(blocks, features, regressors, prior, biases, dof) -> np.ndarray:
    """Packed v v' of the means of the rows, summed over the entries of each column."""
    n, dtype = regressors[0].shape[0], regressors[0].dtype
    systems = np.zeros((n, packed_size(prior.rank, biases[0])), dtype)
    for block in blocks:
        sums = sums_of_block(block, regressors)
        given = features[block.rows], prior, biases
        means = update_side(sums, *given, statistics=False)[0].means
        no_covariances = np.zeros((len(means), n_pairs(means.shape[1])), dtype)
        moments = moments_of(means, no_covariances, biases[0])
        block.add_over_rows(moments, total(moments), systems)
    return systems
