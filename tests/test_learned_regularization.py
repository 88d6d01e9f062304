"""What reg="auto" promises: nothing to tune, and no worse than what was tuned."""

import pickle
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from sklearn_mfgd import GradientMF
from sklearn_mfgd import MaskedGradientMF as Masked
from sklearn_mfgd._bayes import covariance
from sklearn_mfgd._data import row_blocks
from sklearn_mfgd._kernels import backend, linalg, numpy_kernels
from sklearn_mfgd._optim import objective

ESTIMATORS = [GradientMF, Masked]
NOISE = ["column", "shared"]
FIT_BIAS = [False, True, "columns"]
GRID = 2.0 ** np.arange(-2, 8)
NOT_CONVERGED = pytest.mark.filterwarnings("ignore:The fit had not converged")
BLOCK_SIZES = [
    (row_blocks, "BLOCK"),
    (row_blocks, "SUMS"),
    (linalg, "BLOCK"),
    (objective, "BLOCK_ENTRIES"),
]
LEARNED = ["noise_variance_", "row_precision_", "column_precision_"]


@pytest.fixture
def X(planted):
    """A table of 40 x 15 with 30 % missing."""
    return planted(share_missing=0.3).X + 2


def filled(model, X, **options):
    return model.inverse_transform(model.fit_transform(X, **options))


def rms(error):
    return np.sqrt(np.mean(error**2))


def hidden_error(model, data, shift=0):
    """Root mean squared error of the missing entries, with noise."""
    return rms((filled(model, data.X + shift) - shift - data.complete)[~data.mask])


# How good it is


@pytest.mark.slow
@pytest.mark.accuracy
@pytest.mark.parametrize(
    "share_missing, fit_bias, noise",
    [(0.2, True, 1.0), (0.5, False, 1.0), (0.5, True, 3.0), (0.7, False, 3.0)],
)
def test_it_is_near_the_best_of_a_grid(planted, share_missing, fit_bias, noise):
    data = planted(120, 40, 3, noise, share_missing)
    shift = np.linspace(0, 5, 40) * fit_bias

    def error(reg):
        found = filled(Masked(10, reg=reg, fit_bias=fit_bias), data.X + shift)
        return rms((found - data.signal - shift)[~data.mask])

    best = min(map(error, GRID))
    assert error("auto") <= (0.8 if noise == 1 else 1.04) * best


@pytest.mark.slow
@pytest.mark.accuracy
@pytest.mark.parametrize("noise", NOISE)
def test_of_95_percent_missing_it_makes_more_than_any_ridge_does(planted, noise):
    data = planted(400, 200, 3, 0.5, 0.95)

    def error(reg):
        model = Masked(10, reg=reg, noise=noise)
        return rms((filled(model, data.X) - data.signal)[~data.mask])

    assert error("auto") < 0.6 * min(map(error, GRID[::3]))


@pytest.mark.pairwise(Estimator=ESTIMATORS, share_missing=[0.0, 0.5], noise=[0.1, 1.0])
def test_it_finds_the_rank_and_the_noise(planted, Estimator, share_missing, noise):
    X, model = planted(120, 40, 3, noise, share_missing).X, Estimator(10, reg="auto")
    Z, n_coefficients = model.fit_transform(X), 3 + (model.fit_bias is True)
    assert model.rank_ == len(model.components_) == len(model.row_precision_) == 3
    assert len(model.get_feature_names_out()) == n_coefficients
    assert Z.shape == (120, n_coefficients)
    assert np.median(model.noise_variance_) == pytest.approx(noise**2, rel=0.1)


@pytest.mark.slow
def test_it_finds_ten_factors(planted):
    assert Masked(15).fit(planted(300, 200, 10, 0.1, 0.6).X).rank_ == 10


def test_it_finds_the_noise_of_each_column(planted):
    data, deviations = planted(800, 30, 2, 0.0, 0.3), np.geomspace(0.2, 1, 30)
    noise = deviations * np.random.RandomState(10).standard_normal(data.X.shape)
    model = Masked(4, tol=1e-5).fit(data.X + noise)
    assert_allclose(model.noise_variance_, deviations**2, rtol=0.25)


