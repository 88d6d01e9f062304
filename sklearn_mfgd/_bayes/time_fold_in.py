r"""Fold in a batch of rows in time: their factors and residuals, given the columns.

Rows w and residuals r have independent posteriors, the means of which depend on one
another. With the precision J of the rows given r, and C w for what the residuals take
up of the rows' approximation,

.. math::

    (J - C) \, \mathrm{E}[w] = b,

which conjugate gradients solve, with one pass of filter and smoother for
:math:`J^{-1}`.
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np

from .._data.row_blocks import block_slices
from .._kernels import chains, dispatch
from .._kernels.problems import ProcessProblem
from .._kernels.rows import Biases
from .chain_prior import ChainPrior
from .covariance import FullCovariance
from .moments import packed_size
from .smoothing import (
    filter_rows,
    right_hand_sides,
    row_targets,
    smoothed,
    solve_means,
)
from .time_axis import TimeAxis
from .timed_entries import TimedEntries

# Conjugate gradients end when a step changes the means by less than this share.
TOL, MAX_STEPS = 1e-3, 60

# Numbers in an array of all times of some columns.
MAX_DENSE = 2**19


class KnownColumns(NamedTuple):
    """What a fit knows, and rows are folded in with."""

    columns: FullCovariance  # of [h, c], double precision
    noise_precision: np.ndarray  # (n,)
    prior: ChainPrior
    timescales: np.ndarray  # (n,), of the residual of each column
    ratios: np.ndarray  # (n,), its variance over that of the noise
    biases: Biases

    @property
    def rank(self) -> int:
        """Number of factors."""
        return self.columns.means.shape[1] - self.biases.column


class RowsInTime:
    """The posterior of rows that are sorted by time."""

    def __init__(self, known: KnownColumns, entries: TimedEntries, axis: TimeAxis):
        self.known, self.entries, self.axis = known, entries, axis
        rank, biases = known.rank, known.biases
        rows = entries.rows_less(None)
        regressors = known.columns.regressors(known.noise_precision, np.float64)
        moments, self.linear, _ = regressors
        targets = row_targets(rows, self.linear, rank, biases)
        blocks = (
            (at, dispatch.product(_between(rows, at).weights_matrix, moments))
            for at in block_slices(rows.shape[0], packed_size(rank, True))
        )
        given = targets, known.prior, axis, rank, biases
        self.right = np.empty_like(targets)
        self.filtered = filter_rows(
            self._kept(right_hand_sides(blocks, *given)), known.prior, axis
        )

    def _kept(self, blocks):
        """Pass blocks on; keep their right-hand sides."""
        for rows, systems, right in blocks:
            self.right[rows] = right
            yield rows, systems, right

    @cached_property
    def W(self) -> np.ndarray:
        """Means of [w, b], (m, q)."""
        values = self.entries.columns.values
        if self.known.biases.column:
            bias = self.known.columns.means[:, -1]
            values = values - np.repeat(bias, self.entries.counts)
        return self._solve(self.right, values)

    @property
    def errors(self) -> np.ndarray:
        """Entries less their approximation, in the order of columns."""
        given = self.known.columns.means, self.known.biases
        return self.entries.errors(self.W, *given)

    def change_for(self, values) -> tuple[np.ndarray, np.ndarray]:
        """How W changes with such a change of all entries, and the errors left then."""
        W = self._solve(self._targets_of(values), values)
        return W, values - self._approximation(W)

    def _solve(self, right, values):
        """W for right-hand sides and for values that are less the column biases."""
        if not self.known.ratios.any():
            return solve_means(self.filtered, right)
        # A residual takes up its share of the values first, then of the rows.
        right = right - self._targets_of(self._residuals(values))
        W = solve_means(self.filtered, right)
        residual = self._taken_up(W)
        step = direction = solve_means(self.filtered, residual)
        product, energy = residual, np.vdot(residual, step)
        for _ in range(MAX_STEPS):
            curved = product - self._taken_up(direction)
            length = energy / max(np.vdot(direction, curved), np.finfo(float).tiny)
            W = W + length * direction
            residual = residual - length * curved
            step = solve_means(self.filtered, residual)
            if np.abs(step).max() <= TOL * max(np.abs(W).max(), TOL):
                break
            last, energy = energy, np.vdot(residual, step)
            direction = step + energy / last * direction
            product = residual + energy / last * product
        return W

    def smoothed(self):
        """Yield slices of the rows, the last first, and their packed covariances."""
        for rows, states in smoothed(self.filtered):
            yield rows, states.covariances

    def residual_at(self, errors, rows, columns):
        """Mean of residuals at places given errors, and variance in units of noise.

        Columns are processed some at a time, at all times of the rows.
        """
        means, variances = np.zeros((2, len(rows)))
        m = self.entries.rows.shape[0]
        places = np.flatnonzero(self.known.ratios[columns] > 0)
        if places.size == 0:
            return means, variances
        places = places[np.argsort(columns[places], kind="stable")]
        wanted, starts = np.unique(columns[places], return_index=True)
        bounds = np.append(starts, len(places))
        at_once = max(1, MAX_DENSE // m)
        for first in range(0, len(wanted), at_once):
            some = wanted[first : first + at_once]
            found = self._everywhere(some, errors)
            of = places[bounds[first] : bounds[min(first + at_once, len(wanted))]]
            number = np.searchsorted(some, columns[of])
            for out, each in zip((means, variances), found, strict=True):
                out[of] = each.reshape(len(some), m)[number, rows[of]]
        return means, variances

    def _everywhere(self, columns, errors):
        """Posterior of the residuals of columns at all rows, (n_columns * m,)."""
        problem, m = self.entries.columns, self.entries.rows.shape[0]
        values, weights = np.zeros((2, len(columns), m))
        for number, j in enumerate(columns):
            of = slice(problem.indptr[j], problem.indptr[j + 1])
            values[number, problem.indices[of]] = errors[of]
            known = 1.0 if problem.weights is None else problem.weights[of]
            weights[number, problem.indices[of]] = known
        dense = ProcessProblem(
            np.arange(len(columns) + 1, dtype=np.int64) * m,
            np.tile(np.arange(m, dtype=np.int32), len(columns)),
            values.ravel(),
            weights.ravel(),
            np.tile(self.axis.gaps, len(columns)),
        )
        known = self.known
        processes = known.timescales[columns], known.ratios[columns]
        return chains.process_means(dense, *processes)

    def _residuals(self, errors):
        """Posterior means of the residuals at the entries, given errors there."""
        problem = self.entries.columns._replace(values=errors)
        known = self.known
        return chains.process_means(problem, known.timescales, known.ratios)[0]

    def _targets_of(self, values):
        """What values of the entries add to the right-hand sides of the rows."""
        rows = self.entries.rows.astype(np.float64)
        rows = rows._replace(values=self.entries.by_rows(values))
        return row_targets(rows, self.linear, self.known.rank, self.known.biases)

    def _approximation(self, W):
        """Factors and row bias at the entries, in the order of columns."""
        rank, biases = self.known.rank, Biases(self.known.biases.row, False)
        H = np.ascontiguousarray(self.known.columns.means[:, :rank])
        return self.entries.products(W, H, biases)

    def _taken_up(self, W):
        """C W: what the residuals take up of an approximation by these rows."""
        return self._targets_of(self._residuals(self._approximation(W)))


def _between(rows, at):
    return rows.between(at.start, at.stop)
