"""Factors that must not be negative: parts of data, complete or not."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import nnls
from scipy.sparse import csr_array
from sklearn.datasets import load_digits
from sklearn.decomposition import NMF

from sklearn_mfgd import GradientMF, MaskedGradientMF

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SOLVERS = ["als", "gd", "scaled"]
SIDES = [True, "components"]

# A rise by this share is rounding, as in the tests of solvers.
ROUNDING = 1e-10


def planted_parts(m=60, n=30, rank=4, noise=0.1, share_missing=0.3, seed=0):
    """Mixtures of parts, half of which is zero; NaN is missing."""
    rng = np.random.RandomState(seed)
    W, H = (np.maximum(rng.standard_normal((k, rank)), 0) for k in (m, n))
    X = W @ H.T + noise * rng.standard_normal((m, n))
    X[rng.uniform(size=(m, n)) < share_missing] = np.nan
    return X


@pytest.fixture(scope="module")
def parts():
    return planted_parts()


def parts_of(X, rank=4, **options):
    return GradientMF(rank, **{"non_negative": True, "reg": 0.1, **options}).fit(X)


def rows_by_scipy(X, H, reg):
    """Solve each row by itself, from its observed entries."""
    rows = []
    for x in X:
        seen = ~np.isnan(x)
        design = np.vstack([H[seen], np.sqrt(reg) * np.eye(H.shape[1])])
        rows.append(nnls(design, np.append(x[seen], np.zeros(H.shape[1])))[0])
    return np.array(rows)


def assert_is_stationary(X, W, H, reg, tolerance, *, free_rows=False):
    """Check the conditions of Karush, Kuhn and Tucker of both sides."""
    errors = np.where(np.isnan(X), 0, W @ H.T - np.nan_to_num(X))
    gradients = (errors @ H + reg * W, W), (errors.T @ W + reg * H, H)
    largest = np.abs(np.nan_to_num(X).T @ W).max()
    for side, (gradient, factors) in enumerate(gradients):
        inside = (factors > 0) | (free_rows and side == 0)
        assert np.abs(gradient[inside]).max() < tolerance * largest
        assert gradient[~inside].min(initial=0) > -tolerance * largest


# What a fit finds


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("share_missing", [0.0, 0.3])
def test_every_solver_ends_where_both_sides_are_stationary(solver, share_missing):
    X = planted_parts(share_missing=share_missing)
    model = parts_of(X, solver=solver, tol=1e-12, max_iter=3000)
    W, H = model.transform(X), model.components_.T
    assert (W >= 0).all()
    assert (H >= 0).all()
    assert 0.1 < (H == 0).mean() < 0.9
    assert_is_stationary(X, W, H, 0.1, 1e-3 if solver == "gd" else 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
def test_components_alone_may_be_constrained(parts, solver):
    X = parts - 0.5
    options = {"non_negative": "components", "tol": 1e-12, "max_iter": 3000}
    model = parts_of(X, solver=solver, **options)
    W, H = model.transform(X), model.components_.T
    assert (H >= 0).all()
    assert (W < 0).any()
    assert_is_stationary(X, W, H, 0.1, 1e-3, free_rows=True)


@pytest.mark.slow
@given(
    solver=st.sampled_from(SOLVERS),
    sides=st.sampled_from(SIDES),
    reg=st.sampled_from([0.0, 0.1, 10.0]),
    init=st.sampled_from(["svd", "random"]),
    share_missing=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_the_objective_never_rises(solver, sides, reg, init, share_missing, seed):
    size = {"m": 12, "n": 9, "rank": 3, "noise": 1.0}
    X = planted_parts(**size, share_missing=share_missing, seed=seed)
    options = {"solver": solver, "reg": reg, "init": init, "random_state": 0}
    model = parts_of(X, 3, non_negative=sides, tol=0.0, max_iter=40, **options)
    curve = np.array(model.loss_curve_)
    assert (np.diff(curve) <= ROUNDING * curve[0]).all()


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("X", [planted_parts(), planted_parts(share_missing=0)])
def test_the_loss_curve_holds_the_objective(naive_objective, solver, X):
    """The row factors of the model are at least as good as those of the last sweep."""
    model = parts_of(X, solver=solver, max_iter=300, tol=1e-10)
    expected = naive_objective(model, X, model.transform(X))
    assert_allclose(model.loss_curve_[-1], expected, rtol=1e-5)


def test_auto_is_als(parts, assert_same_model):
    for X in (parts, np.nan_to_num(parts)):
        assert_same_model(parts_of(X), parts_of(X, solver="als"), X)


@pytest.mark.slow
def test_parts_without_noise_are_found():
    X = planted_parts(noise=0, share_missing=0.3)
    complete = planted_parts(noise=0, share_missing=0)
    model = parts_of(X, reg=1e-9, tol=1e-10, max_iter=1000)
    Z = model.transform(X)
    error = model.inverse_transform(Z) - complete
    assert np.sqrt(np.mean(error**2)) < 1e-3 * complete.std()


@pytest.mark.parametrize("rank", [5, 12])
def test_complete_data_are_fitted_as_well_as_by_scikit_learn(rank):
    X = planted_parts(150, 60, 8, share_missing=0).clip(0)
    best = np.inf
    for init in ("nndsvda", "random"):
        nmf = NMF(rank, init=init, random_state=0, max_iter=1000, tol=1e-6).fit(X)
        best = min(best, nmf.reconstruction_err_)
    model = parts_of(X, rank, reg=0.0, tol=1e-6)
    assert model.reconstruction_err_**2 <= 1.005 * best**2


@pytest.mark.slow
@pytest.mark.parametrize("rank", [10, 16])
def test_digits_are_fitted_as_well_as_by_scikit_learn(rank):
    X, best = load_digits().data, np.inf
    for init, seed in (("nndsvda", 0), ("random", 0), ("random", 1)):
        nmf = NMF(rank, init=init, random_state=seed, max_iter=1000, tol=1e-6).fit(X)
        best = min(best, nmf.reconstruction_err_)
    model = parts_of(X, rank, reg=0.0, tol=1e-6)
    assert model.reconstruction_err_**2 <= 1.005 * best**2


def test_other_data_than_non_negative_ones_are_taken(parts):
    """Negative values cost what zeros leave of them."""
    model = parts_of(-np.abs(parts))
    assert_array_equal(model.transform(-np.abs(parts)) @ model.components_, 0)


# Rows and columns that come later


def test_the_factors_of_rows_are_those_of_each_row_by_itself(parts):
    model = parts_of(parts)
    expected = rows_by_scipy(parts, model.components_.T, 0.1)
    assert_allclose(model.transform(parts), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("sides", SIDES)
def test_transform_repeats_fit_transform(parts, sides):
    model = GradientMF(4, non_negative=sides, reg=0.1)
    Z = model.fit_transform(parts)
    assert_array_equal(model.transform(parts), Z)
    assert_array_equal(model.transform(parts[7:9]), Z[7:9])


@pytest.mark.parametrize("sides", SIDES)
def test_new_columns_are_those_of_each_column_by_itself(parts, sides):
    model = parts_of(parts[:, :25], non_negative=sides)
    Z = model.transform(parts[:, :25])
    model.fold_in_columns(parts[:, 25:], Z)
    expected = rows_by_scipy(parts[:, 25:].T, Z, 0.1)
    found = model.components_.T[25:]
    assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


def test_rows_and_columns_without_entries_are_zero(parts):
    X = parts.copy()
    X[3], X[:, 5] = np.nan, np.nan
    model = GradientMF(4, non_negative=True)
    assert_array_equal(model.fit_transform(X)[3], 0)
    assert_array_equal(model.components_[:, 5], 0)


# How data are given


def test_missing_values_may_be_given_in_any_way(parts):
    mask = ~np.isnan(parts)
    expected = parts_of(parts)
    by_mask = GradientMF(4, non_negative=True, reg=0.1)
    by_mask.fit(np.where(mask, parts, 7.0), mask=mask)
    options = {"non_negative": True, "reg": 0.1, "fit_bias": False, "tol": 1e-4}
    stored = csr_array((parts[mask], np.nonzero(mask)), shape=parts.shape)
    for model in (by_mask, MaskedGradientMF(4, **options).fit(stored)):
        assert_array_equal(model.components_, expected.components_)
        assert_array_equal(model.loss_curve_, expected.loss_curve_)


def test_zeros_that_are_not_stored_are_zeros(parts):
    X = np.where(parts > 0.5, parts, 0)
    sparse, dense = parts_of(csr_array(X), tol=1e-9), parts_of(X, tol=1e-9)
    assert_allclose(sparse.components_, dense.components_, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
def test_weights_may_come_with_zeros_that_are_not_stored(parts, solver):
    """These have a weight of 1."""
    X = np.where(parts > 0.5, parts, 0)
    weights = np.where(X > 0, np.linspace(0.2, 5, X.size).reshape(X.shape), 1)
    stored = csr_array(X)
    given = csr_array((weights[X > 0], stored.indices, stored.indptr), X.shape)
    start = np.random.RandomState(0)
    start = start.uniform(size=(60, 4)), start.uniform(size=(30, 4))
    options = {"non_negative": True, "solver": solver, "init": start, "max_iter": 10}
    sparse = GradientMF(4, **options).fit(stored, entry_weight=given)
    dense = GradientMF(4, **options).fit(X, entry_weight=weights)
    assert_allclose(sparse.components_, dense.components_, rtol=1e-6, atol=1e-7)
    Z = sparse.transform(stored, entry_weight=given)
    expected = dense.transform(X, entry_weight=weights)
    assert_allclose(Z, expected, rtol=1e-6, atol=1e-7)


def test_whole_weights_repeat_rows_and_zero_leaves_entries_out(parts):
    weights = np.repeat(np.arange(len(parts)) % 2 + 1.0, parts.shape[1])
    weights = weights.reshape(parts.shape)
    X = np.where(np.isnan(parts), 3.0, parts)
    start = np.random.RandomState(0).uniform(size=(60, 4)), np.ones((30, 4))
    options = {"reg": 0.0, "tol": 1e-6}
    model = GradientMF(4, non_negative=True, init=start, **options)
    model.fit(X, entry_weight=weights * ~np.isnan(parts))
    repeated = [
        np.repeat(A, weights[:, 0].astype(int), axis=0) for A in (parts, start[0])
    ]
    again = parts_of(repeated[0], init=(repeated[1], start[1]), **options)
    assert_allclose(model.components_, again.components_, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS)
def test_units_of_the_data_do_not_matter(parts, solver):
    """With a ridge in these units; powers of 16 leave factors with a power of 4."""
    expected = parts_of(parts, solver=solver, max_iter=20)
    for power in (-8, 8):
        unit = 16.0**power
        model = parts_of(unit * parts, solver=solver, max_iter=20, reg=0.1 * unit)
        factor = 4.0**power
        assert_array_equal(model.components_, factor * expected.components_)


def test_single_precision_stays_single_and_agrees(parts):
    for X in (parts, np.nan_to_num(parts)):
        single = parts_of(X.astype(np.float32), max_iter=10)
        double = parts_of(X, max_iter=10)
        assert single.components_.dtype == np.float32
        assert_allclose(single.components_, double.components_, atol=2e-3)


def test_any_number_of_threads_gives_the_same_bits(monkeypatch, parts):
    monkeypatch.setattr("sklearn_mfgd._kernels.dispatch.OPERATIONS", 1e4)
    found = []
    for n_threads in ("1", "2", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", n_threads)
        found.append(parts_of(parts).components_)
    for components in found[1:]:
        assert_array_equal(components, found[0])


# Starts


@pytest.mark.parametrize("solver", SOLVERS)
def test_given_factors_are_where_a_fit_starts(parts, solver):
    """One that has converged stays there."""
    first = parts_of(parts, tol=1e-13, max_iter=5000)
    start = first.transform(parts), first.components_.T
    again = parts_of(parts, solver=solver, init=start, tol=1e-6)
    assert_allclose(again.components_, first.components_, atol=1e-4)
    assert again.n_iter_ <= 3


def test_random_factors_depend_on_the_seed_alone(parts):
    found = [
        parts_of(parts, init="random", random_state=seed, max_iter=2).components_
        for seed in (0, 0, 1)
    ]
    assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()


def test_random_factors_begin_within_the_bounds(parts):
    """None of them is at a bound, where a tiny step would leave it."""
    options = {"solver": "gd", "eta": 1e-12, "max_iter": 1}
    assert (parts_of(parts, init="random", **options).components_ > 0).all()


def test_a_warm_start_goes_on_from_the_last_fit(parts):
    cold = parts_of(parts, tol=1e-8, max_iter=2000)
    model = parts_of(parts, tol=1e-8, max_iter=2000, warm_start=True).fit(parts)
    assert model.n_iter_ < 0.5 * cold.n_iter_
    assert_allclose(model.loss_curve_[-1], cold.loss_curve_[-1], rtol=1e-6)


def test_a_rank_beyond_the_sides_of_the_data_is_no_obstacle():
    X = planted_parts(8, 5, 2, share_missing=0)
    wide = parts_of(X, 7, reg=0.0, tol=1e-8)
    assert wide.components_.shape == (7, 5)
    assert wide.loss_curve_[-1] <= parts_of(X, 3, reg=0.0, tol=1e-8).loss_curve_[-1]


# What goes with it


def test_early_stopping_keeps_the_factors_of_least_error(parts):
    model = parts_of(parts, 12, reg=0.0, early_stopping=True, random_state=0)
    assert (model.components_ >= 0).all()
    assert len(model.validation_curve_) == model.n_iter_


@pytest.mark.parametrize("solver", SOLVERS)
def test_fixed_steps_stay_within_the_bounds(parts, solver):
    eta = 1e-3 if solver == "gd" else 0.5
    model = parts_of(parts, solver=solver, eta=eta, max_iter=30)
    assert (model.components_ >= 0).all()
    assert model.loss_curve_[-1] < model.loss_curve_[0]


def test_files_keep_the_constraint(parts):
    model = parts_of(parts)
    again = pickle.loads(pickle.dumps(model))
    assert_array_equal(again.transform(parts), model.transform(parts))
    assert (again.transform(-parts) >= 0).all()


@pytest.mark.parametrize("loss", ["huber", "logistic", "poisson"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_any_loss_goes_with_the_constraint(loss, solver):
    """Predictions are logits, logarithms of rates or values; these are not negative."""
    signal = planted_parts(30, 20)
    rates = np.exp(np.nan_to_num(signal).clip(0, 2))
    counts = np.random.RandomState(0).poisson(rates).astype(float)
    X = np.where(np.isnan(signal), np.nan, counts)
    X = np.minimum(X, 1) if loss == "logistic" else X
    model = GradientMF(3, non_negative=True, reg=0.5, solver=solver, loss=loss)
    Z = model.fit_transform(X)
    assert (Z >= 0).all()
    assert (model.components_ >= 0).all()
    assert_array_equal(model.transform(X), Z)
    curve = np.array(model.loss_curve_)
    assert len(curve) > 2
    assert (np.diff(curve) <= 1e-9 * np.abs(curve[0])).all()


REFUSED = [
    (MaskedGradientMF, {}, "use reg=1.0 and fit_bias=False"),
    (MaskedGradientMF, {"reg": 2.0}, "use fit_bias=False; got reg=2.0"),
    (MaskedGradientMF, {"fit_bias": False}, "use reg=1.0; got reg='auto'"),
    (GradientMF, {"fit_bias": "columns"}, "use fit_bias=False"),
    (GradientMF, {"solver": "sgd"}, "does not work with solver='sgd'"),
]


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize(("estimator", "options", "message"), REFUSED)
def test_what_may_have_either_sign_is_refused(
    parts, estimator, options, message, sides
):
    with pytest.raises(ValueError, match=f"non_negative={sides!r}.*{message}"):
        estimator(non_negative=sides, **options).fit(parts)


def test_other_values_are_refused(parts):
    with pytest.raises(ValueError, match="'non_negative' parameter"):
        parts_of(parts, non_negative="rows")


def test_negative_starts_are_refused_by_their_place(parts):
    W, H = np.ones((60, 4)), np.ones((30, 4))
    for negative, name in ((W, "W0"), (H, "H0")):
        negative[7, 2] = -0.5
        with pytest.raises(ValueError, match=rf"init: {name} .*\[7, 2\] is -0.5"):
            parts_of(parts, init=(W, H))
        negative[7, 2] = 1
    W[7, 2] = -0.5
    parts_of(parts, init=(W, H), non_negative="components", max_iter=1)


def test_a_warm_start_from_factors_of_either_sign_is_refused(parts):
    model = GradientMF(4, warm_start=True, reg=0.1).fit(parts)
    with pytest.raises(ValueError, match="warm_start=True continues from components_"):
        model.set_params(non_negative=True).fit(parts)


def test_a_collection_of_dask_is_refused(parts):
    pytest.importorskip("distributed")
    from sklearn_mfgd.dask import MaskedGradientMF as DaskMF

    model = DaskMF(4, reg=1.0, fit_bias=False, non_negative=True)
    with pytest.raises(ValueError, match="non_negative=True does not work with Dask"):
        model.fit([parts])
