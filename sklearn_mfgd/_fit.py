"""From prepared entries to factors: ridge, start, descent, last fold-in.

All in the units of the solvers, see `_model`.
"""

from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy import sparse

from ._bayes import missingness
from ._bayes.coordinate_ascent import ascend
from ._bayes.covariance import covariances_are_diagonal
from ._bayes.gibbs import Draws, draw
from ._bayes.model import first_state, model_of
from ._bayes.posterior import VariationalModel
from ._data import row_blocks
from ._data.matrix import CompleteMatrix, hold_out, validation_error
from ._kernels.linalg import one_blas_thread
from ._optim.init import factors_from_means, initial_biases, random_factors, svd_factors
from ._optim.loop import Descent, History, descend
from ._optim.objective import objective_of
from ._optim.penalty import Ridge, penalties_of
from ._optim.sgd import stochastic_descend

# Up to this rank the exact rows of "als" cost no more than the sweeps that they save;
# it depends less on the condition of the data than "scaled" does.
CHEAP_RANK = 64

# Of the biases and factors that the learning of regularization starts from; the data
# have unit variance there.
FIRST_RIDGE = Ridge(0.1, 3.0)

# Below this many operations a product of data and factors is for one thread.
SMALL_PRODUCT = 1e8


class Factorization(NamedTuple):
    """What a fit has found, in the units of the solvers."""

    W: np.ndarray | None  # folded in: all observed entries given H; None: not wanted
    H: np.ndarray
    learned: VariationalModel | None  # with reg="auto"
    draws: Draws | None  # with n_draws > 0
    loss: float  # data term at (W, H)
    descent: Descent


def choose_solver(params, entries):
    """Settle ``solver="auto"`` from the pattern of observed entries and the rank."""
    if params["solver"] != "auto":
        return params["solver"]
    if isinstance(entries, CompleteMatrix):  # one system for all rows: products only
        return "scaled"
    # "als" squares the rank for every entry: beyond, worth it where there are few.
    per_row = 2 * entries.n_observed / sum(entries.shape)
    few = per_row <= 2 * params["rank"]
    return "als" if few or params["rank"] <= CHEAP_RANK else "scaled"


def factorize(entries, params, *, biases, exponent, start, rng, monitor, factors=True):
    """Fit the factors of `entries`.

    Parameters
    ----------
    entries : CompleteMatrix or ObservedMatrix
    params : dict
        The parameters of the estimator.
    biases : Biases
    exponent : int
        Data were divided by ``4**exponent``.
    start : ndarray of shape (n_features, .) or None
        Column factors to start from instead of ``params["init"]``.
    rng : RandomState
    monitor : callable (Descent, finish) -> bool, or None
        As in `descend`; ``finish()`` is the Factorization if the descent ended there.
    factors : bool, default=True
        Whether the row factors are wanted. Those of draws are many.

    Returns
    -------
    Factorization
    """
    m, n = entries.shape
    complete = isinstance(entries, CompleteMatrix)
    # Where the kernels do the large products, BLAS has small ones left.
    small = not complete or 2 * m * n * params["rank"] < SMALL_PRODUCT
    with one_blas_thread() if small else nullcontext():
        arguments = entries, params, biases, exponent, start, rng, monitor, factors
        return _factorize(*arguments)


def _factorize(entries, params, biases, exponent, start, rng, monitor, factors):
    for name, value in (("solver", "sgd"), ("reg", "auto")):
        if params[name] == value:
            _refuse_zeros(entries, f"{name}={value!r}")
            entries = entries.listed()
    training, validate = entries, None
    if params["early_stopping"]:
        _refuse_zeros(entries, "early_stopping=True")
        training, held_out = hold_out(entries, params["validation_fraction"], rng)
        validate = validation_error(held_out, biases)
    method = _descend
    if params["reg"] == "auto":
        method = partial(_learn, factors=factors)
    return method(
        entries,
        training,
        params,
        biases,
        exponent,
        start,
        rng,
        validate=validate,
        n_iter_no_change=params["n_iter_no_change"],
        tol=params["tol"],
        monitor=monitor,
    )


def _descend(
    entries, training, params, biases, exponent, start, rng, *, monitor, **ending
):
    """Minimize the objective with a given ridge."""
    _refuse_weights(training)
    objective = objective_of(training, biases)
    ridge = Ridge(params["reg"], params["reg"])
    penalties = penalties_of(params["rank"], biases, ridge, exponent)
    W, H = _starting_factors(
        training, objective, params, penalties, exponent, start, rng
    )

    def finish(descent):
        if params["early_stopping"]:
            everything = objective_of(entries, biases)
        else:
            everything = objective
        W = everything.least_squares(descent.H, penalties[0].ridge)
        loss = everything.value(W, descent.H)
        return Factorization(W, descent.H, None, None, loss, descent)

    solver = choose_solver(params, entries)
    method = partial(descend, solver=solver)
    if solver == "sgd":
        method = partial(stochastic_descend, rng=rng)
    descent = method(
        objective,
        W,
        H,
        penalties,
        eta=params["eta"],
        max_iter=params["max_iter"],
        monitor=monitor and (lambda now: monitor(now, partial(finish, now))),
        **ending,
    )
    if params["early_stopping"]:
        del objective, training  # make room: the next one is as large
    return finish(descent)


