"""Losses other than squared error: by themselves, in F, and in the evidence bound."""

import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize, sparse, special, stats
from sklearn.base import clone

from sklearn_mfgd import GradientMF, MaskedGradientMF
from sklearn_mfgd._bayes.working import working_rows
from sklearn_mfgd._data.matrix import ObservedMatrix
from sklearn_mfgd._data.observed import rows_of
from sklearn_mfgd._kernels import dispatch, threads
from sklearn_mfgd._kernels.rows import Biases
from sklearn_mfgd._optim.column_losses import ColumnLosses
from sklearn_mfgd._optim.loss_model import RidgeLossModel
from sklearn_mfgd._optim.losses import Huber, Logistic, Poisson, Squared, StudentT
from sklearn_mfgd._optim.ridge_model import RidgeModel

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.usefixtures("one_thread"),
]

# Losses of a number for reg, and losses of reg="auto".
WITH_RIDGE = ["huber", "logistic", "poisson"]
LEARNED = ["student_t", "logistic", "poisson"]
SOLVERS = ["als", "scaled", "gd", "sgd"]


def values_of(loss, eta, rng):
    """Sample values whose predictions are eta."""
    if loss == "logistic":
        return (rng.uniform(size=eta.shape) < special.expit(eta)).astype(float)
    if loss == "poisson":
        return rng.poisson(np.exp(eta)).astype(float)
    noise = 0.1 * rng.standard_t(3 if loss != "squared" else 1e6, eta.shape)
    return eta + noise


@pytest.fixture(scope="module")
def planted_loss():
    """Return ``planted_loss(loss, m, n, ...)``: X with NaN, complete, predictions."""

    def make(loss, m=40, n=10, *, rank=2, size=1.0, share_missing=0.2, seed=0):
        rng = np.random.RandomState(seed)
        eta = rng.standard_normal((m, rank)) @ rng.standard_normal((rank, n))
        eta *= size / np.sqrt(rank)
        complete = values_of(loss, eta, rng)
        missing = rng.uniform(size=(m, n)) < share_missing
        return np.where(missing, np.nan, complete), complete, eta

    return make


# Each loss by itself

finite = st.floats(-6, 6)
variances = st.floats(0, 4)


@st.composite
def losses_and_values(draw, kinds=("squared", "student_t", "logistic", "poisson")):
    """A loss, a value that it takes, and the precision of its noise."""
    name = draw(st.sampled_from(kinds))
    if name == "logistic":
        return Logistic(), float(draw(st.integers(0, 1))), 1.0
    if name == "poisson":
        return Poisson(), float(draw(st.integers(0, 30))), 1.0
    kind = {
        "squared": Squared(),
        "student_t": StudentT(draw(st.floats(1, 100))),
        "huber": Huber(draw(st.floats(0.1, 5))),
    }[name]
    return kind, draw(finite), draw(st.floats(0.1, 10)) if name != "huber" else 1.0


def log_likelihood(kind, x, p, precision):
    """What SciPy says of a value given its prediction."""
    scale = 1 / np.sqrt(precision)
    if isinstance(kind, Logistic):
        return stats.bernoulli.logpmf(x, special.expit(p))
    if isinstance(kind, Poisson):
        return stats.poisson.logpmf(x, np.exp(p))
    if isinstance(kind, StudentT):
        return stats.t.logpdf(x, kind.dof, p, scale)
    return stats.norm.logpdf(x, p, scale)


def arrays(*values):
    return [np.array([value]) for value in values]


def slope(function, at, step=1e-5):
    return (function(at + step) - function(at - step)) / (2 * step)


class TestLoss:
    @given(losses_and_values(), finite)
    def test_is_minus_the_log_likelihood_over_the_precision(self, given_loss, p):
        """Up to what makes that of a perfect prediction zero."""
        kind, x, precision = given_loss
        best = 0.0
        if isinstance(kind, Poisson) and x > 0:
            best = stats.poisson.logpmf(x, x)
        elif not isinstance(kind, Logistic | Poisson):
            best = log_likelihood(kind, x, x, precision)
        expected = (best - log_likelihood(kind, x, p, precision)) / precision
        found = kind.value(*arrays(x, p, precision))
        assert_allclose(found, expected, rtol=1e-8, atol=1e-10)

    @given(st.floats(0.1, 5), finite, finite)
    def test_of_huber_is_that_of_scipy(self, threshold, x, p):
        found = Huber(threshold).value(*arrays(x, p, 1.0))
        expected = special.huber(threshold, x - p)
        assert_allclose(found, expected, rtol=1e-12, atol=1e-15)

    def test_of_huber_without_a_threshold_is_squared_error(self):
        x, p = np.array([0.0, 1.0, 5.0]), np.zeros(3)
        assert_array_equal(Huber().value(x, p, None), x**2 / 2)
        assert_array_equal(Huber().working(x, p, None, None)[1], np.ones(3))

    @given(
        losses_and_values(("squared", "student_t", "huber", "logistic", "poisson")),
        finite,
    )
    def test_has_the_slope_of_its_quadratic(self, given_loss, m):
        kind, x, precision = given_loss
        y, weight = kind.working(*arrays(x, m, 0.0, precision))
        found = slope(lambda p: kind.value(*arrays(x, p, precision))[0], m)
        assert_allclose(weight * (m - y), found, rtol=1e-4, atol=1e-5)

    @given(
        losses_and_values(("squared", "student_t", "huber", "logistic")), finite, finite
    )
    def test_lies_below_its_quadratic_everywhere(self, given_loss, m, p):
        kind, x, precision = given_loss
        assert kind.is_bound
        y, weight = kind.working(*arrays(x, m, 0.0, precision))
        quadratic = kind.value(*arrays(x, m, precision))
        quadratic += weight / 2 * ((y - p) ** 2 - (y - m) ** 2)
        assert kind.value(*arrays(x, p, precision)) <= quadratic + 1e-9

    @given(st.integers(0, 20), st.floats(-5, 4))
    def test_of_counts_has_the_curvature_of_its_quadratic(self, x, m):
        kind, gap = Poisson(), 1e-3
        weight = kind.working(*arrays(float(x), m, 0.0, 1.0))[1]
        at = [kind.value(*arrays(float(x), m + k * gap, 1.0)) for k in (-1, 0, 1)]
        curvature = (at[0] - 2 * at[1] + at[2]) / gap**2
        assert_allclose(weight, curvature, rtol=1e-4, atol=1e-6)

    @given(st.sampled_from([0.0, 1.0]), st.integers(0, 40))
    def test_refuses_nothing_that_it_has_a_likelihood_for(self, bit, count):
        assert not Logistic().outside(np.array([bit])).any()
        assert not Poisson().outside(np.array([float(count)])).any()
        assert Logistic().outside(np.array([0.5, -1.0, 2.0])).all()
        assert Poisson().outside(np.array([-1.0, -1e-9])).all()


