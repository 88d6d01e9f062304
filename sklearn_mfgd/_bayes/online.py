r"""Batches of rows, one after the other: a fit that keeps sums in place of the rows.

Given the columns rows are independent, and what a column needs of its rows is a sum.
So a batch is learned as a fit is, by sweeps over its rows and all columns, where the
columns add to the sums of the batch those of all batches before: streaming variational
Bayes [1]_. A forgetting factor below one takes from the weight of the past [2]_.

A few rows tell few factors. In a fit, the others are dropped; here they must stay, as
batches that each tell nothing of a factor do so together. A factor with the prior
precisions :math:`\lambda, \lambda'` of its sides can be told from noise of the variance
:math:`\sigma^2` once :math:`1 / \lambda \lambda'` exceeds about :math:`\sigma^2 /
\sqrt{\bar n_i \bar n_j}`, where rows and columns have :math:`\bar n_i` and
:math:`\bar n_j` entries. The precisions are kept from growing beyond a multiple of it,
so no factor vanishes while there is no evidence for it. Factors that are at this limit
in the end are not in the fitted model.

References
----------
.. [1] T. Broderick, N. Boyd, A. Wibisono, A. C. Wilson, M. I. Jordan, "Streaming
   Variational Bayes", Advances in Neural Information Processing Systems 26 (2013).
.. [2] M. D. Hoffman, D. M. Blei, C. Wang, J. Paisley, "Stochastic Variational
   Inference", Journal of Machine Learning Research 14 (2013).
"""

from dataclasses import fields, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from .._kernels.blas import one_blas_thread
from .._optim.loop import History
from .._optim.objective import objective_of
from .._optim.start import refuse_unstored_zeros
from .coordinate_ascent import extrapolate, full_step, maximize_others, sweep
from .covariance import FullCovariance, take_too_much_memory
from .fit import Beginning, fit
from .missingness import Features, no_features
from .model import Model, State, model_of
from .moments import n_pairs
from .noise import Noise
from .past import RememberingCovariance, faded, given_up
from .pattern_sums import PatternSums
from .posterior import VariationalModel
from .priors import Prior
from .rotation import elbo
from .side import SideStatistics
from .stopping import StoppingRule

# Least prior variance of a product of factors, over what could be told from noise.
LEAST_SHARE = 0.4

# A factor whose variance exceeds the least by no more than this is at the limit.
AT_LIMIT = 1.02

# Factor by which a batch reduces what earlier rows tell of the priors, but not to fewer
# rows than this: their moments were taken when less was known of the columns.
PRIOR_FADE, PRIOR_ROWS = 0.3, 250

# Sweeps over a batch, at most.
MAX_SWEEPS = 30


class Memory(NamedTuple):
    """What is kept of all batches: their sums, and the state that they led to.

    Columns are those with entries, and factors all that there are, along their axes.
    """

    columns: np.ndarray  # (n,), their numbers, increasing
    n_columns: int  # with those that have had no entries
    means: np.ndarray
    covariances: np.ndarray
    noise: Noise
    row_prior: dict  # the fields of a `Prior`
    column_prior: dict
    past: dict  # the fields of `SideStatistics`
    counts: np.ndarray  # (n,), entries of each column
    squares: np.ndarray  # (n,), their weighted sum of squares
    pattern: PatternSums
    weight: float  # of an entry that counted as one
    n_rows: int

    @classmethod
    def of(cls, model: Model, state: State, past, **others):
        """Keep a state that is rotated to the axes of its priors."""
        return cls(
            means=state.columns.means,
            covariances=state.columns.covariances,
            noise=state.noise,
            row_prior=_fields_of(state.row_prior),
            column_prior=_fields_of(state.column_prior),
            past=_fields_of(past),
            counts=model.counts,
            **others,
        )

    def state(self, biases) -> State:
        """The state to go on from."""
        given = self.means, self.covariances, biases.column
        columns = RememberingCovariance(*given, SideStatistics(**self.past), biases.row)
        priors = Prior(**self.row_prior), Prior(**self.column_prior)
        return State(columns, *priors, self.noise)

    def column_means(self):
        """Weighted mean of the entries of each column, centred."""
        rank = len(self.row_prior["rotation"])
        ones = n_pairs(rank + 1) - 1  # place of the 1 in packed moments
        weights = self.past["systems"][:, ones].astype(np.float64)
        sums = self.past["targets"][:, rank]
        return sums / np.where(weights > 0, weights, 1)

    def with_columns(self, new, biases) -> "Memory":
        """The same with columns of these numbers, which had no entries so far."""
        if not len(new):
            return self
        numbers = np.concatenate([self.columns, new])
        order = np.argsort(numbers)

        def insert(values, filled=0):
            shape = (len(new), *values.shape[1:])
            added = np.broadcast_to(np.asarray(filled, values.dtype), shape)
            return np.concatenate([values, added])[order]

        past, (alpha, scale, dof) = dict(self.past), self.noise[:3]
        for name in ("systems", "targets"):
            past[name] = insert(past[name])
        prior = 1 / self.column_prior["precision"][None]
        given = np.zeros((1, prior.shape[1]), self.means.dtype), prior
        unseen = FullCovariance.of_variances(*given, biases.column)
        return self._replace(
            columns=numbers[order],
            means=insert(self.means),
            covariances=insert(self.covariances, unseen.covariances),
            noise=Noise(insert(alpha, 1 / scale if dof else alpha[0]), scale, dof),
            past=past,
            counts=insert(self.counts),
            squares=insert(self.squares),
            pattern=self.pattern.with_columns(insert),
        )


