"""Draws from the posterior of all factors, whose mean predicts better than one of them.

Gibbs sampling of the model of `_variational` [1]_: rows, columns, noise, and for every
factor a mean and a precision of its own on either side, with a Normal-Gamma prior. A
row is drawn by the kernel that solves for it, given normal numbers.

References
----------
.. [1] R. Salakhutdinov, A. Mnih, "Bayesian Probabilistic Matrix Factorization using
   Markov Chain Monte Carlo", ICML 2008.
"""

from typing import NamedTuple

import numpy as np

from . import _engine
from ._bound import STRENGTH, VAGUE
from ._model import Biases
from ._variational import LEAST_NOISE

# Prior of the precision of factors: a Gamma distribution of this shape and rate.
SHAPE = 0.5

# The prior of the mean of a factor counts for as much as this many rows.
MEAN_STRENGTH = 1.0


class Level(NamedTuple):
    """Where the factors of one side come from."""

    mean: np.ndarray  # (q,), 0 for the bias
    precision: np.ndarray  # (q,)


class Draw(NamedTuple):
    """What of one draw is needed to fold rows in."""

    H: np.ndarray  # [h, c]
    noise_precision: np.ndarray  # (n,)
    rows: Level

    def solve(self, entries, biases, draws=None):
        """Row factors given this draw: their mean, or one drawn of them.

        Parameters
        ----------
        entries : Rows
        biases : Biases
        draws : ndarray of shape (n_rows, q), optional
            Standard normal numbers.
        """
        entries, level = entries.weigh(self.noise_precision), self.rows
        return _solve(entries, self.H, biases, level.mean, level.precision, draws)

    def sample(self, entries, biases, rows, columns, rng):
        """Draw some entries from their posterior given this draw of the columns.

        Parameters
        ----------
        entries : Rows
            What is observed.
        biases : Biases
        rows, columns : ndarray of int of shape (n_entries,)
            The entries to draw.
        rng : numpy.random.RandomState

        Returns
        -------
        x : ndarray of shape (n_entries,), float64
        """
        rank = self.H.shape[1] - biases.column
        normal = rng.standard_normal((entries.shape[0], rank + biases.row))
        W = self.solve(entries, biases, normal.astype(self.H.dtype))
        noise = rng.standard_normal(len(rows)) / np.sqrt(self.noise_precision[columns])
        x = _engine.entry_products(W[:, :rank], self.H[:, :rank], rows, columns) + noise
        if biases.column:
            x += self.H[columns, rank]
        if biases.row:
            x += W[rows, rank]
        return x


def _solve(entries, H, biases, mean, ridge, draws):
    """Rows around a mean, which counts as a bias of the columns."""
    rank = H.shape[1] - biases.column
    mean = mean.astype(H.dtype)
    offset = H[:, :rank] @ mean[:rank]
    if biases.column:
        offset += H[:, rank]
    W = _engine.least_squares(
        entries,
        np.column_stack([H[:, :rank], offset]),
        (biases.row, True),
        ridge,
        draws,
    )
    W += mean
    return W


class Draws(NamedTuple):
    """Draws whose predictions are averaged: factors side by side, biases averaged."""

    draws: list
    biases: Biases

    @property
    def H(self):
        """Column factors over the number of draws, (n, n_draws * rank or + 1)."""
        return _side_by_side(
            [draw.H for draw in self.draws], self.biases.column, 1 / len(self.draws)
        )

    def astype(self, dtype):
        """The same in another precision."""
        draws = [d._replace(H=d.H.astype(dtype, copy=False)) for d in self.draws]
        return self._replace(draws=draws)

    def take(self, columns):
        """The same for some of the columns."""
        return self._replace(
            draws=[
                draw._replace(
                    H=draw.H[columns], noise_precision=draw.noise_precision[columns]
                )
                for draw in self.draws
            ]
        )

    def fold_in(self, rows):
        """Mean of the factors of rows given each draw.

        Returns
        -------
        W : ndarray of shape (n_rows, n_draws * rank or + 1)
        """
        found = [draw.solve(rows, self.biases) for draw in self.draws]
        return _side_by_side(found, self.biases.row, 1)


def _side_by_side(found, biased, scale):
    if not biased:
        return scale * np.column_stack(found)
    bias = np.mean([factors[:, -1] for factors in found], axis=0)
    factors = [scale * factors[:, :-1] for factors in found]
    return np.column_stack([*factors, bias])


def draw(rows, state, biases, noise, n_draws, rng):
    """Draw `n_draws` times, starting from a variational fit.

    Parameters
    ----------
    rows : Rows
        Centred entries of about unit variance.
    state : State
        Factors and noise to start from.
    biases : Biases
    noise : {"column", "shared"}
    n_draws : int
    rng : numpy.random.Generator

    Returns
    -------
    Draws
    """
    columns, dtype = rows.transpose(), rows.values.dtype
    counts = np.diff(columns.indptr)
    W, H, alpha = state.W, state.H, state.alpha
    found = []
    for _ in range(n_draws):
        of_rows = _draw_level(W, biases.row, rng)
        normal = rng.standard_normal(W.shape, dtype=dtype)
        W = Draw(H, alpha, of_rows).solve(rows, biases, normal)
        of_columns = _draw_level(H, biases.column, rng)
        normal = rng.standard_normal(H.shape, dtype=dtype)
        normal /= np.sqrt(alpha).astype(dtype)[:, None]
        # In units of the noise of each column.
        ridge = of_columns.precision / alpha[:, None]
        others = Biases(*biases[::-1])
        H = _solve(columns, W, others, of_columns.mean, ridge, normal)
        squares = _engine.squares(columns, H, W, biases[::-1])
        alpha = _draw_noise(squares, counts, alpha, noise, dtype, rng)
        found.append(Draw(H, alpha, of_rows))
    return Draws(found, biases)


def _draw_level(F, biased, rng):
    """Mean and precision of each factor; biases have a mean of zero."""
    F = F.astype(np.float64)
    count = len(F)
    means = F.mean(axis=0)
    strength = np.full(F.shape[1], MEAN_STRENGTH)
    if biased:
        means[-1] = 0.0
        strength[-1] = np.inf
    with np.errstate(invalid="ignore"):
        shrunk = np.where(np.isinf(strength), 1.0, strength / (strength + count))
    squares = ((F - means) ** 2).sum(axis=0) + count * shrunk * means**2
    shape = SHAPE + 0.5 * count
    precision = rng.gamma(shape, 1 / (SHAPE + 0.5 * squares))
    spread = rng.standard_normal(len(means)) / np.sqrt((strength + count) * precision)
    return Level(means * (1 - shrunk) + spread, precision)


def _draw_noise(squares, counts, alpha, noise, dtype, rng):
    """Precision of the noise of each column."""
    if noise == "shared":
        shape, rate = VAGUE + 0.5 * counts.sum(), VAGUE + 0.5 * squares.sum()
        alpha = np.full(len(squares), rng.gamma(shape, 1 / rate))
    else:
        level = len(alpha) / alpha.sum()
        shape = 0.5 * (counts + STRENGTH)
        alpha = rng.gamma(shape, 2 / (squares + STRENGTH * level))
    return np.clip(alpha, 1e-6, 1 / LEAST_NOISE[dtype])