def _learn(
    entries,
    training,
    params,
    biases,
    exponent,
    start,
    rng,
    *,
    monitor,
    tol,
    factors,
    **ending,
):
    """Learn factors and what regularizes them."""
    training, weight = training.with_unit_weights()
    objective = objective_of(training, biases)
    if start is None and isinstance(params["init"], str):
        # Further ones could explain nothing.
        params = params | {"rank": min(params["rank"], *training.shape)}
    rank = params["rank"] if start is None else start.shape[1] - biases.column
    penalties = penalties_of(rank, biases, FIRST_RIDGE)
    W, H = _starting_factors(
        training, objective, params, penalties, exponent, start, rng
    )
    *features, description = _features(training, objective, params, rank, biases)
    del objective
    about = rank, biases, params["noise"]
    problem = model_of(training.rows, *about, features)
    state = first_state(problem, W, H, training.rows)

    def finish(descent, draws=None):
        state = descent.state.rotated()
        learned = VariationalModel.of(problem, state, description, weight)
        if draws is not None:
            draws = draws.astype(entries.dtype)
            W, loss = _fold_in_draws(entries, draws, biases, factors)
            return Factorization(W, draws.H, learned, draws, loss, descent)
        W, H = learned.fold_in(entries.rows)[0], state.H.astype(entries.dtype)
        loss = objective_of(entries, biases).value(W, H)
        return Factorization(W, H, learned, None, loss, descent)

    track = History(
        W,
        H,
        tol=tol,
        monitor=monitor and (lambda now: monitor(now, partial(finish, now))),
        **ending,
    )

    def start_of(rank):
        fewer = np.arange(H.shape[1] - biases.column) < rank
        parts = (
            F[:, np.append(fewer, np.ones(int(biased), bool))].astype(problem.dtype)
            for F, biased in zip((W, H), biases, strict=True)
        )
        return first_state(problem, *parts, training.rows.astype(problem.dtype))

    n_left = params["max_iter"]
    options = {"tol": tol, "start_of": start_of}
    unpruned = ascend(problem, state, track, max_iter=n_left, **options)
    reached = track.descent()
    if reached.state.needs_float64 and reached.n_iter < n_left:
        n_left -= reached.n_iter
        features = [each.astype(np.float64) for each in features]
        problem = model_of(training.rows.astype(np.float64), *about, features)
        state = reached.state.astype(np.float64)
        unpruned = ascend(problem, state, track, max_iter=n_left, **options)
    if params["n_draws"] == 0:
        return finish(track.descent())
    numbers = np.random.default_rng(rng.randint(2**31))
    draws = draw(
        entries.with_unit_weights()[0].rows.astype(unpruned.H.dtype),
        unpruned.rotated(),
        biases,
        features,
        description,
        params["n_draws"],
        numbers,
    )
    return finish(track.descent(), draws.over_weight(weight))


def _features(training, objective, params, rank, biases):
    """Features of rows and of columns, and how to describe rows by them."""
    m, n = training.shape
    complete = training.n_observed == m * n
    diagonal = covariances_are_diagonal(training.shape, rank, biases)
    if not params["pattern"] or complete or diagonal:
        return missingness.no_features(m, n, training.dtype)
    return missingness.fit_features(objective.rows, objective.T.rows)


def _fold_in_draws(entries, draws, biases, factors):
    """Row factors given every draw, if they are wanted, and the loss; by blocks."""
    H, m, loss = draws.H, entries.shape[0], 0.0
    width = H.shape[1] - biases.column + biases.row
    found = np.empty((m, width), H.dtype) if factors else None
    step = max(1, row_blocks.BLOCK // H.shape[1])
    for start in range(0, m, step):
        part = slice(start, min(start + step, m))
        rows = entries.rows.between(part.start, part.stop)
        W = draws.fold_in(rows)
        loss += objective_of(entries._replace(rows=rows), biases).value(W, H)
        if factors:
            found[part] = W
    return found, loss


def _starting_factors(entries, objective, params, penalties, exponent, start, rng):
    """Start from given column factors, given factors, an SVD, or at random."""
    rank, init = params["rank"], params["init"]
    if start is not None:
        return objective.least_squares(start, penalties[0].ridge), start
    b, c = initial_biases(objective, penalties)
    if isinstance(init, (tuple, list)):
        W, H = (np.array(factors, b.dtype) for factors in init)
    else:
        if init == "random" and params["reg"] != "auto":
            weight = entries.weight()
            start = partial(random_factors, rank=rank, weight=weight, rng=rng)
        else:
            share = entries.n_observed / (len(b) * len(c))
            shrink = penalties[0].ridge[0] * entries.n_observed / entries.weight()
            # Learning soon decides which factors last: they must be of the data, or it
            # would depend on the seed.
            sketch = rng if init == "random" else None
            start = partial(
                svd_factors, rank=rank, share=share, shrink=shrink, rng=sketch
            )
        complete = entries.n_observed == len(b) * len(c)
        if complete or objective.column_bias:
            W, H = start(objective, b, c)
        else:
            W, H = factors_from_means(objective, rank, start)
    # What was never observed stays at its prior: no gradient would ever move it.
    W[entries.counts(axis=1) == 0] = 0
    H[entries.counts(axis=0) == 0] = 0
    return np.column_stack([W, b]), np.column_stack([H, c])


def _refuse_weights(entries):
    """Refuse weights whose sums with values would overflow."""
    if np.log2(entries.weight()) > 0.9 * np.finfo(entries.dtype).maxexp:
        raise ValueError(
            f"entry_weight is too large to sum up: its sum is {entries.weight():.3g}. "
            "Divide it, and reg, by a constant."
        )


def _refuse_zeros(entries, why):
    """Refuse to list the entries of sparse data whose unstored ones are zeros."""
    if isinstance(entries, CompleteMatrix) and sparse.issparse(entries.values):
        raise ValueError(
            f"{why} visits or hides single entries of X, which would store all the "
            "zeros of a sparse X. Pass a dense X, use another value, or, where what is "
            "not stored is missing, MaskedGradientMF."
        )
