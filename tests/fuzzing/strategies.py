"""Strategies of hypothesis for cases.

They choose the kind of a table, and a seed its numbers: that is quick, and one thing
about a table can be changed without the rest.
"""

import numpy as np
from hypothesis import strategies as st

from .cases import DENSE, ESTIMATORS, SPARSE, Case, containers_of

EVERYDAY = (1.0, 1.0, 1.0, 0.01, 7.0, 1e3, 1e6)
EXTREME = (1e-300, 1e-160, 1e-100, 1e-30, 1e30, 1e76, 1e100, 1e154, 1e160, 1e300)


TABLES = {
    "low rank": lambda rng, m, n: (
        rng.standard_normal((m, 2)) @ rng.standard_normal((2, n))
        + 0.1 * rng.standard_normal((m, n))
    ),
    "exactly low rank": lambda rng, m, n: np.outer(rng.randn(m), rng.randn(n)),
    "noise": lambda rng, m, n: rng.standard_normal((m, n)),
    "ratings": lambda rng, m, n: rng.randint(1, 6, (m, n)).astype(float),
    "zeros and ones": lambda rng, m, n: rng.randint(0, 2, (m, n)).astype(float),
    "ones": lambda rng, m, n: np.ones((m, n)),
    "zeros": lambda rng, m, n: np.zeros((m, n)),
    "heavy tails": lambda rng, m, n: np.exp(2 * rng.standard_normal((m, n))),
    "outlier": lambda rng, m, n: np.where(
        np.arange(m * n).reshape(m, n) == rng.randint(m * n), 1e4, rng.randn(m, n)
    ),
    "same columns": lambda rng, m, n: np.repeat(rng.randn(m, 1), n, axis=1),
    "same rows": lambda rng, m, n: np.repeat(rng.randn(1, n), m, axis=0),
    "ramp": lambda rng, m, n: np.arange(m * n, dtype=float).reshape(m, n),
}


def _keep_one(rng, X, j):
    return np.where(np.arange(len(X)) == rng.randint(len(X)), X[:, j], np.nan)


def _block(rng, shape):
    return np.outer(*(rng.uniform(size=size) < 0.5 for size in shape))


# What a column or row at random becomes, and what is made missing.
LINES = {
    "empty column": lambda rng, X, j: np.nan,
    "empty row": lambda rng, X, j: np.nan,
    "constant column": lambda rng, X, j: rng.choice([0.0, 1e-6, 0.3, 1e6]),
    "one value in a column": _keep_one,
    "one value in a row": _keep_one,
    "copy of a column": lambda rng, X, j: X[:, rng.randint(X.shape[1])],
}
HOLES = {
    "a tenth": lambda rng, shape: rng.uniform(size=shape) < 0.1,
    "a third": lambda rng, shape: rng.uniform(size=shape) < 0.3,
    "nine tenths": lambda rng, shape: rng.uniform(size=shape) < 0.9,
    "a block": _block,
    "a triangle": lambda rng, shape: np.triu(np.ones(shape, bool), 1),
}


def _spoil(X, flaw, rng):
    if flaw in HOLES:
        X[HOLES[flaw](rng, X.shape)] = np.nan
        return
    X = X.T if flaw.endswith("row") else X
    j = rng.randint(X.shape[1])
    X[:, j] = LINES[flaw](rng, X, j)


OFFSETS = {
    "none": lambda rng, n: np.zeros(n),
    "one": lambda rng, n: np.full(n, rng.choice([-5.0, 100.0, 1e4])),
    "by column": lambda rng, n: 10.0 ** rng.randint(0, 5, n) * rng.standard_normal(n),
}


def rarely(usual, unusual, share=10):
    """One of `usual`, and once in `share` times one of `unusual`."""
    few, many = st.sampled_from(unusual), st.sampled_from(usual)
    picks = st.integers(0, share - 1)
    return picks.flatmap(lambda pick: few if pick == share - 1 else many)


sizes = st.one_of(st.integers(1, 6), st.integers(1, 12), st.integers(1, 30))
shapes = rarely([None], [(60, 40), (40, 60), (3, 100)], 40).flatmap(
    lambda shape: st.just(shape) if shape else st.tuples(sizes, sizes)
)


