r"""VariationalModel regularization: mean-field variational Bayes on the row update.

The model is

.. math::

    x_{ij} = \mu + b_i + c_j + w_i \cdot h_j + \epsilon_{ij}, \quad
    \epsilon_{ij} \sim N(0, 1 / (s_{ij} \alpha_j)), \quad
    w_i \sim N(A_w' f_i, \Lambda_w^{-1}), \; h_j \sim N(A_h' g_j, \Lambda_h^{-1})

with features f and g of what is observed of a row and of a column, see `_priors`. The
posterior of ``[w_i, b_i]`` and of ``[h_j, c_j]`` is taken to be independent and
Gaussian, with full covariances [1]_, [2]_. A sweep updates all rows, all columns, then
the priors by their maximum, and never lowers the bound

.. math::

    L = \sum_{ij} E \log p(x_{ij}) - \sum_i KL(w_i, b_i) - \sum_j KL(h_j, c_j)
      + \log p(\Lambda, \alpha).

Mean-field factors turn slowly into the axes along which they can be pruned. So after
each sweep the precisions are taken along the axes of a basis Q, w' = Q w, in which the
second moments of both sides are diagonal [3]_: nothing but the priors has to be turned.

References
----------
.. [1] Y. J. Lim, Y. W. Teh, "Variational Bayesian Approach to Movie Rating Prediction",
   KDD Cup and Workshop 2007.
.. [2] A. Ilin, T. Raiko, "Practical Approaches to Principal Component Analysis in the
   Presence of Missing Values", Journal of Machine Learning Research 11 (2010).
.. [3] J. Luttinen, A. Ilin, "Transformations in Variational Bayesian Factor Analysis to
   Speed up Learning", Neurocomputing 73 (2010).
"""

from typing import NamedTuple

import numpy as np

from .._data.row_blocks import row_blocks_of
from .._kernels import dispatch
from .._kernels.linalg import BLOCK
from . import diagonal_covariance
from .missingness import Features
from .moments import (
    diagonal,
    expectations,
    moments_of,
    n_pairs,
    pack,
    packed_size,
    total,
    unpack,
)
from .noise import FIRST_STRENGTH, LEAST_NOISE_OF_SINGLE, Noise, best_noise
from .priors import Prior, best_precisions, first_prior, with_flat_bias

# Precision of the factors in the first sweep, over what their start suggests. With all
# of it weak factors are given up before they have shown what they explain.
FIRST_PRIOR = 0.1


class Problem(NamedTuple):
    """The data and what never changes about them."""

    blocks: list | None  # of `moments.RowBlock`; None: covariances are diagonal
    entries: tuple | None  # or all of them by rows and by columns
    holes: bool
    shape: tuple
    row_bias: bool
    column_bias: bool
    flat_bias: bool  # no prior on the column biases
    noise: str
    counts: np.ndarray  # entries of each column
    squares: np.ndarray  # their weighted sum of squares
    row_features: Features
    column_features: Features
    dtype: np.dtype

    @property
    def n_observed(self):
        """Number of entries."""
        return self.counts.sum()

    @property
    def moves_means(self):
        """Whether the mean of row factors may go over to the column biases."""
        return self.column_bias and not self.has_features and self.blocks is not None

    @property
    def has_features(self):
        """Whether the pattern may say anything."""
        sides = self.row_features, self.column_features
        return any(len(side.scales) for side in sides)


class State(NamedTuple):
    """What is known after a sweep. Factors are in any basis, precisions in Q's."""

    W: np.ndarray  # means of [w, b]
    H: np.ndarray  # means of [h, c]
    moments: np.ndarray | None  # of the columns, packed
    covariances: np.ndarray  # of [h, c], packed or diagonal
    basis: np.ndarray  # Q
    row_prior: Prior  # of Q w and b
    column_prior: Prior  # of inv(Q') h and c
    noise: Noise

    @property
    def alpha(self):
        """Precision of the noise of each column."""
        return self.noise.alpha

    @property
    def asks_for_double(self):
        """Whether the noise is too small for single precision."""
        single = self.H.dtype == np.float32
        return single and self.alpha.max() * LEAST_NOISE_OF_SINGLE > 1

    def astype(self, dtype):
        """The same in another precision."""
        arrays = self.W, self.H, self.moments, self.covariances
        arrays = [None if a is None else a.astype(dtype) for a in arrays]
        return State(*arrays, *self[4:])


class Sums(NamedTuple):
    """What a sweep adds up on its way."""

    rows: np.ndarray  # E[v v'] of all rows, v = [w, 1, b]
    columns: np.ndarray
    row_products: np.ndarray  # features times E[w] and E[b]
    column_products: np.ndarray
    row_logdet: float  # of the covariances
    column_logdet: float
    squares: np.ndarray  # expected squared error of each column
    systems: np.ndarray  # moments of the rows summed for each column
    targets: np.ndarray
    # Sums of the logarithms of the conditional precisions of every factor.
    row_evidence: np.ndarray
    column_evidence: np.ndarray


