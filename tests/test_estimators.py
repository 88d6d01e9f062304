"""What both estimators promise: factors, reconstructions, attributes, containers."""

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sklearn_mfgd import GradientMF, MaskedGradientMF

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

ESTIMATORS = [GradientMF, MaskedGradientMF]
SOLVERS = ["gd", "scaled", "als"]
BIASES = [False, True, "columns"]


@pytest.fixture
def model():
    """Unfitted, with biases and a small ridge."""
    return MaskedGradientMF(3, reg=0.1, max_iter=20)


@pytest.mark.pairwise(
    solver=[*SOLVERS, "auto"],
    fit_bias=BIASES,
    early_stopping=[False, True],
    share_missing=[0.0, 0.2],
)
def test_fit_transform_returns_what_transform_does(planted, params, share_missing):
    X = planted(share_missing=share_missing).X + 2
    model = GradientMF(3, reg=0.1, max_iter=20, random_state=0, **params)
    Z = clone(model).fit_transform(X)
    assert_allclose(Z, model.fit(X).transform(X), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
def test_fit_transform_and_transform_agree_without_a_unique_solution(planted, solver):
    X = planted(n=4, rank=2, share_missing=0.2).X
    model = GradientMF(6, solver=solver, init="random", random_state=0, max_iter=20)
    Z = clone(model).fit_transform(X)
    assert_allclose(Z, model.fit(X).transform(X), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("fit_bias", BIASES)
def test_transform_solves_the_ridge_problem_of_each_row(planted, ridge_row, fit_bias):
    X = planted(m=60, share_missing=0.2).X
    model = GradientMF(3, fit_bias=fit_bias, reg=0.5).fit(X[:40])
    design = np.column_stack([model.components_.T, np.ones(15)])
    design = design if fit_bias is True else design[:, :-1]
    for x, z in zip(X[40:], model.transform(X[40:]), strict=True):
        observed = ~np.isnan(x)
        target = (x - model.mean_ - model.column_bias_)[observed]
        expected = ridge_row(design[observed], target, np.full(len(z), 0.5))
        assert_allclose(z, expected, rtol=1e-7, atol=1e-10)


@pytest.mark.pairwise(Estimator=ESTIMATORS, reg=["auto", 0.5], fit_bias=[False, True])
def test_transform_treats_every_row_by_itself(planted, Estimator, params):
    data, model = planted(share_missing=0.2), Estimator(3, **params)
    X = np.where(np.arange(40)[:, None] % 2, data.X, data.complete)
    Z = model.fit(data.X).transform(X)
    assert_allclose(model.transform(X[::-1]), Z[::-1], rtol=1e-9, atol=1e-12)
    one_by_one = [model.transform(row[None])[0] for row in X]
    assert_allclose(one_by_one, Z, rtol=1e-9, atol=1e-12)


@pytest.mark.pairwise(solver=SOLVERS, fit_bias=BIASES)
def test_an_empty_row_or_column_gets_the_prior_silently(incomplete, params, recwarn):
    incomplete[3], incomplete[:, 4] = np.nan, np.nan
    model = GradientMF(3, reg=0.1, tol=0, max_iter=5, **params)
    Z = model.fit_transform(incomplete)
    filled = model.inverse_transform(Z)
    bias = Z[:, -1] if params["fit_bias"] is True else 0
    assert_array_equal(Z[3], 0)
    assert_array_equal(model.transform(incomplete)[3], 0)
    assert_allclose(filled[3], model.mean_ + model.column_bias_)
    assert_allclose(model.components_[:, 4], 0)
    assert_allclose(filled[:, 4], model.mean_ + bias)
    assert not recwarn.list


@pytest.mark.pairwise(init=["svd", "random"], solver=SOLVERS)
def test_rank_beyond_the_features_gives_rows_of_minimum_norm(solver, init):
    X = np.random.RandomState(0).standard_normal((30, 2))
    model = GradientMF(10, solver=solver, init=init, random_state=0)
    Z = model.fit_transform(X)
    expected = np.linalg.lstsq(model.components_.T, X.T, rcond=1e-10)[0].T
    assert_allclose(Z, expected, atol=1e-8)
    assert_allclose(Z @ model.components_, X, atol=1e-8)


@pytest.mark.parametrize("fit_bias, size", [(False, 1), (True, 1), (True, 100)])
def test_a_row_of_few_entries_is_of_minimum_norm(incomplete, fit_bias, size):
    """The norm is that of factors and bias where the data are of order one."""
    model = GradientMF(3, fit_bias=fit_bias).fit(size * incomplete)
    unit = 2.0 ** round(np.log2(np.nanmax(np.abs(size * incomplete))) / 2)
    x = np.full((1, 15), np.nan)
    x[0, [2, 7]] = size, -2 * size
    design = np.column_stack([model.components_.T / unit, np.ones(15)])[[2, 7]]
    target = ((x[0] - model.mean_ - model.column_bias_) / unit**2)[[2, 7]]
    design = design if fit_bias else design[:, :-1]
    expected = np.linalg.lstsq(design, target, rcond=None)[0]
    expected *= [unit, unit, unit, unit**2][: len(expected)]
    assert_allclose(model.transform(x)[0], expected, rtol=1e-7)


# Reconstructions


@pytest.mark.parametrize("fit_bias", BIASES)
def test_a_reconstruction_adds_mean_biases_and_products(incomplete, fit_bias):
    model = GradientMF(3, fit_bias=fit_bias, reg=0.1).fit(incomplete)
    Z = model.transform(incomplete)
    expected = model.mean_ + model.column_bias_ + Z[:, :3] @ model.components_
    if fit_bias is True:
        expected += Z[:, 3:]
    assert_allclose(model.inverse_transform(Z), expected, rtol=1e-12)
    if fit_bias is False:
        assert model.mean_ == 0 and not model.column_bias_.any()
    else:
        assert model.mean_ == pytest.approx(np.nanmean(incomplete), rel=1e-12)
    assert_allclose(model.column_mean_, np.nanmean(incomplete, axis=0), rtol=1e-9)
    rows, columns = np.random.RandomState(0).randint([40, 15], size=(100, 2)).T
    predicted = model.predict_entries(Z, rows, columns)
    assert_allclose(predicted, expected[rows, columns], rtol=1e-12)
    assert model.predict_entries(Z, [], []).shape == (0,)


def test_factors_recover_the_missing_entries_of_a_planted_matrix(planted):
    data = planted(m=100, n=40, noise=0, share_missing=0.3)
    model = GradientMF(3, tol=1e-12, max_iter=1000)
    recovered = model.inverse_transform(model.fit_transform(data.X))
    assert_allclose(recovered, data.signal, atol=1e-4)


@pytest.mark.pairwise(solver=SOLVERS, early_stopping=[False, True])
def test_nan_mask_and_both_combined_are_the_same(planted, params):
    data = planted(share_missing=0.3)
    in_part = data.mask | (np.arange(15) % 2 == 0)
    model = MaskedGradientMF(3, reg=0.1, max_iter=20, random_state=0, **params)
    Z = clone(model).fit_transform(data.X)
    for X, mask in [
        (np.where(data.mask, data.complete, 1e200), data.mask),
        (np.where(in_part, data.complete, np.nan), data.mask.tolist()),
        (data.X, pd.DataFrame(np.ones_like(data.mask))),
    ]:
        before = X.copy(), np.array(mask)
        assert_allclose(clone(model).fit_transform(X, mask=mask), Z, rtol=1e-8)
        transformed = model.fit(X, mask=mask).transform(X, mask=mask)
        assert_allclose(transformed, Z, rtol=1e-6, atol=1e-9)
        assert model.score(X, mask=mask) == pytest.approx(model.score(data.X), rel=1e-8)
        assert_array_equal(X, before[0])
        assert_array_equal(mask, before[1])


# Attributes


@pytest.mark.pairwise(solver=SOLVERS, fit_bias=BIASES, dtype=[np.float32, np.float64])
def test_attributes_have_the_documented_shapes_and_types(incomplete, params, dtype):
    X = incomplete.astype(dtype)
    model = MaskedGradientMF(3, reg=0.1, max_iter=7, **params)
    Z = model.fit_transform(X)
    assert Z.shape == (40, 4 if params["fit_bias"] is True else 3)
    assert model.components_.shape == (3, 15)
    assert model.column_bias_.shape == model.column_mean_.shape == (15,)
    arrays = [Z, model.transform(X), model.inverse_transform(Z), model.components_]
    for array in (*arrays, model.column_bias_, model.column_mean_):
        assert array.dtype == dtype
    assert len(model.loss_curve_) == model.n_iter_ <= 7
    assert model.validation_curve_ is None
    assert (model.n_features_in_, model.rank_) == (15, 3)
    numbers = model.mean_, model.eta_, model.reconstruction_err_, model.score(X)
    assert all(isinstance(number, float) for number in numbers)


@pytest.mark.pairwise(fit_bias=BIASES, share_missing=[0.0, 0.2])
def test_single_precision_agrees_with_double(planted, params, share_missing):
    X = planted(share_missing=share_missing).X
    model, single = GradientMF(3, reg=0.1, max_iter=50, **params), X.astype(np.float32)
    filled = model.inverse_transform(model.fit_transform(single))
    assert_allclose(filled, model.inverse_transform(model.fit_transform(X)), atol=1e-3)


@pytest.mark.pairwise(solver=SOLVERS, fit_bias=BIASES, share_missing=[0.0, 0.2])
def test_objective_and_error_are_exact(planted, naive_objective, params, share_missing):
    X = 3 * planted(share_missing=share_missing).X + 5
    model = GradientMF(3, reg=2.0, tol=1e-13, max_iter=3000, **params)
    Z = model.fit_transform(X)
    error = np.sqrt(np.nansum((model.inverse_transform(Z) - X) ** 2))
    objective = naive_objective(model, X, Z)
    assert model.loss_curve_[-1] == pytest.approx(objective, rel=1e-7)
    assert model.reconstruction_err_ == pytest.approx(error, rel=1e-9)
    # Folding in only lowers the objective of the last sweep.
    Z = model.set_params(max_iter=2).fit_transform(X)
    assert naive_objective(model, X, Z) <= model.loss_curve_[-1] * (1 + 1e-12)


@pytest.mark.parametrize("eta, solver", [(1e-3, "gd"), (0.7, "scaled"), (0.7, "als")])
def test_a_given_eta_is_kept_and_of_gd_in_units_of_the_data(incomplete, eta, solver):
    model = GradientMF(3, solver=solver, eta=eta, max_iter=3)
    Z = model.fit_transform(incomplete)
    assert model.eta_ == pytest.approx(eta)
    model.set_params(eta=eta / 4**4 if solver == "gd" else eta)
    assert_array_equal(model.fit_transform(incomplete * 4**4), Z * 2**4)


def test_the_eta_that_gd_finds_is_in_units_of_the_data(incomplete):
    model = GradientMF(3, solver="gd", init="random", random_state=0, max_iter=30)
    eta = model.fit(incomplete).eta_
    assert model.fit(4**4 * incomplete).eta_ == eta / 4**4
    losses = model.set_params(eta=eta / 10).fit(incomplete).loss_curve_
    assert (np.diff(losses) < 0).all()
    assert losses[-1] < 0.9 * losses[0]


# Containers


@pytest.mark.pairwise(Estimator=ESTIMATORS, frame=[pd.DataFrame, pl.DataFrame])
def test_columns_of_frames_are_named(incomplete, Estimator, frame):
    model = Estimator(2, fit_bias=True, reg=0.1, max_iter=20)
    Z, name = clone(model).fit_transform(incomplete), Estimator.__name__.lower()
    X = pd.DataFrame(incomplete, [f"row {i}" for i in range(40)]).add_prefix("c")
    model.set_output(transform="pandas" if frame is pd.DataFrame else "polars")
    for Z_frame in (model.fit_transform(X), model.transform(X)):
        assert isinstance(Z_frame, frame)
        assert list(Z_frame.columns) == [f"{name}{k}" for k in range(3)]
        assert list(getattr(Z_frame, "index", X.index)) == list(X.index)
        assert_allclose(Z_frame.to_numpy(), Z, rtol=1e-6)
    assert model.feature_names_in_.tolist() == X.columns.tolist()


CONTAINERS = {
    "list": np.ndarray.tolist,
    "polars": lambda X: pl.DataFrame(X, schema=[f"c{j}" for j in range(15)]),
    "nullable integers": lambda X: pd.DataFrame(X).astype("Int64"),
    "nullable floats": lambda X: pd.DataFrame(X).astype("Int64").astype("Float64"),
    "Fortran order": np.asfortranarray,
    "strided": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "memory map": lambda X: X,
}


@pytest.mark.pairwise(name=list(CONTAINERS), solver=SOLVERS, share_missing=[0.0, 0.2])
def test_the_container_of_a_table_does_not_matter(
    planted, tmp_path, name, solver, share_missing
):
    table = np.round(planted(share_missing=share_missing).X)
    X = CONTAINERS[name](table)
    if name == "memory map":
        joblib.dump(X, tmp_path / "X")
        X = joblib.load(tmp_path / "X", mmap_mode="r")
    model = MaskedGradientMF(3, solver=solver, reg=0.1, max_iter=20)
    expected = clone(model)
    Z = expected.fit_transform(table)
    assert_allclose(model.fit_transform(X), Z, rtol=1e-8, atol=1e-10)
    assert_allclose(model.transform(X), expected.transform(table), rtol=1e-8)
    assert model.score(X) == pytest.approx(expected.score(table))


@pytest.mark.parametrize("dtype", [np.float16, np.int64, np.int8, np.uint8, bool])
def test_other_types_of_numbers_are_computed_in_double(dtype, model):
    X = np.random.RandomState(0).randint(2, size=(20, 8)).astype(dtype)
    Z = clone(model).fit_transform(X)
    assert Z.dtype == np.float64
    assert_array_equal(Z, model.fit_transform(X.astype(np.float64)))


@pytest.mark.parametrize("X", [[[3.0]], [[3.0, 1.0, 2.0]], [[3.0], [1.0], [2.0]]])
def test_one_row_or_one_column_is_enough(X):
    model = GradientMF(1)
    assert_allclose(model.inverse_transform(model.fit_transform(X)), X, rtol=1e-6)


def test_a_ridge_may_be_an_integer(planted):
    """Whatever the number of entries: no small type is made of it."""
    X = planted(m=400, n=200, share_missing=0.1).X
    Z, same = (MaskedGradientMF(2, reg=reg).fit_transform(X) for reg in (3, 3.0))
    assert_array_equal(Z, same)


def test_a_mask_is_routed_through_a_pipeline_and_a_grid_search(planted, model):
    data = planted(m=90, share_missing=0.3)
    y = data.W[:, 0] > 0
    pipeline = make_pipeline(clone(model), LogisticRegression()).fit(data.X, y)
    search = GridSearchCV(clone(model), {"rank": [1, 2, 3]}, cv=3).fit(data.X)
    with config_context(enable_metadata_routing=True):
        model.set_fit_request(mask=True).set_transform_request(mask=True)
        masked_pipeline = make_pipeline(model, LogisticRegression())
        masked_pipeline.fit(data.complete, y, mask=data.mask)
        predicted = masked_pipeline.predict_proba(data.complete, mask=data.mask)
        scored = clone(model).set_score_request(mask=True)
        masked_search = GridSearchCV(scored, {"rank": [1, 2, 3]}, cv=3)
        masked_search.fit(data.complete, mask=data.mask)
    assert_allclose(predicted, pipeline.predict_proba(data.X), rtol=1e-6)
    scores = masked_search.cv_results_["mean_test_score"]
    assert_allclose(scores, search.cv_results_["mean_test_score"], rtol=1e-6)


def test_the_same_random_state_gives_the_same_fit(incomplete, assert_same_model):
    model = MaskedGradientMF(3, init="random", reg=0.1, early_stopping=True, max_iter=5)
    first, again, other = (
        clone(model).set_params(random_state=seed).fit(incomplete) for seed in (0, 0, 1)
    )
    assert_same_model(again, first, incomplete)
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
def test_powers_of_four_scale_the_fit_exactly(planted, solver, share_missing, power):
    X, unit = planted(share_missing=share_missing).X, 4.0**power
    model = GradientMF(3, solver=solver, reg=0.5, max_iter=10)
    scaled = clone(model).set_params(reg=0.5 * unit)
    Z = model.fit_transform(X)
    assert_array_equal(scaled.fit_transform(X * unit), Z * 2.0**power)
    assert_array_equal(scaled.components_, model.components_ * 2.0**power)
    assert scaled.loss_curve_ == [loss * unit**2 for loss in model.loss_curve_]
    assert scaled.reconstruction_err_ == model.reconstruction_err_ * unit


@pytest.mark.parametrize("reg, early_stopping", [(0.0, False), ("auto", True)])
def test_scaling_scales_biases_and_shifts_the_elbo(incomplete, reg, early_stopping):
    model = MaskedGradientMF(3, reg=reg, max_iter=10, early_stopping=early_stopping)
    model.set_params(random_state=0)
    Z, curve = model.fit_transform(incomplete), np.array(model.loss_curve_)
    small = model.fit_transform(incomplete / 4**5)
    assert_allclose(small[:, :-1], Z[:, :-1] / 2**5, rtol=1e-9, atol=1e-14)
    assert_allclose(small[:, -1], Z[:, -1] / 4**5, rtol=1e-9, atol=1e-14)
    if reg == "auto":  # the logarithm of a density of the entries that are not held out
        n = (~np.isnan(incomplete)).sum()
        n -= int(model.validation_fraction * n)
        assert_allclose(model.loss_curve_, curve + n * np.log(4**5), rtol=1e-9)


@pytest.mark.pairwise(
    size=[1e150, 1e-150, np.float32(1e30), np.float32(1e-30)],
    solver=SOLVERS,
    share_missing=[0.0, 0.2],
    fit_bias=[False, True],
)
def test_extreme_values_fit_like_any_other(planted, size, params, share_missing):
    dtype = np.asarray(size).dtype
    X = planted(share_missing=share_missing).X.astype(dtype)
    model = GradientMF(3, tol=1e-6, max_iter=1000, **params)
    expected = pytest.approx(model.fit(X).reconstruction_err_, rel=0.01)
    filled = model.inverse_transform(model.fit_transform(X * size))
    assert filled.dtype == dtype
    assert np.sqrt(np.nansum((filled / size - X) ** 2)) == expected
    assert model.reconstruction_err_ / size == expected
    assert np.isfinite(model.score(X * size))


@pytest.mark.pairwise(
    Estimator=ESTIMATORS,
    solver=[*SOLVERS, "sgd"],
    size=[1e-300, 1e300, np.float32(1e-37), np.float32(1e37)],
    reg=[0.0, 1.0, 1e300],
    fit_bias=BIASES,
    share_missing=[0.0, 0.3],
)
def test_fit_transform_equals_transform_at_the_ends_of_the_range_of_floats(
    planted, Estimator, size, params, share_missing, recwarn
):
    X, dtype = planted(share_missing=share_missing).X, np.asarray(size).dtype
    X = (X / np.nanmax(np.abs(X))).astype(dtype) * size
    # With a tol that nothing meets there is no warning of too few sweeps.
    model = Estimator(3, random_state=0, max_iter=20, tol=1e9, **params)
    filled = model.inverse_transform(model.fit_transform(X))
    again = model.inverse_transform(model.transform(X))
    assert np.isfinite(filled).all()
    assert np.isfinite(model.score(X))
    atol = 1e-6 if dtype == np.float64 else 1e-3
    assert_allclose(again / size, filled / size, atol=atol)
    assert not recwarn.list


def error_of_missing(model, truth, offset, dtype=np.float64):
    """Fit with 20 % missing and noise; return the error, in deviations of `truth`."""
    rng = np.random.default_rng(1)
    hidden = rng.random(truth.shape) < 0.2
    X = truth + 0.1 * rng.standard_normal(truth.shape) + offset
    Z = model.fit_transform(np.where(hidden, np.nan, X).astype(dtype))
    error = (model.inverse_transform(Z) - offset - truth)[hidden]
    return np.sqrt(np.mean(error**2)) / truth.std()


@pytest.mark.accuracy
@pytest.mark.parametrize("offset", [1e2, -1e3, 1e4, 1e6])
@pytest.mark.parametrize("where", ["everywhere", "columns", "rows", "both"])
def test_an_offset_does_not_hide_the_other_factors(planted, where, offset):
    """The model without biases has a factor for it, and starts from means."""
    rng = np.random.default_rng(0)
    rows, columns = rng.standard_normal((300, 1)), rng.standard_normal(20)
    shapes = {"everywhere": 1, "columns": columns, "rows": rows, "both": rows + columns}
    model = GradientMF(5 if where == "both" else 4)
    truth = planted(300, 20).signal
    assert error_of_missing(model, truth, offset * shapes[where]) < 0.1


@pytest.mark.accuracy
@pytest.mark.pairwise(
    solver=["scaled", "als"],
    init=["svd", "random"],
    reg=[0.0, 0.1],
    dtype=[np.float64, np.float32],
    early_stopping=[False, True],
)
def test_an_offset_does_not_matter_to_any_other_choice(planted, params, dtype):
    model = GradientMF(4, random_state=0, **params)
    assert error_of_missing(model, planted(300, 20).signal, 1e4, dtype) < 0.1


def test_a_ridge_of_next_to_nothing_does_not_magnify_single_precision():
    """Early stopping lists the entries of complete data, and transform does not."""
    rng = np.random.default_rng(0)
    X = np.outer(rng.standard_normal(5), [1.0, 0.45]).astype(np.float32)
    model = GradientMF(3, solver="sgd", reg=1e-14, fit_bias=True, init="random")
    model.set_params(early_stopping=True, validation_fraction=0.3)
    Z = model.set_params(random_state=0, max_iter=1).fit_transform(X)
    assert_allclose(model.transform(X), Z, atol=0.01 * np.abs(Z).max())


def test_only_a_fit_that_ran_out_of_sweeps_warns(incomplete, recwarn):
    assert GradientMF(3, max_iter=500).fit(incomplete).n_iter_ < 500
    assert GradientMF(3, tol=0, max_iter=7).fit(incomplete).n_iter_ == 7
    assert not recwarn.list
    with pytest.warns(ConvergenceWarning, match="Increase max_iter, or tol"):
        GradientMF(3, solver="gd", max_iter=2).fit(incomplete)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_verbose_prints_the_curves(incomplete, early_stopping, capsys):
    model = GradientMF(3, early_stopping=early_stopping, max_iter=4, random_state=0)
    model.set_params(tol=0).fit(incomplete)
    assert capsys.readouterr().out == ""
    model.set_params(verbose=1).fit(incomplete)
    lines = capsys.readouterr().out.splitlines()
    errors = model.validation_curve_ or model.n_iter_ * [None]
    curves = zip(lines, model.loss_curve_, errors, strict=True)
    for number, (line, loss, error) in enumerate(curves, 1):
        assert f"Sweep {number}" in line and f"{loss:.6g}" in line
        assert ("held-out error" in line) == early_stopping
        assert not early_stopping or f"{error:.6g}" in line


@pytest.mark.pairwise(solver=SOLVERS, fit_bias=BIASES)
def test_warm_start_goes_on_where_the_last_fit_ended(incomplete, params):
    model = GradientMF(3, reg=0.1, max_iter=3, tol=0, **params)
    first = model.fit(incomplete).loss_curve_
    assert model.fit(incomplete).loss_curve_ == first
    model.set_params(warm_start=True)
    assert model.fit(incomplete).loss_curve_[0] <= first[-1] * (1 + 1e-12)


def test_warm_start_keeps_column_factors_and_biases_for_rows_of_another_size(planted):
    X, bias = planted(m=80, noise=0, share_missing=0.2).X, 3.0 * np.arange(15)
    model = MaskedGradientMF(3, reg=0, tol=1e-12, max_iter=500, warm_start=True)
    model.fit(X[:40] + bias).set_params(max_iter=1)
    larger = 64 * X[40:] + bias
    from_svd = clone(model).fit(larger).loss_curve_[0]
    assert model.fit(larger).loss_curve_[0] < 1e-6 * from_svd


@pytest.mark.parametrize(
    "change", [{"rank": 4}, {"fit_bias": False}, {"fit_bias": "columns"}, {}], ids=str
)
def test_warm_start_refuses_another_model(incomplete, model, change):
    n_features = 15 if change else 14
    model.set_params(warm_start=True).fit(incomplete).set_params(**change)
    message = rf"\(3, 15\).* rank={model.rank}, {n_features} features.*=False to start"
    with pytest.raises(ValueError, match=message):
        model.fit(incomplete[:, :n_features])


@pytest.fixture
def overfitting(planted):
    """Noise enough that many sweeps at a high rank do harm."""
    return planted(m=60, n=30, noise=1.0, share_missing=0.3).X


@pytest.mark.pairwise(solver=SOLVERS, patience=[1, 4])
def test_early_stopping_waits_and_restores_the_best(overfitting, solver, patience):
    model = GradientMF(8, solver=solver, init="random", early_stopping=True, tol=0)
    model.set_params(n_iter_no_change=patience, random_state=0).fit(overfitting)
    best = int(np.argmin(model.validation_curve_)) + 1
    assert 1 < best < model.max_iter - patience
    assert len(model.loss_curve_) == model.n_iter_ == best + patience
    stopped = clone(model).set_params(max_iter=best).fit(overfitting)
    assert_array_equal(stopped.components_, model.components_)


@pytest.mark.pairwise(tol=[1.0, 2.0], reg=[0.1, "auto"])
def test_early_stopping_with_any_tol_returns_a_sweep(overfitting, reg, tol):
    model = GradientMF(3, reg=reg, early_stopping=True, tol=tol, random_state=0)
    model.fit(overfitting)
    assert len(model.validation_curve_) == model.n_iter_ >= 1
    assert np.isfinite(model.validation_curve_).all()
    if reg != "auto":
        best = int(np.argmin(model.validation_curve_)) + 1
        stopped = clone(model).set_params(max_iter=best, tol=0).fit(overfitting)
        assert_array_equal(stopped.components_, model.components_)


def test_early_stopping_holds_entries_out_of_the_objective(overfitting):
    model = GradientMF(8, max_iter=1, tol=0, random_state=0)
    whole = model.fit(overfitting).loss_curve_[0]
    model.set_params(early_stopping=True, validation_fraction=0.5).fit(overfitting)
    assert model.loss_curve_[0] < 0.8 * whole


def test_the_validation_curve_is_an_error_in_units_of_the_data(planted):
    X = planted(m=200, n=50, noise=0.1).X
    model = GradientMF(3, early_stopping=True, tol=1e-6, random_state=0).fit(500 * X)
    assert min(model.validation_curve_) == pytest.approx(50, rel=0.15)
