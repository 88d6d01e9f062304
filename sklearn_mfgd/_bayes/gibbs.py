"""Gibbs sampling of the model from its posterior.

It samples the model of `model` [1]_: rows, columns, noise, and for every factor a mean
and a precision of its own on either side, with a Normal-Gamma prior. A row is sampled
by the kernel that solves for it, given normal numbers.

References
----------
.. [1] R. Salakhutdinov, A. Mnih, "Bayesian Probabilistic Matrix Factorization using
   Markov Chain Monte Carlo", ICML 2008.
"""

import numpy as np
from scipy.special import gammaln

from .._kernels import dispatch
from .._kernels.rows import Biases
from .draws import Sample, SidePrior, rows_around_means
from .noise import MIN_VARIANCE
from .priors import (
    FLAT_PRECISION,
    GAMMA_RATE,
    SIGNAL_VARIANCES,
    FeatureBasis,
    log_det_prior,
    shrinkage,
)
from .row_scales import DOF_RANGE, DOF_STEP

# Prior of the precision of factors: a Gamma distribution of this shape and rate.
GAMMA_SHAPE = 0.5

# The prior of the mean of a factor counts for as much as this many rows (kappa0).
MEAN_PRIOR_COUNT = 1.0

# Smallest precision of the noise, for data of variance one.
MIN_ALPHA = 1e-6


def draw(rows, W, state, biases, features, n_draws, rng):
    """Make a list of samples, starting from rows and state of a variational fit.

    The entries are centred and of about unit variance; features are of both sides.
    """
    row_features, column_features = features
    sampler = _ColumnSampler(rows.transpose(), state.noise, biases, column_features)
    H, alpha, counts = state.H, state.alpha, np.diff(rows.indptr)
    squared_unit, samples = np.ones(len(H)), []
    scales, dof = (np.ones(len(W)) if state.row_dof else None), state.row_dof
    for _ in range(n_draws):
        row_prior = _sample_prior(W, biases.row, row_features, rng, scales=scales)
        normal = rng.standard_normal(W.shape, dtype=rows.values.dtype)
        if dof:
            normal /= np.sqrt(scales).astype(normal.dtype)[:, None]
        given = Sample(H, alpha / squared_unit, row_prior, dof)
        W = given.row_factors(rows, biases, row_features.values, normal)
        if dof:
            squares = given.squares_of_rows(rows, W, biases, row_features.values)
            known = counts + W.shape[1] + dof
            scales = rng.gamma(0.5 * known, 2 / (squares + dof))
            dof = _sample_dof(scales, rng)
        given = W, H, alpha, squared_unit, rng
        H, alpha, squared_unit = sampler.sample(*given, scales=scales)
        samples.append(Sample(H, alpha / squared_unit, row_prior, dof))
    return samples


def _sample_dof(scales, rng) -> float:
    """Sample the degrees of freedom of the scales of rows from a grid."""
    n_steps = round(np.log(DOF_RANGE[1] / DOF_RANGE[0]) / np.log(DOF_STEP))
    half = 0.5 * np.geomspace(*DOF_RANGE, n_steps + 1)
    scores = len(scales) * (half * np.log(half) - gammaln(half))
    scores += half * (np.log(scales) - scales).sum()
    return float(2 * half[(scores + rng.gumbel(size=len(half))).argmax()])


class _ColumnSampler:
    """Sample the columns, their noise and their units, given the rows.

    Of columns that are quantities of their own not even the unit is known: the squared
    one is sampled, too, and `alpha` and the prior are in this unit.
    """

    def __init__(self, columns, noise, biases, features):
        self.columns, self.counts = columns, np.diff(columns.indptr)
        self.dof, self.features = noise.dof, features
        self.biases = Biases(*biases[::-1])  # as the columns see them
        self.flat_bias = biases.column and not biases.row
        self.has_unit = self.flat_bias and noise.dof > 0

    def sample(self, W, H, alpha, squared_unit, rng, *, scales=None):
        """Sample H, the noise precision and the squared unit of each column."""
        columns, dtype = self.columns, H.dtype
        if scales is not None:
            columns = columns.scale_weights(scales)
        H = H / np.sqrt(squared_unit)[:, None]
        given = self.biases.row, self.features, rng
        prior = _sample_prior(H, *given, flat_bias=self.flat_bias)
        # The ridge of a column is in units of its noise.
        ridge = prior.precision / alpha[:, None]
        means = prior.means(self.features.values, dtype)
        if self.has_unit:
            mode = rows_around_means(columns, W, self.biases, means, ridge, None)
            squares = dispatch.squares(columns, mode, W, self.biases)
            squares += np.sum(ridge[:, :-1] * np.square(mode[:, :-1]), axis=1)
            given = alpha * squares, self.counts, dtype, rng
            squared_unit = _sample_squared_unit(*given)
        normal = rng.standard_normal(H.shape, dtype=dtype)
        normal *= np.sqrt(squared_unit / alpha).astype(dtype)[:, None]
        H = rows_around_means(columns, W, self.biases, means, ridge, normal)
        squares = dispatch.squares(columns, H, W, self.biases) / squared_unit
        alpha = _sample_noise(squares, self.counts, alpha, self.dof, dtype, rng)
        return H, alpha, squared_unit