def covariances_are_diagonal(shape, rank, biases):
    """Whether those of all columns would take too much memory."""
    return shape[1] * packed_size(rank, biases.row) > diagonal_covariance.LARGEST


def problem_of(rows, rank, biases, noise, features):
    """Prepare centred entries of about unit variance, and features of both sides."""
    found, entries, holes = None, None, False
    if covariances_are_diagonal(rows.shape, rank, biases):
        entries = rows, rows.transpose()
    else:
        found, holes = row_blocks_of(rows, packed_size(rank, biases.row))
    counts, squares = np.zeros((2, rows.shape[1]))
    for start in range(0, rows.indices.size, BLOCK):
        part = slice(start, start + BLOCK)
        columns, values = rows.indices[part], rows.values[part].astype(np.float64)
        weights = np.ones_like(values) if rows.weights is None else rows.weights[part]
        counts += np.bincount(columns, minlength=len(counts))
        squares += np.bincount(columns, weights * values**2, minlength=len(counts))
    flat = biases.column and not biases.row
    about = rows.shape, *biases, flat, noise, counts, squares
    about = *about, *features, rows.values.dtype
    return Problem(found, entries, holes, *about)


def first_state(problem, W, H, rows):
    """Start from factors and biases."""
    m, n = problem.shape
    rank = H.shape[1] - problem.column_bias
    errors = dispatch.residuals(rows, W, H, (problem.row_bias, problem.column_bias))
    squares, share = 0.0, 1.0  # share: mean weight
    for start in range(0, errors.size, BLOCK):
        part = slice(start, start + BLOCK)
        own = np.square(errors[part], dtype=np.float64)
        squares += own.sum() if rows.weights is None else own @ rows.weights[part]
    if rows.weights is not None:
        share = float(rows.weights.mean(dtype=np.float64))
    level = max(squares / errors.size, 1e-3 * share)
    strength = FIRST_STRENGTH if problem.noise == "column" else 0.0
    noise = Noise(np.full(n, 1 / level), level, strength)
    row_squares, column_squares = (np.square(F, dtype=np.float64) for F in (W, H))
    row_precision = FIRST_PRIOR * best_precisions(row_squares.sum(axis=0), m)
    column_precision = best_precisions(column_squares.sum(axis=0), n)
    seen = np.append(
        row_squares[:, :rank].mean(axis=0), np.ones(int(problem.column_bias))
    )
    variances = 1 / (
        column_precision + np.outer(share * noise.alpha * problem.counts, seen)
    )
    priors = (
        first_prior(row_precision, problem.row_features.values.shape[1]),
        first_prior(column_precision, problem.column_features.values.shape[1]),
    )
    if problem.flat_bias:
        priors = priors[0], with_flat_bias(priors[1])
    if problem.blocks is None:
        variances = variances.astype(problem.dtype)
        return State(W, H, None, variances, np.eye(rank), *priors, noise)
    covariances = np.zeros((n, n_pairs(H.shape[1])), problem.dtype)
    covariances[:, diagonal(H.shape[1])] = variances
    moments = moments_of(H, covariances, problem.column_bias)
    return State(W, H, moments, covariances, np.eye(rank), *priors, noise)


def sweep(problem, state):
    """Update all rows, then all columns, then the noise.

    Returns
    -------
    state : State
    sums : Sums
    """
    update = _update_independent if problem.blocks is None else _update
    state, sums = update(problem, state)
    noise = best_noise(state.noise, problem.counts, sums.squares, problem.dtype)
    return state._replace(noise=noise), sums