def learn_first(matrix, parameters, *, biases, units, rng, monitor):
    """Fit to a first batch and keep what later ones need; as `fit` does otherwise.

    The batch is learned twice: in what is kept no factor may be lost.
    """
    given = {"biases": biases, "units": units, "rng": rng, "monitor": monitor}
    fitted, descent = fit(matrix, parameters, start=None, **given)
    with one_blas_thread():
        training, weight = matrix.listed().with_unit_weights()
        begin = Beginning.of(training, parameters, biases, None, rng)
        model = begin.model(descent.state.H.dtype)
        memory = _first_memory(begin, model, parameters, weight)
    return fitted._replace(memory=memory), descent


def _first_memory(begin, model: Model, parameters, weight) -> Memory:
    start = replace(begin.state(model), row_dof=0.0)  # the past has no scales
    history = History(None, start.H, **_without_validation(parameters), monitor=None)
    least = _least_product(model, model.shape[0])
    _ascend(model, start, history, parameters, model.n_observed, least)
    state = history.descent().state.rotated()
    past, squares = given_up(model, state)
    given = begin.feature_map, begin.row_features, begin.column_features
    pattern = objective_of(begin.matrix, begin.biases).pattern
    return Memory.of(
        model,
        state,
        past,
        columns=np.arange(model.shape[1]),
        n_columns=model.shape[1],
        squares=model.squares + squares,
        pattern=PatternSums.of(*given, pattern),
        weight=weight,
        n_rows=model.shape[0],
    )


def learn_batch(fitted, matrix, columns, parameters, *, forget_factor, monitor):
    """Go on from a fitted model with the rows of a batch; as `fit` does otherwise.

    The columns of the matrix have these numbers, and are all that have had entries.
    """
    refuse_unstored_zeros(matrix, "partial_fit")
    biases = fitted.biases
    new = np.setdiff1d(columns, fitted.memory.columns)
    memory = fitted.memory.with_columns(new, biases)
    dtype, weight = memory.means.dtype, memory.weight
    with one_blas_thread():
        matrix = _in_unit_weights(matrix.listed(), weight).astype(dtype)
        start = memory.state(biases)
        if start.needs_float64:
            start, matrix = start.astype(np.float64), matrix.astype(np.float64)
        given = memory, start, matrix, biases
        model, start, pattern = _begin(*given, forget_factor)
        least = _least_product(model, start.columns.past.count + matrix.shape[0])

        def fitted_at(descent):
            state = _without_factors_at_limit(descent.state.rotated(), least)
            return VariationalModel.of(model, state, pattern.feature_map, weight)

        history = History(
            None,
            start.H,
            **_without_validation(parameters),
            monitor=monitor and (lambda now: monitor(now, partial(fitted_at, now))),
        )
        _ascend(model, start, history, parameters, matrix.n_observed, least)
        descent = history.descent()
        fitted, state = fitted_at(descent), descent.state.rotated()
        past, squares = given_up(model, state)
        memory = Memory.of(
            model,
            state,
            state.columns.past + past,
            columns=memory.columns,
            n_columns=memory.n_columns,
            squares=model.squares + squares,
            pattern=pattern,
            weight=weight,
            n_rows=memory.n_rows + matrix.shape[0],
        )
    return fitted._replace(memory=memory), descent


