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
from scipy.stats import truncnorm

from .._kernels import dispatch
from .._kernels.rows import Biases
from .missingness import FeatureMap
from .noise import LEAST_NOISE
from .priors import FLAT, STRENGTHS, VAGUE, evidence, shrinkage

# Prior of the precision of factors: a Gamma distribution of this shape and rate.
SHAPE = 0.5

# The prior of the mean of a factor counts for as much as this many rows.
MEAN_STRENGTH = 1.0


class Level(NamedTuple):
    """Where the factors of one side come from."""

    mean: np.ndarray  # (q,), 0 for the bias
    precision: np.ndarray  # (q,)
    slopes: np.ndarray  # (n_features, q)

    def means(self, features, dtype):
        """Mean of each row, (n_rows, q), given its features."""
        return (features @ self.slopes + self.mean).astype(dtype)


class Draw(NamedTuple):
    """What of one draw is needed to fold rows in."""

    H: np.ndarray  # [h, c]
    noise_precision: np.ndarray  # (n,)
    rows: Level

    def solve(self, entries, biases, features, draws=None):
        """Row factors given this draw: their mean, or one drawn of them.

        Parameters
        ----------
        entries : Rows
        biases : Biases
        features : ndarray of shape (n_rows, n_features)
            Of the rows.
        draws : ndarray of shape (n_rows, q), optional
            Standard normal numbers.
        """
        entries = entries.scale_weights(self.noise_precision)
        means = self.rows.means(features, self.H.dtype)
        return _solve(entries, self.H, biases, means, self.rows.precision, draws)

    def sample(self, entries, biases, features, rows, columns, rng, limits=None):
        """Sample some entries from their posterior given this draw of the columns.

        Parameters
        ----------
        entries : Rows
            What is observed.
        biases : Biases
        features : ndarray of shape (n_rows, n_features)
        rows, columns : ndarray of int of shape (n_entries,)
            The entries to sample.
        rng : numpy.random.RandomState
        limits : pair of ndarray of shape (n_entries,), optional
            Between which the entries are known to lie.

        Returns
        -------
        x : ndarray of shape (n_entries,), float64
        """
        rank = self.H.shape[1] - biases.column
        normal = rng.standard_normal((entries.shape[0], rank + biases.row))
        W = self.solve(entries, biases, features, normal.astype(self.H.dtype))
        x = dispatch.entry_products(W[:, :rank], self.H[:, :rank], rows, columns)
        x = x.astype(np.float64)
        if biases.column:
            x += self.H[columns, rank]
        if biases.row:
            x += W[rows, rank]
        deviations = 1 / np.sqrt(self.noise_precision[columns])
        if limits is None:
            return x + deviations * rng.standard_normal(len(rows))
        least, most = ((limit - x) / deviations for limit in limits)
        quantiles = rng.uniform(size=len(rows))
        return x + deviations * truncnorm.ppf(quantiles, least, most)


def _solve(entries, H, biases, means, ridge, draws):
    """Rows around their means, from what these leave of the entries."""
    left = entries._replace(values=-dispatch.residuals(entries, means, H, biases))
    H = np.ascontiguousarray(H[:, : H.shape[1] - biases.column])
    W = dispatch.least_squares(left, H, (biases.row, False), ridge, draws)
    W += means
    return W


class Draws(NamedTuple):
    """Draws whose predictions are averaged: factors side by side, biases averaged."""

    draws: list
    biases: Biases
    describe: FeatureMap  # of rows
    columns: np.ndarray | None = None  # as in `VariationalModel`

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

    def over_weight(self, weight):
        """The same where this weight of an entry has counted as one."""
        draws = [
            d._replace(noise_precision=d.noise_precision / weight) for d in self.draws
        ]
        return self._replace(draws=draws)

    def sample(self, which, entries, rows, columns, rng, limits=None):
        """Sample some entries given one of the draws, see `Draw.sample`."""
        entries, draw = self._known(entries), self.draws[which]
        columns = columns if self.columns is None else self.columns[columns]
        features = self.describe(entries)
        return draw.sample(entries, self.biases, features, rows, columns, rng, limits)

    def take(self, columns):
        """The same for some of the columns."""
        numbers = (
            np.arange(len(self.draws[0].H)) if self.columns is None else self.columns
        )
        return self._replace(columns=numbers[columns])

    def _known(self, rows):
        """The entries in columns that the fit knows."""
        if self.columns is None:
            return rows
        return rows.renumber(self.columns, len(self.draws[0].H))

    def fold_in(self, rows):
        """Mean of the factors of rows given each draw.

        Returns
        -------
        W : ndarray of shape (n_rows, n_draws * rank or + 1)
        """
        rows = self._known(rows)
        features = self.describe(rows)
        found = [draw.solve(rows, self.biases, features) for draw in self.draws]
        return _side_by_side(found, self.biases.row, 1)


def _side_by_side(found, biased, scale):
    if not biased:
        return scale * np.column_stack(found)
    bias = np.mean([factors[:, -1] for factors in found], axis=0)
    factors = [scale * factors[:, :-1] for factors in found]
    return np.column_stack([*factors, bias])