def _update(problem, state):
    """Posteriors with full covariances."""
    rank = len(state.basis)
    row_prior, column_prior = _prior_precisions(state)
    # What the means of the priors add to the targets.
    row_features, column_features = problem.row_features, problem.column_features
    row_pull = state.row_prior.slopes @ row_prior
    pull = column_features.values @ (state.column_prior.slopes @ column_prior)
    W = np.empty((problem.shape[0], len(row_prior)), problem.dtype)
    scaled = state.moments * state.alpha.astype(problem.dtype)[:, None]
    linear, everything = expectations(scaled, rank), None
    if problem.holes:
        everything = total(scaled)
    size = packed_size(rank, problem.row_bias)
    systems = np.zeros((problem.shape[1], size), problem.dtype)
    targets = np.zeros((len(systems), rank + 1 + problem.row_bias), problem.dtype)
    rows, logdet, evidence = np.zeros(size), 0.0, np.zeros(rank)
    biases = problem.row_bias, problem.column_bias
    for block in problem.blocks:
        own = block.sum_over_columns(scaled, everything)
        own_targets = dispatch.product(block.by_rows, linear)
        own_targets[:, : len(row_prior)] += row_features.values[block.rows] @ row_pull
        of_rows = dispatch.posterior(
            own,
            block.which,
            own_targets,
            np.ones(len(block.which)),
            pack(row_prior),
            biases,
        )
        W[block.rows] = of_rows.means
        own_total = total(of_rows.moments)
        rows += own_total
        logdet += of_rows.logdets.sum()
        precisions = own[:, diagonal(rank)] + np.diag(row_prior)[:rank]
        patterns = np.bincount(block.which, minlength=len(own))
        evidence += patterns @ np.log(precisions)
        systems += block.sum_over_rows(
            of_rows.moments, own_total if problem.holes else None
        )
        linear_of_rows = expectations(of_rows.moments, rank)
        targets += dispatch.product(block.by_columns, linear_of_rows)
    pulled = targets.copy()
    pulled[:, : len(column_prior)] += pull / state.alpha[:, None]
    found = dispatch.posterior(
        systems,
        np.arange(len(systems)),
        pulled,
        state.alpha,
        pack(column_prior),
        biases[::-1],
        with_covariances=True,
    )
    second = found.moments
    twice = 2 * column_prior - np.diag(np.diag(column_prior))
    penalties = second[:, : n_pairs(rank)] @ pack(twice[:rank, :rank])
    if problem.column_bias:
        penalties = penalties + column_prior[rank, rank] * second[:, -1]
    penalties = penalties - 2 * np.einsum("jk,jk->j", pull, found.means)
    of_biases = 0.0
    if problem.row_bias:
        of_biases = systems[:, -1].astype(np.float64) - 2.0 * targets[:, -1]
    place = diagonal(rank)
    precisions = state.alpha[:, None] * systems[:, place]
    precisions += np.diag(column_prior)[:rank]
    sums = Sums(
        unpack(rows, rank + 1 + problem.row_bias),
        unpack(total(found.moments), rank + 1 + problem.column_bias),
        _products(row_features, W),
        _products(column_features, found.means),
        logdet,
        float(found.logdets.sum()),
        _squared_errors(problem, state, found, penalties, of_biases),
        systems,
        targets,
        evidence,
        np.log(precisions).sum(axis=0),
    )
    state = state._replace(
        W=W, H=found.means, moments=found.moments, covariances=found.covariances
    )
    return state, sums


def _update_independent(problem, state):
    """The same where every coefficient is independent of the others."""
    rank, (rows, columns) = len(state.basis), problem.entries
    biases = problem.row_bias, problem.column_bias
    of_rows = diagonal_covariance.update(
        rows.scale_weights(state.alpha),
        state.H,
        state.covariances,
        np.ones(rows.shape[0]),
        state.row_prior.precision,
        biases,
    )
    found = diagonal_covariance.update(
        columns,
        of_rows.means,
        of_rows.variances,
        state.alpha,
        state.column_prior.precision,
        biases[::-1],
    )
    second = found.variances + np.square(found.means, dtype=np.float64)
    penalties = second @ state.column_prior.precision
    of_biases = (
        diagonal_covariance.of_biases(columns, of_rows) if problem.row_bias else 0.0
    )
    sums = Sums(
        diagonal_covariance.second_moments(of_rows, rank),
        diagonal_covariance.second_moments(found, rank),
        _products(problem.row_features, of_rows.means),
        _products(problem.column_features, found.means),
        of_rows.logdet,
        found.logdet,
        _squared_errors(problem, state, found, penalties, of_biases),
        *4 * [None],  # nothing is told apart
    )
    state = state._replace(W=of_rows.means, H=found.means, covariances=found.variances)
    return state, sums


def _products(features, means):
    return (features.values.T @ means).astype(np.float64)


def _prior_precisions(state):
    """Precision matrices of [w, b] and of [h, c]."""
    rank, Q = len(state.basis), state.basis
    T = np.linalg.inv(Q).T
    found = []
    for basis, prior in ((Q, state.row_prior), (T, state.column_prior)):
        matrix = np.diag(prior.precision)
        matrix[:rank, :rank] = (basis.T * prior.precision[:rank]) @ basis
        found.append(matrix)
    return found


def _squared_errors(problem, state, found, penalties, of_biases):
    """Expected squared error of each column.

    At the optimum E[z'Az] - 2 E[z]'B is q - E[z' prior z] + 2 E[z]' prior m - E[z]'R,
    for z = [h, c], the sums A and B of its entries, the mean m of the prior and the
    right-hand side R. `penalties` are the terms with the prior, `of_biases` is what the
    row biases add.
    """
    explained = found.means.shape[1] - penalties - found.gains
    squares = problem.squares + explained / state.alpha + of_biases
    return np.maximum(squares, 0.0)