def test_it_finds_the_noise_that_columns_share(planted):
    X = planted(300, 40, 3, 0.3, 0.3).X
    variance = Masked(6, noise="shared").fit(X).noise_variance_
    assert type(variance) is float
    assert variance == pytest.approx(0.09, rel=0.1)


def test_precisions_are_about_those_of_the_factors(planted):
    data, model = planted(300, 40, 3, 0.1, 0.3), Masked(6, fit_bias=False)
    W, H = model.fit_transform(data.X), model.components_.T
    for factors, precision in ((W, model.row_precision_), (H, model.column_precision_)):
        assert_allclose(1 / precision, (factors**2).mean(axis=0), rtol=0.05)


@pytest.mark.accuracy
def test_diagonal_covariances_keep_factors_and_predict_as_well(monkeypatch, planted):
    data = planted(100, 50, 3, 0.5, 0.4)
    full = hidden_error(Masked(6), data)
    monkeypatch.setattr(covariance, "MAX_MOMENTS", 0)
    model = Masked(6)
    assert hidden_error(model, data) < 1.02 * full
    assert model.rank_ == 6


@pytest.mark.parametrize("shape, noise", [((20, 8), "column"), ((8, 20), "shared")])
def test_a_rank_beyond_both_sides_does_no_harm(planted, shape, noise):
    data = planted(*shape, 2, share_missing=0.2)
    models = [Masked(rank, noise=noise) for rank in (2, 64)]
    expected, error = (rms(filled(each, data.X) - data.signal) for each in models)
    assert error <= 1.05 * expected


@pytest.mark.parametrize("share_missing", [0.0, 0.8])
@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_noise_alone_is_shrunk_to_almost_nothing(planted, Estimator, share_missing):
    data = planted(120, 40, 1, 1.0, share_missing)
    assert rms(filled(Estimator(10, reg="auto"), data.X - data.signal)) < 0.1


@pytest.mark.slow
@pytest.mark.accuracy
def test_columns_of_very_different_scale_are_all_fitted(planted):
    data, scale = planted(200, 30, 3, 0.3, 0.3), np.geomspace(0.1, 10, 30)
    expected = rms(filled(Masked(10), data.X) - data.signal)
    own, shared = (
        rms(filled(Masked(10, noise=n), data.X * scale) / scale - data.signal)
        for n in NOISE
    )
    assert own < 1.3 * expected
    assert own < 0.6 * shared


@pytest.mark.slow
@pytest.mark.accuracy
def test_weights_that_are_inverse_variances_help(planted):
    errors = []
    for seed in range(3):
        data, rng = planted(60, 20, 3, 0.0, 0.4, seed), np.random.RandomState(seed)
        deviations = 0.1 * np.exp(0.5 * rng.standard_normal(data.X.shape))
        X = data.X + deviations * rng.standard_normal(data.X.shape)
        for weights in (deviations**-2, None):
            found = filled(Masked(6), X, entry_weight=weights)
            errors.append(np.mean((found - data.signal)[~data.mask] ** 2))
    assert np.mean(errors[::2]) < 0.9 * np.mean(errors[1::2])


@pytest.mark.parametrize("weight, dtype", [(1e8, float), (1e4, np.float32)])
def test_equal_weights_change_nothing_but_the_unit_of_the_noise(planted, weight, dtype):
    X = planted(60, 20, 3, 0.1, 0.4).X.astype(dtype)
    model = Masked(6)
    found = filled(model, X, entry_weight=np.full(X.shape, weight))
    assert_allclose(found, filled(Masked(6), X), atol=1e-3)
    assert_allclose(np.mean(model.noise_variance_ / weight), 0.01, rtol=0.3)


@pytest.mark.accuracy
def test_where_it_starts_does_not_matter(planted):
    data = planted(200, 100, 5, 0.5, 0.4)
    starts = [("svd", 0), ("random", 0), ("random", 1), ("random", 2)]
    models = [Masked(10, init=init, random_state=seed) for init, seed in starts]
    errors = [hidden_error(model, data) for model in models]
    assert max(errors) < 1.005 * min(errors)