def draw(rows, state, biases, features, describe, n_draws, rng):
    """Draw `n_draws` times, starting from a variational fit.

    Parameters
    ----------
    rows : Rows
        Centred entries of about unit variance.
    state : State
        Factors and noise to start from.
    biases : Biases
    features : pair of Features
        Of rows and of columns.
    describe : FeatureMap
        Of rows.
    n_draws : int
    rng : numpy.random.Generator

    Returns
    -------
    Draws
    """
    columns, dtype = rows.transpose(), rows.values.dtype
    counts = np.diff(columns.indptr)
    W, H, alpha = state.W, state.H, state.noise.alpha
    strength = state.noise.strength
    flat = biases.column and not biases.row
    # Of columns that are quantities of their own not even the unit is known: the
    # squared one is drawn, too, and `alpha` and the priors are in this unit.
    has_unit = flat and strength > 0
    squared_unit = np.ones(len(H))
    found = []
    for _ in range(n_draws):
        of_rows = _draw_level(W, biases.row, features[0], rng)
        normal = rng.standard_normal(W.shape, dtype=dtype)
        precision = alpha / squared_unit
        W = Draw(H, precision, of_rows).solve(rows, biases, features[0].values, normal)
        in_unit = H / np.sqrt(squared_unit)[:, None]
        of_columns = _draw_level(in_unit, biases.column, features[1], rng, flat)
        # In units of the noise of each column.
        ridge = of_columns.precision / alpha[:, None]
        others = Biases(*biases[::-1])
        means = of_columns.means(features[1].values, dtype)
        if has_unit:
            best = _solve(columns, W, others, means, ridge, None)
            squares = dispatch.squares(columns, best, W, biases[::-1])
            squares += np.sum(ridge[:, :-1] * np.square(best[:, :-1]), axis=1)
            squared_unit = _draw_squared_unit(alpha * squares, counts, dtype, rng)
        normal = rng.standard_normal(H.shape, dtype=dtype)
        normal *= np.sqrt(squared_unit / alpha).astype(dtype)[:, None]
        H = _solve(columns, W, others, means, ridge, normal)
        squares = dispatch.squares(columns, H, W, biases[::-1]) / squared_unit
        alpha = _draw_noise(squares, counts, alpha, strength, dtype, rng)
        found.append(Draw(H, alpha / squared_unit, of_rows))
    return Draws(found, biases, describe)


def _draw_level(F, biased, features, rng, flat=False):
    """Where the factors of a side come from, given these; `flat`: with a mean of zero.

    And the biases from anywhere.
    """
    F = F.astype(np.float64)
    if flat:
        level = _draw_mean(F, np.ones(F.shape[1], bool), rng)
        level.precision[-1] = FLAT
        return level._replace(slopes=np.zeros((len(features.scales), F.shape[1])))
    if len(features.scales):
        return _draw_slopes(F, features, rng)
    centred = np.zeros(F.shape[1], bool)
    centred[-1:] = biased
    return _draw_mean(F, centred, rng)


def _draw_slopes(F, features, rng):
    """Strength and precision of each factor with the slopes averaged out, then these.

    The constant among the features stands for the mean.
    """
    products = features.values.T.astype(np.float64) @ F
    shares = shrinkage(STRENGTHS, features.scales)
    left = np.square(F).sum(axis=0) - shares.T @ products**2
    shape, rates = SHAPE + 0.5 * len(F), SHAPE + 0.5 * left
    scores = (
        -shape * np.log(rates) - 0.5 * evidence(STRENGTHS, features.scales)[:, None]
    )
    which = (scores + rng.gumbel(size=scores.shape)).argmax(axis=0)
    precision = rng.gamma(shape, 1 / rates[which, np.arange(F.shape[1])])
    share = shares[:, which]
    spread = np.sqrt(share / precision) * rng.standard_normal(share.shape)
    return Level(np.zeros(F.shape[1]), precision, share * products + spread)


def _draw_mean(F, centred, rng):
    """Mean and precision of each factor; those of some are centred at zero."""
    count = len(F)
    means = np.where(centred, 0.0, F.mean(axis=0))
    strength = np.where(centred, np.inf, MEAN_STRENGTH)
    with np.errstate(invalid="ignore"):
        shrunk = np.where(np.isinf(strength), 1.0, strength / (strength + count))
    squares = ((F - means) ** 2).sum(axis=0) + count * shrunk * means**2
    shape = SHAPE + 0.5 * count
    precision = rng.gamma(shape, 1 / (SHAPE + 0.5 * squares))
    spread = rng.standard_normal(len(means)) / np.sqrt((strength + count) * precision)
    slopes = np.zeros((0, len(means)))
    return Level(means * (1 - shrunk) + spread, precision, slopes)


def _draw_squared_unit(squares, counts, dtype, rng):
    """The variance of what the noise and the priors leave of each column.

    That of a column with a single value stays at one: nothing is known of it.
    """
    known = counts > 1
    unit = np.ones(len(counts))
    unit[known] = squares[known] / rng.chisquare(counts[known] - 1)
    return np.clip(unit, LEAST_NOISE[dtype], 1 / LEAST_NOISE[dtype])


def _draw_noise(squares, counts, alpha, strength, dtype, rng):
    """Precision of the noise of each column; of strength 0, of all."""
    if strength == 0:
        shape, rate = VAGUE + 0.5 * counts.sum(), VAGUE + 0.5 * squares.sum()
        alpha = np.full(len(squares), rng.gamma(shape, 1 / rate))
    else:
        level = len(alpha) / alpha.sum()
        shape = 0.5 * (counts + strength)
        alpha = rng.gamma(shape, 2 / (squares + strength * level))
    return np.clip(alpha, 1e-6, 1 / LEAST_NOISE[dtype])
