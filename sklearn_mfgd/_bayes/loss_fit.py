r"""A fit with learned regularization and losses other than squared error.

Rounds alternate between a few sweeps of the model with squared error, see `model`, on
working values and weights, and new working values and weights given the posterior. With
:math:`Q` the working quadratic and :math:`\ell` the log likelihood of an entry, the
evidence lower bound (ELBO) is that of the sweeps plus

.. math::

    \sum_{ij} \mathrm{E}\, \ell(x_{ij}, p_{ij}) - \mathrm{E}\, Q(p_{ij}),

which no entry makes negative where Q is a bound: the ELBO never falls then. For counts
Q is no bound. A round after which the ELBO is lower is taken back, and the next one
goes part of the way from the working values and weights before [1]_.

References
----------
.. [1] M. E. Khan, W. Lin, "Conjugate-Computation Variational Inference", AISTATS
   (2017).
"""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .._data.matrix import ObservedMatrix
from .._kernels.blas import one_blas_thread
from .._kernels.rows import Rows
from .._optim.column_losses import ColumnLosses
from .._optim.loop import History
from .coordinate_ascent import ascend, full_step
from .covariance import covariances_are_diagonal
from .fit import CURVE, Beginning, curve_in_units
from .loss_model import VariationalLossModel
from .model import model_of
from .posterior import VariationalModel
from .predictions import entry_moments
from .working import partly, precision_of_entries, working_rows

__all__ = ["CURVE", "curve_in_units", "fit"]

# Sweeps before the first working weights, and in each later round.
FIRST_SWEEPS, SWEEPS = 10, 3

# The share of the way that is left to try before an ascent ends.
LEAST_SHARE = 1e-3

# A round has to gain less than this share of the tolerance: rounds are few sweeps, and
# gains shrink slowly.
TOL_RATIO = 0.25


class Round(NamedTuple):
    """Where a round ended."""

    state: Any
    rows: Rows  # with the working values and weights that the next one starts with
    losses: ColumnLosses
    value: float  # the ELBO
    moments: tuple[np.ndarray, np.ndarray]  # of the predictions of the entries
    given: Rows  # with the working values and weights that it started with


def fit(matrix, parameters, *, biases, units, start, rng, monitor, losses):
    """Learn the posterior of the factors, their priors and the noise.

    The arguments are those of `_optim.fit.fit`; returns a `VariationalLossModel` and a
    `Descent`.
    """
    with one_blas_thread():
        if covariances_are_diagonal(matrix, parameters.rank, biases):
            raise ValueError(
                "loss needs covariances of all factors, which are too large for "
                f"{matrix.shape[1]} columns and rank={parameters.rank}; use a smaller "
                "rank, or loss='squared'."
            )
        weight = 1.0
        if not losses.has_unit_noise:  # there the weights have a unit of their own
            matrix, weight = matrix.with_unit_weights()
        first = ObservedMatrix(losses.start(matrix.rows).astype(np.float64), 0.0)
        begin = Beginning.of(first, parameters, biases, start, rng)
        begin = begin._replace(of_raters=False)  # working weights have a unit

        def fitted_at(found):
            model = _model_of(begin, found.rows)
            base = VariationalModel.of(model, found.state, begin.feature_map, weight)
            return VariationalLossModel.of(base, found.losses, matrix.rows)

        history = History(
            None,
            begin.factors[1],
            tol=parameters.tol,
            validate=None,
            n_iter_no_change=parameters.n_iter_no_change,
            monitor=monitor
            and (lambda now: monitor(now, lambda: fitted_at(now.state))),
        )
        _ascend(matrix.rows, begin, losses, parameters, history)
        descent = history.descent()
        return fitted_at(descent.state), descent


def _ascend(given: Rows, begin, losses, parameters, history):
    """Make rounds until the ELBO settles; the history is told of each."""

    def working(of):
        return working_rows(given, of.losses, of.moments, of.state.alpha)

    rows, model = begin.matrix.rows, begin.model(np.float64)
    state = begin.state(model)
    known = losses.unit_noise_columns(len(state.H))
    if known.any():
        state = replace(state, noise=state.noise.of_known(known))
    best, share = Round(state, rows, losses, -np.inf, (), rows), 1.0
    # The first quadratics of answers and counts see less of what factors explain than
    # later ones, and features say more of it later on: until the rounds settle, no
    # factors are dropped.
    prunes = not (losses.has_unit_noise or model.has_features)
    for number in range(parameters.max_iter):
        model = _model_of(begin, best.rows)
        n_sweeps = FIRST_SWEEPS if number == 0 else SWEEPS
        last = _LastSweep()
        tol = parameters.tol if prunes else 0.0  # sweeps that never settle drop none
        options = {"max_iter": n_sweeps, "tol": tol, "unpruned": not prunes}
        ascend(model, best.state, last, **options)
        found = _evaluate(given, model, begin.feature_map, last, best)
        settled = last.converged or (
            model.has_features and found.state.rank == best.state.rank
        )
        gain = found.value - best.value
        if gain < 0 and not losses.is_bound:
            share /= 2
            if share < LEAST_SHARE or not best.moments:
                break
            rows = partly(best.given, working(best), share)
            best = best._replace(rows=rows)
            continue
        rows = partly(found.rows, working(found), share)
        share = min(1.0, 1.5 * share)
        best = found._replace(rows=rows)
        settles = gain < TOL_RATIO * parameters.tol * given.indices.size
        ended = bool(prunes and settled and settles)
        prunes = prunes or settles
        history.add(None, best.state.H, best.value, full_step, ended, best)
        if history.converged:
            return


def _model_of(begin, rows):
    """The model of working values and weights."""
    rank = begin.factors[0].shape[1] - begin.biases.row
    features = begin.row_features, begin.column_features
    matrix = ObservedMatrix(rows, 0.0)
    return model_of(matrix, rank, begin.biases, begin.noise, features)


def _evaluate(given, model, feature_map, last, before: Round) -> Round:
    """The ELBO after some sweeps, and losses that have learned from them."""
    state, rows, biases = last.state.rotated(), before.rows, model.biases
    given_rows = feature_map, state.row_prior, biases, state.alpha
    W, covariances = state.columns.fold_in(rows, *given_rows, True)
    m, v = entry_moments(rows, W, covariances, state.columns, biases)
    # What the ELBO of the sweeps has of each entry is the likelihood of a normal value.
    precision = state.alpha[rows.indices]
    squares = rows.weights * (np.square(rows.values - m) + v)
    quadratic = 0.5 * (np.log(precision / (2 * np.pi)) - precision * squares)
    x = given.values.astype(np.float64, copy=False)
    precision = precision_of_entries(given, before.losses, state.alpha)
    about = given.indices, x, m, v, precision
    losses = before.losses.learned(*about)
    expected = losses.expected(*about)
    if given.weights is not None:  # of what has no noise it is the log likelihood
        has_noise = ~losses.unit_noise_columns(given.n_columns)[given.indices]
        expected = expected * np.where(has_noise, 1.0, given.weights)
    value = last.value + float((expected - quadratic).sum())
    return Round(state, rows, losses, value, (m, v), rows)


class _LastSweep:
    """What stands in for a `History` during a round, which is told of as a whole."""

    validates = False

    def __init__(self):
        self.state, self.value, self.converged = None, -np.inf, False

    def add(self, W, H, value, sizes, converged, state):
        """Take note of a sweep."""
        self.state, self.value, self.converged = state, value, converged
