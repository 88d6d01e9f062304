"""What must not change a fit: empty rows and columns, their order, units of weights."""

import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from sklearn_mfgd import MaskedGradientMF

FITS = [
    {},
    {"pattern": False},
    {"noise": "shared", "fit_bias": False},
    {"fit_bias": "columns"},
    {"n_draws": 3, "random_state": 0},
    {"reg": 0.5},
    {"reg": 0.5, "init": "random", "random_state": 0},
    {"reg": 0.5, "solver": "sgd", "max_iter": 5, "random_state": 0},
    {"early_stopping": True, "random_state": 0},
]


def sparse_table(m=60, n=40, share=0.3, seed=0):
    """A sparse matrix of two factors and noise, without empty rows and columns."""
    rng = np.random.RandomState(seed)
    X = 3 + rng.standard_normal((m, 2)) @ rng.standard_normal((2, n))
    X += 0.3 * rng.standard_normal(X.shape)
    # Some are observed more often than others.
    chance = share * 2 * rng.uniform(size=(m, 1)) ** 0.5 * rng.uniform(size=n) ** 0.5
    observed = rng.uniform(size=X.shape) < chance
    observed[np.arange(m), np.arange(m) % n] = True
    return sparse.csr_array(np.where(observed, X, 0))


def spread(X, times, shift=0):
    """Put empty rows and columns between those of X."""
    X = X.tocoo()
    shape = tuple(times * length for length in X.shape)
    places = tuple(times * numbers + shift for numbers in X.coords)
    return sparse.csr_array((X.data, places), shape=shape)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("options", FITS, ids=str)
def test_empty_rows_and_columns_change_nothing(options):
    X = sparse_table()
    wide = spread(X, 7, shift=3)
    one, other = MaskedGradientMF(4, **options), MaskedGradientMF(4, **options)
    Z, Z_wide = one.fit_transform(X), other.fit_transform(wide)
    assert_array_equal(other.loss_curve_, one.loss_curve_)
    assert (other.rank_, other.mean_) == (one.rank_, one.mean_)
    for name in ("components_", "column_bias_", "column_mean_"):
        assert_array_equal(getattr(other, name)[..., 3::7], getattr(one, name))
    assert_array_equal(Z_wide[3::7], Z)
    assert_allclose(other.transform(wide), Z_wide, rtol=1e-10, atol=1e-12)
    empty = np.setdiff1d(np.arange(wide.shape[1]), np.arange(3, wide.shape[1], 7))
    assert not other.components_[:, empty].any()
    assert not other.column_bias_[empty].any()
    assert not Z_wide[:3].any()
    assert other.score(wide) == pytest.approx(one.score(X), rel=1e-10)


def test_given_factors_are_those_of_all_rows_and_columns():
    X, rng = sparse_table(), np.random.RandomState(1)
    W, H = rng.standard_normal((60, 2)), rng.standard_normal((40, 2))
    wide_W, wide_H = np.ones((420, 2)), np.ones((280, 2))
    wide_W[3::7], wide_H[3::7] = W, H
    one = MaskedGradientMF(2, reg=1.0, init=(W, H)).fit(X)
    other = MaskedGradientMF(2, reg=1.0, init=(wide_W, wide_H)).fit(spread(X, 7, 3))
    assert_array_equal(other.components_[:, 3::7], one.components_)


def test_a_warm_start_may_meet_new_columns():
    X = sparse_table().toarray()
    X[X == 0] = np.nan
    before = np.where(np.arange(40) < 5, np.nan, X)
    model = MaskedGradientMF(3, warm_start=True).fit(before)
    assert not model.components_[:, :5].any()
    assert model.fit(X).components_[:, :5].any()


def test_an_entry_in_a_column_that_was_empty_does_not_change_its_row():
    X = sparse_table()
    model = MaskedGradientMF(3).fit(spread(X, 2))
    new = spread(X, 2)[:10:2].toarray()
    new[new == 0] = np.nan
    more = np.where(np.arange(80) % 2, 5.0, new)  # in columns that were empty
    assert_allclose(model.transform(more), model.transform(new), rtol=1e-12)


def test_an_empty_column_has_its_prior():
    X = spread(sparse_table(), 2)
    model = MaskedGradientMF(3, noise="shared", pattern=False).fit(X)
    Z, covariance = model.transform(X, return_cov=True)
    options = {"covariance": covariance, "return_std": True}
    x, std = model.predict_entries(Z, [0, 1], [1, 1], **options)
    assert_allclose(x, model.mean_ + Z[[0, 1], -1])
    # Of rows without entries the factors have a mean of zero.
    prior = model._model
    variance = 1 / prior.row_precision[-1] + 1 / prior.column_precision[-1]
    variance += np.sum(1 / (prior.row_precision * prior.column_precision)[:-1])
    # Row 1 is empty: the variance of its bias is the prior one, in units of the data.
    variance *= covariance[1, -1, -1] * prior.row_precision[-1]
    assert std[1] ** 2 == pytest.approx(model.noise_variance_ + variance, rel=1e-2)


def test_empty_columns_take_no_memory_but_that_of_outputs():
    X, n = sparse_table(), 1_000_000
    X = sparse.csr_array((X.data, X.indices * (n // 40), X.indptr), shape=(60, n))
    model = MaskedGradientMF(3)
    model.fit(X[:, :: n // 40])
    tracemalloc.start()
    model.fit(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Components and their transpose, biases, means, noise, numbers, and what checks X.
    assert peak < 8 * n * (2 * model.rank_ + 8)


@pytest.mark.parametrize(
    "shape", [(60, 40), pytest.param((500, 450), marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("pattern", [True, False])
def test_the_order_of_rows_and_columns_does_not_matter(shape, pattern):
    X = sparse_table(*shape, share=0.3 if shape[0] == 60 else 0.05)
    model = MaskedGradientMF(8, pattern=pattern)
    filled = model.inverse_transform(model.fit_transform(X))
    for seed in range(2):
        rng = np.random.RandomState(seed)
        rows, columns = map(rng.permutation, shape)
        other = MaskedGradientMF(8, pattern=pattern)
        Z = other.fit_transform(X[rows][:, columns])
        assert other.rank_ == model.rank_
        assert_allclose(other.inverse_transform(Z), filled[rows][:, columns], atol=1e-7)


@pytest.mark.parametrize("n_draws, unit", [(0, 3), (2, 1e-10), (0, 1e-30), (2, 1e30)])
def test_the_unit_of_weights_does_not_matter(unit, n_draws):
    X = sparse_table()
    weights = X.copy()
    weights.data = np.where(np.arange(X.nnz) % 3, 1.0, 2.0)
    model = MaskedGradientMF(6, n_draws=n_draws, random_state=0)
    expected, filled = (
        model.inverse_transform(model.fit_transform(X, entry_weight=each))
        for each in (weights, unit * weights)
    )
    assert_allclose(filled, expected, rtol=1e-7, atol=1e-7)
