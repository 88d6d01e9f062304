r"""One side given the other: the one update of the model, and what it sums up.

The rows z = [w, b] of a side have Gaussian posteriors that depend on the other side by
sums over their entries. With v = [h, 1, c] of a column, g = [h, 1] and the precision
:math:`\Lambda` and mean m of the prior,

.. math::

    P_i = \Lambda + s_i \sum_j \mathrm{E}[g_j g_j^\top], \qquad
    P_i \, \mathrm{E}[z_i] = \Lambda m_i
        + s_i \sum_j \left( x_{ij} \mathrm{E}[g_j] - \mathrm{E}[c_j g_j] \right),

where :math:`s_i` is the noise precision of the row, or 1 if that is in the moments of
the columns. A sweep maps `update_side` over blocks of rows, adds up the statistics, and
calls it once for the columns; to fold in new rows is the same call without the sum.
"""

import operator
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np

from .._kernels import dispatch
from .moments import diagonal, pack, total, unpack
from .priors import Prior


class EntrySums(NamedTuple):
    """What the entries of each row add up to; rows may share a system."""

    systems: np.ndarray  # (n_systems, size), sums of packed E[v v']
    system_index: np.ndarray  # (n_rows,), which of them is that of each row
    targets: np.ndarray  # (n_rows, rank + 1 or + 2), sums of x E[v]


@dataclass(frozen=True)
class SideStatistics:
    """Sums over the rows of one side; those of two blocks add up by ``+``."""

    count: int  # of rows
    second_moments: np.ndarray  # E[v v'], v = [w, 1, b]; if diagonal, only of squares
    feature_products: np.ndarray  # (n_features, q), features times E[z]
    log_det: float  # of the covariances
    # Of every factor given all others; None if covariances are diagonal.
    log_conditional_precision: np.ndarray | None = None
    # Of a block of rows, what it adds to the sums of the columns' entries.
    systems: np.ndarray | None = None
    targets: np.ndarray | None = None

    def __add__(self, other: "SideStatistics") -> "SideStatistics":
        return self._combined(other, operator.add)

    def __iadd__(self, other: "SideStatistics") -> "SideStatistics":
        """Add in place, as arrays do: many blocks need one large array for the sum."""
        return self._combined(other, operator.iadd)

    def _combined(self, other, add):
        pairs = {
            field.name: (getattr(self, field.name), getattr(other, field.name))
            for field in fields(self)
        }
        return SideStatistics(
            **{name: None if a is None else add(a, b) for name, (a, b) in pairs.items()}
        )

    def with_factors(self, kept, kept_coefficients) -> "SideStatistics":
        """Statistics of some of the factors; determinants as if others were known."""
        n_others = len(self.second_moments) - len(kept)
        rows = np.append(kept, np.ones(n_others, bool))
        dropped = self.log_conditional_precision[~kept]
        return replace(
            self,
            second_moments=self.second_moments[np.ix_(rows, rows)],
            feature_products=self.feature_products[:, kept_coefficients],
            # A factor that is known has no variance: log det S of the others is log
            # det S of all plus the logarithm of its conditional precision.
            log_det=self.log_det + float(dropped.sum()),
            log_conditional_precision=self.log_conditional_precision[kept],
        )


class SweepStatistics(NamedTuple):
    """What a sweep adds up on its way."""

    rows: SideStatistics
    columns: SideStatistics
    squares: np.ndarray  # (n,), expected squared error of each column


def solve_side(
    sums: EntrySums,
    features,
    prior: Prior,
    biases,
    *,
    noise_precision=None,
    with_covariances: bool = False,
) -> dispatch.Posteriors:
    """Gaussian posteriors of the rows of a side; the formula stands above.

    `noise_precision` is of each row, None if the systems have it already.
    """
    scale = noise_precision
    if scale is None:
        scale = np.ones(len(sums.system_index))
    precision = prior.precision_matrix
    targets = sums.targets
    if features.shape[1]:
        # Lambda m goes to the sums of x E[g], which the kernel multiplies by s.
        targets = targets.copy()
        targets[:, : len(precision)] += prior.pull(features) / scale[:, None]
    return dispatch.posterior(
        sums.systems,
        sums.system_index,
        targets,
        scale,
        pack(precision),
        biases,
        with_covariances=with_covariances,
    )


def update_side(
    sums: EntrySums, features, prior: Prior, biases, *, noise_precision=None, **options
) -> tuple[dispatch.Posteriors, SideStatistics]:
    """Posteriors of the rows of a block or of a whole side, and what they add up to."""
    posteriors = solve_side(
        sums, features, prior, biases, noise_precision=noise_precision, **options
    )
    # Given all others, the precision of factor k is lambda_k + s S_kk.
    rank, scale = prior.rank, 1.0
    if noise_precision is not None:
        scale = noise_precision[:, None]
    precisions = scale * sums.systems[:, diagonal(rank)]
    precisions = precisions + np.diag(prior.precision_matrix)[:rank]
    rows_of_system = np.bincount(sums.system_index, minlength=len(sums.systems))
    statistics = SideStatistics(
        count=len(posteriors.means),
        second_moments=unpack(total(posteriors.moments), rank + 1 + biases[0]),
        feature_products=(features.T @ posteriors.means).astype(np.float64),
        log_det=float(posteriors.logdets.sum()),
        log_conditional_precision=rows_of_system @ np.log(precisions),
    )
    return posteriors, statistics
