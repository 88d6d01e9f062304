"""Weights of single entries: how much the squared error of each one counts."""

import re

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

SOLVERS = [*STEPS, "sgd"]
CSR, CSC, COO = sparse.csr_array, sparse.csc_array, sparse.coo_array
FORMS = [np.asarray, CSR, CSC, COO]
METHODS = ["fit", "fit_transform", "transform", "score"]
TYPES = [float, int, bool]


@pytest.fixture
def table(planted):
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


def at_entries_of(X, values, container=CSR):
    """Store the values, zeros included, where X is not NaN; COO in random order."""
    places = np.argwhere(~np.isnan(X))
    np.random.RandomState(3).shuffle(places)
    rows, columns = places.T
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


def assert_same(model, given, expected, tolerance=1e-8):
    """A fit, fold-in and score of both (X, options) are the same."""
    (X, options), (other_X, other_options) = given, expected
    other = clone(model)
    for method in ("fit_transform", "transform"):
        Z = getattr(model, method)(X, **options)
        other_Z = getattr(other, method)(other_X, **other_options)
        assert_allclose(Z, other_Z, rtol=tolerance, atol=tolerance)
    score = other.score(other_X, **other_options)
    assert model.score(X, **options) == pytest.approx(score, rel=tolerance)


# What weights mean


@pytest.mark.pairwise(
    solver=["als", "scaled", "gd"],
    fit_bias=[False, True, "columns"],
    share_missing=[0.0, 0.3],
)
def test_the_loss_and_the_error_are_sums_of_weighted_squares(
    planted, weights, solver, fit_bias, share_missing
):
    X = planted(share_missing=share_missing).X + 2
    model = GradientMF(3, solver=solver, reg=2.0, tol=1e-13, max_iter=3000)
    model.set_params(fit_bias=fit_bias)
    Z = model.fit_transform(X, entry_weight=weights)
    F = objective(model, X, weights, Z, model.components_.T, model.column_bias_)
    assert model.loss_curve_[-1] == pytest.approx(F, rel=1e-7)
    squares = np.nansum(weights * (model.inverse_transform(Z) - X) ** 2)
    assert model.reconstruction_err_ == pytest.approx(np.sqrt(squares), rel=1e-7)


@pytest.mark.parametrize("form, fit_bias", [(np.asarray, "columns"), (CSR, True)])
def test_the_weighted_objective_is_stationary_where_the_fit_ends(
    planted, weights, fit_bias, form
):
    X, weights = planted(m=12, n=7, share_missing=0.2).X + 2, weights[:12, :7]
    model = MaskedGradientMF(2, reg=0.3, fit_bias=fit_bias, tol=1e-15, max_iter=5000)
    sparse_or_dense, entry_weight = pair_of(form, X, weights)
    Z = model.fit_transform(sparse_or_dense, entry_weight=entry_weight)
    parameters = [Z, model.components_.T.copy(), model.column_bias_.copy()]
    step = 1e-4
    for array in parameters:
        for k in np.ndindex(array.shape):
            optimum, around = array[k], []
            for array[k] in (optimum + step, optimum - step):
                around.append(objective(model, X, weights, *parameters))
            array[k] = optimum
            assert abs(around[0] - around[1]) / (2 * step) < 1e-5


def test_weights_of_rows_times_columns_are_those_of_a_scaled_svd(planted):
    """X is then approximated in rescaled rows and columns, which is solved by SVD."""
    X, rng = planted(noise=0.5).X, np.random.RandomState(0)
    weights = np.outer(rng.uniform(0.2, 3, 40), rng.uniform(0.2, 3, 15))
    optimum = np.linalg.svd(np.sqrt(weights) * X, compute_uv=False)[3:]
    model = GradientMF(3, tol=1e-12, max_iter=2000)
    model.fit(X, entry_weight=weights)
    assert 2 * model.loss_curve_[-1] == pytest.approx(optimum @ optimum, rel=1e-8)