def _sample_prior(F, biased, features, rng, *, flat_bias=False, scales=None):
    """Sample the prior of a side given its factors F and, last, its biases.

    The biases have mean zero; a flat one has no prior, and then factors no features.
    The precision of a row is that of the prior times its scale.
    """
    F = F.astype(np.float64)
    has_zero_mean = np.zeros(F.shape[1], bool)
    if flat_bias:
        prior = _sample_mean(F, ~has_zero_mean, rng)
        prior.precision[-1] = FLAT_PRECISION
        return prior._replace(slopes=np.zeros((len(features.scales), F.shape[1])))
    if len(features.scales):
        return _sample_slopes(F, features, rng, scales)
    has_zero_mean[-1:] = biased
    return _sample_mean(F, has_zero_mean, rng, scales)


def _sample_slopes(F, features, rng, scales=None):
    """Sample theta and precision of each factor without the slopes, then the slopes.

    The constant among the features stands for the mean.
    """
    G, sigma, basis = features.values.T.astype(np.float64), features.scales, None
    squares = np.square(F)
    if scales is not None:  # in a basis that is orthonormal with them
        basis = FeatureBasis.of((G * scales) @ G.T, sigma)
        G, sigma, squares = basis.T.T @ (G * scales), basis.scales, scales @ squares
    else:
        squares = squares.sum(axis=0)
    products = G @ F
    shares = shrinkage(SIGNAL_VARIANCES, sigma)
    remaining = squares - shares.T @ products**2
    # With the slopes integrated out, the precision is Gamma given theta, and theta has
    # a probability at each point of the grid: the largest score plus Gumbel noise is
    # at a sample of it.
    shape, rates = GAMMA_SHAPE + 0.5 * len(F), GAMMA_SHAPE + 0.5 * remaining
    log_determinants = log_det_prior(SIGNAL_VARIANCES, sigma)
    scores = -shape * np.log(rates) - 0.5 * log_determinants[:, None]
    chosen = (scores + rng.gumbel(size=scores.shape)).argmax(axis=0)
    precision = rng.gamma(shape, 1 / rates[chosen, np.arange(F.shape[1])])
    share = shares[:, chosen]
    deviations = np.sqrt(share / precision) * rng.standard_normal(share.shape)
    slopes = share * products + deviations
    if basis is not None:
        slopes = basis.T @ slopes
    return SidePrior(np.zeros(F.shape[1]), precision, slopes)


def _sample_mean(F, has_zero_mean, rng, scales=None):
    """Sample mean and precision of each factor; the means of some are zero."""
    count, mean = len(F), F.mean(axis=0)
    if scales is not None:
        count = scales.sum()
        mean = scales @ F / count
    means = np.where(has_zero_mean, 0.0, mean)
    prior_count = np.where(has_zero_mean, np.inf, MEAN_PRIOR_COUNT)
    shrunk = MEAN_PRIOR_COUNT / (MEAN_PRIOR_COUNT + count)
    squares = (F - means) ** 2
    squares = squares.sum(axis=0) if scales is None else scales @ squares
    squares += count * shrunk * means**2
    shape = GAMMA_SHAPE + 0.5 * len(F)
    precision = rng.gamma(shape, 1 / (GAMMA_SHAPE + 0.5 * squares))
    normal = rng.standard_normal(len(means))
    deviations = normal / np.sqrt((prior_count + count) * precision)
    slopes = np.zeros((0, len(means)))
    return SidePrior(means * (1 - shrunk) + deviations, precision, slopes)


def _sample_squared_unit(squares, counts, dtype, rng):
    """Sample the variance of what the noise and the prior leave of each column.

    That of a column with a single value stays at one: nothing is known of it.
    """
    known = counts > 1
    unit = np.ones(len(counts))
    unit[known] = squares[known] / rng.chisquare(counts[known] - 1)
    return np.clip(unit, MIN_VARIANCE[dtype], 1 / MIN_VARIANCE[dtype])


def _sample_noise(squares, counts, alpha, dof, dtype, rng):
    """Sample the precision of the noise of each column; with no `dof`, of all."""
    if dof == 0:
        rate = GAMMA_RATE + 0.5 * squares.sum()
        shared = rng.gamma(GAMMA_RATE + 0.5 * counts.sum(), 1 / rate)
        alpha = np.full(len(squares), shared)
    else:
        scale = len(alpha) / alpha.sum()
        alpha = rng.gamma(0.5 * (counts + dof), 2 / (squares + dof * scale))
    return np.clip(alpha, MIN_ALPHA, 1 / MIN_VARIANCE[dtype])
