"""What both estimators promise: factors, reconstructions, attributes, containers."""

import pickle

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.validation import check_is_fitted

from sklearn_mfgd import GradientMF, MaskedGradientMF
from sklearn_mfgd._optim import objective
from sklearn_mfgd._optim.steps import STEPS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

ESTIMATORS = [GradientMF, MaskedGradientMF]
SOLVERS = list(STEPS)
BIASES = [False, True, "columns"]


@pytest.fixture
def holes(planted):
    """A table of 40 x 15 with 20 % missing."""
    return planted(share_missing=0.2).X


@pytest.fixture
def model():
    """Unfitted, with biases and a small ridge."""
    return MaskedGradientMF(3, reg=0.1, max_iter=20)


# Folding rows in


@pytest.mark.pairwise(
    solver=[*SOLVERS, "auto"],
    fit_bias=BIASES,
    early_stopping=[False, True],
    share_missing=[0.0, 0.2],
)
def test_fit_transform_returns_what_transform_does(
    planted, solver, fit_bias, early_stopping, share_missing
):
    X = planted(share_missing=share_missing).X + 2
    model = GradientMF(
        3,
        solver=solver,
        fit_bias=fit_bias,
        early_stopping=early_stopping,
        reg=0.1,
        max_iter=20,
        random_state=0,
    )
    Z = clone(model).fit_transform(X)
    assert_allclose(Z, model.fit(X).transform(X), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
def test_fit_transform_returns_what_transform_does_without_a_unique_solution(
    planted, solver
):
    X = planted(n=4, rank=2, share_missing=0.2).X
    model = GradientMF(6, solver=solver, init="random", random_state=0, max_iter=20)
    Z = clone(model).fit_transform(X)
    assert_allclose(Z, model.fit(X).transform(X), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("fit_bias", BIASES)
def test_transform_solves_the_ridge_problem_of_each_unseen_row(
    planted, ridge_row, fit_bias
):
    data = planted(m=60, share_missing=0.2)
    model = GradientMF(3, fit_bias=fit_bias, reg=0.5).fit(data.X[:40])
    design = model.components_.T
    if fit_bias is True:
        design = np.column_stack([design, np.ones(len(design))])
    ridge = np.full(design.shape[1], 0.5)
    for x, z in zip(data.X[40:], model.transform(data.X[40:]), strict=True):
        seen = ~np.isnan(x)
        target = x[seen] - model.mean_ - model.column_bias_[seen]
        assert_allclose(
            z, ridge_row(design[seen], target, ridge), rtol=1e-7, atol=1e-10
        )


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_transform_treats_every_row_by_itself(Estimator, holes):
    model = Estimator(3, reg=0.1, max_iter=20).fit(holes)
    Z = model.transform(holes)
    order = np.random.RandomState(0).permutation(len(holes))
    one_by_one = [model.transform(row[None])[0] for row in holes]
    assert_allclose(model.transform(holes[order]), Z[order], rtol=1e-9, atol=1e-12)
    assert_allclose(one_by_one, Z, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("reg", [0.0, 0.5])
def test_a_row_does_not_depend_on_whether_others_have_holes(planted, reg):
    data = planted(m=30)
    model = GradientMF(3, reg=reg, fit_bias=True).fit(data.X)
    with_holes = data.X.copy()
    with_holes[0, ::2] = np.nan
    assert_allclose(
        model.transform(with_holes)[1:], model.transform(data.X)[1:], rtol=1e-9
    )


@pytest.mark.parametrize("fit_bias", BIASES)
def test_a_row_with_nothing_observed_gets_the_prior(holes, fit_bias):
    model = GradientMF(3, fit_bias=fit_bias, reg=0.1).fit(holes)
    Z = model.transform(np.full((1, holes.shape[1]), np.nan))
    assert_array_equal(Z, np.zeros_like(Z))
    assert_allclose(model.inverse_transform(Z)[0], model.mean_ + model.column_bias_)


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_empty_row_in_fit_gets_the_prior_without_a_warning(holes, solver, recwarn):
    holes[3] = np.nan
    Z = MaskedGradientMF(3, solver=solver, reg=0.1, tol=0, max_iter=5).fit_transform(
        holes
    )
    assert_array_equal(Z[3], np.zeros(4))
    assert not recwarn.list


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("fit_bias", BIASES)
def test_a_column_never_observed_is_fitted_to_the_prior(holes, solver, fit_bias):
    holes[:, 4] = np.nan
    model = GradientMF(3, solver=solver, fit_bias=fit_bias, reg=0.1).fit(holes)
    Z = model.transform(holes)
    bias = Z[:, -1] if fit_bias is True else 0
    assert_allclose(model.components_[:, 4], 0)
    assert_allclose(model.inverse_transform(Z)[:, 4], model.mean_ + bias)


@pytest.mark.parametrize("init", ["svd", "random"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_rank_beyond_the_features_gives_rows_of_minimum_norm(solver, init):
    X = np.random.RandomState(0).standard_normal((30, 2))
    model = GradientMF(10, solver=solver, init=init, random_state=0)
    Z = model.fit_transform(X)
    oracle = np.linalg.lstsq(model.components_.T, X.T, rcond=1e-10)[0].T
    assert_allclose(Z, oracle, atol=1e-8)
    assert_allclose(Z @ model.components_, X, atol=1e-8)


def test_a_row_observed_less_often_than_the_rank_is_of_minimum_norm(holes):
    model = GradientMF(5).fit(holes)
    x = np.full((1, holes.shape[1]), np.nan)
    x[0, [2, 7]] = 1.0, -2.0
    oracle = np.linalg.lstsq(model.components_.T[[2, 7]], x[0, [2, 7]], rcond=None)[0]
    assert_allclose(model.transform(x)[0], oracle, rtol=1e-8)


@pytest.mark.parametrize("size", [1, 100])
def test_the_bias_of_a_row_counts_in_its_norm(holes, size):
    """The norm is that of factors and bias where the data are of order one."""
    model = GradientMF(3, fit_bias=True).fit(size * holes)
    unit = 2.0 ** round(np.log2(np.nanmax(np.abs(size * holes))) / 2)
    x = np.full((1, holes.shape[1]), np.nan)
    x[0, [2, 7]] = size, -2 * size
    design = np.column_stack([model.components_.T / unit, np.ones(15)])[[2, 7]]
    target = x[0, [2, 7]] - model.mean_ - model.column_bias_[[2, 7]]
    oracle = np.linalg.lstsq(design, target / unit**2, rcond=None)[0]
    oracle *= [unit, unit, unit, unit**2]
    assert_allclose(model.transform(x)[0], oracle, rtol=1e-7)


# Reconstructions


@pytest.mark.parametrize("fit_bias", BIASES)
def test_inverse_transform_adds_mean_biases_and_products(holes, fit_bias):
    model = GradientMF(3, fit_bias=fit_bias, reg=0.1).fit(holes)
    Z = model.transform(holes)
    expected = model.mean_ + model.column_bias_ + Z[:, :3] @ model.components_
    if fit_bias is True:
        expected += Z[:, 3:]
    assert_allclose(model.inverse_transform(Z), expected, rtol=1e-12)


def test_models_without_biases_are_products_alone(holes):
    model = GradientMF(3).fit(holes)
    assert model.mean_ == 0
    assert_array_equal(model.column_bias_, np.zeros(holes.shape[1]))


def test_the_mean_is_that_of_the_observed_entries(holes):
    model = MaskedGradientMF(3, reg=0.1, max_iter=2).fit(holes)
    assert model.mean_ == pytest.approx(np.nanmean(holes), rel=1e-12)
    assert_allclose(model.column_mean_, np.nanmean(holes, axis=0), rtol=1e-9)


@pytest.mark.parametrize("fit_bias", BIASES)
def test_predict_entries_is_inverse_transform_at_chosen_entries(holes, fit_bias):
    model = GradientMF(3, fit_bias=fit_bias, reg=0.1).fit(holes)
    Z = model.transform(holes)
    rng = np.random.RandomState(0)
    rows, columns = rng.randint(40, size=100), rng.randint(15, size=100)
    assert_allclose(
        model.predict_entries(Z, rows, columns),
        model.inverse_transform(Z)[rows, columns],
        rtol=1e-12,
    )


def test_factors_recover_a_planted_matrix_behind_the_holes(planted):
    data = planted(m=100, n=40, noise=0, share_missing=0.3)
    model = GradientMF(3, tol=1e-12, max_iter=1000)
    recovered = model.inverse_transform(model.fit_transform(data.X))
    assert_allclose(recovered, data.signal, atol=1e-4)


# Missing entries


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("early_stopping", [False, True])
def test_nan_mask_and_both_combined_are_the_same(planted, solver, early_stopping):
    data = planted(share_missing=0.3)
    in_part = data.mask | (np.arange(15) % 2 == 0)
    model = MaskedGradientMF(
        3,
        solver=solver,
        reg=0.1,
        max_iter=20,
        early_stopping=early_stopping,
        random_state=0,
    )
    Z = clone(model).fit_transform(data.X)
    for X, mask in [
        (data.complete, data.mask),
        (np.where(in_part, data.complete, np.nan), data.mask),
        (data.X, np.ones_like(data.mask)),
    ]:
        assert_allclose(clone(model).fit_transform(X, mask=mask), Z, rtol=1e-8)
        assert_allclose(
            model.fit(X, mask=mask).transform(X, mask=mask), Z, rtol=1e-6, atol=1e-9
        )
        assert model.score(X, mask=mask) == pytest.approx(model.score(data.X), rel=1e-8)


def test_values_under_the_mask_are_never_looked_at(planted, model):
    data = planted(share_missing=0.3)
    wild = np.where(data.mask, data.complete, 1e200)
    assert_array_equal(
        clone(model).fit_transform(wild, mask=data.mask), model.fit_transform(data.X)
    )


def test_a_mask_may_be_a_frame_or_a_list(planted, model):
    data = planted(share_missing=0.3)
    Z = clone(model).fit_transform(data.X)
    for mask in (pd.DataFrame(data.mask), data.mask.tolist()):
        assert_array_equal(clone(model).fit_transform(data.complete, mask=mask), Z)


def test_data_and_mask_are_left_as_they_were(planted, model):
    data = planted(share_missing=0.3)
    X, mask = data.X.copy(), data.mask.copy()
    model.fit(X, mask=mask).transform(X, mask=mask)
    model.score(X, mask=mask)
    assert_array_equal(X, data.X)
    assert_array_equal(mask, data.mask)


# Attributes


@pytest.mark.pairwise(solver=SOLVERS, fit_bias=BIASES, dtype=[np.float32, np.float64])
def test_attributes_have_the_documented_shapes_and_types(
    holes, solver, fit_bias, dtype
):
    model = MaskedGradientMF(3, solver=solver, fit_bias=fit_bias, reg=0.1, max_iter=7)
    Z = model.fit_transform(holes.astype(dtype))
    assert Z.shape == (40, 4 if fit_bias is True else 3)
    assert model.components_.shape == (3, 15)
    assert model.column_bias_.shape == model.column_mean_.shape == (15,)
    for array in (
        Z,
        model.transform(holes.astype(dtype)),
        model.inverse_transform(Z),
        model.components_,
        model.column_bias_,
        model.column_mean_,
    ):
        assert array.dtype == dtype
    assert 1 <= model.n_iter_ <= 7
    assert len(model.loss_curve_) == model.n_iter_
    assert model.validation_curve_ is None
    assert model.n_features_in_ == 15
    for number in (model.mean_, model.eta_, model.reconstruction_err_):
        assert isinstance(number, float)
    assert isinstance(model.score(holes.astype(dtype)), float)


@pytest.mark.parametrize("share_missing", [0.0, 0.2])
@pytest.mark.parametrize("fit_bias", BIASES)
def test_single_precision_agrees_with_double(planted, fit_bias, share_missing):
    X = planted(share_missing=share_missing).X
    models = [GradientMF(3, fit_bias=fit_bias, reg=0.1, max_iter=50) for _ in range(2)]
    single, double = (
        model.fit(X.astype(dtype)).inverse_transform(model.transform(X.astype(dtype)))
        for model, dtype in zip(models, [np.float32, np.float64], strict=True)
    )
    assert_allclose(single, double, atol=1e-3)


@pytest.mark.parametrize("share_missing", [0.0, 0.2])
@pytest.mark.parametrize("fit_bias", BIASES)
def test_reconstruction_err_is_the_root_of_the_summed_squares(
    planted, fit_bias, share_missing
):
    X = planted(share_missing=share_missing).X
    model = GradientMF(3, fit_bias=fit_bias, reg=0.1)
    residual = model.inverse_transform(model.fit_transform(X)) - X
    assert model.reconstruction_err_ == pytest.approx(
        np.sqrt(np.nansum(residual**2)), rel=1e-9
    )


@pytest.mark.pairwise(solver=SOLVERS, fit_bias=BIASES, share_missing=[0.0, 0.2])
def test_loss_curve_ends_at_the_penalized_objective(
    planted, naive_objective, solver, fit_bias, share_missing
):
    X = 3 * planted(share_missing=share_missing).X + 5
    model = GradientMF(
        3, solver=solver, fit_bias=fit_bias, reg=2.0, tol=1e-13, max_iter=3000
    )
    Z = model.fit_transform(X)
    assert naive_objective(model, X, Z) == pytest.approx(
        model.loss_curve_[-1], rel=1e-7
    )


@pytest.mark.parametrize("solver", SOLVERS)
def test_folding_in_only_lowers_what_the_loss_curve_says(
    holes, naive_objective, solver
):
    model = MaskedGradientMF(3, solver=solver, reg=0.1, max_iter=2)
    Z = model.fit_transform(holes)
    assert naive_objective(model, holes, Z) <= model.loss_curve_[-1] * (1 + 1e-12)


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_features_out_are_named_after_the_class(Estimator, holes):
    model = Estimator(2, fit_bias=True, reg=0.1, max_iter=2).fit(holes)
    name = Estimator.__name__.lower()
    assert model.get_feature_names_out().tolist() == [f"{name}{k}" for k in range(3)]


def test_feature_names_in_are_those_of_the_frame(holes, model):
    names = [f"column {j}" for j in range(15)]
    model.fit(pd.DataFrame(holes, columns=names))
    assert model.feature_names_in_.tolist() == names


@pytest.mark.parametrize("eta, solver", [(1e-3, "gd"), (0.7, "scaled"), (0.7, "als")])
def test_eta_attribute_is_the_number_that_was_given(holes, eta, solver):
    model = GradientMF(3, solver=solver, eta=eta, max_iter=3).fit(holes)
    assert model.eta_ == pytest.approx(eta)


def test_the_eta_found_by_gd_is_in_units_of_the_data(holes):
    model = GradientMF(3, solver="gd", init="random", random_state=0, max_iter=30)
    eta = model.fit(holes).eta_
    assert model.fit(4**4 * holes).eta_ == eta / 4**4
    losses = model.set_params(eta=eta / 10).fit(holes).loss_curve_
    assert (np.diff(losses) < 0).all()
    assert losses[-1] < 0.9 * losses[0]


# Containers


def test_a_clone_fits_to_the_same(holes, model):
    assert_array_equal(clone(model).fit_transform(holes), model.fit_transform(holes))


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_a_fitted_estimator_survives_pickle(Estimator, holes):
    model = Estimator(3, reg=0.1, max_iter=5).fit(holes)
    twin = pickle.loads(pickle.dumps(model))
    assert_array_equal(twin.transform(holes), model.transform(holes))
    assert twin.score(holes) == model.score(holes)


def test_a_fitted_estimator_survives_joblib(holes, model, tmp_path):
    joblib.dump(model.fit(holes), tmp_path / "model.joblib")
    twin = joblib.load(tmp_path / "model.joblib")
    assert_array_equal(twin.transform(holes), model.transform(holes))


@pytest.mark.parametrize("container, frame", [("pandas", pd), ("polars", pl)])
def test_set_output_returns_frames(holes, model, container, frame):
    Z = clone(model).fit_transform(holes)
    model.set_output(transform=container)
    for Z_frame in (model.fit_transform(holes), model.transform(holes)):
        assert isinstance(Z_frame, frame.DataFrame)
        assert list(Z_frame.columns) == model.get_feature_names_out().tolist()
        assert_allclose(Z_frame.to_numpy(), Z, rtol=1e-6)


def test_pandas_output_keeps_the_index(holes, model):
    X = pd.DataFrame(holes, index=[f"row {i}" for i in range(40)])
    X.columns = X.columns.astype(str)
    Z = model.set_output(transform="pandas").fit_transform(X)
    assert list(Z.index) == list(X.index)


def test_polars_frames_are_accepted(holes, model):
    X = pl.DataFrame(holes, schema=[f"c{j}" for j in range(15)])
    assert_allclose(
        clone(model).fit_transform(X), model.fit_transform(holes), rtol=1e-8
    )


def test_missing_values_of_nullable_frames_are_holes(holes, model):
    X = pd.DataFrame(np.round(holes)).astype("Int64")
    assert X.isna().to_numpy().sum() == np.isnan(holes).sum() > 0
    expected = clone(model).fit_transform(np.round(holes))
    assert_allclose(model.fit_transform(X), expected, rtol=1e-8)
    assert_allclose(
        model.fit_transform(X.astype("Float64")), expected, rtol=1e-8, atol=1e-12
    )


def test_a_memmap_is_read_and_not_written(holes, model, tmp_path):
    joblib.dump(holes, tmp_path / "X.joblib")
    X = joblib.load(tmp_path / "X.joblib", mmap_mode="r")
    assert not X.flags.writeable
    assert_array_equal(clone(model).fit_transform(X), model.fit_transform(holes))
    assert_array_equal(model.transform(X), model.transform(holes))
    assert model.score(X) == model.score(holes)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("share_missing", [0.0, 0.2])
def test_memory_order_does_not_matter(planted, solver, share_missing):
    X = planted(share_missing=share_missing).X
    model = MaskedGradientMF(3, solver=solver, reg=0.1, max_iter=20)
    expected = clone(model).fit_transform(X)
    for layout in (np.asfortranarray(X), np.repeat(X, 2, axis=1)[:, ::2]):
        assert_allclose(clone(model).fit_transform(layout), expected, rtol=1e-8)


def test_half_precision_is_computed_in_double(holes, model):
    X = holes.astype(np.float16)
    Z = clone(model).fit_transform(X)
    assert Z.dtype == np.float64
    assert_array_equal(Z, model.fit_transform(X.astype(np.float64)))


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.uint8, bool])
def test_integers_are_computed_in_double(dtype, model):
    X = np.random.RandomState(0).randint(2, size=(20, 8)).astype(dtype)
    Z = clone(model).fit_transform(X)
    assert Z.dtype == np.float64
    assert_array_equal(Z, model.fit_transform(X.astype(np.float64)))


def test_one_row_and_one_column_are_enough():
    for X in ([[3.0]], [[3.0, 1.0, 2.0]], [[3.0], [1.0], [2.0]]):
        model = GradientMF(1)
        assert_allclose(model.inverse_transform(model.fit_transform(X)), X, rtol=1e-6)


# Metadata routing


@pytest.fixture
def labelled(planted):
    data = planted(m=90, share_missing=0.3)
    return data, (data.W[:, 0] > 0).astype(int)


def test_mask_is_routed_through_a_pipeline(labelled, model):
    data, y = labelled
    with_nan = make_pipeline(clone(model), LogisticRegression()).fit(data.X, y)
    with config_context(enable_metadata_routing=True):
        model.set_fit_request(mask=True).set_transform_request(mask=True)
        with_mask = make_pipeline(model, LogisticRegression())
        with_mask.fit(data.complete, y, mask=data.mask)
        predicted = with_mask.predict_proba(data.complete, mask=data.mask)
    assert_allclose(predicted, with_nan.predict_proba(data.X), rtol=1e-6)


def test_mask_is_routed_through_a_grid_search(labelled, model):
    data, _ = labelled
    grid = {"rank": [1, 2, 3]}
    with_nan = GridSearchCV(clone(model), grid, cv=3).fit(data.X)
    with config_context(enable_metadata_routing=True):
        model.set_fit_request(mask=True).set_score_request(mask=True)
        with_mask = GridSearchCV(model, grid, cv=3).fit(data.complete, mask=data.mask)
    assert_allclose(
        with_mask.cv_results_["mean_test_score"],
        with_nan.cv_results_["mean_test_score"],
        rtol=1e-6,
    )


# Randomness


def test_the_same_random_state_gives_the_same_fit(holes):
    model = MaskedGradientMF(3, init="random", reg=0.1, early_stopping=True, max_iter=5)
    first, again, other = (
        clone(model).set_params(random_state=seed).fit(holes) for seed in (0, 0, 1)
    )
    assert_array_equal(first.components_, again.components_)
    assert first.validation_curve_ == again.validation_curve_
    assert not np.allclose(first.components_, other.components_)


def test_the_svd_start_does_not_depend_on_random_state(planted):
    X = planted(m=150, n=120, share_missing=0.3).X
    first, other = (GradientMF(2, max_iter=3, random_state=seed) for seed in (0, 1))
    assert_array_equal(first.fit_transform(X), other.fit_transform(X))


def test_a_given_start_is_taken(planted):
    data = planted(noise=0, share_missing=0.2)
    model = GradientMF(3, init=(data.W, data.H), max_iter=1).fit(data.X)
    assert_allclose(model.components_, data.H.T, rtol=1e-6, atol=1e-8)


# Scale


@pytest.mark.pairwise(solver=SOLVERS, share_missing=[0.0, 0.2], power=[-7, 9])
def test_scaling_by_a_power_of_four_scales_the_fit_exactly(
    planted, solver, share_missing, power
):
    X, unit = planted(share_missing=share_missing).X, 4.0**power
    model = GradientMF(3, solver=solver, reg=0.5, max_iter=10)
    scaled = clone(model).set_params(reg=0.5 * unit)
    Z = model.fit_transform(X)
    assert_array_equal(scaled.fit_transform(X * unit), Z * 2.0**power)
    assert_array_equal(scaled.components_, model.components_ * 2.0**power)
    assert scaled.loss_curve_ == [loss * unit**2 for loss in model.loss_curve_]
    assert scaled.reconstruction_err_ == model.reconstruction_err_ * unit


@pytest.mark.parametrize("reg", [0.0, "auto"])
def test_scaling_scales_biases_too(holes, reg):
    model = MaskedGradientMF(3, reg=reg, max_iter=10)
    Z = clone(model).fit_transform(holes)
    small = model.fit_transform(holes / 4**5)
    assert_allclose(small[:, :-1], Z[:, :-1] / 2**5, rtol=1e-9, atol=1e-14)
    assert_allclose(small[:, -1], Z[:, -1] / 4**5, rtol=1e-9, atol=1e-14)


def test_a_fixed_eta_counts_in_units_of_the_data(planted):
    X = planted(share_missing=0.2).X
    model = GradientMF(3, solver="gd", eta=1e-3, max_iter=10)
    scaled = clone(model).set_params(eta=1e-3 / 4**4)
    Z = model.fit_transform(X)
    assert_array_equal(scaled.fit_transform(X * 4**4), Z * 2**4)


@pytest.mark.pairwise(
    extreme=[
        (np.float64, 1e150),
        (np.float64, 1e-150),
        (np.float32, 1e30),
        (np.float32, 1e-30),
    ],
    solver=SOLVERS,
    share_missing=[0.0, 0.2],
    fit_bias=[False, True],
)
def test_extreme_values_fit_like_any_other(
    planted, extreme, solver, share_missing, fit_bias
):
    dtype, size = extreme
    X = planted(share_missing=share_missing).X.astype(dtype)
    model = GradientMF(3, solver=solver, fit_bias=fit_bias, tol=1e-6, max_iter=1000)
    expected = model.fit(X).reconstruction_err_
    extreme = X * dtype(size)
    found = model.inverse_transform(model.fit_transform(extreme))
    error = np.sqrt(np.nansum(((found - extreme) / dtype(size)) ** 2))
    assert found.dtype == dtype
    assert error == pytest.approx(expected, rel=0.01)
    assert model.reconstruction_err_ / size == pytest.approx(expected, rel=0.01)
    assert np.isfinite(model.score(extreme))


@pytest.mark.parametrize("offset", [1e2, -1e3, 1e4, 1e6])
@pytest.mark.parametrize("where", ["everywhere", "columns", "rows", "both"])
def test_an_offset_does_not_hide_the_other_factors(where, offset):
    """The model without biases has a factor for it, and starts from means."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((300, 3)) @ rng.standard_normal((3, 20))
    scale = truth.std()
    truth += 0.1 * rng.standard_normal(truth.shape)
    rows, columns = rng.standard_normal((300, 1)), rng.standard_normal(20)
    shapes = {"everywhere": 1, "columns": columns, "rows": rows, "both": rows + columns}
    truth += offset * shapes[where]
    hidden = rng.random(truth.shape) < 0.2
    model = GradientMF(5 if where == "both" else 4)
    Z = model.fit_transform(np.where(hidden, np.nan, truth))
    error = (model.inverse_transform(Z) - truth)[hidden]
    assert np.sqrt(np.mean(error**2)) < 0.1 * scale


@pytest.mark.pairwise(
    solver=["scaled", "als"],
    init=["svd", "random"],
    reg=[0.0, 0.1],
    dtype=[np.float64, np.float32],
    early_stopping=[False, True],
)
def test_an_offset_does_not_matter_to_any_other_choice(
    solver, init, reg, dtype, early_stopping
):
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((300, 3)) @ rng.standard_normal((3, 20))
    hidden = rng.random(truth.shape) < 0.2
    X = truth + 0.1 * rng.standard_normal(truth.shape)
    X = np.where(hidden, np.nan, X + 1e4).astype(dtype)
    model = GradientMF(
        4,
        solver=solver,
        init=init,
        reg=reg,
        early_stopping=early_stopping,
        random_state=0,
    )
    found = model.inverse_transform(model.fit_transform(X)) - 1e4
    assert np.sqrt(np.mean((found - truth)[hidden] ** 2)) < 0.1 * truth.std()


@pytest.mark.pairwise(
    Estimator=ESTIMATORS,
    solver=[*SOLVERS, "sgd"],
    extreme=[
        (np.float64, 1e-300),
        (np.float64, 1e300),
        (np.float32, 1e-37),
        (np.float32, 1e37),
    ],
    reg=[0.0, 1.0, 1e300],
    fit_bias=[False, True, "columns"],
    share_missing=[0.0, 0.3],
)
def test_fit_transform_equals_transform_at_the_ends_of_the_range_of_floats(
    planted, Estimator, solver, extreme, reg, fit_bias, share_missing, recwarn
):
    dtype, size = extreme
    X = planted(share_missing=share_missing).X
    X = (X / np.nanmax(np.abs(X))).astype(dtype) * dtype(size)
    model = Estimator(3, solver=solver, reg=reg, fit_bias=fit_bias, random_state=0)
    model.set_params(max_iter=20, tol=1e9)  # no warning of too few sweeps
    found, again = map(
        model.inverse_transform, (model.fit_transform(X), model.transform(X))
    )
    assert np.isfinite(found).all()
    assert np.isfinite(model.score(X))
    rtol = 1e-6 if dtype == np.float64 else 1e-3
    assert_allclose(again / dtype(size), found / dtype(size), atol=rtol)
    assert not recwarn.list


def test_a_ridge_of_next_to_nothing_does_not_magnify_single_precision():
    """Early stopping lists the entries of complete data, and transform does not."""
    rng = np.random.default_rng(0)
    X = np.outer(rng.standard_normal(5), [1.0, 0.45]).astype(np.float32)
    model = GradientMF(
        3,
        solver="sgd",
        reg=1e-14,
        fit_bias=True,
        init="random",
        early_stopping=True,
        validation_fraction=0.3,
        random_state=0,
        max_iter=1,
    )
    Z = model.fit_transform(X)
    assert_allclose(model.transform(X), Z, atol=0.01 * np.abs(Z).max())


# Sweeps


def test_a_fit_that_ran_out_of_sweeps_warns(holes):
    with pytest.warns(ConvergenceWarning, match="Increase max_iter, or tol"):
        GradientMF(3, solver="gd", max_iter=2).fit(holes)


def test_a_fit_that_converged_does_not_warn(holes, recwarn):
    model = GradientMF(3, max_iter=500).fit(holes)
    assert model.n_iter_ < 500
    assert not recwarn.list


def test_tol_zero_asks_for_all_sweeps_and_gets_no_warning(holes, recwarn):
    model = GradientMF(3, tol=0, max_iter=7).fit(holes)
    assert model.n_iter_ == 7
    assert not recwarn.list


def test_verbose_prints_the_loss_curve(holes, capsys):
    model = GradientMF(3, verbose=1, max_iter=4, tol=0).fit(holes)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    for number, (line, loss) in enumerate(
        zip(lines, model.loss_curve_, strict=True), 1
    ):
        assert f"Sweep {number}" in line
        assert f"{loss:.4g}" in line


def test_verbose_prints_the_validation_curve(holes, capsys):
    model = GradientMF(3, verbose=1, early_stopping=True, max_iter=2, random_state=0)
    error = model.fit(holes).validation_curve_[-1]
    line = capsys.readouterr().out.splitlines()[-1]
    assert "held-out error" in line
    assert f"{error:.4g}" in line


def test_without_verbose_nothing_is_printed(holes, capsys):
    GradientMF(3, max_iter=2).fit(holes)
    assert capsys.readouterr().out == ""


# Warm start


@pytest.mark.parametrize("fit_bias", BIASES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_warm_start_goes_on_where_the_last_fit_ended(holes, solver, fit_bias):
    model = GradientMF(
        3, solver=solver, fit_bias=fit_bias, reg=0.1, max_iter=3, tol=0, warm_start=True
    )
    last = model.fit(holes).loss_curve_[-1]
    assert model.fit(holes).loss_curve_[0] <= last * (1 + 1e-12)


def test_without_warm_start_a_fit_starts_afresh(holes):
    model = GradientMF(3, max_iter=3, tol=0)
    assert model.fit(holes).loss_curve_ == model.fit(holes).loss_curve_


def test_warm_start_takes_other_rows_of_another_size(planted):
    data = planted(m=60, share_missing=0.2)
    model = GradientMF(3, tol=1e-8, max_iter=500, warm_start=True).fit(data.X[:40])
    start = GradientMF(3, tol=1e-8, max_iter=500).fit(64 * data.X[40:]).n_iter_
    assert model.fit(64 * data.X[40:]).n_iter_ <= start


@pytest.mark.parametrize(
    "change", [{"rank": 4}, {"fit_bias": False}, {"fit_bias": "columns"}], ids=str
)
def test_warm_start_refuses_another_model(holes, model, change):
    model.set_params(warm_start=True).fit(holes)
    with pytest.raises(ValueError, match="Use warm_start=False to start afresh"):
        model.set_params(**change).fit(holes)


def test_warm_start_refuses_other_features(holes, model):
    model.set_params(warm_start=True).fit(holes)
    with pytest.raises(ValueError, match=r"\(3, 15\).*got rank=3, 14 features"):
        model.fit(holes[:, 1:])


# Early stopping


@pytest.fixture
def overfitting(planted):
    """Noise enough that many sweeps at a high rank do harm."""
    return planted(m=60, n=30, noise=1.0, share_missing=0.3).X


@pytest.mark.parametrize("solver", SOLVERS)
def test_early_stopping_restores_the_best_iterate(overfitting, solver):
    model = GradientMF(
        8,
        solver=solver,
        init="random",
        early_stopping=True,
        tol=0,
        max_iter=60,
        random_state=0,
    ).fit(overfitting)
    best = int(np.argmin(model.validation_curve_)) + 1
    assert 1 < best < model.n_iter_
    stopped = clone(model).set_params(max_iter=best).fit(overfitting)
    assert_array_equal(stopped.components_, model.components_)


@pytest.mark.parametrize("tol", [1.0, 2.0])
@pytest.mark.parametrize("reg", [0.1, "auto"])
def test_early_stopping_with_a_tol_that_nothing_meets_returns_a_sweep(
    overfitting, reg, tol
):
    model = GradientMF(3, reg=reg, early_stopping=True, tol=tol, random_state=0)
    model.fit(overfitting)
    assert len(model.validation_curve_) == model.n_iter_ >= 1
    assert np.isfinite(model.validation_curve_).all()
    if reg != "auto":
        best = int(np.argmin(model.validation_curve_)) + 1
        stopped = clone(model).set_params(max_iter=best, tol=0).fit(overfitting)
        assert_array_equal(stopped.components_, model.components_)


@pytest.mark.parametrize("patience", [1, 4])
def test_early_stopping_waits_n_iter_no_change_sweeps(overfitting, patience):
    model = GradientMF(
        8,
        solver="scaled",
        init="random",
        early_stopping=True,
        n_iter_no_change=patience,
        tol=0,
        random_state=0,
    ).fit(overfitting)
    assert len(model.validation_curve_) == len(model.loss_curve_) == model.n_iter_
    assert model.n_iter_ == np.argmin(model.validation_curve_) + 1 + patience
    assert patience + 1 < model.n_iter_ < model.max_iter


def test_early_stopping_holds_entries_out_of_the_objective(overfitting):
    model = GradientMF(8, max_iter=1, tol=0, random_state=0)
    whole = model.fit(overfitting).loss_curve_[0]
    model.set_params(early_stopping=True, validation_fraction=0.5).fit(overfitting)
    assert model.loss_curve_[0] < 0.8 * whole


def test_validation_curve_is_an_error_in_units_of_the_data(planted):
    X = planted(m=200, n=50, noise=0.1).X
    model = GradientMF(3, early_stopping=True, tol=1e-6, random_state=0).fit(500 * X)
    assert min(model.validation_curve_) == pytest.approx(50, rel=0.15)


# Interruptions


@pytest.fixture
def interrupt(monkeypatch):
    """Press Ctrl-C in the midst of a descent."""

    def press(after=3):
        calls = []
        original = objective.ObservedObjective.value_and_gradient

        def value_and_gradient(self, W, H):
            calls.append(1)
            if len(calls) > after:
                raise KeyboardInterrupt
            return original(self, W, H)

        monkeypatch.setattr(
            objective.ObservedObjective, "value_and_gradient", value_and_gradient
        )

    return press


@pytest.mark.parametrize("method", ["fit", "fit_transform"])
def test_an_interrupted_fit_leaves_an_unfitted_estimator_unfitted(
    holes, interrupt, method
):
    interrupt()
    X = pd.DataFrame(holes, columns=[f"c{j}" for j in range(15)])
    model = MaskedGradientMF(3, solver="scaled", reg=0.1)
    with pytest.raises(KeyboardInterrupt):
        getattr(model, method)(X)
    with pytest.raises(NotFittedError):
        check_is_fitted(model)
    assert vars(model) == vars(clone(model))


def test_an_interrupted_fit_keeps_the_earlier_one(holes, interrupt):
    first = pd.DataFrame(holes, columns=[f"c{j}" for j in range(15)])
    model = MaskedGradientMF(3, solver="scaled", reg=0.1, max_iter=5).fit(first)
    before, Z = vars(model).copy(), model.transform(first)
    interrupt()
    with pytest.raises(KeyboardInterrupt):
        model.fit(first.iloc[:, :9].rename(columns=str.upper))
    assert vars(model).keys() == before.keys()
    assert all(vars(model)[name] is value for name, value in before.items())
    assert_array_equal(model.transform(first), Z)


def test_a_fit_that_fails_keeps_the_earlier_one(holes, model):
    Z = model.fit(holes).transform(holes)
    with pytest.raises(ValueError, match="every entry of X is missing"):
        model.fit(np.full((4, 9), np.nan))
    assert_array_equal(model.transform(holes), Z)


def test_no_entries_are_predicted_as_none(holes):
    model = GradientMF(2)
    Z = model.fit_transform(holes)
    assert model.predict_entries(Z, [], []).shape == (0,)


def test_a_ridge_may_be_an_integer(planted):
    """Whatever the number of entries: no small type is made of it."""
    X = planted(m=400, n=200, share_missing=0.1).X
    whole, number = MaskedGradientMF(2, reg=3), MaskedGradientMF(2, reg=3.0)
    assert_array_equal(whole.fit_transform(X), number.fit_transform(X))