class TestExpectedLogLikelihood:
    @given(losses_and_values(), finite)
    def test_of_a_certain_prediction_is_the_log_likelihood(self, given_loss, m):
        kind, x, precision = given_loss
        found = kind.expected(*arrays(x, m, 0.0, precision))
        expected = log_likelihood(kind, x, m, precision)
        assert_allclose(found, expected, rtol=1e-8, atol=1e-8)

    @given(losses_and_values(), finite, st.floats(0.01, 2))
    def test_is_no_more_than_the_true_one(self, given_loss, m, v):
        """By Gauss-Hermite quadrature; those of normal and count data are exact."""
        kind, x, precision = given_loss
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        p = m + np.sqrt(v) * nodes
        true = log_likelihood(kind, x, p, precision) @ weights / weights.sum()
        found = kind.expected(*arrays(x, m, v, precision))[0]
        assert found <= true + 1e-3 * (1 + abs(true))
        if isinstance(kind, Squared | Poisson):
            assert_allclose(found, true, rtol=1e-6, atol=1e-6)

    @given(losses_and_values(), finite, st.floats(0.1, 4))
    def test_has_the_slopes_of_its_quadratic(self, given_loss, m, v):
        """In the mean and in the variance of the prediction."""
        kind, x, precision = given_loss
        y, weight = kind.working(*arrays(x, m, v, precision))

        def expected(m, v):
            return kind.expected(*arrays(x, m, v, precision))[0]

        in_mean = slope(lambda m: expected(m, v), m)
        in_variance = slope(lambda v: expected(m, v), v)
        close = partial(assert_allclose, rtol=1e-4, atol=1e-4)
        close(precision * weight * (y - m), in_mean)
        close(-precision * weight / 2, in_variance)

    @given(
        losses_and_values(("squared", "student_t", "logistic")),
        st.tuples(finite, variances),
        st.tuples(finite, variances),
    )
    def test_is_no_less_than_that_of_any_quadratic(self, given_loss, about, at):
        kind, x, precision = given_loss
        (m, v), (other_m, other_v) = about, at
        y, weight = kind.working(*arrays(x, m, v, precision))
        rise = (y - other_m) ** 2 + other_v - (y - m) ** 2 - v
        bound = kind.expected(*arrays(x, m, v, precision))
        bound -= precision * weight / 2 * rise
        found = kind.expected(*arrays(x, other_m, other_v, precision))
        assert found >= bound - 1e-6 * (1 + np.abs(bound))


class TestWhatALossLearns:
    @pytest.mark.parametrize(("dof", "low", "high"), [(2, 1.0, 4.1), (1e6, 60, 512)])
    def test_degrees_of_freedom_end_near_those_of_the_noise(self, dof, low, high):
        x = np.random.RandomState(0).standard_t(dof, 3000)
        kind, constants = StudentT(), (np.zeros_like(x), np.zeros_like(x))
        for _ in range(20):
            kind = kind.learned(x, *constants, np.ones_like(x))
        assert low <= kind.dof <= high

    def test_the_threshold_is_that_of_normal_noise_and_never_grows(self):
        x = 3.0 * np.random.RandomState(0).standard_normal(100_000)
        given_x = x, np.zeros_like(x), None, None
        assert_allclose(Huber().learned(*given_x).threshold, 1.345 * 3, rtol=0.02)
        assert Huber(0.5).learned(*given_x).threshold == 0.5

    def test_the_threshold_stays_where_most_values_are_fitted_exactly(self):
        x = np.array([0.0, 0.0, 0.0, 5.0])
        assert Huber(2.0).learned(x, np.zeros(4), None, None).threshold == 2.0


