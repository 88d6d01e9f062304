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
calls it for the columns; to fold in new rows is the same call without these.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from .._kernels import dispatch
from .moments import diagonal, pack, total, unpack
from .priors import FeatureBasis


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
    # Of rows with scales, see `row_scales`: what the ELBO needs of these, F' diag(rho)
    # F of the features, and the squared entries of each column, summed.
    scale_sums: np.ndarray | None = None
    feature_gram: np.ndarray | None = None
    squares: np.ndarray | None = None
    feature_basis: FeatureBasis | None = None  # in which F' diag(rho) F is one

    @classmethod
    def zero(cls, prior, n_features: int) -> "SideStatistics":
        """Statistics of no rows."""
        q, rank = len(prior.precision), prior.rank
        moments, products = np.zeros((q + 1, q + 1)), np.zeros((n_features, q))
        return cls(0, moments, products, 0.0, np.zeros(rank))

    def __add__(self, other: "SideStatistics") -> "SideStatistics":
        values = vars(other)
        return SideStatistics(
            **{n: v if v is None else v + values[n] for n, v in vars(self).items()}
        )

    def without_sums(self) -> "SideStatistics":
        """Statistics without what the rows add to the columns."""
        return replace(self, systems=None, targets=None, squares=None)

    def sums_of(self, start: int, stop: int) -> tuple[np.ndarray, ...]:
        """What the rows add to a range of the columns."""
        sums = self.systems[start:stop], self.targets[start:stop]
        return sums if self.squares is None else (*sums, self.squares[start:stop])

    def with_scales(self, moments, scales, features, means, counts):
        """Statistics of rows of these packed E[rho v v'], scales, features, means."""
        weighted = features.T * scales.means
        return replace(
            self,
            second_moments=unpack(total(moments), len(self.second_moments)),
            feature_products=(weighted @ means).astype(np.float64),
            scale_sums=scales.sums(counts),
            feature_gram=(weighted @ features).astype(np.float64),
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


def update_side(
    sums, features, prior, biases, *, scale=None, covariances=False, statistics=True
):
    """Gaussian posteriors of the rows of a side, and what they add up to, or None.

    `sums` are what the entries add up to: systems (n_systems, size) of packed E[v v'],
    which of them is that of each row, and targets (n_rows, .) of x E[v]. `scale` is the
    noise precision of rows that share no system, None if the systems have it already.
    """
    (systems, system_index, targets), rank = sums, prior.rank
    own_scale = np.ones(len(system_index)) if scale is None else scale
    precision = prior.precision_matrix
    if features.shape[1]:
        # Lambda m goes to the sums of x E[g], which the kernel multiplies by s.
        targets = targets.copy()
        targets[:, : len(precision)] += prior.pull(features) / own_scale[:, None]
    posteriors = dispatch.posterior(
        systems,
        system_index,
        targets,
        own_scale,
        pack(precision),
        biases,
        with_covariances=covariances,
    )
    if not statistics:
        return posteriors, None
    # Given all others, the precision of factor k is lambda_k + s S_kk.
    precisions = systems[:, diagonal(rank)]
    if scale is not None:
        precisions = scale[:, None] * precisions
    precisions = precisions + np.diag(precision)[:rank]
    rows_of_system = np.bincount(system_index, minlength=len(systems))
    return posteriors, SideStatistics(
        count=len(posteriors.means),
        second_moments=unpack(total(posteriors.moments), rank + 1 + biases[0]),
        feature_products=(features.T @ posteriors.means).astype(np.float64),
        log_det=float(posteriors.logdets.sum()),
        log_conditional_precision=rows_of_system @ np.log(precisions),
    )
