"""Draws from the posterior of all factors, whose mean predicts better than one of them.

Gibbs sampling of the model of `_variational` [1]_: rows, columns, noise, and for every
factor a mean and a precision of its own on either side, with a Normal-Gamma prior. A
row is drawn by the kernel that solves for it, given normal numbers.

References
----------
.. [1] R. Salakhutdinov, A. Mnih, "Bayesian Probabilistic Matrix Factorization using
   Markov Chain Monte Carlo", ICML 2008.
"""

import numpy as np

from .._kernels import dispatch
from .._kernels.rows import Biases
from .draws import Sample, SidePrior, rows_around_means
from .noise import LEAST_NOISE
from .priors import FLAT, STRENGTHS, VAGUE, evidence, shrinkage

# Prior of the precision of factors: a Gamma distribution of this shape and rate.
SHAPE = 0.5

# The prior of the mean of a factor counts for as much as this many rows.
MEAN_STRENGTH = 1.0


def draw(rows, state, biases, features, n_draws, rng):
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
    n_draws : int
    rng : numpy.random.Generator

    Returns
    -------
    samples : list of Sample
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
        W = Sample(H, precision, of_rows).row_factors(
            rows, biases, features[0].values, normal
        )
        in_unit = H / np.sqrt(squared_unit)[:, None]
        of_columns = _draw_level(in_unit, biases.column, features[1], rng, flat)
        # In units of the noise of each column.
        ridge = of_columns.precision / alpha[:, None]
        others = Biases(*biases[::-1])
        means = of_columns.means(features[1].values, dtype)
        if has_unit:
            best = rows_around_means(columns, W, others, means, ridge, None)
            squares = dispatch.squares(columns, best, W, biases[::-1])
            squares += np.sum(ridge[:, :-1] * np.square(best[:, :-1]), axis=1)
            squared_unit = _draw_squared_unit(alpha * squares, counts, dtype, rng)
        normal = rng.standard_normal(H.shape, dtype=dtype)
        normal *= np.sqrt(squared_unit / alpha).astype(dtype)[:, None]
        H = rows_around_means(columns, W, others, means, ridge, normal)
        squares = dispatch.squares(columns, H, W, biases[::-1]) / squared_unit
        alpha = _draw_noise(squares, counts, alpha, strength, dtype, rng)
        found.append(Sample(H, alpha / squared_unit, of_rows))
    return found


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
    return SidePrior(np.zeros(F.shape[1]), precision, share * products + spread)


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
    return SidePrior(means * (1 - shrunk) + spread, precision, slopes)


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
