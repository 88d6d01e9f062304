"""Sparse data whose stored entries have weights and whose other entries are zeros."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from sklearn_mfgd import DivergenceError, GradientMF
from sklearn_mfgd._data.matrix import matrix_of
from sklearn_mfgd._data.observed import observe
from sklearn_mfgd._data.units import Units
from sklearn_mfgd._kernels.numpy_kernels import regressors
from sklearn_mfgd._optim.objective import objective_of
from sklearn_mfgd._optim.steps import STEPS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

CSR = sparse.csr_array
BIASES = [(False, False), (True, False), (False, True), (True, True)]
FIT_BIAS = [False, "columns", True]

# Weights of stored entries, by what they do to the system of zeros.
WEIGHTS = {
    "above one": (1.1, 40.0),
    "about one": (0.5, 1.5),
    "below one": (0.1, 0.9),
    "down to zero": (-1.0, 2.0),  # what is negative becomes 0
}


class Clicks:
    """Stored values and weights, and the same as dense arrays."""

    def __init__(self, m=25, n=18, share=0.2, weights="above one", seed=0, dtype=float):
        rng = np.random.RandomState(seed)
        stored = rng.uniform(size=(m, n)) < share
        stored[0], stored[1] = False, True
        low, high = WEIGHTS[weights]
        values = rng.normal(1, 1, (m, n)).astype(dtype)
        weights = np.maximum(rng.uniform(low, high, (m, n)), 0).astype(dtype)
        if low < 1 < high:
            weights[2:5] = np.where(weights[2:5] > 0, 1, 0)
        places = np.nonzero(stored)
        self.X = CSR((values[places], places), (m, n))
        self.weights = CSR((weights[places], places), (m, n))
        self.dense = np.where(stored, values, 0)
        self.dense_weights = np.where(stored, weights, 1).astype(dtype)

    def objective(self, biases, mean=0.3):
        observed = observe(self.X, None, self.weights, unstored_is_zero=True)
        return objective_of(matrix_of(observed, Units(), mean=mean), biases)


class Case(Clicks):
    """An objective and factors, with sums over a dense matrix as a reference."""

    def __init__(self, biases, side="rows", rank=5, seed=0, **given):
        super().__init__(seed=seed, **given)
        rng, self.mean = np.random.RandomState(seed + 1), 0.3
        self.objective = self.objective(biases, self.mean)
        if side == "columns":
            self.objective, biases = self.objective.T, biases[::-1]
            self.dense, self.dense_weights = self.dense.T, self.dense_weights.T
        m, n = self.dense.shape
        self.W = rng.normal(size=(m, rank + biases[0]))
        self.H = rng.normal(size=(n, rank + biases[1]))
        self.design, offset = regressors(self.H, *biases)
        self.targets = self.dense - self.mean - offset

    def value(self, W):
        errors = W @ self.design.T - self.targets
        return 0.5 * np.sum(self.dense_weights * errors**2)


def solved(design, targets, weights, ridge):
    """The solution of least norm, by a singular value decomposition."""
    roots = np.sqrt(np.append(weights, ridge))
    A = np.vstack([design, np.eye(len(ridge))]) * roots[:, None]
    b = np.append(targets, np.zeros(len(ridge))) * roots
    return np.linalg.lstsq(A, b, rcond=1e-10)[0]


@pytest.fixture(params=["rows", "columns"])
def side(request):
    return request.param


# The objective


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("biases", BIASES, ids=str)
def test_the_value_is_that_of_the_dense_matrix_and_the_gradient_its_derivative(
    side, biases, weights
):
    case = Case(biases, side, m=9, n=8, rank=2, weights=weights)
    value, gradient = case.objective.value_and_gradient(case.W, case.H)
    assert value == pytest.approx(case.value(case.W), rel=1e-12)
    assert case.objective.value(case.W, case.H) == pytest.approx(value, rel=1e-12)
    for index in np.ndindex(case.W.shape):
        shift = np.zeros_like(case.W)
        shift[index] = 1e-5
        difference = case.value(case.W + shift) - case.value(case.W - shift)
        assert gradient[index] == pytest.approx(difference / 2e-5, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("biases", BIASES, ids=str)
def test_the_curvature_is_that_of_the_dense_matrix(side, biases):
    case = Case(biases, side, weights="down to zero")
    expected = case.dense_weights * (case.W @ case.design.T) ** 2
    found = case.objective.curvature(case.W, case.H)
    assert_allclose(found, expected.sum(axis=1), rtol=1e-10)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_gram_matrix_bounds_the_system_of_every_row(side, weights):
    case = Case((True, True), side, weights=weights)
    gram = case.objective.gram(case.H)
    for weights in case.dense_weights:
        system = (case.design.T * weights) @ case.design
        assert np.linalg.eigvalsh(gram - system).min() > -1e-9


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    biases=st.sampled_from(BIASES),
    side=st.sampled_from(["rows", "columns"]),
    weights=st.sampled_from(list(WEIGHTS)),
    share=st.sampled_from([0.05, 0.3, 0.6]),
    rank=st.sampled_from([1, 5, 13]),
    ridge=st.sampled_from([0.01, 1.0, 100.0]),
)
def test_every_row_attains_the_minimum_of_the_dense_problem(
    seed, biases, side, weights, share, rank, ridge
):
    case = Case(biases, side, rank, weights=weights, share=share, seed=seed)
    ridge = ridge * np.arange(1, case.W.shape[1] + 1)
    found = case.objective.least_squares(case.H, ridge)
    for i, w in enumerate(found):
        problem = case.design, case.targets[i], case.dense_weights[i], ridge
        assert_allclose(w, solved(*problem), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("biases", BIASES, ids=str)
def test_rows_with_a_single_entry_attain_the_minimum_of_the_dense_problem(biases):
    case = Case(biases, m=400, n=9, share=0.1, weights="about one", rank=3)
    counts = np.diff(case.objective.stored.rows.indptr)
    assert np.count_nonzero(counts == 1) > 10 * 9
    ridge = np.full(case.W.shape[1], 0.2)
    found = case.objective.least_squares(case.H, ridge)
    for i, w in enumerate(found):
        problem = case.design, case.targets[i], case.dense_weights[i], ridge
        assert_allclose(w, solved(*problem), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("seed", [0, 1, 8, 17])  # rounding of either sign
def test_rows_have_the_solution_of_least_norm_where_factors_are_collinear(
    weights, seed
):
    case = Case((True, False), weights=weights, seed=seed)
    case.H[:, 3] = case.H[:, 0] - case.H[:, 1]
    case.design[:, :-1] = case.H
    found = case.objective.least_squares(case.H, np.zeros(6))
    for i, w in enumerate(found):
        problem = case.design, case.targets[i], case.dense_weights[i], np.zeros(6)
        assert_allclose(w, solved(*problem), rtol=1e-7, atol=1e-8)


def test_rows_that_miss_the_largest_factors_keep_the_digits_of_the_others():
    case, missing = Case((False, False), n=30), np.arange(30) < 20
    case.H[missing] *= 1e8
    X = CSR((np.ones(20), (np.zeros(20, int), np.flatnonzero(missing))), (1, 30))
    observed = observe(X, None, 0 * X, unstored_is_zero=True)
    objective = objective_of(matrix_of(observed, Units(), mean=0.5), (False, False))
    found = objective.least_squares(case.H, np.full(5, 0.1))
    expected = solved(case.H[20:], np.full(10, -0.5), np.ones(10), np.full(5, 0.1))
    assert_allclose(found[0], expected, rtol=1e-8)


@pytest.mark.parametrize("ridge", [0.0, 1e-9, 0.1])
def test_rows_that_miss_what_a_factor_acts_on_are_solved_without_it(ridge):
    case = Case((False, False), n=60, rank=4, share=0.05)
    case.H[:, 0] = 0
    case.H[:3, 0] = 5
    stored = np.zeros((1, 60))
    stored[0, :3] = 1
    X = CSR(stored)
    weights = X.copy()
    weights.data[:] = 0
    observed = observe(X, None, weights, unstored_is_zero=True)
    objective = objective_of(matrix_of(observed, Units(), mean=0.5), (False, False))
    found = objective.least_squares(case.H, np.full(4, ridge))
    expected = solved(case.H[3:, 1:], np.full(57, -0.5), np.ones(57), np.full(3, ridge))
    assert_allclose(found[0, 1:], expected, rtol=1e-7)
    assert abs(found[0, 0]) < 1e-5


def test_a_row_of_which_every_entry_is_missing_is_zero():
    X = CSR(np.ones((2, 30)))
    weights = X.copy()
    weights.data[:30] = 0
    observed = observe(X, None, weights, unstored_is_zero=True)
    objective = objective_of(matrix_of(observed, Units(), mean=0.5), (True, False))
    H = np.random.RandomState(0).normal(size=(30, 3))
    found = objective.least_squares(H, np.zeros(4))
    assert_array_equal(found[0], np.zeros(4))
    assert np.abs(found[1]).max() > 0


# The estimator beside the one of dense data


def fitted_pair(clicks, **params):
    """The same fit of sparse and of dense data, from the same factors."""
    rng, (m, n) = np.random.RandomState(2), clicks.X.shape
    init = rng.normal(size=(m, 4)), rng.normal(size=(n, 4))
    params = {"init": init, "max_iter": 6, "tol": 0, "reg": 0.5} | params
    return (
        GradientMF(4, **params).fit(X, entry_weight=weights)
        for X, weights in (
            (clicks.X, clicks.weights),
            (clicks.dense, clicks.dense_weights),
        )
    )


@pytest.mark.parametrize("solver", STEPS)
@pytest.mark.parametrize("fit_bias", FIT_BIAS)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_every_sweep_is_that_of_the_dense_matrix(solver, fit_bias, weights):
    clicks = Clicks(weights=weights)
    sparse_fit, dense_fit = fitted_pair(clicks, solver=solver, fit_bias=fit_bias)
    assert_allclose(sparse_fit.loss_curve_, dense_fit.loss_curve_, rtol=1e-8)
    for name in ("components_", "column_bias_", "mean_", "column_mean_"):
        found, expected = (getattr(fit, name) for fit in (sparse_fit, dense_fit))
        assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    assert sparse_fit.reconstruction_err_ == pytest.approx(
        dense_fit.reconstruction_err_
    )


@pytest.mark.parametrize("solver", STEPS)
def test_a_step_that_is_too_long_diverges_and_the_one_named_instead_does_not(solver):
    clicks, params = Clicks(), {"solver": solver, "reg": 0.1, "max_iter": 30}
    with pytest.raises(DivergenceError) as error:
        GradientMF(3, eta=30.0, **params).fit(clicks.X, entry_weight=clicks.weights)
    model = GradientMF(3, eta=error.value.stable_eta, **params)
    curve = model.fit(clicks.X, entry_weight=clicks.weights).loss_curve_
    assert curve[-1] < curve[0]


@pytest.mark.parametrize("fit_bias", FIT_BIAS)
def test_new_rows_fold_in_as_those_of_the_dense_matrix(fit_bias):
    sparse_fit, dense_fit = fitted_pair(Clicks(), fit_bias=fit_bias)
    new = Clicks(m=7, seed=5, weights="down to zero")
    found = sparse_fit.transform(new.X, entry_weight=new.weights)
    expected = dense_fit.transform(new.dense, entry_weight=new.dense_weights)
    assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_transform_returns_the_factors_that_fit_transform_returns():
    clicks, model = Clicks(), GradientMF(3, reg=0.5, fit_bias=True)
    Z = model.fit_transform(clicks.X, entry_weight=clicks.weights)
    assert_array_equal(model.transform(clicks.X, entry_weight=clicks.weights), Z)


def test_new_columns_fold_in_as_those_of_the_dense_matrix():
    clicks, new = Clicks(), Clicks(n=5, seed=3)
    fits = list(fitted_pair(clicks, fit_bias=True))
    Z = fits[1].transform(clicks.dense, entry_weight=clicks.dense_weights)
    fits[0].fold_in_columns(new.X, Z, entry_weight=new.weights)
    fits[1].fold_in_columns(new.dense, Z, entry_weight=new.dense_weights)
    assert_allclose(fits[0].components_, fits[1].components_, rtol=1e-6, atol=1e-8)
    assert_allclose(fits[0].column_mean_, fits[1].column_mean_)


@pytest.mark.parametrize("fit_bias", FIT_BIAS)
def test_the_score_is_that_of_the_dense_matrix(fit_bias):
    sparse_fit, dense_fit = fitted_pair(Clicks(), fit_bias=fit_bias)
    new = Clicks(m=9, seed=4)
    found = sparse_fit.score(new.X, entry_weight=new.weights)
    expected = dense_fit.score(new.dense, entry_weight=new.dense_weights)
    assert found == pytest.approx(expected, rel=1e-6)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    weights=st.sampled_from(list(WEIGHTS)),
    solver=st.sampled_from(list(STEPS)),
    init=st.sampled_from(["svd", "random"]),
    fit_bias=st.sampled_from(FIT_BIAS),
)
def test_the_objective_never_rises(seed, weights, solver, init, fit_bias):
    clicks = Clicks(seed=seed, weights=weights)
    params = {"solver": solver, "init": init, "fit_bias": fit_bias, "random_state": 0}
    model = GradientMF(3, reg=0.1, tol=0, max_iter=20, **params)
    curve = np.array(model.fit(clicks.X, entry_weight=clicks.weights).loss_curve_)
    assert (np.diff(curve) <= 1e-9 * curve[0]).all()


def test_single_precision_agrees_with_double_precision():
    single, double = Clicks(dtype=np.float32), Clicks()
    found, _ = fitted_pair(single)
    expected, _ = fitted_pair(double)
    assert found.components_.dtype == np.float32
    assert_allclose(found.loss_curve_, expected.loss_curve_, rtol=1e-4)
    assert_allclose(found.components_, expected.components_, rtol=0.02, atol=0.01)


def test_weights_of_one_change_nothing():
    clicks = Clicks()
    clicks.weights.data[:] = 1
    params = {"rank": 3, "reg": 0.5, "solver": "als", "fit_bias": True}
    weighted = GradientMF(**params).fit(clicks.X, entry_weight=clicks.weights)
    plain = GradientMF(**params).fit(clicks.X)
    assert_allclose(weighted.loss_curve_, plain.loss_curve_, rtol=1e-8)
    assert_allclose(weighted.components_, plain.components_, rtol=1e-6, atol=1e-8)


def test_the_value_of_an_entry_of_weight_zero_does_not_matter():
    clicks, model = Clicks(weights="down to zero"), GradientMF(3, reg=0.5)
    expected = model.fit(clicks.X, entry_weight=clicks.weights).components_
    for value in (1e6, np.nan):
        clicks.X.data[clicks.weights.data == 0] = value
        found = model.fit(clicks.X, entry_weight=clicks.weights).components_
        assert_array_equal(found, expected)


def test_a_stored_nan_is_missing():
    clicks, model = Clicks(), GradientMF(3, reg=0.5)
    clicks.X.data[::7] = np.nan
    found = model.fit(clicks.X, entry_weight=clicks.weights).components_
    clicks.weights.data[::7] = 0
    expected = model.fit(clicks.X, entry_weight=clicks.weights).components_
    assert_array_equal(found, expected)


def test_what_those_of_the_same_taste_clicked_is_recommended():
    rng, (m, n) = np.random.RandomState(0), (60, 40)
    same_taste = (np.arange(m) % 4)[:, None] == np.arange(n) % 4
    counts = rng.poisson(1.5, (m, n)) * same_taste
    P = CSR(counts > 0, dtype=float)
    weights = 1 + 10 * CSR(counts, dtype=float).tocoo().data
    C = CSR((weights, P.tocoo().coords), P.shape)
    model = GradientMF(rank=4, reg=0.1, fit_bias=False).fit(P, entry_weight=C)
    columns, _ = model.recommend(model.transform(P, entry_weight=C), 1, exclude=P)
    has_more = (counts > 0).sum(axis=1) < same_taste.sum(axis=1)
    assert has_more.sum() > 40
    assert same_taste[has_more, columns[has_more, 0]].all()


def test_no_array_of_the_size_of_the_matrix_is_made():
    rng, shape = np.random.RandomState(0), (20_000, 30_000)
    places = np.unique(rng.randint(shape, size=(3000, 2)), axis=0).T
    X = CSR((np.ones(places.shape[1]), tuple(places)), shape)
    tracemalloc.start()
    try:
        GradientMF(2, reg=1.0, fit_bias=True, max_iter=2).fit(X, entry_weight=X)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 0.02 * 8 * shape[0] * shape[1]


# What is given


@pytest.mark.parametrize("container", [sparse.csr_array, sparse.csc_array])
def test_any_format_and_dense_weights_give_the_same_fit(container):
    clicks, model = Clicks(), GradientMF(3, reg=0.5)
    expected = model.fit(clicks.X, entry_weight=clicks.weights).components_
    for weights in (container(clicks.weights), clicks.dense_weights):
        found = model.fit(container(clicks.X), entry_weight=weights).components_
        assert_array_equal(found, expected)


@pytest.mark.parametrize("method", ["fit", "fit_transform", "transform", "score"])
def test_weights_of_what_is_not_stored_are_refused(method):
    clicks = Clicks()
    model = GradientMF(2, reg=0.5).fit(clicks.X, entry_weight=clicks.weights)
    clicks.dense_weights[0, 3] = 0.5
    with pytest.raises(ValueError, match=r"entry_weight is 0.5 at \(0, 3\).*X.toarray"):
        getattr(model, method)(clicks.X, entry_weight=clicks.dense_weights)
    fewer = clicks.weights.copy()
    fewer.data[0] = 0
    fewer.eliminate_zeros()
    with pytest.raises(ValueError, match="must store exactly the entries that X"):
        getattr(model, method)(clicks.X, entry_weight=fewer)


def test_a_mask_is_refused_with_a_way_out():
    clicks, mask = Clicks(), np.ones((25, 18), bool)
    with pytest.raises(ValueError, match=r"mask needs a dense X.*entry_weight that is"):
        GradientMF(2).fit(clicks.X, entry_weight=clicks.weights, mask=mask)


@pytest.mark.parametrize(
    "params, way_out",
    [
        ({"solver": "sgd"}, "solver='sgd'"),
        ({"early_stopping": True}, "early_stopping=True"),
        ({"reg": "auto"}, "a number for reg"),
    ],
    ids=str,
)
def test_what_visits_or_hides_single_entries_is_refused(params, way_out):
    clicks = Clicks()
    with pytest.raises(ValueError, match=way_out):
        GradientMF(2, **params).fit(clicks.X, entry_weight=clicks.weights)


def test_a_matrix_without_any_observed_entry_is_refused():
    X = CSR(np.ones((3, 2)))
    with pytest.raises(ValueError, match="every entry of X is missing"):
        GradientMF(1).fit(X, entry_weight=0 * X)