@pytest.mark.accuracy
def test_single_precision_predicts_as_well(planted):
    data = planted(200, 50, 3, 0.5, 0.4)
    single, model = data._replace(X=data.X.astype(np.float32)), Masked(6)
    error = hidden_error(model, single)
    assert error == pytest.approx(hidden_error(Masked(6), data), rel=1e-3)
    assert model.transform(single.X).dtype == model.components_.dtype == np.float32


# What it is


@pytest.mark.pairwise(Estimator=ESTIMATORS, noise=NOISE, fit_bias=FIT_BIAS)
def test_the_elbo_rises(X, Estimator, noise, fit_bias):
    model = Estimator(6, reg="auto", noise=noise, fit_bias=fit_bias).fit(X)
    curve = np.array(model.loss_curve_)
    assert len(curve) == model.n_iter_ > 3
    assert (np.diff(curve) > -1e-9 * np.abs(curve).max()).all()


@NOT_CONVERGED
@pytest.mark.pairwise(Estimator=ESTIMATORS, fit_bias=FIT_BIAS, noise=NOISE)
@NOT_CONVERGED
def test_fit_transform_returns_what_transform_does(X, Estimator, fit_bias, noise):
    model = Estimator(3, reg="auto", fit_bias=fit_bias, noise=noise, max_iter=20)
    Z = model.fit_transform(X)
    assert_allclose(model.transform(X), Z, rtol=1e-9, atol=1e-12)
    assert_allclose(model.transform(X[[7, 3]]), Z[[7, 3]], rtol=1e-9, atol=1e-12)
    copied = pickle.loads(pickle.dumps(model))
    assert_array_equal(copied.transform(X), model.transform(X))


def test_it_does_not_depend_on_random_state(X):
    first, other = (Masked(5, random_state=s).fit(X) for s in (0, 1))
    for name in ("components_", "column_bias_", *LEARNED):
        assert_array_equal(getattr(first, name), getattr(other, name))


@pytest.mark.slow
def test_it_does_not_depend_on_the_container(planted):
    data = planted(share_missing=0.4)
    expected = filled(Masked(6), data.X)
    masked = Masked(6).fit(data.complete, mask=data.mask)
    Z = masked.transform(data.complete, mask=data.mask)
    assert_allclose(masked.inverse_transform(Z), expected, atol=1e-8)
    S = sparse.coo_array((data.X[data.mask], np.nonzero(data.mask)), data.X.shape)
    for container in (S, S.tocsr(), S.tocsc()):
        assert_allclose(filled(Masked(6), container), expected, atol=1e-8)
    weights = data.mask * np.random.RandomState(0).uniform(0.5, 2, data.X.shape)
    by_weight = Masked(6).fit(data.complete, entry_weight=weights)
    missing = Masked(6).fit(data.X, entry_weight=weights)
    assert_array_equal(by_weight.components_, missing.components_)
    assert_array_equal(by_weight.noise_variance_, missing.noise_variance_)


@pytest.mark.pairwise(
    Estimator=ESTIMATORS, noise=NOISE, unit=[4.0**-7, 100.0], early_stopping=[0, 1]
)
def test_it_is_in_units_of_the_data(X, Estimator, noise, unit, early_stopping):
    options = {"reg": "auto", "noise": noise, "early_stopping": bool(early_stopping)}
    options |= {"random_state": 0, "tol": 1e-2}
    one, other = (Estimator(6, **options).fit(scale * X) for scale in (1, unit))
    components = one.components_ * np.sqrt(unit)
    assert_allclose(other.components_, components, rtol=1e-7, atol=1e-9 * np.sqrt(unit))
    assert_allclose(other.noise_variance_, one.noise_variance_ * unit**2, rtol=1e-7)
    assert_allclose(other.row_precision_, one.row_precision_ / unit, rtol=1e-7)
    assert_allclose(other.column_precision_, one.column_precision_ / unit, rtol=1e-7)
    # A density in other units: the ELBO of every entry moves by their logarithm.
    n_observed = np.sum(~np.isnan(X))
    n_observed -= int(0.1 * n_observed) if early_stopping else 0
    moved = np.array(one.loss_curve_) - n_observed * np.log(unit)
    assert_allclose(other.loss_curve_, moved, rtol=1e-9)


