"""Weights of single entries: how much the squared error of each one counts."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline

from sklearn_mfgd import DivergenceError, GradientMF, MaskedGradientMF
from sklearn_mfgd._optim.steps import STEPS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

ESTIMATORS = [GradientMF, MaskedGradientMF]
SOLVERS = [*STEPS, "sgd"]
BIASES = [False, True, "columns"]
FORMS = [np.asarray, sparse.csr_array, sparse.csc_array, sparse.coo_array]
# GradientMF takes sparse data without weights only.
FORMS_OF = [(GradientMF, np.asarray), *((MaskedGradientMF, form) for form in FORMS)]
METHODS = ["fit", "fit_transform", "transform", "score"]


@pytest.fixture
def holes(planted):
    """A table of 40 x 15 with 30 % missing."""
    return planted(share_missing=0.3).X + 2


@pytest.fixture
def weights():
    """Weights between 0.2 and 5, a tenth of them 0."""
    rng = np.random.RandomState(1)
    weights = np.exp(rng.uniform(np.log(0.2), np.log(5), size=(40, 15)))
    return np.where(rng.uniform(size=weights.shape) < 0.1, 0, weights)


@pytest.fixture
def model():
    return MaskedGradientMF(3, reg=0.5, max_iter=10, random_state=0)


def at_entries_of(X, values, container=sparse.csr_array):
    """Store the values, zeros included, where X is not NaN."""
    rows, columns = np.nonzero(~np.isnan(X))
    entries = values[rows, columns], (rows, columns)
    return container(sparse.coo_array(entries, shape=X.shape))


def pair_of(form, X, weights):
    """X and its weights, both dense or both sparse."""
    if form is np.asarray:
        return X, weights
    return at_entries_of(X, X, form), at_entries_of(X, weights, form)


def objective(model, X, weights, Z, H, c):
    """Evaluate F as the documentation of the estimators states it, with weights."""
    W, b = Z[:, : model.rank], np.zeros(len(Z))
    penalty = model.reg * (np.sum(W**2) + np.sum(H**2))
    if model.fit_bias is True:
        b = Z[:, -1]
    penalty += model.reg * (b @ b + c @ c)
    error = model.mean_ + b[:, None] + c + W @ H.T - X
    return 0.5 * (np.nansum(weights * error**2) + penalty)


# What weights mean


@pytest.mark.pairwise(
    solver=["als", "scaled", "gd"], fit_bias=BIASES, share_missing=[0.0, 0.3]
)
def test_loss_curve_ends_at_the_weighted_objective(
    planted, weights, solver, fit_bias, share_missing
):
    X = planted(share_missing=share_missing).X + 2
    model = GradientMF(
        3, solver=solver, fit_bias=fit_bias, reg=2.0, tol=1e-13, max_iter=3000
    )
    Z = model.fit_transform(X, entry_weight=weights)
    F = objective(model, X, weights, Z, model.components_.T, model.column_bias_)
    assert model.loss_curve_[-1] == pytest.approx(F, rel=1e-7)


def test_loss_curve_of_sgd_ends_at_the_weighted_objective(holes, weights, model):
    model.set_params(solver="sgd", max_iter=200, tol=1e-7)
    Z = model.fit_transform(holes, entry_weight=weights)
    F = objective(model, holes, weights, Z, model.components_.T, model.column_bias_)
    assert model.loss_curve_[-1] == pytest.approx(F, rel=1e-3)
    assert model.loss_curve_[-1] >= F * (1 - 1e-12)


@pytest.mark.parametrize(
    "form, fit_bias",
    [*((np.asarray, fit_bias) for fit_bias in BIASES), (sparse.csr_array, True)],
)
def test_the_weighted_objective_is_stationary_where_the_fit_ends(
    planted, weights, fit_bias, form
):
    X, weights = planted(m=12, n=7, share_missing=0.2).X + 2, weights[:12, :7]
    model = MaskedGradientMF(2, reg=0.3, fit_bias=fit_bias, tol=1e-15, max_iter=5000)
    pair = pair_of(form, X, weights)
    Z = model.fit_transform(pair[0], entry_weight=pair[1])
    parts = [Z, model.components_.T.copy()]
    if fit_bias:
        parts.append(model.column_bias_.copy())
    step = 1e-4
    for part in parts:
        for k in np.ndindex(part.shape):
            place, around = part[k], []
            for part[k] in (place + step, place - step):
                arguments = *parts[:2], model.column_bias_
                if fit_bias:
                    arguments = parts
                around.append(objective(model, X, weights, *arguments))
            part[k] = place
            slope = (around[0] - around[1]) / (2 * step)
            assert abs(slope) < 1e-5


def test_weights_of_rows_times_columns_are_those_of_a_scaled_svd(planted):
    """X is then approximated in rescaled rows and columns, which is solved by SVD."""
    X, rng = planted(noise=0.5).X, np.random.RandomState(0)
    of_rows, of_columns = rng.uniform(0.2, 3, 40), rng.uniform(0.2, 3, 15)
    weights = np.outer(of_rows, of_columns)
    root = np.sqrt(weights)
    optimum = np.linalg.svd(root * X, compute_uv=False)[3:]
    model = GradientMF(3, tol=1e-12, max_iter=2000)
    model.fit(X, entry_weight=weights)
    assert 2 * model.loss_curve_[-1] == pytest.approx(optimum @ optimum, rel=1e-8)


@pytest.mark.parametrize("fit_bias", BIASES)
@pytest.mark.parametrize("form", FORMS)
def test_transform_solves_the_weighted_ridge_problem_of_each_unseen_row(
    planted, weights, ridge_row, fit_bias, form
):
    X = planted(m=60, share_missing=0.3).X + 2
    model = MaskedGradientMF(3, fit_bias=fit_bias, reg=0.5).fit(X[:40])
    new, of_new = X[40:], weights[:20]
    pair = pair_of(form, new, of_new)
    found = model.transform(pair[0], entry_weight=pair[1])
    design = model.components_.T
    if fit_bias is True:
        design = np.column_stack([design, np.ones(len(design))])
    ridge = np.full(design.shape[1], 0.5)
    for x, s, z in zip(new, of_new, found, strict=True):
        seen = ~np.isnan(x) & (s > 0)
        root = np.sqrt(s[seen])
        target = x[seen] - model.mean_ - model.column_bias_[seen]
        oracle = ridge_row(root[:, None] * design[seen], root * target, ridge)
        assert_allclose(z, oracle, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_score_weighs_hidden_entries_and_those_it_predicts_from(
    holes, weights, ridge_row, form
):
    model = MaskedGradientMF(2, reg=0.5, max_iter=5).fit(holes)
    design = np.column_stack([model.components_.T, np.ones(15)])
    press = total = 0.0
    for x, s in zip(holes, weights, strict=True):
        observed = np.flatnonzero(~np.isnan(x) & (s > 0))
        for fold in range(5):
            hidden = observed[np.arange(observed.size) % 5 == fold]
            seen = np.setdiff1d(observed, hidden)
            root, base = np.sqrt(s[seen]), model.mean_ + model.column_bias_
            z = ridge_row(
                root[:, None] * design[seen],
                root * (x - base)[seen],
                np.full(3, 0.5),
            )
            press += s[hidden] @ (x - base - design @ z)[hidden] ** 2
        total += s[observed] @ (x - model.column_mean_)[observed] ** 2
    pair = pair_of(form, holes, weights)
    found = model.score(pair[0], entry_weight=pair[1])
    assert found == pytest.approx(1 - press / total, rel=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_the_means_are_weighted(holes, weights, model, form):
    pair = pair_of(form, holes, weights)
    model.fit(pair[0], entry_weight=pair[1])
    seen = np.where(np.isnan(holes), 0, weights)
    values = np.nan_to_num(holes)
    assert model.mean_ == pytest.approx(np.average(values, weights=seen), rel=1e-12)
    assert_allclose(
        model.column_mean_, np.average(values, axis=0, weights=seen), rtol=1e-9
    )


@pytest.mark.parametrize("fit_bias", [False, True])
def test_reconstruction_err_is_the_root_of_the_weighted_squares(
    holes, weights, model, fit_bias
):
    Z = model.set_params(fit_bias=fit_bias).fit_transform(holes, entry_weight=weights)
    squares = (model.inverse_transform(Z) - holes) ** 2
    expected = np.sqrt(np.nansum(weights * squares))
    assert model.reconstruction_err_ == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
def test_validation_curve_is_a_weighted_error(planted, solver):
    """Garbage that weighs next to nothing is held out like all else."""
    data, rng = planted(m=60, n=20, noise=0.1), np.random.RandomState(0)
    garbage = rng.uniform(size=data.X.shape) < 0.3
    X = np.where(garbage, 1000 * rng.standard_normal(data.X.shape), data.X)
    model = MaskedGradientMF(
        3,
        solver=solver,
        reg=0.1,
        max_iter=10,
        fit_bias=False,
        early_stopping=True,
        init=(data.W, data.H),
        random_state=0,
    )
    model.fit(X, entry_weight=np.where(garbage, 1e-12, 1))
    assert model.validation_curve_[0] < 1


# A weight of zero


@pytest.mark.pairwise(solver=SOLVERS, form=FORMS, early_stopping=[False, True])
def test_a_weight_of_zero_is_missing(
    holes, weights, model, solver, form, early_stopping
):
    model.set_params(solver=solver, early_stopping=early_stopping)
    without = np.where(weights == 0, np.nan, holes)
    expected = clone(model).fit_transform(without, entry_weight=weights)
    X, entry_weight = pair_of(form, holes, weights)
    Z = model.fit_transform(X, entry_weight=entry_weight)
    assert_allclose(Z, expected, rtol=1e-8, atol=1e-8)
    assert_allclose(
        model.transform(X, entry_weight=entry_weight),
        model.transform(without, entry_weight=weights),
        rtol=1e-8,
        atol=1e-8,
    )
    assert model.score(X, entry_weight=entry_weight) == pytest.approx(
        model.score(without, entry_weight=weights), rel=1e-8
    )


@pytest.mark.pairwise(Estimator=ESTIMATORS, solver=SOLVERS, share_missing=[0.0, 0.3])
def test_weights_of_zero_and_one_are_a_mask(planted, Estimator, solver, share_missing):
    data = planted(share_missing=share_missing)
    mask = np.random.RandomState(1).uniform(size=data.X.shape) < 0.8
    model = Estimator(3, solver=solver, reg=0.5, max_iter=10, random_state=0)
    expected = clone(model).fit_transform(data.X, mask=mask)
    for entry_weight in (mask.astype(float), mask.astype(int), mask):
        found = clone(model).fit_transform(data.X, entry_weight=entry_weight)
        assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


def test_zeros_and_ones_are_a_mask_to_the_defaults_too(planted):
    data = planted(m=100, n=30, share_missing=0.3)
    model = MaskedGradientMF()
    expected = clone(model).fit_transform(data.X)
    found = model.fit_transform(data.complete, entry_weight=data.mask.astype(float))
    assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


def test_values_of_weight_zero_are_never_looked_at(holes, weights, model):
    wild = np.where(weights == 0, 1e200, holes)
    assert_array_equal(
        clone(model).fit_transform(wild, entry_weight=weights),
        model.fit_transform(holes, entry_weight=weights),
    )


@pytest.mark.parametrize("form", FORMS)
def test_rows_and_columns_of_weight_zero_get_the_prior(holes, weights, model, form):
    weights[5], weights[:, 3] = 0, 0
    X, entry_weight = pair_of(form, holes, weights)
    Z = model.fit_transform(X, entry_weight=entry_weight)
    assert_array_equal(Z[5], np.zeros(4))
    assert_array_equal(model.components_[:, 3], np.zeros(3))
    assert model.column_bias_[3] == 0
    assert model.column_mean_[3] == pytest.approx(model.mean_)


@pytest.mark.parametrize("method", ["fit", "fit_transform", "score"])
@pytest.mark.parametrize("form", FORMS)
def test_weights_that_are_all_zero_leave_nothing(holes, model, form, method):
    X, entry_weight = pair_of(form, holes, np.zeros(holes.shape))
    with pytest.raises(ValueError, match="every entry of X is missing"):
        getattr(model.fit(holes), method)(X, entry_weight=entry_weight)


# The same weight everywhere


@pytest.mark.pairwise(
    Estimator=ESTIMATORS, solver=SOLVERS, fit_bias=BIASES, share_missing=[0.0, 0.3]
)
def test_weights_of_one_are_no_weights(
    planted, Estimator, solver, fit_bias, share_missing
):
    X = planted(share_missing=share_missing).X + 2
    model = Estimator(
        3, solver=solver, fit_bias=fit_bias, reg=0.5, max_iter=10, random_state=0
    )
    ones = np.ones(X.shape)
    Z = clone(model).fit_transform(X)
    assert_allclose(model.fit_transform(X, entry_weight=ones), Z, rtol=1e-8, atol=1e-8)
    assert_allclose(
        model.transform(X, entry_weight=ones), model.transform(X), rtol=1e-8, atol=1e-8
    )
    assert model.score(X, entry_weight=ones) == pytest.approx(model.score(X), rel=1e-8)


@pytest.mark.parametrize(
    "form, params",
    [
        (np.asarray, {}),
        (sparse.csr_array, {}),
        (sparse.csc_array, {"early_stopping": True}),
        (sparse.coo_array, {"noise": "shared"}),
        (np.asarray, {"solver": "sgd", "reg": 0.5, "early_stopping": True}),
    ],
)
def test_weights_of_one_are_no_weights_to_the_defaults(planted, params, form):
    X = planted(m=60, n=20, share_missing=0.3).X
    model = MaskedGradientMF(random_state=0, **params)
    X, entry_weight = pair_of(form, X, np.ones(X.shape))
    expected = clone(model).fit_transform(X)
    found = model.fit_transform(X, entry_weight=entry_weight)
    assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("factor", [1e-6, 0.3, 8.0, 1e6])
@pytest.mark.parametrize("solver", ["als", "gd"])
def test_a_factor_on_all_weights_is_one_on_the_ridge(planted, weights, solver, factor):
    data = planted(share_missing=0.3)
    model = MaskedGradientMF(
        3, solver=solver, reg=0.5, init=(data.W, data.H), max_iter=10, tol=0
    )
    scaled = clone(model).set_params(reg=0.5 * factor)
    Z = model.fit_transform(data.X, entry_weight=weights)
    found = scaled.fit_transform(data.X, entry_weight=factor * weights)
    assert_allclose(found, Z, rtol=1e-6, atol=1e-6)
    assert_allclose(scaled.loss_curve_, factor * np.array(model.loss_curve_), rtol=1e-8)
    assert scaled.score(data.X, entry_weight=factor * weights) == pytest.approx(
        model.score(data.X, entry_weight=weights), rel=1e-6
    )


@pytest.mark.pairwise(
    solver=SOLVERS, init=["svd", "random", "given"], power=[-20, 3, 20]
)
def test_the_way_to_the_optimum_does_not_depend_on_the_size_of_the_weights(
    planted, weights, model, solver, init, power
):
    data, factor = planted(share_missing=0.3), 2.0**power
    model.set_params(solver=solver, tol=0)
    model.set_params(init=(data.W, data.H) if init == "given" else init)
    scaled = clone(model).set_params(reg=0.5 * factor)
    model.fit(data.X, entry_weight=weights)
    scaled.fit(data.X, entry_weight=factor * weights)
    expected = factor * np.array(model.loss_curve_)
    assert_allclose(scaled.loss_curve_, expected, rtol=1e-6)


@pytest.mark.parametrize("factor", [1e-6, 0.3, 8.0, 1e6])
def test_the_optimum_is_that_of_the_ridge_over_the_factor(holes, weights, factor):
    model = MaskedGradientMF(3, reg=5.0, tol=1e-12, max_iter=2000)
    scaled = clone(model).set_params(reg=5 * factor)
    expected = model.inverse_transform(model.fit_transform(holes, entry_weight=weights))
    Z = scaled.fit_transform(holes, entry_weight=factor * weights)
    assert_allclose(scaled.inverse_transform(Z), expected, atol=1e-4)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_a_factor_on_all_weights_without_a_ridge_changes_nothing(holes, factor):
    model = MaskedGradientMF(2, reg=0.0, max_iter=5)
    Z = clone(model).fit_transform(holes)
    entry_weight = np.full(holes.shape, factor)
    assert_allclose(
        model.fit_transform(holes, entry_weight=entry_weight), Z, rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("factor", [0.01, 3.0, 100.0])
def test_the_learned_noise_takes_up_a_factor_on_all_weights(planted, weights, factor):
    X = planted(share_missing=0.3).X
    model, scaled = MaskedGradientMF(5), MaskedGradientMF(5)
    Z = model.fit_transform(X, entry_weight=weights)
    found = scaled.fit_transform(X, entry_weight=factor * weights)
    assert_allclose(scaled.noise_variance_, factor * model.noise_variance_, rtol=1e-6)
    assert_allclose(
        scaled.inverse_transform(found), model.inverse_transform(Z), atol=1e-6
    )
    assert scaled.score(X, entry_weight=factor * weights) == pytest.approx(
        model.score(X, entry_weight=weights), abs=1e-6
    )


@pytest.mark.parametrize("noise", ["column", "shared"])
def test_weights_of_one_over_the_variance_leave_a_learned_noise_of_one(planted, noise):
    data = planted(m=200, n=30, noise=0, share_missing=0.3)
    rng = np.random.RandomState(1)
    deviation = rng.uniform(0.3, 3, data.X.shape)
    X = data.X + deviation * rng.standard_normal(data.X.shape)
    model = MaskedGradientMF(6, noise=noise).fit(X, entry_weight=1 / deviation**2)
    assert model.rank_ == 3
    assert np.median(model.noise_variance_) == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("factor", [0.01, 1.0, 100.0])
def test_sgd_reaches_the_weighted_optimum_whatever_the_size_of_the_weights(
    planted, factor
):
    X = planted(m=24, n=12, share_missing=0.3).X
    weights = factor * np.random.RandomState(1).uniform(0.2, 3, size=X.shape)
    model = MaskedGradientMF(3, reg=factor, tol=1e-6, max_iter=300, random_state=0)
    optimum = clone(model).fit(X, entry_weight=weights).loss_curve_[-1]
    model.set_params(solver="sgd").fit(X, entry_weight=weights)
    assert model.loss_curve_[-1] <= 1.01 * optimum


@pytest.mark.pairwise(
    step=[("gd", 1), ("scaled", 20), ("sgd", 1)],
    factor=[0.01, 1.0, 100.0],
    fit_bias=[False, True],
)
def test_the_step_that_a_divergence_names_descends_with_weights_too(
    planted, step, factor, fit_bias
):
    solver, eta = step
    X = planted(m=24, n=12, share_missing=0.3).X
    weights = factor * np.random.RandomState(1).uniform(0.2, 3, size=X.shape)
    model = MaskedGradientMF(
        3,
        solver=solver,
        eta=eta if solver == "scaled" else eta / factor,
        fit_bias=fit_bias,
        init="random",
        reg=factor,
        tol=0,
        max_iter=60,
        random_state=0,
    )
    try:
        model.fit(X, entry_weight=weights)
    except DivergenceError as error:
        model.set_params(eta=error.stable_eta).fit(X, entry_weight=weights)
    assert model.loss_curve_[-1] < model.loss_curve_[0]


# Fits with weights


@pytest.mark.parametrize(
    "params",
    [
        *({"solver": solver, "reg": 1.0, "max_iter": 30} for solver in SOLVERS),
        {"solver": "sgd", "reg": 1.0, "eta": 2e-4, "max_iter": 30},
        {"early_stopping": True, "reg": 1.0},
        {"reg": "auto"},
        {"reg": "auto", "early_stopping": True},
    ],
    ids=str,
)
def test_entries_of_little_noise_are_worth_more_when_they_weigh_more(planted, params):
    data = planted(m=80, n=30, noise=0)
    rng = np.random.RandomState(1)
    deviation = np.where(rng.uniform(size=data.X.shape) < 0.5, 0.1, 3.0)
    X = data.X + deviation * rng.standard_normal(data.X.shape)
    model = MaskedGradientMF(3, random_state=0, **params)

    def error(**options):
        found = model.inverse_transform(model.fit_transform(X, **options))
        return np.sqrt(np.mean((found - data.signal) ** 2))

    assert error(entry_weight=1 / deviation**2) < 0.5 * error()


@pytest.mark.parametrize("container", FORMS[1:])
@pytest.mark.parametrize("of_weights", FORMS)
def test_sparse_data_take_dense_and_sparse_weights_of_any_format(
    holes, weights, model, container, of_weights
):
    expected = clone(model).fit_transform(holes, entry_weight=weights)
    X = at_entries_of(holes, holes, container)
    entry_weight = weights
    if of_weights is not np.asarray:
        entry_weight = at_entries_of(holes, weights, of_weights)
    Z = model.fit_transform(X, entry_weight=entry_weight)
    assert_allclose(Z, expected, rtol=1e-8)
    assert_allclose(
        model.transform(X, entry_weight=entry_weight),
        model.transform(holes, entry_weight=weights),
        rtol=1e-8,
    )
    assert model.score(X, entry_weight=entry_weight) == pytest.approx(
        model.score(holes, entry_weight=weights), rel=1e-8
    )


def test_the_order_of_stored_weights_does_not_matter(holes, weights, model):
    expected = clone(model).fit_transform(holes, entry_weight=weights)
    X = at_entries_of(holes, holes)
    stored = at_entries_of(holes, weights, sparse.coo_array)
    order = np.random.RandomState(0).permutation(stored.nnz)
    coords = [index[order] for index in stored.coords]
    shuffled = sparse.coo_array((stored.data[order], coords), stored.shape)
    found = model.fit_transform(X, entry_weight=shuffled)
    assert_allclose(found, expected, rtol=1e-8)


def test_a_weight_that_dense_data_do_not_find_stored_is_zero(holes, weights, model):
    expected = clone(model).fit_transform(holes, entry_weight=weights)
    found = model.fit_transform(holes, entry_weight=sparse.csr_array(weights))
    assert_array_equal(found, expected)


@pytest.mark.parametrize("form", FORMS)
def test_weights_mask_and_nan_combine(holes, weights, model, form):
    mask = np.random.RandomState(2).uniform(size=holes.shape) < 0.8
    expected = clone(model).fit_transform(
        np.where(mask, holes, np.nan), entry_weight=weights
    )
    X, entry_weight = pair_of(form, holes, weights)
    found = model.fit_transform(X, mask=mask, entry_weight=entry_weight)
    assert_allclose(found, expected, rtol=1e-8)


@pytest.mark.parametrize(
    "form", [np.ndarray.tolist, pd.DataFrame, np.asfortranarray, np.float32]
)
def test_weights_may_be_a_list_or_a_frame_or_of_another_type(holes, model, form):
    weights = np.random.RandomState(1).randint(4, size=holes.shape) / 2
    expected = clone(model).fit_transform(holes, entry_weight=weights)
    found = model.fit_transform(holes, entry_weight=form(weights))
    assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8])
@pytest.mark.parametrize("form", FORMS)
def test_weights_may_be_integers(holes, model, dtype, form):
    weights = np.random.RandomState(1).randint(4, size=holes.shape)
    expected = clone(model).fit_transform(holes, entry_weight=weights.astype(float))
    X, entry_weight = pair_of(form, holes, weights.astype(dtype))
    assert_array_equal(model.fit_transform(X, entry_weight=entry_weight), expected)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("form", FORMS)
def test_single_precision_stays_single_and_agrees_with_double(
    holes, weights, model, solver, form
):
    model.set_params(solver=solver)
    expected = clone(model).fit(holes, entry_weight=weights)
    X, entry_weight = pair_of(form, holes.astype(np.float32), weights)
    Z = model.fit_transform(X, entry_weight=entry_weight)
    assert Z.dtype == model.components_.dtype == np.float32
    assert model.transform(X, entry_weight=entry_weight).dtype == np.float32
    assert model.loss_curve_[-1] == pytest.approx(expected.loss_curve_[-1], rel=0.01)


@pytest.mark.parametrize("form", FORMS)
def test_data_and_weights_are_left_as_they_were(holes, weights, model, form):
    pair = pair_of(form, holes, weights)
    before = [array.copy() for array in pair]
    for method in METHODS:
        getattr(model.fit(holes), method)(pair[0], entry_weight=pair[1])
    for array, copy in zip(pair, before, strict=True):
        if form is np.asarray:
            assert_array_equal(array, copy)
        else:
            assert_array_equal(array.toarray(), copy.toarray())
            assert array.nnz == copy.nnz


def test_fit_transform_returns_what_transform_does(holes, weights, model):
    Z = clone(model).fit_transform(holes, entry_weight=weights)
    folded = model.fit(holes, entry_weight=weights).transform(
        holes, entry_weight=weights
    )
    assert_allclose(Z, folded, rtol=1e-6, atol=1e-12)


def test_a_new_row_is_folded_in_without_weights_as_ever(holes, weights, model):
    model.fit(holes, entry_weight=weights)
    ones = np.ones(holes.shape)
    assert_allclose(
        model.transform(holes), model.transform(holes, entry_weight=ones), rtol=1e-9
    )


# What is refused


@pytest.mark.pairwise(form=FORMS, method=METHODS, cut=[np.s_[1:], np.s_[:, 1:]])
def test_weights_of_another_shape(holes, weights, model, form, cut, method):
    X = pair_of(form, holes, weights)[0]
    entry_weight = weights[cut]
    if form is not np.asarray:
        entry_weight = at_entries_of(holes[cut], entry_weight, form)
    shapes = rf"\({entry_weight.shape[0]}, {entry_weight.shape[1]}\).*\(40, 15\)"
    with pytest.raises(ValueError, match="entry_weight.*" + shapes):
        getattr(model.fit(holes), method)(X, entry_weight=entry_weight)


@pytest.mark.parametrize("entry_weight", [2.0, np.ones(40), np.ones((40, 1))], ids=repr)
@pytest.mark.parametrize("form", FORMS)
def test_weights_are_not_broadcast(holes, weights, model, form, entry_weight):
    X = pair_of(form, holes, weights)[0]
    with pytest.raises(ValueError, match=r"entry_weight has shape \(.*\(40, 15\)"):
        model.fit(X, entry_weight=entry_weight)


@pytest.mark.pairwise(
    taker=FORMS_OF, method=METHODS, value=[-0.5, np.nan, np.inf, -np.inf]
)
def test_negative_and_infinite_weights_and_nan(holes, weights, taker, method, value):
    Estimator, form = taker
    row, column = np.argwhere(~np.isnan(holes))[77]
    weights[row, column] = value
    X, entry_weight = pair_of(form, holes, weights)
    model = Estimator(2, reg=0.5, max_iter=2).fit(holes)
    with pytest.raises(
        ValueError, match=rf"entry_weight must be .* {value} at \({row}, {column}\)"
    ):
        getattr(model, method)(X, entry_weight=entry_weight)


def test_weights_too_large_for_the_type_of_the_data(holes, weights, model):
    weights[3, 4] = 1e60
    with pytest.raises(ValueError, match=r"entry_weight must be finite.*\(3, 4\)"):
        model.fit(holes.astype(np.float32), entry_weight=weights)


@pytest.mark.parametrize("dtype", [complex, str, object])
@pytest.mark.parametrize("form", FORMS[:2])
def test_weights_that_are_no_real_numbers(holes, weights, model, dtype, form):
    X = pair_of(form, holes, weights)[0]
    entry_weight = weights.astype(dtype)
    if dtype is complex:
        entry_weight += 1j
    else:
        entry_weight[0, 0] = "many"
    with pytest.raises((TypeError, ValueError)):
        model.fit(X, entry_weight=entry_weight)


@pytest.mark.pairwise(
    container=FORMS[1:], method=METHODS, change=["one less", "one more", "another"]
)
def test_sparse_weights_of_other_entries(
    holes, weights, model, container, change, method
):
    observed, missing = np.argwhere(~np.isnan(holes)), np.argwhere(np.isnan(holes))
    pattern = holes.copy()
    if change != "one more":
        pattern[tuple(observed[77])] = np.nan
    if change != "one less":
        pattern[tuple(missing[33])] = 0
    X = at_entries_of(holes, holes, container)
    entry_weight = at_entries_of(pattern, weights, container)
    with pytest.raises(
        ValueError, match=r"entry_weight must store exactly the entries that X stores"
    ):
        getattr(model.fit(holes), method)(X, entry_weight=entry_weight)


@pytest.mark.parametrize("container", FORMS[1:])
def test_sparse_weights_that_store_an_entry_twice(holes, weights, model, container):
    stored = at_entries_of(holes, weights, sparse.coo_array)
    coords = [np.append(index, index[-1]) for index in stored.coords]
    stored = sparse.coo_array((np.append(stored.data, 1), coords), stored.shape)
    if container is not sparse.coo_array:  # conversion would sum them
        indptr = sparse.csr_array((0 * stored.data + 1, coords), stored.shape).indptr
        indptr[-1] += 1
        stored = sparse.csr_array((stored.data, coords[1], indptr), stored.shape)
    if container is sparse.csc_array:
        X, stored = at_entries_of(holes, holes).T, stored.T
    else:
        X = at_entries_of(holes, holes, container)
    assert stored.format == X.format == container((1, 1)).format
    with pytest.raises(ValueError, match="entry_weight stores an entry more than once"):
        model.fit(X, entry_weight=stored)


@pytest.mark.parametrize("name", ["dia", "bsr"])
def test_sparse_weights_in_formats_that_cannot_tell_a_stored_zero(
    holes, weights, model, name
):
    X, entry_weight = pair_of(sparse.csr_array, holes, weights)
    with pytest.raises((TypeError, ValueError), match=f"entry_weight.*{name.upper()}"):
        model.fit(X, entry_weight=entry_weight.asformat(name))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", FORMS)
def test_gradient_mf_takes_weights_of_dense_data_only(holes, weights, method, form):
    X = sparse.csr_array(np.nan_to_num(holes))
    model = GradientMF(2, reg=0.5, max_iter=2).fit(X)
    entry_weight = form(weights)
    with pytest.raises(
        ValueError, match=r"entry_weight needs a dense X.*MaskedGradientMF"
    ):
        getattr(model, method)(X, entry_weight=entry_weight)


def test_a_fit_refused_for_its_weights_keeps_the_earlier_one(holes, weights, model):
    Z = model.fit(holes).transform(holes)
    with pytest.raises(ValueError, match="entry_weight"):
        model.fit(holes, entry_weight=-weights)
    assert_array_equal(model.transform(holes), Z)


# Metadata routing


@pytest.fixture
def labelled(planted):
    data = planted(m=90, share_missing=0.3)
    rng = np.random.RandomState(1)
    weights = np.where(data.mask, rng.uniform(0.2, 3, size=data.X.shape), 0)
    mask = rng.uniform(size=data.X.shape) < 0.9
    return data, (data.W[:, 0] > 0).astype(int), weights, mask


def requesting(model):
    """Ask for both wherever they can be given."""
    both = {"mask": True, "entry_weight": True}
    model.set_fit_request(**both).set_transform_request(**both)
    return model.set_score_request(**both)


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_weights_are_routed_through_a_pipeline(labelled, Estimator):
    data, y, weights, mask = labelled
    both = {"mask": mask, "entry_weight": weights}
    model = Estimator(3, reg=0.5, max_iter=10)
    Z = clone(model).fit_transform(data.complete, **both)
    by_hand = LogisticRegression().fit(Z, y)
    with config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(requesting(model), LogisticRegression())
        pipeline.fit(data.complete, y, **both)
        predicted = pipeline.predict_proba(data.complete, **both)
    assert_allclose(predicted, by_hand.predict_proba(Z), rtol=1e-6)


@pytest.mark.parametrize("Estimator, form", FORMS_OF[:3])
def test_a_grid_search_gives_every_fold_the_weights_of_its_rows(
    labelled, Estimator, form
):
    data, _, weights, mask = labelled
    X, entry_weight = pair_of(form, data.X, weights)
    model, folds = Estimator(reg=0.5, max_iter=10), KFold(3)
    expected = []
    for rank in (1, 2, 3):
        scores = []
        for train, test in folds.split(data.X):
            of_train, of_test = (
                {"mask": mask[rows], "entry_weight": weights[rows]}
                for rows in (train, test)
            )
            fitted = clone(model).set_params(rank=rank).fit(data.X[train], **of_train)
            scores.append(fitted.score(data.X[test], **of_test))
        expected.append(np.mean(scores))
    with config_context(enable_metadata_routing=True):
        search = GridSearchCV(requesting(model), {"rank": [1, 2, 3]}, cv=folds)
        search.fit(X, mask=mask, entry_weight=entry_weight)
    assert_allclose(search.cv_results_["mean_test_score"], expected, rtol=1e-7)


@pytest.mark.filterwarnings("error::sklearn.exceptions.FitFailedWarning")
def test_a_grid_search_over_a_pipeline_routes_weights_to_its_first_step(labelled):
    data, y, weights, mask = labelled
    both = {"mask": mask, "entry_weight": weights}
    model = MaskedGradientMF(reg=0.5, max_iter=10)
    Z = clone(model).set_params(rank=3).fit_transform(data.complete, **both)
    expected = LogisticRegression().fit(Z, y).predict_proba(Z)
    with config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(requesting(model), LogisticRegression())
        search = GridSearchCV(pipeline, {"maskedgradientmf__rank": [3]}, cv=3)
        search.fit(data.complete, y, **both)
        found = search.best_estimator_.predict_proba(data.complete, **both)
    assert_allclose(found, expected, rtol=1e-6)
