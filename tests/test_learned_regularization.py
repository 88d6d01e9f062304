"""What reg="auto" promises: nothing to tune, and no worse than what was tuned."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from sklearn_mfgd import GradientMF, MaskedGradientMF

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

ESTIMATORS = [GradientMF, MaskedGradientMF]
NOISE = ["column", "shared"]
GRID = 2.0 ** np.arange(-2, 8)
LEARNED = ["noise_variance_", "row_precision_", "column_precision_"]


@pytest.fixture
def holes(planted):
    """A table of 40 x 15 with 30 % missing."""
    return planted(share_missing=0.3).X + 2


def filled(model, X):
    return model.inverse_transform(model.fit_transform(X))


def rms(error):
    return np.sqrt(np.mean(error**2))


# How good it is


@pytest.mark.parametrize(
    "share_missing, fit_bias, noise",
    [
        (0.2, True, 1.0),
        (0.2, False, 3.0),
        (0.5, False, 1.0),
        (0.5, True, 3.0),
        (0.7, True, 1.0),
        (0.7, False, 3.0),
    ],
)
def test_it_is_near_or_below_the_best_of_a_grid(
    planted, share_missing, fit_bias, noise
):
    data = planted(120, 40, 3, noise, share_missing)
    shift = np.linspace(0, 5, 40) * fit_bias

    def error(reg):
        found = filled(MaskedGradientMF(10, reg=reg, fit_bias=fit_bias), data.X + shift)
        return rms((found - data.signal - shift)[~data.mask])

    best = min(map(error, GRID))
    assert error("auto") <= (0.8 if noise == 1 else 1.04) * best


@pytest.mark.parametrize("noise", NOISE)
def test_of_95_percent_missing_it_makes_more_than_any_ridge_does(planted, noise):
    data = planted(400, 200, 3, 0.5, 0.95)

    def error(reg):
        model = MaskedGradientMF(10, reg=reg, noise=noise)
        return rms((filled(model, data.X) - data.signal)[~data.mask])

    assert error("auto") < 0.6 * min(map(error, GRID[::3]))


@pytest.mark.pairwise(Estimator=ESTIMATORS, share_missing=[0.0, 0.5], noise=[0.1, 1.0])
def test_it_finds_the_rank_and_the_noise(planted, Estimator, share_missing, noise):
    X = planted(120, 40, 3, noise, share_missing).X
    model = Estimator(10, reg="auto").fit(X)
    assert model.rank_ == len(model.components_) == 3
    assert np.median(model.noise_variance_) == pytest.approx(noise**2, rel=0.1)


@pytest.mark.parametrize("shape, noise", [((20, 8), "column"), ((8, 20), "shared")])
def test_a_rank_beyond_both_sides_does_no_harm(planted, shape, noise):
    data = planted(*shape, 2, share_missing=0.2)
    errors = [
        rms(filled(MaskedGradientMF(rank, noise=noise), data.X) - data.signal)
        for rank in (2, 64)
    ]
    assert errors[1] <= 1.05 * errors[0]


@pytest.mark.parametrize("share_missing", [0.0, 0.8])
@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_noise_alone_is_shrunk_to_almost_nothing(planted, Estimator, share_missing):
    data = planted(120, 40, 1, 1.0, share_missing)
    found = filled(Estimator(10, reg="auto"), data.X - data.signal)
    assert rms(found) < 0.1


def test_columns_of_very_different_scale_are_all_fitted(planted):
    data, scale = planted(200, 30, 3, 0.3, 0.3), np.geomspace(0.1, 10, 30)
    expected = rms(filled(MaskedGradientMF(10), data.X) - data.signal)
    found = filled(MaskedGradientMF(10), data.X * scale) / scale
    assert rms(found - data.signal) < 1.3 * expected
    shared = filled(MaskedGradientMF(10, noise="shared"), data.X * scale) / scale
    assert rms(found - data.signal) < 0.6 * rms(shared - data.signal)


# What it is


@pytest.mark.pairwise(
    Estimator=ESTIMATORS, noise=NOISE, fit_bias=[False, True, "columns"]
)
def test_the_bound_rises(holes, Estimator, noise, fit_bias):
    model = Estimator(6, reg="auto", noise=noise, fit_bias=fit_bias).fit(holes)
    curve = np.array(model.loss_curve_)
    assert len(curve) == model.n_iter_ > 3
    assert (np.diff(curve) > -1e-9 * np.abs(curve).max()).all()


@pytest.mark.parametrize("fit_bias", [False, True, "columns"])
@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_fit_transform_returns_what_transform_does(holes, Estimator, fit_bias):
    model = Estimator(3, reg="auto", fit_bias=fit_bias, max_iter=20)
    Z = clone(model).fit_transform(holes)
    assert_allclose(model.fit(holes).transform(holes), Z, rtol=1e-9, atol=1e-12)


def test_it_does_not_depend_on_random_state(holes):
    first, other = (MaskedGradientMF(5, random_state=s).fit(holes) for s in (0, 1))
    for name in ("components_", "column_bias_", *LEARNED):
        assert_array_equal(getattr(first, name), getattr(other, name))


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_with_a_number_nothing_is_learned(holes, Estimator):
    model = Estimator(3, reg=0.7, max_iter=2).fit(holes)
    assert model.rank_ == 3
    assert all(getattr(model, name) is None for name in LEARNED)


@pytest.mark.pairwise(Estimator=ESTIMATORS, noise=NOISE, power=[-7, 6])
def test_it_is_in_units_of_the_data(holes, Estimator, noise, power):
    unit = 4.0**power
    one, other = Estimator(6, reg="auto", noise=noise), Estimator(6, reg="auto")
    other.set_params(noise=noise).fit(unit * holes)
    expected = one.fit(holes).components_ * 2.0**power
    assert_allclose(other.components_, expected, rtol=1e-8, atol=1e-10 * 2.0**power)
    assert_allclose(other.noise_variance_, one.noise_variance_ * unit**2, rtol=1e-8)
    assert_allclose(other.row_precision_, one.row_precision_ / unit, rtol=1e-8)
    assert_allclose(other.column_precision_, one.column_precision_ / unit, rtol=1e-8)
    # A density in other units: the evidence of every entry moves by their logarithm.
    moved = np.array(one.loss_curve_) - np.sum(~np.isnan(holes)) * np.log(unit)
    assert_allclose(other.loss_curve_, moved, rtol=1e-9)


@pytest.mark.parametrize(
    "dtype, size",
    [(np.float64, 1e150), (np.float64, 1e-150), (np.float32, 1e30)],
)
@pytest.mark.parametrize("fit_bias", [False, True])
def test_extreme_values_fit_like_any_other(holes, dtype, size, fit_bias):
    model = MaskedGradientMF(3, fit_bias=fit_bias)
    expected = model.fit(holes).reconstruction_err_
    extreme = holes.astype(dtype) * dtype(size)
    assert filled(model, extreme).dtype == dtype
    assert model.reconstruction_err_ / size == pytest.approx(expected, rel=0.03)
    assert np.isfinite(model.noise_variance_).all()


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_warm_start_needs_no_more_sweeps_than_a_fresh_one(holes, Estimator):
    model = Estimator(6, reg="auto", warm_start=True)
    Z = model.fit_transform(holes)
    n_iter, before = model.n_iter_, model.inverse_transform(Z)
    after = filled(model, holes)
    assert model.n_iter_ <= n_iter
    assert_allclose(after, before, atol=0.05)


# Little to learn from


@pytest.mark.pairwise(
    Estimator=ESTIMATORS,
    noise=NOISE,
    shape=[(1, 1), (1, 5), (5, 1), (3, 3), (5, 6)],
)
def test_few_entries_are_enough(Estimator, noise, shape):
    X = np.random.RandomState(0).standard_normal(shape)
    model = Estimator(2, reg="auto", noise=noise)
    found = filled(model, X)
    assert np.abs(found).max() <= 1.1 * np.abs(X).max()
    assert np.min(model.noise_variance_) > 0
    assert np.isfinite(model.loss_curve_).all()


@pytest.mark.pairwise(Estimator=ESTIMATORS, noise=NOISE, value=[0.0, 5.0, -1e-3])
def test_constant_data_are_fitted_to_the_constant(Estimator, noise, value):
    model = Estimator(2, reg="auto", noise=noise)
    found = filled(model, np.full((6, 5), value))
    assert found == pytest.approx(np.full((6, 5), value), rel=1e-3)


@pytest.mark.parametrize("fit_bias", [False, True, "columns"])
@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_rows_and_columns_without_entries_get_the_prior(holes, Estimator, fit_bias):
    holes[7], holes[:, 4] = np.nan, np.nan
    model = Estimator(3, reg="auto", fit_bias=fit_bias, max_iter=20)
    Z = model.fit_transform(holes)
    assert_allclose(Z[7], 0, atol=1e-12)
    assert_allclose(model.components_[:, 4], 0, atol=1e-12)
    assert_allclose(model.column_bias_[4], 0, atol=1e-12)
    assert np.isfinite(model.noise_variance_[4])