def _begin(memory, state, matrix, biases, forget_factor):
    """The model of a batch and its past, the state to start from, and the pattern."""
    past = state.columns.past
    fade = forget_factor * min(1, max(PRIOR_FADE, PRIOR_ROWS / past.count))
    past = faded(past, forget_factor, fade)
    pattern, noise = memory.pattern, "column" if state.noise.dof else "shared"
    model = model_of(
        matrix, state.rank, biases, noise, no_features(*matrix.shape, matrix.dtype)[:2]
    )
    counts = forget_factor * memory.counts + model.counts
    squares = forget_factor * memory.squares + model.squares
    model = replace(model, counts=counts, squares=squares)
    if pattern.has_features:
        old = pattern.column_features
        pattern, features, triangle = pattern.with_batch(
            objective_of(matrix, biases).pattern,
            counts,
            model.dtype,
            forget_factor,
            fade,
        )
        of_columns = Features(pattern.column_features, pattern.column_scales)
        model = replace(model, row_features=features, column_features=of_columns)
        past = replace(
            past,
            feature_products=np.linalg.solve(triangle.T, past.feature_products),
        )
        # The means of the priors are what they were.
        row_slopes = triangle @ state.row_prior.slopes
        projection = of_columns.values.T.astype(np.float64) @ old
        state = replace(
            state,
            row_prior=replace(state.row_prior, slopes=row_slopes),
            column_prior=replace(
                state.column_prior,
                slopes=projection @ state.column_prior.slopes,
                feature_scales=of_columns.scales,
            ),
        )
    columns = replace(state.columns, past=past)
    return model, replace(state, columns=columns), pattern


def _without_validation(parameters):
    """Arguments of a `History` that holds out no entries."""
    return {
        "tol": parameters.tol,
        "validate": None,
        "n_iter_no_change": parameters.n_iter_no_change,
    }


def _ascend(model: Model, start: State, history, parameters, n_entries, least):
    """Sweep until the ELBO rises by less than `tol` for each entry of the batch.

    No factor is dropped.
    """
    stopping = StoppingRule(parameters.tol * n_entries, model.has_features, False)
    max_sweeps = min(parameters.max_iter, MAX_SWEEPS)
    best, best_value, n_sweeps, n_accelerated = start, -np.inf, 0, 0
    while n_sweeps < max_sweeps:
        before = best
        if stopping.rotates:
            before, start = best.rotated(), start.rotated()
        state, statistics = sweep(model, start)
        state, value = maximize_others(model, state, statistics)
        state, value = _limited(model, state, statistics, value, least)
        if value < best_value and n_accelerated > 1:  # extrapolated too far
            start, n_accelerated = best, 0
            continue
        ended = stopping.add(value - best_value, True)
        best, best_value, n_sweeps = state, value, n_sweeps + 1
        history.add(None, state.H, value, full_step, ended, state)
        if history.converged or state.needs_float64:
            break
        start, n_accelerated = state, n_accelerated + 1
        if n_accelerated > 1:
            start = extrapolate(model, state, before, n_accelerated)


def _least_product(model, n_rows) -> float:
    """Least prior variance of a product of factors, over the variance of the noise.

    `n_rows` are those that tell of the priors: less than all, so that the limit falls
    faster than what can be told, and leaves a factor that has shown itself.
    """
    per_row, per_column = model.n_observed / n_rows, model.counts.mean()
    return LEAST_SHARE / np.sqrt(per_row * per_column)


def _variances_over_least(state, least):
    """Prior variance of the product of the factors of each kind, over the least."""
    rank = state.rank
    products = state.row_prior.precision[:rank] * state.column_prior.precision[:rank]
    return state.alpha.mean() / (products * least)


def _limited(model, state, statistics, value, least):
    """Keep the precisions of factors from growing too far; return the ELBO, too."""
    factors = np.minimum(np.sqrt(_variances_over_least(state, least)), 1)
    if (factors == 1).all():
        return state, value
    priors = {}
    for name in ("row_prior", "column_prior"):
        prior = getattr(state, name)
        precision = prior.precision.copy()
        precision[: state.rank] *= factors
        priors[name] = replace(prior, precision=precision)
    state = replace(state, **priors)
    return state, elbo(model, state, statistics)


def _without_factors_at_limit(state, least):
    """The state of the factors for which there is evidence, at least one."""
    variances = _variances_over_least(state, least)
    kept = variances > AT_LIMIT
    kept[variances.argmax()] = True
    columns = state.columns
    columns = FullCovariance(columns.means, columns.covariances, columns.biased)
    return replace(state, columns=columns).with_factors(kept)


def _in_unit_weights(matrix, weight):
    """Entries in units of the weight of those of the first batch."""
    weights = matrix.rows.weights
    if weights is None and weight == 1:
        return matrix
    if weights is None:
        weights = np.ones_like(matrix.rows.values)
    weights = weights / weights.dtype.type(weight)
    return matrix._replace(rows=matrix.rows._replace(weights=weights))


def _fields_of(record) -> dict:
    """The fields of a data class, without what it has computed from them."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


def refuse_diagonal_covariances(n_columns: int, rank: int, biases) -> None:
    """Refuse tables so wide that the sums over rows would not be kept."""
    if take_too_much_memory(n_columns, rank, biases):
        raise ValueError(
            f"partial_fit keeps sums of {rank} factors for each of {n_columns:,} "
            "columns, which would take too much memory. Use a smaller rank."
        )