@pytest.mark.parametrize(
    "form, fit_bias", [(np.asarray, False), (CSR, True), (CSC, "columns"), (COO, True)]
)
def test_transform_solves_the_weighted_ridge_problem_of_each_unseen_row(
    planted, weights, ridge_row, fit_bias, form
):
    X = planted(m=60, share_missing=0.3).X + 2
    model = MaskedGradientMF(3, fit_bias=fit_bias, reg=0.5).fit(X[:40])
    new, of_new = X[40:], weights[:20]
    sparse_or_dense, entry_weight = pair_of(form, new, of_new)
    Z = model.transform(sparse_or_dense, entry_weight=entry_weight)
    design = model.components_.T
    if fit_bias is True:
        design = np.column_stack([design, np.ones(len(design))])
    ridge = np.full(design.shape[1], 0.5)
    for x, s, z in zip(new, of_new, Z, strict=True):
        seen = ~np.isnan(x) & (s > 0)
        root = np.sqrt(s[seen])
        target = x[seen] - model.mean_ - model.column_bias_[seen]
        oracle = ridge_row(root[:, None] * design[seen], root * target, ridge)
        assert_allclose(z, oracle, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("form", [np.asarray, COO])
def test_score_weighs_hidden_entries_and_those_it_predicts_from(
    table, weights, ridge_row, form
):
    model = MaskedGradientMF(2, reg=0.5, max_iter=5).fit(table)
    design = np.column_stack([model.components_.T, np.ones(15)])
    base = model.mean_ + model.column_bias_
    press = total = 0.0
    for x, s in zip(table, weights, strict=True):
        observed = np.flatnonzero(~np.isnan(x) & (s > 0))
        for fold in range(5):
            hidden = observed[np.arange(observed.size) % 5 == fold]
            seen = np.setdiff1d(observed, hidden)
            root = np.sqrt(s[seen])
            weighted, target = root[:, None] * design[seen], root * (x - base)[seen]
            z = ridge_row(weighted, target, np.full(3, 0.5))
            press += s[hidden] @ (x - base - design @ z)[hidden] ** 2
        total += s[observed] @ (x - model.column_mean_)[observed] ** 2
    X, entry_weight = pair_of(form, table, weights)
    score = model.score(X, entry_weight=entry_weight)
    assert score == pytest.approx(1 - press / total, rel=1e-9)


def test_the_means_are_weighted(table, weights, model):
    model.fit(table, entry_weight=weights)
    seen, values = np.where(np.isnan(table), 0, weights), np.nan_to_num(table)
    assert model.mean_ == pytest.approx(np.average(values, weights=seen), rel=1e-12)
    means = np.average(values, axis=0, weights=seen)
    assert_allclose(model.column_mean_, means, rtol=1e-9)


@pytest.mark.parametrize("solver", ["als", "sgd"])
def test_the_validation_curve_is_a_weighted_error(planted, solver):
    """Garbage that weighs next to nothing is held out like all else."""
    data, rng = planted(m=60, n=20, noise=0.1), np.random.RandomState(0)
    garbage = rng.uniform(size=data.X.shape) < 0.3
    X = np.where(garbage, 1000 * rng.standard_normal(data.X.shape), data.X)
    model = MaskedGradientMF(3, solver=solver, reg=0.1, max_iter=10, fit_bias=False)
    model.set_params(early_stopping=True, init=(data.W, data.H), random_state=0)
    model.fit(X, entry_weight=np.where(garbage, 1e-12, 1))
    assert model.validation_curve_[0] < 1


# A weight of zero


@pytest.mark.pairwise(solver=SOLVERS, form=FORMS, early_stopping=[False, True])
def test_a_weight_of_zero_is_missing(
    table, weights, model, solver, form, early_stopping
):
    model.set_params(solver=solver, early_stopping=early_stopping)
    weights[5], weights[:, 3] = 0, 0
    wild = np.where(weights == 0, 1e200, table)
    X, entry_weight = pair_of(form, np.where(np.isnan(table), np.nan, wild), weights)
    without = np.where(weights == 0, np.nan, table)
    given = X, {"entry_weight": entry_weight}
    assert_same(model, given, (without, {"entry_weight": weights}))


def test_weights_of_zero_and_one_are_a_mask(planted, model):
    data = planted(m=60, share_missing=0.3)
    mask = np.random.RandomState(1).uniform(size=data.X.shape) < 0.8
    others = [
        GradientMF(3, reg=0.5, max_iter=10),
        clone(model).set_params(solver="sgd"),
    ]
    for estimator, dtype in zip([MaskedGradientMF(5), *others], TYPES, strict=True):
        given = data.X, {"entry_weight": mask.astype(dtype)}
        assert_same(estimator, given, (data.X, {"mask": mask}))


def test_weights_that_are_all_zero_leave_nothing(table, model):
    model.fit(table)
    for form in (np.asarray, CSR):
        X, entry_weight = pair_of(form, table, np.zeros(table.shape))
        for method in ("fit", "score"):
            with pytest.raises(ValueError, match="every entry of X is missing"):
                getattr(model, method)(X, entry_weight=entry_weight)


# The same weight everywhere


@pytest.mark.parametrize(
    "model",
    [
        GradientMF(3, solver="als", fit_bias="columns", reg=0.5),
        GradientMF(3, solver="sgd", reg=0.5, max_iter=10),
        MaskedGradientMF(3, solver="gd", reg=0.5, max_iter=10),
        MaskedGradientMF(3, solver="scaled", fit_bias=False, reg=0.5),
        pytest.param(MaskedGradientMF(), marks=pytest.mark.slow),
        MaskedGradientMF(early_stopping=True),
        MaskedGradientMF(noise="shared"),
        MaskedGradientMF(2, reg=0.0, max_iter=5),
    ],
    ids=str,
)
@pytest.mark.parametrize("share_missing", [0.0, 0.3])
def test_weights_of_one_and_without_a_ridge_equal_weights_change_nothing(
    planted, model, share_missing
):
    X = planted(share_missing=share_missing).X + 2
    model = clone(model).set_params(random_state=0)
    for weight in [1] if model.reg else [1e-6, 1e6]:
        equal = {"entry_weight": np.full(X.shape, weight)}
        assert_same(model, (X, equal), (X, {}), 1e-8 if model.reg else 1e-6)


@pytest.mark.pairwise(
    solver=SOLVERS, init=["svd", "random", "given"], factor=[2.0**-20, 0.3, 8, 2.0**20]
)
def test_a_factor_on_all_weights_is_one_on_the_ridge(
    planted, weights, model, solver, init, factor
):
    data = planted(share_missing=0.3)
    init = (data.W, data.H) if init == "given" else init
    model.set_params(solver=solver, init=init, tol=0)
    scaled = clone(model).set_params(reg=0.5 * factor)
    model.fit(data.X, entry_weight=weights)
    scaled.fit(data.X, entry_weight=factor * weights)
    assert_allclose(scaled.loss_curve_, factor * np.array(model.loss_curve_), rtol=1e-6)
    score = model.score(data.X, entry_weight=weights)
    found = scaled.score(data.X, entry_weight=factor * weights)
    assert found == pytest.approx(score, rel=1e-5)


@pytest.mark.slow
def test_the_learned_noise_takes_up_a_factor_on_all_weights(planted, weights):
    X, factor = planted(share_missing=0.3).X, 100.0
    model, scaled = MaskedGradientMF(5), MaskedGradientMF(5)
    Z = model.fit_transform(X, entry_weight=weights)
    scaled_Z = scaled.fit_transform(X, entry_weight=factor * weights)
    assert_allclose(scaled.noise_variance_, factor * model.noise_variance_, rtol=1e-6)
    expected = model.inverse_transform(Z)
    assert_allclose(scaled.inverse_transform(scaled_Z), expected, atol=1e-6)
    score = model.score(X, entry_weight=weights)
    found = scaled.score(X, entry_weight=factor * weights)
    assert found == pytest.approx(score, abs=1e-6)


@pytest.mark.accuracy
@pytest.mark.parametrize("noise", ["column", "shared"])
def test_weights_of_one_over_the_variance_leave_a_learned_noise_of_one(planted, noise):
    data = planted(m=200, n=30, noise=0, share_missing=0.3)
    rng = np.random.RandomState(1)
    deviation = rng.uniform(0.3, 3, data.X.shape)
    X = data.X + deviation * rng.standard_normal(data.X.shape)
    model = MaskedGradientMF(6, noise=noise).fit(X, entry_weight=1 / deviation**2)
    assert model.rank_ == 3
    assert np.median(model.noise_variance_) == pytest.approx(1, rel=0.1)


@pytest.mark.accuracy
@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_sgd_reaches_the_weighted_optimum_whatever_the_size_of_the_weights(
    planted, factor
):
    X = planted(m=24, n=12, share_missing=0.3).X
    weights = factor * np.random.RandomState(1).uniform(0.2, 3, size=X.shape)
    model = MaskedGradientMF(3, reg=factor, tol=1e-6, max_iter=300, random_state=0)
    optimum = clone(model).fit(X, entry_weight=weights).loss_curve_[-1]
    model.set_params(solver="sgd")
    Z = model.fit_transform(X, entry_weight=weights)
    F = objective(model, X, weights, Z, model.components_.T, model.column_bias_)
    assert F * (1 - 1e-12) <= model.loss_curve_[-1] <= 1.01 * optimum


@pytest.mark.parametrize(
    "solver, eta, factor", [("gd", 0.01, 100), ("scaled", 20, 1), ("sgd", 100, 0.01)]
)
def test_the_step_that_a_divergence_names_descends_too(planted, solver, eta, factor):
    X = planted(m=24, n=12, share_missing=0.3).X
    weights = factor * np.random.RandomState(1).uniform(0.2, 3, size=X.shape)
    model = MaskedGradientMF(3, solver=solver, eta=eta, init="random", reg=factor)
    model.set_params(tol=0, max_iter=60, random_state=0)
    with pytest.raises(DivergenceError) as caught:
        model.fit(X, entry_weight=weights)
    model.set_params(eta=caught.value.stable_eta).fit(X, entry_weight=weights)
    assert model.loss_curve_[-1] < model.loss_curve_[0]


@pytest.mark.accuracy
@pytest.mark.parametrize(
    "params",
    [
        {"solver": "als", "reg": 1.0, "max_iter": 30},
        {"solver": "sgd", "reg": 1.0, "eta": 2e-4, "max_iter": 30},
        {"reg": 1.0, "early_stopping": True},
        {},
        {"early_stopping": True},
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
        filled = model.inverse_transform(model.fit_transform(X, **options))
        return np.sqrt(np.mean((filled - data.signal) ** 2))

    assert error(entry_weight=1 / deviation**2) < 0.5 * error()


# Forms of weights


@pytest.mark.parametrize(
    "container, other", [(CSR, np.asarray), (CSR, CSC), (CSC, COO), (COO, CSR)]
)
def test_weights_and_data_may_have_different_formats(
    table, weights, model, container, other
):
    X = at_entries_of(table, table, container)
    entry_weight = pair_of(other, table, weights)[1]
    given = X, {"entry_weight": entry_weight}
    assert_same(model, given, (table, {"entry_weight": weights}))
    # A weight that dense data do not find stored is zero.
    given = table, {"entry_weight": container(weights)}
    assert_same(model, given, (table, {"entry_weight": weights}))


@pytest.mark.parametrize("form", [np.asarray, CSR])
def test_weights_mask_and_nan_combine(table, weights, model, form):
    mask = np.random.RandomState(2).uniform(size=table.shape) < 0.8
    X, entry_weight = pair_of(form, table, weights)
    hidden = np.where(mask, table, np.nan)
    given = X, {"mask": mask, "entry_weight": entry_weight}
    assert_same(model, given, (hidden, {"entry_weight": weights}))


@pytest.mark.parametrize(
    "form",
    [np.ndarray.tolist, pd.DataFrame, np.asfortranarray, np.float32, np.int64, CSR],
)
def test_weights_may_be_a_list_or_a_frame_or_of_another_type(table, model, form):
    weights = np.random.RandomState(1).randint(4, size=table.shape).astype(np.uint8)
    table.flags.writeable = weights.flags.writeable = False
    expected = clone(model).fit_transform(table, entry_weight=weights.astype(float))
    found = model.fit_transform(table, entry_weight=form(weights))
    assert_array_equal(found, expected)
    assert model.score(table, entry_weight=form(weights)) < 1


@pytest.mark.parametrize("solver, form", list(zip(SOLVERS, FORMS, strict=True)))
def test_single_precision_stays_single_and_agrees_with_double(
    table, weights, model, solver, form
):
    model.set_params(solver=solver)
    expected = clone(model).fit(table, entry_weight=weights)
    X, entry_weight = pair_of(form, table.astype(np.float32), weights)
    Z = model.fit_transform(X, entry_weight=entry_weight)
    assert Z.dtype == model.components_.dtype == np.float32
    assert model.transform(X, entry_weight=entry_weight).dtype == np.float32
    assert model.loss_curve_[-1] == pytest.approx(expected.loss_curve_[-1], rel=0.01)


# What is refused


@pytest.mark.parametrize("method", METHODS)
def test_weights_of_another_shape_are_not_broadcast(table, weights, model, method):
    X = at_entries_of(table, table)
    sparse_weights = at_entries_of(table[:, 1:], weights[:, 1:])
    dense_weights = [weights[1:], weights[:, 1:], weights[:, :1], weights[:, 0], 2.0]
    pairs = [(data, wrong) for data in (table, X) for wrong in dense_weights]
    for given, entry_weight in [*pairs, (table, sparse_weights), (X, sparse_weights)]:
        shape = re.escape(str(np.shape(entry_weight)))
        with pytest.raises(ValueError, match=rf"entry_weight.*{shape}.*\(40, 15\)"):
            getattr(model.fit(table), method)(given, entry_weight=entry_weight)


WRONG = [(np.asarray, "fit", -0.5), (np.asarray, "score", np.inf)]
WRONG += [(CSR, "transform", np.nan), (COO, "fit_transform", -np.inf)]


@pytest.mark.parametrize("form, method, value", WRONG)
def test_bad_weights_and_their_place(table, weights, model, form, method, value):
    row, column = np.argwhere(~np.isnan(table))[77]
    weights[row, column] = value
    X, entry_weight = pair_of(form, table, weights)
    message = rf"entry_weight must be .* {value} at \({row}, {column}\)"
    model.fit(table)
    with pytest.raises(ValueError, match=message):
        getattr(model, method)(X, entry_weight=entry_weight)
    if form is not np.asarray:  # the place is known of dense weights of sparse data too
        with pytest.raises(ValueError, match=message):
            getattr(model, method)(X, entry_weight=weights)


def test_weights_that_are_no_real_numbers_or_too_large_ones(table, weights, model):
    for form in (np.asarray, CSR):
        X, entry_weight = pair_of(form, table, weights + 1j)
        with pytest.raises(ValueError, match="must be real numbers; got complex128"):
            model.fit(X, entry_weight=entry_weight)
    with pytest.raises(ValueError, match="must be real numbers; got <U"):
        model.fit(table, entry_weight=weights.astype(str))
    weights[3, 4] = 1e60
    with pytest.raises(ValueError, match=r"entry_weight must be finite.*\(3, 4\)"):
        model.fit(table.astype(np.float32), entry_weight=weights)


@pytest.mark.parametrize(
    "change, container", [("one less", CSR), ("one more", COO), ("another", CSC)]
)
def test_sparse_weights_of_other_entries(table, weights, model, container, change):
    observed, missing = np.argwhere(~np.isnan(table)), np.argwhere(np.isnan(table))
    pattern = table.copy()
    if change != "one more":
        pattern[tuple(observed[77])] = np.nan
    if change != "one less":
        pattern[tuple(missing[33])] = 0
    X = at_entries_of(table, table, container)
    entry_weight = at_entries_of(pattern, weights, container)
    message = "entry_weight must store exactly the entries that X stores"
    with pytest.raises(ValueError, match=message):
        model.fit(X, entry_weight=entry_weight)
    with pytest.raises(ValueError, match=message):
        model.fit(table).score(X, entry_weight=entry_weight)


def test_sparse_weights_that_are_ambiguous(table, weights, model):
    X, stored = pair_of(COO, table, weights)
    for name in ("dia", "bsr"):
        with pytest.raises(TypeError, match=f"entry_weight.*{name.upper()}"):
            model.fit(X, entry_weight=stored.asformat(name))
    coords = [np.append(index, index[-1]) for index in stored.coords]
    twice = COO((np.append(stored.data, 1), coords), stored.shape)
    with pytest.raises(ValueError, match="entry_weight stores an entry more than once"):
        model.fit(X, entry_weight=twice)


def test_a_fit_refused_for_its_weights_keeps_the_earlier_one(table, weights, model):
    Z = model.fit(table).transform(table)
    with pytest.raises(ValueError, match="entry_weight"):
        model.fit(table, entry_weight=-weights)
    assert_array_equal(model.transform(table), Z)


# Metadata routing


@pytest.mark.filterwarnings("error::sklearn.exceptions.FitFailedWarning")
@pytest.mark.parametrize(
    "Estimator, form", [(GradientMF, np.asarray), (MaskedGradientMF, CSR)]
)
def test_weights_are_routed_through_grid_searches_and_pipelines(
    planted, Estimator, form
):
    data, rng = planted(m=90, share_missing=0.3), np.random.RandomState(1)
    y = data.W[:, 0] > 0
    weights = np.where(data.mask, rng.uniform(0.2, 3, size=data.X.shape), 0)
    mask = rng.uniform(size=data.X.shape) < 0.9
    X, entry_weight = pair_of(form, data.X, weights)
    model, folds, scores = Estimator(3, reg=0.5, max_iter=10), KFold(3), []
    for rows, test in folds.split(data.X):
        fitted = clone(model)
        fitted.fit(data.X[rows], mask=mask[rows], entry_weight=weights[rows])
        of_test = {"mask": mask[test], "entry_weight": weights[test]}
        scores.append(fitted.score(data.X[test], **of_test))
    given = {"mask": mask, "entry_weight": entry_weight}
    Z = clone(model).fit_transform(X, **given)
    expected = LogisticRegression().fit(Z, y).predict_proba(Z)
    with config_context(enable_metadata_routing=True):
        request = {"mask": True, "entry_weight": True}
        model.set_fit_request(**request).set_transform_request(**request)
        model.set_score_request(**request)
        search = GridSearchCV(clone(model), {"rank": [3]}, cv=folds).fit(X, **given)
        pipeline = make_pipeline(model, LogisticRegression())
        found = GridSearchCV(pipeline, {f"{Estimator.__name__.lower()}__rank": [3]})
        found = found.fit(X, y, **given).best_estimator_.predict_proba(X, **given)
    mean = search.cv_results_["mean_test_score"]
    assert_allclose(mean, [np.mean(scores)], rtol=1e-7)
    assert_allclose(found, expected, rtol=1e-6)
