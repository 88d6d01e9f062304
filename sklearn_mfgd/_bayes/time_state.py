"""The data of a fit of rows in time, and what is known after a sweep."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from .._kernels import chains
from .._kernels.problems import ProcessProblem
from .chain_prior import ChainPrior
from .covariance import FullCovariance
from .model import Model
from .moments import unpack
from .noise import Noise
from .priors import Prior
from .residual_process import ResidualProcess
from .time_axis import TimeAxis
from .timed_entries import TimedEntries

# Candidates for the variance of a factor over that of its posterior mean's noise, and
# the gain in log likelihood from which on a factor starts as a process.
FIRST_RATIOS, MIN_GAIN = np.logspace(-1, 3, 9), 2.0


class TimeData(NamedTuple):
    """What never changes during a fit of rows in time."""

    model: Model  # of exchangeable rows; its precision is that of large sums
    entries: TimedEntries
    axis: TimeAxis


@dataclass(frozen=True)
class TimeState:
    """What is known after a sweep."""

    W: np.ndarray  # means of [w, b]
    columns: FullCovariance
    row_prior: ChainPrior
    column_prior: Prior
    noise: Noise
    residuals: ResidualProcess
    residual: np.ndarray | None  # (n_entries,), means in the order of columns
    column_log_det: float

    row_dof = 0.0  # rows have no scales

    @property
    def H(self) -> np.ndarray:
        """Means of [h, c]."""
        return self.columns.means

    @property
    def rank(self) -> int:
        """Number of factors."""
        return self.column_prior.rank

    @property
    def alpha(self) -> np.ndarray:
        """Precision of the noise of each column."""
        return self.noise.alpha

    @classmethod
    def of(cls, state, W, data: TimeData, grid) -> "TimeState":
        """Start from the end of a fit of exchangeable rows, not rotated."""
        q = W.shape[1]
        n_features = len(data.axis.scales)
        row_prior = ChainPrior(
            state.row_prior.precision,
            np.zeros(q),
            np.zeros((n_features, q)),
            grid,
        )
        covariances = unpack(state.columns.covariances, state.H.shape[1])
        return cls(
            W,
            state.columns,
            row_prior,
            state.column_prior,
            state.noise,
            ResidualProcess.none(len(state.H), grid),
            None,
            float(np.linalg.slogdet(covariances)[1].sum()),
        )

    def with_first_timescales(self, axis: TimeAxis) -> "TimeState":
        """Guess timescales: those of processes with noise that are most like W."""
        m, q = self.W.shape
        ends, rows = np.array([0, m], np.int64), np.arange(m, dtype=np.int32)
        grid = self.row_prior.grid
        timescales = np.append(np.repeat(grid[1:], len(FIRST_RATIOS)), 0.0)
        ratios = np.append(np.tile(FIRST_RATIOS, len(grid) - 1), 0.0)
        first, tiny = np.empty(q), np.finfo(float).tiny
        for k in range(q):
            series = np.ascontiguousarray(self.W[:, k] - self.W[:, k].mean())
            problem = ProcessProblem(ends, rows, series, None, axis.gaps)
            given = problem, timescales[None], ratios[None]
            log_dets, squares = chains.process_likelihoods(*given)
            values = -0.5 * (log_dets + m * np.log(np.maximum(squares, tiny)))[0]
            values[-1] += MIN_GAIN
            first[k] = timescales[values.argmax()]
        return replace(self, row_prior=replace(self.row_prior, timescales=first))