@pytest.mark.pairwise(
    size=[(float, 1e150), (float, 1e-150), (np.float32, 1e30)], fit_bias=[False, True]
)
def test_extreme_values_fit_like_any_other(X, size, fit_bias):
    dtype, size = size
    model = Masked(3, fit_bias=fit_bias)
    expected = model.fit(X).reconstruction_err_
    assert filled(model, X.astype(dtype) * dtype(size)).dtype == dtype
    assert model.reconstruction_err_ / size == pytest.approx(expected, rel=0.03)
    assert np.isfinite(model.noise_variance_).all()


@pytest.mark.parametrize("share_missing", [0.3, 0.7])
def test_it_does_not_depend_on_the_size_of_blocks(monkeypatch, planted, share_missing):
    X, found = planted(share_missing=share_missing).X, []
    for size in (2**20, 100):
        for place, name in BLOCK_SIZES:
            monkeypatch.setattr(place, name, size)
        found.append(filled(Masked(5, tol=0, max_iter=10), X))
    assert_allclose(*found, atol=1e-8)


def test_either_backend_finds_the_same(monkeypatch, X, compiled_kernels):
    found = []
    for kernels in (numpy_kernels, compiled_kernels):
        monkeypatch.setattr(backend, "kernels", kernels)
        found.append(filled(Masked(5), X))
    assert_allclose(*found, atol=1e-8)


# Data that are hard