class TestObservationsOfALoss:
    """Means, variances, quantiles and samples given a certain prediction."""

    KINDS = {
        "squared": (Squared(), lambda p: stats.norm(p, 0.5)),
        "student_t": (StudentT(5.0), lambda p: stats.t(5.0, p, 0.5)),
        "logistic": (Logistic(), lambda p: stats.bernoulli(special.expit(p))),
        "poisson": (Poisson(), lambda p: stats.poisson(np.exp(p))),
    }

    @pytest.mark.parametrize("name", KINDS)
    def test_samples_have_the_distribution_of_an_observation(self, name):
        kind, distribution = self.KINDS[name]
        n, p = 20_000, 0.7
        rng = np.random.RandomState(0)
        found = kind.sample(np.full(n, p), np.full(n, 4.0), rng)
        for x in distribution(p).ppf([0.1, 0.5, 0.7, 0.9]):
            share = (found <= x).mean()
            assert_allclose(share, distribution(p).cdf(x), atol=0.015)

    @pytest.mark.parametrize("name", KINDS)
    def test_the_mean_is_that_of_an_observation(self, name):
        kind, distribution = self.KINDS[name]
        p = np.linspace(-2, 2, 5)
        assert_allclose(kind.mean(p, 0.0), distribution(p).mean(), rtol=1e-12)

    def test_the_probability_of_an_uncertain_logit_is_that_of_its_mean(self):
        p = np.linspace(-2, 2, 5)
        assert_array_equal(Logistic().mean(p, 3.0), special.expit(p))

    @pytest.mark.parametrize("name", ["squared", "student_t", "poisson"])
    def test_the_mean_of_an_uncertain_prediction_is_that_over_all_it_may_be(self, name):
        """By Gauss-Hermite quadrature."""
        kind, distribution = self.KINDS[name]
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        weights = weights / weights.sum()
        for p in (-2.0, -0.5, 0.0, 1.5):
            for v in (0.1, 1.0, 3.0):
                at = distribution(p + np.sqrt(v) * nodes)
                expected = at.mean() @ weights
                assert_allclose(kind.mean(p, v), expected, atol=1e-6)
                if name == "poisson":
                    variance = (at.var() + at.mean() ** 2) @ weights - expected**2
                    found = kind.variance(p, v, None)
                    assert_allclose(found, variance, rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("name", ["squared", "logistic", "poisson"])
    def test_the_variance_is_that_of_an_observation(self, name):
        kind, distribution = self.KINDS[name]
        p = np.linspace(-2, 2, 5)
        found = kind.variance(p, np.zeros(5), np.full(5, 0.25))
        assert_allclose(found, distribution(p).var(), rtol=1e-12)

    def test_the_variance_of_heavy_tails_has_their_interval_of_95_percent(self):
        kind, distribution = self.KINDS["student_t"]
        deviation = np.sqrt(kind.variance(*arrays(0.0, 0.0, 0.25)))
        assert_allclose(1.96 * deviation, distribution(0.0).ppf(0.975), rtol=1e-4)

    @pytest.mark.parametrize("name", ["logistic", "poisson"])
    @pytest.mark.parametrize("probability", [0.025, 0.3, 0.5, 0.9])
    def test_quantiles_are_those_of_an_observation(self, name, probability):
        kind, distribution = self.KINDS[name]
        p = np.linspace(-2, 2, 9)
        mean, variance = distribution(p).mean(), distribution(p).var()
        found = kind.quantiles(mean, variance, np.full(9, probability))
        assert_array_equal(found, distribution(p).ppf(probability))


# A number for reg: F


def losses_of(model):
    """Loss of entries of a fitted model, by naive formulas, in the units of X."""
    if model.loss == "logistic":
        return lambda x, p: np.logaddexp(0, p) - x * p
    if model.loss == "poisson":
        return lambda x, p: np.exp(p) - x + special.xlogy(x, np.maximum(x, 1)) - x * p
    threshold = model._units.leave(model._model.losses.kinds[0].threshold)
    return lambda x, p: special.huber(threshold, x - p)


def parameters_of(model, Z):
    """W, H, b and c of a fitted model as one vector, and F of such a vector."""
    W, H = Z[:, : model.rank], model.components_.T
    free = [W, H]
    if model.fit_bias is True:
        free.append(Z[:, -1])
    if model.fit_bias is not False:
        free.append(model.column_bias_)
    return np.concatenate([each.ravel() for each in free]).astype(float)


def naive_F(model, X, weights=None):
    """F as a function of all parameters: loss of observed entries, and the ridge."""
    (m, n), rank, loss = X.shape, model.rank, losses_of(model)
    weights = np.ones(X.shape) if weights is None else weights
    lengths = [m * rank, n * rank, m if model.fit_bias is True else 0]

    def F(parameters):
        W, H, b, c = np.split(parameters, np.cumsum(lengths))
        p = model.mean_ + W.reshape(m, rank) @ H.reshape(n, rank).T
        p = p + (b[:, None] if b.size else 0) + (c if c.size else 0)
        seen = ~np.isnan(X)
        total = weights[seen] @ loss(X[seen], p[seen])
        return total + model.reg / 2 * (parameters @ parameters)

    return F


@pytest.mark.slow
@pytest.mark.parametrize("loss", WITH_RIDGE)
@settings(max_examples=20, deadline=None)
@given(
    solver=st.sampled_from(SOLVERS),
    fit_bias=st.sampled_from([True, "columns", False]),
    seed=st.integers(0, 999),
    size=st.sampled_from([0.5, 2.0]),
    weighted=st.booleans(),
    share_missing=st.sampled_from([0.0, 0.4, 0.8]),
)
def test_F_never_rises(
    loss, solver, fit_bias, seed, size, weighted, share_missing, planted_loss
):
    options = {"size": size, "share_missing": share_missing, "seed": seed}
    X = planted_loss(loss, 12, 6, **options)[0]
    weights = None
    if weighted:
        weights = np.random.RandomState(seed).choice([0.2, 1.0, 3.0], X.shape)
    given_parameters = {"fit_bias": fit_bias, "random_state": 0, "max_iter": 15}
    model = MaskedGradientMF(
        2, reg=0.1, loss=loss, solver=solver, init="random", **given_parameters
    )
    model.fit(X, entry_weight=weights)
    curve = np.array(model.loss_curve_)
    assert (np.diff(curve) <= 1e-9 * curve[:-1]).all()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fit_bias", [True, "columns", False])
@pytest.mark.parametrize("loss", WITH_RIDGE)
def test_the_last_F_is_that_of_the_public_attributes(
    loss, fit_bias, weighted, planted_loss
):
    X = planted_loss(loss, 12, 6)[0]
    weights = np.random.RandomState(1).uniform(0.5, 2, X.shape) if weighted else None
    model = MaskedGradientMF(2, reg=0.5, loss=loss, fit_bias=fit_bias, tol=1e-12)
    Z = model.set_params(max_iter=500).fit_transform(X, entry_weight=weights)
    parameters = parameters_of(model, Z)
    found = naive_F(model, X, weights)(parameters)
    assert_allclose(model.loss_curve_[-1], found, rtol=1e-7)
    # The error of the reconstruction is the root of twice the loss.
    penalty = model.reg / 2 * (parameters @ parameters)
    assert_allclose(model.reconstruction_err_**2 / 2, found - penalty, rtol=1e-7)


@pytest.mark.parametrize(
    ("solver", "fit_bias"), [("als", True), ("als", False), ("scaled", "columns")]
)
@pytest.mark.parametrize("loss", WITH_RIDGE)
def test_the_fit_ends_at_a_minimum_of_F(loss, fit_bias, solver, planted_loss):
    X = planted_loss(loss, 12, 6, size=1.5)[0]
    model = MaskedGradientMF(2, reg=0.5, loss=loss, fit_bias=fit_bias, solver=solver)
    Z = model.set_params(max_iter=5000, tol=1e-13).fit_transform(X)
    F, end = naive_F(model, X), parameters_of(model, Z)
    gradient = optimize.approx_fprime(end, F, 1e-6)
    assert_allclose(gradient, 0, atol=2e-3)


@pytest.mark.parametrize("loss", WITH_RIDGE)
def test_the_minimum_of_F_is_the_one_that_scipy_finds(loss, planted_loss):
    """From the same start; F has several minima."""
    X = planted_loss(loss, 10, 6, rank=1, size=1.5)[0]
    rng = np.random.RandomState(0)
    W, H = rng.standard_normal((10, 1)), rng.standard_normal((6, 1))
    model = MaskedGradientMF(1, reg=0.5, loss=loss, fit_bias=False, init=(W, H))
    model.set_params(max_iter=2000, tol=1e-12).fit(X)
    start = np.concatenate([W.ravel(), H.ravel()])
    found = optimize.minimize(naive_F(model, X), start)
    assert_allclose(model.loss_curve_[-1], found.fun, rtol=1e-6)


def test_a_fixed_step_goes_down_the_gradient_of_F(planted_loss):
    """The first step of W, from a given start."""
    X = planted_loss("poisson", 10, 6)[0]
    rng = np.random.RandomState(0)
    W, H = rng.standard_normal((10, 2)), rng.standard_normal((6, 2))
    options = {"fit_bias": False, "init": (W, H), "solver": "gd", "max_iter": 1}
    model = MaskedGradientMF(2, reg=0.5, loss="poisson", eta=1e-3, **options)
    model.fit(X)
    start = np.concatenate([W.ravel(), H.ravel()])
    gradient = optimize.approx_fprime(start, naive_F(model, X), 1e-7)[: W.size]
    moved = np.concatenate([(W.ravel() - 1e-3 * gradient), H.ravel()])
    gradient = optimize.approx_fprime(moved, naive_F(model, X), 1e-7)[W.size :]
    expected = H - 1e-3 * gradient.reshape(H.shape)
    assert_allclose(model.components_.T, expected, rtol=1e-5)


# Known columns, or no factors: regressions of statsmodels


def fold_in(X, H, loss, *, reg, biases, weights=None):
    """Rows of least penalized loss given the columns [h, c]."""
    rows = rows_of(np.nan_to_num(X), ~np.isnan(X))
    if weights is not None:
        rows = rows._replace(weights=weights[~np.isnan(X)])
    losses = ColumnLosses((loss,), None)
    width = H.shape[1] - biases.column + biases.row
    base = RidgeModel.of(H, np.full(width, reg), biases)
    model = RidgeLossModel.of(base, losses, rows)
    return model.fold_in(ObservedMatrix(rows, 0.0))


class TestRowsGivenColumns:
    """One regression for each row, on the factors of its columns."""

    N = 40

    @pytest.fixture
    def H(self):
        return np.random.RandomState(0).standard_normal((self.N, 3))

    @pytest.fixture
    def sm(self):
        return pytest.importorskip("statsmodels.api")

    def family(self, sm, name):
        return {"logistic": sm.families.Binomial, "poisson": sm.families.Poisson}[name]

    def rows(self, name, H):
        rng = np.random.RandomState(1)
        eta = rng.standard_normal((4, 2)) @ H[:, :2].T + H[:, 2]
        X = values_of(name, eta, rng)
        X[0, :10] = np.nan
        return X

    @pytest.mark.parametrize(
        ("name", "loss"), [("logistic", Logistic()), ("poisson", Poisson())]
    )
    @pytest.mark.parametrize("weighted", [False, True])
    def test_are_those_of_generalized_linear_models(self, name, loss, weighted, H, sm):
        """With an intercept for the row, and the bias of a column as offset."""
        X = self.rows(name, H)
        weights = np.random.RandomState(2).choice([0.5, 1.0, 2.0], X.shape)
        weights = weights if weighted else None
        biases = Biases(row=True, column=True)
        found = fold_in(X, H, loss, reg=1e-10, biases=biases, weights=weights)
        for i, x in enumerate(X):
            seen = ~np.isnan(x)
            design = np.column_stack([H[:, :2], np.ones(self.N)])[seen]
            extra = {} if weights is None else {"freq_weights": weights[i, seen]}
            options = {"offset": H[seen, 2], "family": self.family(sm, name)(), **extra}
            expected = sm.GLM(x[seen], design, **options).fit(tol=1e-12).params
            assert_allclose(found[i], expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        ("name", "loss"), [("logistic", Logistic()), ("poisson", Poisson())]
    )
    def test_with_a_ridge_are_those_of_penalized_models(self, name, loss, H, sm):
        X, reg = self.rows(name, H), 2.0
        found = fold_in(X, H, loss, reg=reg, biases=Biases(row=False, column=False))
        for i, x in enumerate(X):
            seen = ~np.isnan(x)
            model = sm.GLM(x[seen], H[seen], family=self.family(sm, name)())
            share = {"alpha": reg / seen.sum(), "L1_wt": 0.0, "cnvrg_tol": 1e-12}
            expected = model.fit_regularized(**share).params
            assert_allclose(found[i], expected, rtol=2e-4, atol=1e-4)

    def test_of_huber_are_those_of_robust_regression(self, H, sm):
        X = self.rows("student_t", H)
        X[1, :4] = 100
        for x in X[1:]:
            model = sm.RLM(x, H, M=sm.robust.norms.HuberT(1.345))
            expected = model.fit(update_scale=False, tol=1e-12, maxiter=500)
            loss = Huber(1.345 * expected.scale)
            biases = Biases(row=False, column=False)
            found = fold_in(x[None], H, loss, reg=1e-12, biases=biases)
            assert_allclose(found[0], expected.params, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("name", ["logistic", "poisson"])
    def test_without_factors_biases_are_those_of_a_model_of_both_sides(self, name, sm):
        rng = np.random.RandomState(0)
        m, n = 12, 6
        eta = rng.standard_normal((m, 1)) + rng.standard_normal(n)
        X = values_of(name, eta, rng)
        X[rng.uniform(size=X.shape) < 0.2] = np.nan
        none = np.zeros((m, 1)), np.zeros((n, 1))  # which a sweep does not move
        model = MaskedGradientMF(1, reg=0.7, loss=name, init=none, max_iter=500)
        Z = model.set_params(tol=1e-13).fit_transform(X)
        rows, columns = np.nonzero(~np.isnan(X))
        design = np.hstack([np.eye(m)[rows], np.eye(n)[columns]])
        offset = np.full(len(rows), model.mean_)
        options = {"offset": offset, "family": self.family(sm, name)()}
        glm = sm.GLM(X[rows, columns], design, **options)
        share = {"alpha": 0.7 / len(rows), "L1_wt": 0.0, "cnvrg_tol": 1e-13}
        expected = glm.fit_regularized(**share).params
        assert_allclose(Z[:, -1], expected[:m], rtol=1e-3, atol=1e-3)
        assert_allclose(model.column_bias_, expected[m:], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("loss", ["logistic", "poisson"])
def test_without_factors_and_ridge_a_column_is_predicted_by_its_mean(
    loss, planted_loss
):
    """That of counts may be of fractions."""
    X = planted_loss(loss, 30, 6)[0]
    X = X / 3 if loss == "poisson" else X
    weights = np.random.RandomState(0).uniform(0.5, 2, X.shape)
    none = np.zeros((30, 1)), np.zeros((6, 1))
    model = MaskedGradientMF(1, reg=1e-9, loss=loss, init=none, fit_bias="columns")
    model.set_params(tol=1e-13).fit(X, entry_weight=weights)
    means = np.ma.average(np.ma.masked_invalid(X), axis=0, weights=weights)
    assert_allclose(model.inverse_transform(np.zeros((1, 1)))[0], means, rtol=1e-4)


# reg="auto": the evidence lower bound


@pytest.mark.slow
@pytest.mark.parametrize("loss", LEARNED)
@settings(max_examples=6, deadline=None)
@given(
    fit_bias=st.sampled_from([True, "columns", False]),
    seed=st.integers(0, 999),
    size=st.sampled_from([0.5, 2.0]),
    weighted=st.booleans(),
    share_missing=st.sampled_from([0.0, 0.3, 0.7]),
)
def test_the_evidence_bound_never_falls(
    loss, fit_bias, seed, size, weighted, share_missing, planted_loss
):
    options = {"size": size, "share_missing": share_missing, "seed": seed}
    X = planted_loss(loss, 25, 8, **options)[0]
    weights = None
    if weighted:
        weights = np.random.RandomState(seed).choice([0.2, 1.0, 3.0], X.shape)
    model = MaskedGradientMF(3, loss=loss, fit_bias=fit_bias, max_iter=12, tol=1e-5)
    curve = np.array(model.fit(X, entry_weight=weights).loss_curve_)
    assert (np.diff(curve) >= -1e-8 * np.abs(curve[:-1])).all()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", [StudentT(5.0), Logistic(), Poisson()], ids=str)
def test_a_round_starts_with_the_quadratics_of_uncertain_predictions(kind, weighted):
    """A weight counts twice for a precision: there, and in the quadratic."""
    rng = np.random.RandomState(0)
    x = rng.randint(0, 2, (5, 4)).astype(float)
    alpha, weights = np.array([1.0, 2.0, 3.0, 4.0]), rng.uniform(0.5, 2, x.shape)
    m, v = rng.standard_normal(20), rng.uniform(0.5, 3, 20)
    rows = rows_of(x, np.ones(x.shape, bool))
    if weighted:
        rows = rows._replace(weights=weights.ravel())
    found = working_rows(rows, ColumnLosses((kind,), None), (m, v), alpha)
    precision = np.tile(alpha, 5)
    if weighted and not kind.has_unit_noise:
        precision = precision * weights.ravel()
    values, expected = kind.working(x.ravel(), m, v, precision)
    assert_allclose(found.values, values, rtol=1e-12)
    expected = expected * weights.ravel() if weighted else expected
    assert_allclose(found.weights, expected, rtol=1e-12)


@pytest.mark.parametrize("loss", LEARNED)
def test_learned_factors_recover_what_was_planted(loss, planted_loss):
    """Predictions of hidden entries correlate with the planted ones."""
    size = 1.0 if loss == "poisson" else 2.0
    X, _, eta = planted_loss(loss, 300, 40, rank=2, size=size, share_missing=0.3)
    model = MaskedGradientMF(6, loss=loss)
    Z = model.fit_transform(X)
    assert 2 <= model.rank_ <= 3
    p = model.inverse_transform(Z)
    p = {"logistic": special.logit, "poisson": np.log}.get(loss, np.array)(p)
    hidden = np.isnan(X)
    least = {"student_t": 0.99, "logistic": 0.85, "poisson": 0.95}[loss]
    assert np.corrcoef(p[hidden], eta[hidden])[0, 1] > least


def test_counts_of_very_different_sizes_are_fitted():
    """Full steps lead too far there, and shorter ones have to go on from the best."""
    rng = np.random.RandomState(0)
    eta = rng.standard_normal((40, 2)) @ rng.standard_normal((2, 8))
    X = rng.poisson(np.exp(3 * eta)).astype(float)
    assert X.max() > 1e6
    model = MaskedGradientMF(2, loss="poisson")
    p = np.log(model.inverse_transform(model.fit_transform(X)))
    assert Poisson().value(X, p, None).mean() < 3


def test_clean_data_of_student_t_are_predicted_as_by_squared_error(planted):
    data = planted(m=200, n=15, share_missing=0.2, noise=0.5)
    hidden, found = ~data.mask, {}
    for loss in ("squared", "student_t"):
        model = MaskedGradientMF(6, loss=loss)
        p = model.inverse_transform(model.fit_transform(data.X))
        found[loss] = p[hidden]
    error = np.sqrt(np.mean((found["squared"] - data.signal[hidden]) ** 2))
    between = np.sqrt(np.mean((found["student_t"] - found["squared"]) ** 2))
    assert between < 0.2 * error


@pytest.mark.parametrize("kind", ["two gross cells", "one percent times 30"])
def test_outliers_do_little_harm_to_other_entries(kind, planted):
    data = planted(m=300, n=12, share_missing=0.2, noise=0.5)
    X, rng = data.X.copy(), np.random.RandomState(0)
    if kind == "two gross cells":
        X[3, 4], X[50, 4] = 1e4, -1e5
    else:
        X[(rng.uniform(size=X.shape) < 0.01) & data.mask] *= 30
    errors = []
    for table in (data.X, X):
        model = MaskedGradientMF(6, loss="student_t")
        p = model.inverse_transform(model.fit_transform(table))
        errors.append(np.sqrt(np.mean((p - data.complete)[~data.mask] ** 2)))
    assert errors[1] < 1.1 * errors[0]


@pytest.mark.parametrize("solver", SOLVERS)
def test_outliers_do_little_harm_to_a_fit_of_huber(solver, planted):
    data = planted(m=100, n=12, rank=2, share_missing=0.2)
    X, errors = data.X.copy(), []
    X[3, 4], X[50, 4] = 1e4, -1e5
    for table in (data.X, X):
        model = MaskedGradientMF(2, reg=0.5, loss="huber", solver=solver)
        model.set_params(random_state=0)
        p = model.inverse_transform(model.fit_transform(table))
        rows = np.delete(np.arange(100), [3, 50])
        errors.append(np.sqrt(np.mean((p - data.signal)[rows] ** 2)))
    assert errors[1] < 1.5 * errors[0]


# What is the same, and what it is the same as


def model_of(loss, **parameters):
    """A model of few sweeps: "huber" with a number for reg, the others learned."""
    given = {"max_iter": 5, "tol": 1e-6, "random_state": 0} | parameters
    if loss == "huber":
        given = {"reg": 0.3} | given
    return MaskedGradientMF(given.pop("rank", 2), loss=loss, **given)


KINDS = [
    *((loss, {}) for loss in ["student_t", "logistic", "poisson"]),
    *((loss, {"reg": 0.3}) for loss in WITH_RIDGE),
]
every_kind = pytest.mark.parametrize(
    ("loss", "parameters"), KINDS, ids=[f"{a}-{b.get('reg', 'auto')}" for a, b in KINDS]
)


@every_kind
def test_missing_entries_are_told_by_nan_or_mask_or_sparsity(
    loss, parameters, planted_loss
):
    X, complete, _ = planted_loss(loss, 20, 6)
    seen = ~np.isnan(X)
    rows, columns = np.nonzero(seen)
    stored = sparse.coo_array((X[seen], (rows, columns)), X.shape).tocsr()
    model = model_of(loss, **parameters)
    expected = model.fit_transform(X)
    assert_array_equal(clone(model).fit_transform(stored), expected)
    found = clone(model).fit_transform(complete, mask=seen)
    assert_array_equal(found, expected)
    frame = pd.DataFrame(X).add_prefix("c")
    assert_array_equal(clone(model).fit_transform(frame), expected)


@every_kind
def test_an_entry_of_weight_zero_is_missing(loss, parameters, planted_loss):
    X, complete, _ = planted_loss(loss, 20, 6)
    weights = np.where(np.isnan(X), 0.0, 1.5)
    model = model_of(loss, **parameters)
    expected = model.fit_transform(X, entry_weight=np.full(X.shape, 1.5))
    found = clone(model).fit_transform(complete, entry_weight=weights)
    assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@every_kind
def test_weights_of_one_change_nothing(loss, parameters, planted_loss):
    X = planted_loss(loss, 20, 6)[0]
    model = model_of(loss, **parameters)
    expected = model.fit_transform(X)
    found = clone(model).fit_transform(X, entry_weight=np.ones(X.shape))
    assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("loss", WITH_RIDGE)
def test_twice_the_weights_and_the_ridge_make_the_same_minimum(loss, planted_loss):
    X = planted_loss(loss, 20, 6)[0]
    model = model_of(loss, reg=0.3)
    expected = model.fit_transform(X)
    twice = clone(model).set_params(reg=0.6)
    found = twice.fit_transform(X, entry_weight=np.full(X.shape, 2.0))
    assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    assert_allclose(twice.loss_curve_, 2 * np.array(model.loss_curve_), rtol=1e-9)


def test_the_unit_of_weights_is_that_of_the_noise_of_student_t(planted_loss):
    X = planted_loss("student_t", 20, 6)[0]
    model = model_of("student_t", fit_bias="columns")
    expected = model.fit_transform(X)
    other, weights = clone(model), np.full(X.shape, 10.0)
    found = other.fit_transform(X, entry_weight=weights)
    assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    variance = other.noise_variance_
    assert_allclose(variance, 10 * model.noise_variance_, rtol=1e-6)


@pytest.mark.parametrize("loss", ["logistic", "poisson"])
def test_an_entry_of_weight_two_counts_as_two_in_a_row(loss, planted_loss):
    """Columns of the same factors stand for one: those that a fold-in is given."""
    H = np.random.RandomState(0).standard_normal((8, 2))
    X = values_of(
        loss,
        np.random.RandomState(1).standard_normal((5, 2)) @ H.T,
        np.random.RandomState(2),
    )
    kind = {"logistic": Logistic(), "poisson": Poisson()}[loss]
    options = {"reg": 0.3, "biases": Biases(row=False, column=False)}
    weights = np.ones(X.shape)
    weights[:, :3] = 2.0
    found = fold_in(X, H, kind, weights=weights, **options)
    doubled = np.hstack([X, X[:, :3]]), np.vstack([H, H[:3]])
    assert_allclose(found, fold_in(*doubled, kind, **options), atol=1e-7)


@every_kind
def test_the_order_of_rows_does_not_matter(loss, parameters, planted_loss):
    X = planted_loss(loss, 20, 6)[0]
    order = np.random.RandomState(0).permutation(len(X))
    model = model_of(loss, **parameters)
    expected = model.fit_transform(X)[order]
    found = clone(model).fit_transform(X[order])
    p, q = model.inverse_transform(expected), clone(model).fit(X[order])
    q = q.inverse_transform(found)
    assert_allclose(q, p, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("fit_bias", [True, "columns"])
@pytest.mark.parametrize(("unit", "shift"), [(1e-6, 0.0), (1.0, 1e3)])
def test_student_t_does_not_depend_on_the_unit_or_the_origin(
    unit, shift, fit_bias, planted_loss
):
    X = planted_loss("student_t", 30, 8)[0]
    model = model_of("student_t", fit_bias=fit_bias)
    p = model.inverse_transform(model.fit_transform(X))
    moved = clone(model)
    q = moved.inverse_transform(moved.fit_transform(unit * X + shift))
    assert_allclose((q - shift) / unit, p, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("unit", [2.0**-20, 2.0**10])
def test_huber_does_not_depend_on_the_unit(unit, planted_loss):
    """Factors have the square root of the unit of X, and `reg` its unit."""
    X = planted_loss("huber", 30, 8)[0]
    model = model_of("huber", fit_bias=False)
    p = model.inverse_transform(model.fit_transform(X))
    moved = clone(model).set_params(reg=model.reg * unit)
    q = moved.inverse_transform(moved.fit_transform(unit * X))
    assert_allclose(q / unit, p, rtol=1e-6, atol=1e-9)


def test_huber_does_not_depend_on_the_origin(planted_loss):
    X = planted_loss("huber", 30, 8)[0]
    model = model_of("huber")
    p = model.inverse_transform(model.fit_transform(X))
    moved = clone(model)
    q = moved.inverse_transform(moved.fit_transform(X + 1e3))
    assert_allclose(q - 1e3, p, atol=1e-6)


@every_kind
@pytest.mark.parametrize("fit_bias", [True, "columns", False])
def test_transform_of_the_rows_of_the_fit_is_fit_transform(
    loss, parameters, fit_bias, planted_loss
):
    X = planted_loss(loss, 20, 6)[0]
    model = model_of(loss, fit_bias=fit_bias, max_iter=2, **parameters)
    assert_array_equal(model.fit_transform(X), model.transform(X))


@every_kind
def test_a_row_is_folded_in_by_itself(loss, parameters, planted_loss):
    X = planted_loss(loss, 20, 6)[0]
    if loss in ("student_t", "huber"):
        X[::5, 2] = 30.0
    model = model_of(loss, **parameters).fit(X)
    together = model.transform(X)
    alone = np.vstack([model.transform(x[None]) for x in X])
    assert_allclose(alone, together, rtol=1e-9, atol=1e-12)


@every_kind
def test_empty_rows_and_columns_change_nothing(loss, parameters, planted_loss):
    X = planted_loss(loss, 20, 6)[0]
    model = model_of(loss, **parameters)
    expected = model.fit_transform(X)
    p = model.inverse_transform(expected)
    wider = np.full((22, 8), np.nan)
    rows, columns = np.delete(np.arange(22), [0, 9]), np.delete(np.arange(8), [2, 7])
    wider[np.ix_(rows, columns)] = X
    other = clone(model)
    Z = other.fit_transform(wider)
    q = other.inverse_transform(Z)
    assert_allclose(q[np.ix_(rows, columns)], p, rtol=1e-6, atol=1e-9)
    assert np.isfinite(q).all()
    assert_array_equal(other.transform(wider), Z)
    assert np.isfinite(other.score(wider))


@pytest.mark.filterwarnings("ignore:All observed entries:UserWarning")
@pytest.mark.parametrize("loss", ["huber", "student_t"])
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_equal_values_are_fitted_exactly(loss, value):
    """Their residuals tell of no deviation."""
    model = model_of(loss, rank=1)
    Z = model.fit_transform(np.full((20, 6), value))
    assert_allclose(model.inverse_transform(Z), value, rtol=1e-6)


def test_where_most_values_are_equal_student_t_finds_the_others():
    X = np.zeros((20, 6))
    X[:4] = np.outer([1, 2, 3, 4], [1, -1, 2, -2, 1, 1])
    model = model_of("student_t", rank=1, max_iter=100)
    assert_allclose(model.inverse_transform(model.fit_transform(X)), X, atol=0.5)


@every_kind
def test_single_precision_stays_single(loss, parameters, planted_loss):
    X = planted_loss(loss, 20, 6)[0]
    model = model_of(loss, **parameters)
    p = model.inverse_transform(model.fit_transform(X))
    single = clone(model)
    Z = single.fit_transform(X.astype(np.float32))
    q = single.inverse_transform(Z)
    assert Z.dtype == single.components_.dtype == q.dtype == np.float32
    assert single.transform(X.astype(np.float32)).dtype == np.float32
    assert_allclose(q, p, rtol=0.02, atol=0.01)


@every_kind
def test_a_fit_comes_back_from_a_file(
    loss, parameters, planted_loss, assert_same_model
):
    skops = pytest.importorskip("skops.io")
    X = planted_loss(loss, 8, 6)[0]
    model = model_of(loss, max_iter=2, **parameters).fit(X)
    trusted = ["sklearn_mfgd._masked_gradient_mf.MaskedGradientMF"]
    by_skops = skops.loads(skops.dumps(model), trusted=trusted)
    for loaded in (by_skops, pickle.loads(pickle.dumps(model))):
        assert_same_model(loaded, model, X)
        Z = model.transform(X)
        assert_array_equal(loaded.inverse_transform(Z), model.inverse_transform(Z))


@every_kind
def test_the_bits_do_not_depend_on_the_number_of_threads(
    loss, parameters, planted_loss, compiled_kernels, monkeypatch
):
    X, found, limits = planted_loss(loss, 20, 6)[0], [], set()

    def share_out(work, ranges, limit=None):
        limits.add((len(ranges) > 1, limit))
        return threads.share_out(work, ranges, limit)

    monkeypatch.setattr(dispatch, "OPERATIONS", 1e3)
    monkeypatch.setattr(dispatch, "share_out", share_out)
    for number in "13":
        monkeypatch.setenv("OMP_NUM_THREADS", number)
        found.append(model_of(loss, max_iter=2, **parameters).fit_transform(X))
    assert any(shared for shared, _ in limits)
    assert_array_equal(*found)


@pytest.mark.parametrize("loss", WITH_RIDGE)
def test_complete_data_of_the_other_estimator_are_the_same(loss, planted_loss):
    complete = planted_loss(loss, 20, 6)[1]
    options = {"reg": 0.3, "loss": loss, "solver": "als", "fit_bias": True}
    options |= {"tol": 1e-9, "max_iter": 300}
    expected = MaskedGradientMF(2, **options).fit_transform(complete)
    found = GradientMF(2, **options).fit_transform(complete)
    assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("fit_bias", [True, False])
@pytest.mark.parametrize("loss", WITH_RIDGE)
def test_a_warm_start_goes_on_where_the_last_fit_ended(loss, fit_bias, planted_loss):
    X = planted_loss(loss, 20, 6)[0]
    model = model_of(loss, reg=0.3, warm_start=True, fit_bias=fit_bias).fit(X)
    before = model.loss_curve_[-1]
    # The threshold of Huber's loss is learned anew.
    tolerance = 0.02 if loss == "huber" else 1e-9
    assert model.fit(X).loss_curve_[0] <= before * (1 + tolerance)


@pytest.mark.parametrize("loss", ["logistic", "poisson"])
def test_early_stopping_watches_the_loss_of_held_out_entries(loss, planted_loss):
    X = planted_loss(loss, 60, 10)[0]
    model = model_of(loss, reg=1e-3, rank=6, early_stopping=True, max_iter=100)
    model.set_params(validation_fraction=0.2).fit(X)
    curve = model.validation_curve_
    assert model.n_iter_ < 100
    assert min(curve) < curve[-1]


# Losses of some columns


class TestMappingOfColumns:
    @pytest.fixture
    def X(self, planted_loss):
        eta = planted_loss("squared", 80, 9, share_missing=0.0)[2]
        rng = np.random.RandomState(1)
        parts = [
            values_of("squared", eta[:, :3], rng),
            values_of("logistic", 2 * eta[:, 3:6], rng),
            values_of("poisson", eta[:, 6:], rng),
        ]
        X = np.hstack(parts)
        X[rng.uniform(size=X.shape) < 0.1] = np.nan
        return X

    LOSSES = {3: "logistic", 4: "logistic", 5: "logistic"} | {
        6: "poisson",
        7: "poisson",
        8: "poisson",
    }

    @pytest.mark.parametrize("reg", ["auto", 0.3])
    def test_by_names_is_the_same_as_by_numbers(self, X, reg):
        frame = pd.DataFrame(X).add_prefix("c")
        names = {f"c{number}": loss for number, loss in self.LOSSES.items()}
        model = model_of(self.LOSSES, reg=reg)
        expected = model.fit_transform(X)
        found = clone(model).set_params(loss=names).fit_transform(frame)
        assert_array_equal(found, expected)

    @pytest.mark.parametrize("reg", ["auto", 0.3])
    def test_predicts_each_column_on_its_own_scale(self, X, reg):
        model = model_of(self.LOSSES, reg=reg)
        Z = model.fit_transform(X)
        p = model.inverse_transform(Z)
        eta = Z[:, :-1] @ model.components_ + Z[:, -1:] + model.column_bias_
        eta += model.mean_
        assert_allclose(p[:, :3], eta[:, :3], rtol=1e-9)
        assert_allclose(p[:, 3:6], special.expit(eta[:, 3:6]), rtol=1e-9)
        assert_allclose(p[:, 6:], np.exp(eta[:, 6:]), rtol=1e-9)

    @every_kind
    def test_of_one_loss_is_the_same_as_its_name(self, loss, parameters, planted_loss):
        """But for the intercept, which a mapping leaves to the biases of columns."""
        X = planted_loss(loss, 20, 6)[0]
        parameters = parameters | {"fit_bias": False}
        model = model_of(loss, **parameters)
        expected = model.fit_transform(X)
        mapping = model_of(
            dict.fromkeys(range(6), loss), **{"reg": "auto"} | parameters
        )
        assert_allclose(mapping.fit_transform(X), expected, rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("losses", [{}, {0: "squared", 2: "squared"}])
    def test_of_squares_only_is_squared_error(self, losses, planted):
        X = planted(share_missing=0.2).X
        expected = model_of("squared").fit_transform(X)
        assert_array_equal(model_of(losses).fit_transform(X), expected)

    @pytest.mark.parametrize("reg", ["auto", 0.3])
    def test_counts_columns_without_entries(self, X, reg):
        expected = model_of(self.LOSSES, reg=reg)
        p = expected.inverse_transform(expected.fit_transform(X))
        losses = {number + 1: loss for number, loss in self.LOSSES.items()}
        model = model_of(losses, reg=reg)
        found = model.fit_transform(np.insert(X, 0, np.nan, axis=1))
        assert_allclose(model.inverse_transform(found)[:, 1:], p, rtol=1e-6, atol=1e-9)
        assert_allclose(
            model.score(np.insert(X, 0, np.nan, axis=1)), expected.score(X), rtol=1e-6
        )

    def test_learns_one_variance_of_all_columns_that_have_one(self, X):
        model = model_of(self.LOSSES, noise="shared", max_iter=40).fit(X)
        assert 0.005 < model.noise_variance_ < 0.1
        one_each = model_of(self.LOSSES, max_iter=40).fit(X).noise_variance_
        assert_allclose(one_each[:3].mean(), model.noise_variance_, rtol=0.5)
        assert_array_equal(one_each[3:], 1)

    @pytest.mark.parametrize("reg", ["auto", 0.3])
    def test_of_mixed_columns_never_gets_worse(self, X, reg):
        curve = np.array(model_of(self.LOSSES, reg=reg, max_iter=40).fit(X).loss_curve_)
        gains = np.diff(curve) if reg == "auto" else -np.diff(curve)
        assert (gains >= -1e-8 * np.abs(curve[:-1])).all()

    def test_with_outliers_in_one_column_spares_the_others(self, planted):
        data = planted(m=200, n=10, share_missing=0.2)
        X = data.X.copy()
        X[5, 0], X[9, 0] = 1e4, -1e5
        model = model_of({0: "student_t"}, rank=4, max_iter=50)
        p = model.inverse_transform(model.fit_transform(X))
        error = (p - data.signal)[:, 1:][~data.mask[:, 1:]]
        assert np.sqrt(np.mean(error**2)) < 0.1


# What does not go together


def table(loss, rng=None):
    return values_of(loss, np.zeros((12, 4)), np.random.RandomState(0))


class TestBadInput:
    @pytest.mark.parametrize(
        ("losses", "message"),
        [
            ({"absent": "poisson"}, "column 'absent', but X has no such column"),
            ({4: "poisson"}, "column 4; X has columns 0 to 3"),
            ({-1: "poisson"}, "column -1; X has columns 0 to 3"),
            ({"c0": "absolute"}, r"loss\['c0'\] must be one of .*got 'absolute'"),
            ({"c0": None}, r"loss\['c0'\] must be one of .*got None"),
        ],
    )
    def test_in_a_mapping_is_named(self, losses, message):
        frame = pd.DataFrame(table("poisson")).add_prefix("c")
        with pytest.raises(ValueError, match=message):
            MaskedGradientMF(2, loss=losses).fit(frame)

    def test_is_a_name_for_columns_without_names(self):
        with pytest.raises(ValueError, match="column 'c0', but X has no names"):
            MaskedGradientMF(2, loss={"c0": "poisson"}).fit(table("poisson"))

    @pytest.mark.parametrize(
        ("loss", "value", "message"),
        [
            ("logistic", 2.0, "loss=.logistic. does not take: 2 in row 5, column"),
            ("logistic", 0.5, "loss=.logistic. does not take: 0.5 in row 5, column"),
            ("poisson", -1.0, "loss=.poisson. does not take: -1 in row 5, column"),
        ],
    )
    @pytest.mark.parametrize("reg", ["auto", 0.3])
    @pytest.mark.parametrize("named", [False, True])
    def test_is_a_value_outside_of_those_of_a_loss(
        self, loss, value, message, reg, named
    ):
        X = table(loss)
        X[0], X[5, 2] = np.nan, value
        if named:
            X = pd.DataFrame(X).add_prefix("c")
        message += " 'c2'" if named else " 2"
        with pytest.raises(ValueError, match=message):
            MaskedGradientMF(2, reg=reg, loss=loss).fit(X)

    @pytest.mark.parametrize("reg", ["auto", 0.3])
    def test_is_a_new_value_outside_of_those_of_a_loss(self, reg):
        model = model_of("poisson", reg=reg).fit(table("poisson"))
        X = table("poisson")
        X[5, 2] = -1
        for use in (model.transform, model.score):
            with pytest.raises(ValueError, match="-1 in row 5, column 2 of X"):
                use(X)

    def test_is_no_value_that_is_not_observed(self):
        X = table("poisson")
        X[5, 2] = -1
        mask = np.ones(X.shape, bool)
        mask[5, 2] = False
        MaskedGradientMF(2, loss="poisson", max_iter=1).fit(X, mask=mask)

    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"loss": "student_t", "reg": 0.1}, "loss='student_t' needs reg='auto'"),
            ({"loss": "huber"}, "loss='huber' needs a number for reg"),
            ({"loss": {0: "huber"}}, "loss='huber' needs a number for reg"),
            ({"loss": "poisson", "n_draws": 3}, "n_draws=3 .* use n_draws=0"),
            ({"loss": {1: "poisson"}, "n_draws": 3}, "n_draws=3 .* use n_draws=0"),
            (
                {"loss": "logistic", "early_stopping": True},
                "early_stopping=True .* use early_stopping=False",
            ),
            ({"loss": "absolute"}, "'loss' parameter of MaskedGradientMF must be"),
            ({"loss": 3}, "'loss' parameter of MaskedGradientMF must be"),
        ],
    )
    def test_is_what_a_loss_has_no_use_for(self, parameters, message):
        with pytest.raises(ValueError, match=message):
            MaskedGradientMF(2).set_params(**parameters).fit(table("poisson"))

    @pytest.mark.parametrize("loss", ["poisson", {0: "poisson"}])
    def test_are_times(self, loss):
        model = MaskedGradientMF(2, loss=loss)
        with pytest.raises(ValueError, match="times= needs loss='squared'"):
            model.fit(table("poisson"), times=np.arange(12))

    @pytest.mark.parametrize("loss", ["poisson", {0: "poisson"}])
    def test_are_batches(self, loss):
        with pytest.raises(AttributeError) as caught:
            MaskedGradientMF(2, loss=loss).partial_fit(table("poisson"))
        assert "partial_fit needs loss='squared'" in str(caught.value.__cause__)

    def test_are_new_columns(self):
        X = table("poisson")
        model = MaskedGradientMF(2, loss="poisson", max_iter=2).fit(X)
        with pytest.raises(ValueError, match="fold_in_columns needs loss='squared'"):
            model.fold_in_columns(X[:, :1], model.transform(X))

    def test_are_unstored_zeros(self):
        X = sparse.csr_array(table("poisson"))
        with pytest.raises(ValueError, match="MaskedGradientMF"):
            GradientMF(2, reg=0.1, loss="poisson").fit(X)

    def test_are_blocks_of_dask(self):
        array = pytest.importorskip("dask.array")
        from sklearn_mfgd.dask import MaskedGradientMF as InBlocks

        X = array.from_array(table("poisson"), chunks=(6, 4))
        with pytest.raises(ValueError, match="loss='poisson' does not work with Dask"):
            InBlocks(2, loss="poisson").fit(X)

    def test_leaves_an_estimator_as_it_was(self):
        model = MaskedGradientMF(2, loss="poisson", max_iter=2).fit(table("poisson"))
        before = model.components_
        with pytest.raises(ValueError, match="Negative values"):
            model.fit(-1 - table("poisson"))
        assert_array_equal(model.components_, before)


# Predictions


class TestPredictions:
    @every_kind
    def test_are_on_the_scale_of_the_data(self, loss, parameters, planted_loss):
        X = planted_loss(loss, 20, 6)[0]
        model = model_of(loss, **parameters)
        Z = model.fit_transform(X)
        p = model.inverse_transform(Z)
        eta = model.mean_ + model.column_bias_ + Z[:, -1:]
        eta = eta + Z[:, :-1] @ model.components_
        back = {"logistic": special.expit, "poisson": np.exp}.get(loss, np.array)
        assert_allclose(p, back(eta), rtol=1e-9)
        rows, columns = np.indices(p.shape).reshape(2, -1)
        assert_allclose(model.predict_entries(Z, rows, columns), p.ravel(), rtol=1e-12)

    @pytest.mark.parametrize("loss", ["student_t", "poisson"])
    def test_tell_intervals_that_cover_hidden_entries(self, loss, planted_loss):
        X, complete, _ = planted_loss(loss, 300, 20, size=1.5, share_missing=0.3)
        model = MaskedGradientMF(4, loss=loss).fit(X)
        Z, covariance = model.transform(X, return_cov=True)
        places = np.nonzero(np.isnan(X))
        options = {"covariance": covariance, "return_std": True}
        mean, deviation = model.predict_entries(Z, *places, **options)
        share = np.mean(np.abs(complete[places] - mean) <= 1.96 * deviation)
        assert 0.93 <= share <= 0.985

    def test_of_counts_have_the_mean_of_samples(self, planted_loss):
        """Given covariances; without, they are those of the likeliest factors."""
        X = planted_loss("poisson", 60, 8, share_missing=0.5)[0]
        model = model_of("poisson", max_iter=30).fit(X)
        Z, covariance = model.transform(X, return_cov=True)
        places = np.nonzero(np.isnan(X))
        p = model.predict_entries(Z, *places, covariance=covariance)
        assert (p != model.predict_entries(Z, *places)).any()
        rng = np.random.RandomState(0)
        samples = [model._sample_losses(X, places, rng) for _ in range(50)]
        assert_allclose(np.mean(samples), p.mean(), rtol=0.05)

    def test_of_zeros_and_ones_have_the_deviation_of_one_toss(self, planted_loss):
        X = planted_loss("logistic", 40, 8)[0]
        model = model_of("logistic").fit(X)
        Z, covariance = model.transform(X, return_cov=True)
        places = np.nonzero(np.isnan(X))
        options = {"covariance": covariance, "return_std": True}
        p, deviation = model.predict_entries(Z, *places, **options)
        assert_allclose(deviation, np.sqrt(p * (1 - p)), rtol=1e-9)

    @every_kind
    def test_have_the_score_of_a_naive_loop(self, loss, parameters, planted_loss):
        """The k-th entry of a row is in fold k mod 5; means are those of the fit."""
        X = planted_loss(loss, 30, 8)[0]
        model = model_of(loss, **parameters).fit(X)
        kind, null = model._model.losses.kinds[0], model._model.null[:-1]
        variance = model.noise_variance_
        unit = model._units.leave(1.0)
        fold = np.where(np.isnan(X), -1, (~np.isnan(X)).cumsum(axis=1) - 1) % 5
        left, total = 0.0, 0.0
        for number in range(5):
            hidden = ~np.isnan(X) & (fold == number)
            Z = model.transform(np.where(hidden, np.nan, X))
            eta = model.column_bias_ + Z[:, :-1] @ model.components_ + Z[:, -1:]
            for i, j in zip(*np.nonzero(hidden), strict=True):
                x = (X[i, j] - (model.mean_ if kind_is_noisy(kind) else 0)) / unit
                p = eta[i, j] / unit + (0 if kind_is_noisy(kind) else model.mean_)
                q = null[j] + (0 if kind_is_noisy(kind) else model.mean_)
                alpha = 1.0 if variance is None else unit**2 / np.ravel(variance)[j]
                alpha = alpha if kind_is_noisy(kind) else 1.0
                left += kind.value(*arrays(x, p, alpha))[0]
                total += kind.value(*arrays(x, q, alpha))[0]
        assert_allclose(model.score(X), 1 - left / total, rtol=1e-6)

    @pytest.mark.parametrize("loss", LEARNED)
    def test_of_noise_score_about_nothing(self, loss):
        X = values_of(loss, np.zeros((300, 8)), np.random.RandomState(0))
        model = model_of(loss).fit(X)
        assert abs(model.score(X)) < 0.05


def kind_is_noisy(kind):
    return not kind.has_unit_noise