@st.composite
def tables(draw):
    """A float64 or float32 table; NaN means missing."""
    rng = np.random.RandomState(draw(st.integers(0, 2**31)))
    m, n = draw(shapes)
    kind = draw(rarely(["low rank", "noise", "ratings"], list(TABLES), 2))
    X = TABLES[kind](rng, m, n)
    X = X + OFFSETS[draw(rarely(["none"], list(OFFSETS), 3))](rng, n)
    for flaw in draw(st.lists(st.sampled_from([*LINES, *HOLES]), max_size=3)):
        _spoil(X, flaw, rng)
    X = X * draw(rarely(EVERYDAY, EXTREME, 20))
    dtype = draw(rarely([np.float64], [np.float32], 4))
    too_large = np.nanmax(np.abs(X), initial=0) > np.finfo(dtype).max / 1e3
    return X.astype(np.float64 if too_large else dtype)


@st.composite
def ways_of_fitting(draw, estimator, X):
    """Parameters other than the defaults, for a table."""
    params = {"max_iter": draw(rarely([1, 3, 10], [200], 4))}
    names = {"noise": ["shared"], "tol": [0.0, 1e-6, 0.1, 1.0, 10.0]}
    names |= {"random_state": [0, 1]}
    if draw(st.booleans()):
        params["reg"] = "auto"
        names |= {"solver": ["als"]}
        samples = {"n_draws": [1, 3]}
        names |= {"sample_posterior": [True]} if estimator == "MFImputer" else samples
    else:
        params["reg"] = draw(rarely([0.0, 0.1, 1.0], [1e-200, 1e-9, 1e3, 1e100], 8))
        names |= {"solver": ["gd", "scaled", "als", "sgd"]}
        names |= {"eta": [1e-9, 1e-3, 0.5, 1.0, 10.0, 1e200]}
    if estimator == "MFImputer":
        low, high = np.nanquantile(np.append(X[~np.isnan(X)], 0), [0.2, 0.8])
        names |= {"min_value": [low, np.full(X.shape[1], low)], "max_value": [high]}
        names |= {"scale": [False], "missing_values": [-99.9]}
        names |= {"add_indicator": [True], "keep_empty_features": [True]}
        ranks = rarely(["auto"], [1, 2, 3, 10, 50], 2)
    else:
        names |= {"pattern": [False], "fit_bias": [True, False, "columns"]}
        names |= {"init": ["random", "given"], "warm_start": [True]}
        names |= {"early_stopping": [True], "validation_fraction": [0.5]}
        names |= {"n_iter_no_change": [1]}
        ranks = rarely([1, 2, 3, 5], [10, 50], 8)
    params["rank"] = draw(ranks)
    for name in draw(st.lists(st.sampled_from(sorted(names)), max_size=3, unique=True)):
        params[name] = draw(st.sampled_from(names[name]))
    if params.get("init") == "given":
        rng = np.random.RandomState(draw(st.integers(0, 1000)))
        size = draw(rarely([0.1, 1.0], [0.0, 1e-100, 1e77, 1e100], 4))
        W, H = (size * rng.standard_normal((n, params["rank"])) for n in X.shape)
        params["init"] = W, H
    return params


@st.composite
def cases(draw, estimators=tuple(ESTIMATORS)):
    """A case for any invariant."""
    estimator = draw(st.sampled_from(estimators))
    X, weight = draw(tables()), None
    params = draw(ways_of_fitting(estimator, X))
    container = draw(rarely(["ndarray"], containers_of(estimator), 2))
    zeros = estimator == "GradientMF" and container in SPARSE
    if zeros:
        X = np.nan_to_num(X, nan=0.0)
    elif container not in DENSE[:1]:
        params.pop("missing_values", None)
    if not zeros and draw(rarely([False], [True], 6)):
        rng = np.random.RandomState(draw(st.integers(0, 1000)))
        weight = rng.choice(draw(rarely([(1, 2)], [(0, 1), (0.1, 10)], 2)), X.shape)
        unit = draw(rarely([1.0], [1e-30, 1e-10, 1e10, 1e30], 6))
        weight = (weight * unit).astype(X.dtype)
    if container == "list":
        X = X.astype(np.float64)
    return Case(estimator, params, X, container, weight, draw(st.integers(0, 10**6)))