def fill(X, **options):
    """Fit without a warning, fill in; everything must be finite."""
    model = Masked(8, max_iter=400, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Z, covariances = model.fit(X).transform(X, return_cov=True)
    found = model.inverse_transform(Z)
    for array in (found, covariances, model.noise_variance_, model.row_precision_):
        assert np.isfinite(array).all()
    assert np.all(model.noise_variance_ >= 0)
    return found


def share_left(found, X, complete):
    """Squared error of the missing entries, over that of column means."""
    hidden = np.isnan(X) & np.isfinite(complete)
    means = np.broadcast_to(np.nanmean(X, axis=0), X.shape)
    ours, usual = (np.mean((F - complete)[hidden] ** 2) for F in (found, means))
    return ours / usual


@pytest.mark.parametrize(
    "fit_bias, noise", [(True, "column"), ("columns", "shared"), (False, "column")]
)
class TestHardData:
    @pytest.fixture
    def data(self, planted):
        data = planted(60, 20, 3, 0.1, 0.4)
        return data._replace(X=data.X.copy(), complete=data.complete.copy())

    @pytest.mark.slow
    def test_may_have_constant_columns(self, data, fit_bias, noise):
        data.complete[:, 5:8] = 3
        data.X[:, 5:8] = np.where(data.mask[:, 5:8], 3, np.nan)
        found = fill(data.X, fit_bias=fit_bias, noise=noise)
        assert share_left(found, data.X, data.complete) < 0.5

    @pytest.mark.slow
    def test_may_have_a_column_in_other_units(self, data, fit_bias, noise):
        """The others are too small to be seen where the noise is the same."""
        for array in (data.X, data.complete):
            array[:, 5] *= 1e6
        found, others = fill(data.X, fit_bias=fit_bias, noise=noise), np.arange(20) != 5
        limits = [(~others, 1.05), (others, 1.0)]
        for chosen, limit in limits[: 2 if noise == "column" else 1]:
            columns = found[:, chosen], data.X[:, chosen], data.complete[:, chosen]
            assert share_left(*columns) < limit

    @pytest.mark.slow
    def test_may_be_small_or_have_few_entries(self, planted, fit_bias, noise):
        shares = []
        for seed in range(10):
            data = planted(5, 6, 1, 0.1, 0.3, seed)
            found = fill(data.X, fit_bias=fit_bias, noise=noise)
            shares.append(share_left(found, data.X, data.complete))
        assert np.median(shares) < 0.5
        data = planted(200, 150, 2, 0.1, 0.95)
        found = fill(data.X, fit_bias=fit_bias, noise=noise)
        assert share_left(found, data.X, data.complete) < 0.8

    def test_may_be_one_entry(self, fit_bias, noise):
        alone = np.full((4, 3), np.nan)
        alone[1, 2] = 5.0
        found = fill(alone, fit_bias=fit_bias, noise=noise, tol=0.1)
        if fit_bias:  # else it is taken for noise
            assert found[1, 2] == pytest.approx(5, abs=1e-2)


@pytest.mark.pairwise(
    Estimator=ESTIMATORS, noise=NOISE, shape=[(1, 1), (1, 5), (5, 1), (3, 3), (5, 6)]
)
def test_few_entries_are_enough(Estimator, noise, shape):
    X = np.random.RandomState(0).standard_normal(shape)
    model = Estimator(2, reg="auto", noise=noise)
    assert np.abs(filled(model, X)).max() <= 1.1 * np.abs(X).max()
    assert np.min(model.noise_variance_) > 0
    assert np.isfinite(model.loss_curve_).all()


@pytest.mark.pairwise(Estimator=ESTIMATORS, noise=NOISE, value=[0.0, 5.0, -1e-3])
def test_constant_data_are_fitted_to_the_constant(Estimator, noise, value):
    found = filled(Estimator(2, reg="auto", noise=noise), np.full((6, 5), value))
    assert found == pytest.approx(np.full((6, 5), value), rel=1e-3)


@NOT_CONVERGED
@pytest.mark.pairwise(Estimator=ESTIMATORS, fit_bias=FIT_BIAS)
@NOT_CONVERGED
def test_rows_and_columns_without_entries_get_the_prior(X, Estimator, fit_bias):
    X[7], X[:, 4] = np.nan, np.nan
    model = Estimator(3, reg="auto", fit_bias=fit_bias, max_iter=20)
    Z = model.fit_transform(X)
    assert_allclose(Z[7], 0, atol=1e-12)
    assert_allclose(model.components_[:, 4], 0, atol=1e-12)
    assert_allclose(model.column_bias_[4], 0, atol=1e-12)
    others = np.delete(model.noise_variance_, 4)
    assert others.min() < model.noise_variance_[4] < others.max()


# Parameters


@pytest.mark.accuracy
def test_a_fit_may_stop_early(planted):
    data = planted(100, 40, 3, 0.5, 0.4)
    model = Masked(6, early_stopping=True, random_state=0)
    error = hidden_error(model, data)
    assert len(model.validation_curve_) == model.n_iter_
    assert min(model.validation_curve_) == pytest.approx(0.5, rel=0.3)
    assert error < 1.05 * hidden_error(Masked(6), data)


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_a_fit_goes_on_from_the_last_one(planted, Estimator):
    X = planted(100, 40, 3, 0.5, 0.4 if Estimator is Masked else 0).X
    model = Estimator(6, reg="auto", warm_start=True)
    before, n_iter = filled(model, X), model.n_iter_
    assert_allclose(filled(model, X), before, atol=0.05)
    assert model.n_iter_ < n_iter
    assert model.rank_ == 3  # of which it starts now


def test_too_few_sweeps_are_told_unless_they_were_wanted(X):
    with pytest.warns(ConvergenceWarning, match="Increase max_iter"):
        assert Masked(4, max_iter=1).fit(X).n_iter_ == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Masked(4, max_iter=1, tol=0).fit(X)


@pytest.mark.pairwise(
    Estimator=ESTIMATORS,
    options=[{"eta": 0.1}, *({"solver": name} for name in ("gd", "scaled", "sgd"))],
)
def test_steps_need_a_number(X, Estimator, options):
    with pytest.raises(ValueError, match="needs a number for reg"):
        Estimator(reg="auto", **options).fit(X)


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_with_a_number_nothing_is_learned(X, Estimator):
    model = Estimator(3, reg=0.7, max_iter=2, tol=0).fit(X)
    assert model.rank_ == 3
    assert all(getattr(model, name) is None for name in LEARNED)
