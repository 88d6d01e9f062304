r"""What the factors leave of a column: a process in time, or nothing.

The residual of column j has the covariance :math:`\rho_j \exp(-|t - s| / \tau_j) /
\alpha_j`, so that with the noise the column's errors e have the covariance
:math:`K_j / \alpha_j`, :math:`K_j = S_j^{-1} + \rho_j \exp(-|t - s| / \tau_j)` for
entries of the weights S. With the residual integrated out, the ELBO has of a column

.. math::

    \tfrac12 n_j \log \alpha_j - \tfrac12 \log \det (S_j K_j)
    - \tfrac12 \alpha_j \left( e' K_j^{-1} e + v_j \right)
    + \log p(\tau_j, \rho_j)

where e is the error of the posterior means and :math:`v_j` what their variances add to
its expected square. Timescale and ratio are chosen from a grid, given the best alpha;
that white noise is all, :math:`\rho_j = 0`, is one of the choices. The probabilities of
the choices are learned from all columns.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from .._kernels import chains
from .._kernels.problems import ProcessProblem
from .noise import Noise

# Variances of the residual over that of the noise.
RATIOS = np.logspace(-2.5, 3, 12)

# Each choice has the probability of one that this many columns more have made.
CHOICE_COUNT = 1.0

# Of the grid every second step is tried for all columns, and all neighbours.
COARSE_STEP = 2


class Spread(NamedTuple):
    """What covariances add to the expected squared errors of each column, (n,)."""

    of_rows: np.ndarray  # sum of h' S h, S the covariance of a row, and of its bias
    of_column: np.ndarray  # sum of E[g' V g], V the covariance of the column
    of_prior: np.ndarray  # trace of Lambda V
    n_coefficients: int  # of a column

    def best_noise(self, squares, counts, noise: Noise):
        """Precision of the noise for each candidate, and the ELBO that it has then.

        A column with less noise is better known: if alpha changes to alpha', V changes
        to V alpha / alpha', so that alpha' has a quadratic equation.
        """
        alpha, scale = noise.alpha[:, None], len(noise.alpha) / noise.alpha.sum()
        errors = squares + self.of_rows[:, None] + noise.dof * scale
        free = (counts + noise.dof - self.n_coefficients)[:, None]
        of_prior = alpha * self.of_prior[:, None]
        root = np.sqrt(free**2 + 4 * errors * of_prior)
        best = (free + root) / (2 * errors)
        values = free * np.log(best) - best * errors - of_prior / best
        return best, 0.5 * values


class Choice(NamedTuple):
    """Timescale and ratio of each column, as numbers of the grid."""

    timescale: np.ndarray  # (n,), 0 where there is no process
    ratio: np.ndarray  # (n,)


@dataclass(frozen=True)
class ResidualProcess:
    """Process of the residual of each column, and the probabilities of its kinds."""

    choice: Choice
    grid: np.ndarray  # timescales; the first is zero, no process
    log_none: float  # log probability of no process
    log_timescales: np.ndarray  # given that there is one, of grid[1:]
    log_ratios: np.ndarray

    @classmethod
    def none(cls, n: int, grid) -> "ResidualProcess":
        """No process in any of n columns yet, which is as likely as each of a kind."""
        choice, lengths = Choice(*np.zeros((2, n), int)), (len(grid) - 1, len(RATIOS))
        even = [np.full(length, -np.log(length)) for length in lengths]
        return cls(choice, grid, -np.log1p(np.prod(lengths)), *even)

    @property
    def timescales(self) -> np.ndarray:
        """Timescale of each column, zero where there is no process, (n,)."""
        return self.grid[self.choice.timescale]

    @property
    def ratios(self) -> np.ndarray:
        """Variance of each residual over that of the noise, (n,)."""
        return np.where(self.choice.timescale > 0, RATIOS[self.choice.ratio], 0.0)

    def update(self, problem: ProcessProblem, counts, spread: "Spread", noise: Noise):
        """Choose the process of largest ELBO for each column, with its noise.

        The values of `problem` are the errors e. Returns the process, the factors by
        which covariances of columns change, whitened squares, and log determinants.
        """
        candidates = self._candidates()
        timescales = self.grid[candidates.timescale]
        ratios = np.where(candidates.timescale > 0, RATIOS[candidates.ratio], 0.0)
        log_dets, squares = chains.process_likelihoods(problem, timescales, ratios)
        alpha = noise.alpha[:, None]
        if noise.dof:
            new_alpha, values = spread.best_noise(squares, counts, noise)
        else:  # one noise of all columns, which waits for their processes
            new_alpha, values = alpha, -0.5 * alpha * squares
        values = values + self._log_probability(candidates) - 0.5 * log_dets
        best = np.arange(len(counts)), values.argmax(axis=1)
        choice = Choice(candidates.timescale[best], candidates.ratio[best])
        shrunk = (alpha / new_alpha)[best] if noise.dof else np.ones(len(counts))
        found = replace(self, choice=choice)
        return found, shrunk, squares[best], float(log_dets[best].sum())

    def with_probabilities(self) -> "ResidualProcess":
        """The same with the probabilities of largest ELBO, given the choices."""
        has_process = self.choice.timescale > 0
        n_with, n = np.count_nonzero(has_process), len(has_process)
        share = (n - n_with + CHOICE_COUNT) / (n + 2 * CHOICE_COUNT)
        numbers = self.choice.timescale[has_process] - 1, self.choice.ratio[has_process]
        lengths = len(self.grid) - 1, len(RATIOS)
        of_timescales, of_ratios = (
            np.log(np.bincount(each, minlength=length) + CHOICE_COUNT)
            - np.log(n_with + length * CHOICE_COUNT)
            for each, length in zip(numbers, lengths, strict=True)
        )
        return replace(
            self,
            log_none=float(np.log(share)),
            log_timescales=of_timescales,
            log_ratios=of_ratios,
        )

    def elbo(self) -> float:
        """Log probability of the choices, and of their probabilities themselves."""
        log_some = np.log1p(-np.exp(self.log_none))
        value = self._log_probability(self.choice).sum()
        logs = self.log_none, log_some, *self.log_timescales, *self.log_ratios
        return float(value + CHOICE_COUNT * sum(logs))

    def _log_probability(self, choice):
        log_some = np.log1p(-np.exp(self.log_none))
        of_process = log_some + self.log_ratios[choice.ratio]
        of_process = (
            of_process + self.log_timescales[np.maximum(choice.timescale, 1) - 1]
        )
        return np.where(choice.timescale > 0, of_process, self.log_none)

    def _candidates(self):
        """No process, a coarse grid, and the neighbours of the last choice, (n, .)."""
        n, n_timescales = len(self.choice.ratio), len(self.grid) - 1
        coarse = np.meshgrid(
            np.arange(1, n_timescales + 1, COARSE_STEP),
            np.arange(0, len(RATIOS), COARSE_STEP),
            indexing="ij",
        )
        steps = np.meshgrid([-1, 0, 1], [-1, 0, 1], indexing="ij")
        chosen, largest = self.choice, (n_timescales, len(RATIOS) - 1)
        found = []
        for axis, (last, limit) in enumerate(zip(chosen, largest, strict=True)):
            near = np.clip(last[:, None] + steps[axis].ravel(), 1 - axis, limit)
            # Neighbours of no process are none of their own.
            near = np.where(chosen.timescale[:, None] > 0, near, 1 - axis)
            of_all = np.append(0, coarse[axis].ravel())
            found.append(np.hstack([np.tile(of_all, (n, 1)), near]))
        return Choice(*found)
