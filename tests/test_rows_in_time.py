"""Rows in time, as users see them: fits, imputations, intervals, samples, errors."""

import pickle
from typing import NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import make_pipeline

from sklearn_mfgd import GradientMF, MaskedGradientMF, MFImputer
from sklearn_mfgd._bayes.time_ascent import N_TIME_SWEEPS
from sklearn_mfgd._data.timeline import Timeline
from sklearn_mfgd._kernels import chains

pytestmark = pytest.mark.usefixtures("one_thread")

HOUR = np.timedelta64(1, "h")
START = np.datetime64("2024-01-01T00", "h")
CLOSE = {"rtol": 1e-8, "atol": 1e-10}


class Series(NamedTuple):
    """A planted table in time."""

    times: np.ndarray
    complete: np.ndarray  # with noise, nothing missing
    X: np.ndarray  # NaN where missing

    @property
    def hidden(self):
        return np.isnan(self.X)

    def error(self, filled, where=None):
        """Root mean square error of the entries that are missing."""
        where = self.hidden if where is None else where
        return np.sqrt(np.mean((filled - self.complete)[where] ** 2))

    def shuffled(self, seed=0):
        """The same rows in another order, with the times that they have not."""
        order = np.random.default_rng(seed).permutation(len(self.X))
        return Series(self.times, self.complete[order], self.X[order])

    def without_blocks(self, length=8, distance=40):
        """The same table, with all columns missing for a while now and then."""
        X, silent = (
            self.X.copy(),
            np.arange(len(self.X)) % distance >= distance - length,
        )
        X[silent] = np.nan
        return Series(self.times, self.complete, X), silent


def ou(times, timescale, rng, n):
    """Ornstein-Uhlenbeck processes of variance one, (m, n)."""
    x = rng.standard_normal((len(times), n))
    for t in range(1, len(times)):
        phi = np.exp(-(times[t] - times[t - 1]) / timescale)
        x[t] = phi * x[t - 1] + np.sqrt(1 - phi**2) * x[t]
    return x


def planted_factors(m=400, n=10, timescale=10.0, share=0.5, noise=0.4, seed=0):
    """Two smooth factors at irregular times."""
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.exponential(1.0, m))
    complete = ou(times, timescale, rng, 2) @ rng.normal(size=(2, n))
    complete += noise * rng.normal(size=(m, n))
    X = np.where(rng.random((m, n)) < share, np.nan, complete)
    return Series(times, complete, X)


def planted_residuals(m=800, n=16, timescale=5.0, variance=1.5, seed=0):
    """Two factors without order; half of the columns have residuals in time."""
    rng = np.random.default_rng(seed)
    times = np.arange(m) * 1.0
    complete = rng.normal(size=(m, 2)) @ rng.normal(size=(2, n))
    complete += 0.3 * rng.normal(size=(m, n))
    slow = np.where(np.arange(n) < n // 2, np.sqrt(variance), 0.0)
    complete += slow * ou(times, timescale, rng, n)
    X = np.where(rng.random((m, n)) < 0.2, np.nan, complete)
    return Series(times, complete, X)


def planted_days(n_days=20, n=8, seed=0):
    """Two factors that are profiles of the day, by the hour."""
    rng, hours = np.random.default_rng(seed), np.arange(24 * n_days)
    angles = 2 * np.pi * hours / 24
    profiles = np.column_stack([np.cos(angles) + 0.5 * np.cos(2 * angles), angles])
    profiles[:, 1] = np.sin(angles)
    complete = profiles @ rng.normal(size=(2, n))
    complete += 0.3 * rng.normal(size=complete.shape)
    X = np.where(rng.random(complete.shape) < 0.3, np.nan, complete)
    return Series(START + hours * HOUR, complete, X)


@pytest.fixture(scope="module")
def small():
    """A table of 90 x 6, quick to fit; some rows are empty."""
    series = planted_factors(90, 6, share=0.3)
    series.X[[20, 21, 22, 60, -1]] = np.nan
    return series


@pytest.fixture(scope="module")
def smooth():
    return planted_factors()


@pytest.fixture(scope="module")
def residuals():
    return planted_residuals()


@pytest.fixture(scope="module")
def days():
    return planted_days()


@pytest.fixture(scope="module")
def fitted(small):
    """A factorization of the small table, and the row factors of its fit."""
    model = MaskedGradientMF(3)
    Z = model.fit_transform(small.X, times=small.times)
    return model, Z


def fit_transform(X, times, groups=None, **parameters):
    model = MaskedGradientMF(3, **parameters)
    return model.fit_transform(X, times=times, groups=groups)


# What does not matter


@pytest.mark.parametrize("fit_bias", [True, "columns", False])
def test_a_fit_transforms_its_rows_as_later_calls_do_even_if_empty(fit_bias, small):
    model = MaskedGradientMF(3, fit_bias=fit_bias)
    Z = model.fit_transform(small.X, times=small.times)
    assert_array_equal(model.transform(small.X, times=small.times), Z)
    assert np.abs(Z[[20, 21, 22]]).min() > 0  # their neighbours tell of them


def test_the_imputer_fills_what_it_is_fitted_to_as_in_later_calls(small):
    filled = MFImputer().fit_transform(small.X, times=small.times)
    imputer = MFImputer().fit(small.X, times=small.times)
    assert_array_equal(imputer.transform(small.X, times=small.times), filled)
    assert_array_equal(imputer.impute(small.X, times=small.times), filled)
    observed = ~small.hidden
    assert_array_equal(filled[observed], small.X[observed])


def test_rows_are_put_back_into_the_order_in_which_they_came(small, fitted):
    model, Z = fitted
    order = np.random.default_rng(0).permutation(len(Z))
    X, times = small.X[order], small.times[order]
    assert_array_equal(model.transform(X, times=times), Z[order])
    assert_allclose(fit_transform(X, times), Z[order], **CLOSE)
    _, covariance = model.transform(small.X, times=small.times, return_cov=True)
    found = model.transform(X, times=times, return_cov=True)[1]
    assert_array_equal(found, covariance[order])


def test_imputations_and_deviations_follow_their_rows(small):
    imputer = MFImputer().fit(small.X, times=small.times)
    filled, std = imputer.impute(small.X, times=small.times, return_std=True)
    order = np.random.default_rng(0).permutation(len(small.X))
    given = {"times": small.times[order], "return_std": True}
    found, found_std = imputer.impute(small.X[order], **given)
    assert_array_equal(found, filled[order])
    assert_array_equal(found_std, std[order])


def test_rows_at_the_same_time_may_come_in_any_order(small):
    times = np.floor(small.times / 3)
    Z = fit_transform(small.X, times)
    order = np.random.default_rng(0).permutation(len(Z))
    found = fit_transform(small.X[order], times[order])
    assert_allclose(found, Z[order], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("unit", [1 / 86400, 3600.0, 0.3])
def test_numbers_may_be_in_any_unit_of_time(unit, small, fitted):
    model = MaskedGradientMF(3)
    Z = model.fit_transform(small.X, times=unit * small.times)
    assert_allclose(Z, fitted[1], **CLOSE)
    assert_allclose(model.timescale_, unit * fitted[0].timescale_)
    residual = fitted[0].residual_timescale_
    assert_allclose(model.residual_timescale_, unit * residual)


def test_dates_may_be_in_any_unit_and_container(small):
    seconds = np.round(60 * small.times).astype("datetime64[s]")
    Z = fit_transform(small.X, seconds)
    as_nanoseconds = seconds.astype("datetime64[ns]")
    of_polars = pl.Series(seconds.astype("datetime64[us]"))
    for times in (as_nanoseconds, pd.DatetimeIndex(seconds), of_polars):
        assert_array_equal(fit_transform(small.X, times), Z)


def test_numbers_may_start_anywhere(small, fitted):
    times = np.round(8 * small.times) / 8  # sums are exact
    Z = fit_transform(small.X, times)
    assert_allclose(fit_transform(small.X, times - 4096), Z, **CLOSE)


@pytest.mark.parametrize("scale", [8.0, 1e-3, 1e6])
def test_a_scale_of_the_data_scales_what_is_filled(scale, small):
    expected = MFImputer().fit_transform(small.X, times=small.times)
    imputer = MFImputer().fit(scale * small.X, times=small.times)
    found = imputer.transform(scale * small.X, times=small.times)
    assert_allclose(found / scale, expected, rtol=1e-6, atol=1e-8)


def test_missing_entries_may_be_told_in_three_ways(small, fitted):
    observed = ~small.hidden
    rows, columns = np.nonzero(observed)
    stored = small.X[observed], (rows, columns)
    X = sparse.csr_array(stored, shape=small.X.shape)
    assert_array_equal(fit_transform(X, small.times), fitted[1])
    model = MaskedGradientMF(3)
    given = {"mask": observed, "times": small.times}
    Z = model.fit_transform(np.nan_to_num(small.X, nan=9.0), **given)
    assert_array_equal(Z, fitted[1])


def test_single_precision_stays_and_agrees(small, fitted):
    X = small.X.astype(np.float32)
    model = MaskedGradientMF(3)
    Z = model.fit_transform(X, times=small.times)
    assert Z.dtype == model.components_.dtype == np.float32
    expected = fitted[0].inverse_transform(fitted[1])
    # Where rounding ends the sweeps of exchangeable rows one earlier, they differ more.
    assert_allclose(model.inverse_transform(Z), expected, atol=5e-3)
    imputer = MFImputer()
    assert imputer.fit_transform(X, times=small.times).dtype == np.float32


def test_both_factorizations_are_the_same_in_time(small, fitted):
    model = GradientMF(**MaskedGradientMF(3).get_params())
    assert_array_equal(model.fit_transform(small.X, times=small.times), fitted[1])


def test_a_common_factor_on_weights_changes_nothing(small):
    imputer = MFImputer().fit(small.X, times=small.times)
    filled = imputer.transform(small.X, times=small.times)
    weights = {"entry_weight": np.full(small.X.shape, 4.0)}
    found = MFImputer().fit(small.X, times=small.times, **weights)
    assert_allclose(found.transform(small.X, times=small.times), filled, **CLOSE)


# Weights


def test_rows_of_weight_zero_are_left_out_with_their_times(smooth):
    kept = np.random.default_rng(0).random(len(smooth.X)) < 0.7
    found = MFImputer().fit(smooth.X, sample_weight=1.0 * kept, times=smooth.times)
    expected = MFImputer().fit(smooth.X[kept], times=smooth.times[kept])
    assert expected.timescale_.min() > 0
    filled = expected.transform(smooth.X, times=smooth.times)
    assert_allclose(found.transform(smooth.X, times=smooth.times), filled, **CLOSE)


def test_entries_of_weight_zero_are_missing(small, fitted):
    weights = np.where(small.hidden, 0.0, 1.0)
    given = {"entry_weight": weights, "times": small.times}
    X = np.nan_to_num(small.X, nan=9.0)
    assert_allclose(MaskedGradientMF(3).fit_transform(X, **given), fitted[1], **CLOSE)


# Series


def test_nothing_crosses_from_one_series_to_another(small):
    groups = np.arange(len(small.X)) % 2
    model = MaskedGradientMF(3).fit(small.X, times=small.times, groups=groups)
    Z = model.transform(small.X, times=small.times, groups=groups)
    for label in (0, 1):
        of = groups == label
        found = model.transform(small.X[of], times=small.times[of])
        assert_array_equal(found, Z[of])


def test_labels_of_series_are_names_only(small):
    groups = np.arange(len(small.X)) % 3
    Z = fit_transform(small.X, small.times, groups)
    names = np.array(["c", "a", "b"])[groups]
    assert_allclose(fit_transform(small.X, small.times, names), Z, **CLOSE)


def test_series_may_have_the_same_times(small):
    X, times = np.vstack([small.X, small.X]), np.tile(small.times, 2)
    groups = np.repeat([0, 1], len(small.X))
    Z = fit_transform(X, times, groups)
    assert_allclose(Z[: len(small.X)], Z[len(small.X) :], **CLOSE)


def test_a_row_alone_has_the_stationary_prior(small, fitted):
    model, Z = fitted
    alone = {"times": small.times, "groups": np.arange(len(Z))}
    expected, covariance = model.transform(small.X, return_cov=True, **alone)
    for i in (0, 20, 57):
        given = small.X[i : i + 1], {"times": [7.0]}
        assert_allclose(model.transform(given[0], **given[1])[0], expected[i], **CLOSE)
    # Row 20 is empty.
    variances = np.diag(covariance[20])[: model.rank_]
    assert_allclose(variances, 1 / model.row_precision_, rtol=1e-8)
    assert not np.allclose(expected, Z)


def test_a_batch_is_all_that_its_rows_know_of(small, fitted):
    model, Z = fitted
    of = slice(30, 60)
    found = model.transform(small.X[of], times=small.times[of])
    assert not np.allclose(found, Z[of])
    again = model.transform(small.X[of], times=small.times[of] + 1e4)
    assert_allclose(again, found, rtol=1e-6, atol=1e-8)


# No order


def test_without_times_rows_are_exchangeable_as_ever(small, assert_same_model):
    model = MaskedGradientMF(3).fit(small.X, times=None, groups=None)
    assert_same_model(model, MaskedGradientMF(3).fit(small.X), small.X)
    assert model.timescale_ is model.seasonality_ is None
    assert model.residual_timescale_ is model.residual_variance_ is None
    imputer = MFImputer(time=None).fit(small.X, times=None)
    assert_same_model(imputer, MFImputer().fit(small.X), small.X)


def times_without_order(m):
    return {
        "one time": (np.full(m, 7.0), None),
        "one row per series": (np.arange(m), np.arange(m)),
        "one date": (np.full(m, START), None),
    }


@pytest.mark.parametrize("case", times_without_order(1))
def test_times_that_order_no_rows_change_no_bit(case, small):
    times, groups = times_without_order(len(small.X))[case]
    given = {"times": times, "groups": groups}
    model = MaskedGradientMF(3).fit(small.X, **given)
    expected = MaskedGradientMF(3).fit(small.X)
    assert_array_equal(model.components_, expected.components_)
    assert model.timescale_ is None
    Z = expected.transform(small.X)
    assert_array_equal(model.transform(small.X, **given), Z)
    assert_array_equal(model.transform(small.X), Z)  # times are not needed, either
    filled = MFImputer().fit_transform(small.X)
    assert_array_equal(MFImputer().fit_transform(small.X, **given), filled)


# What is learned


def test_the_elbo_never_falls_in_time(smooth, residuals):
    for series in (smooth, residuals):
        model = MaskedGradientMF(4).fit(series.X, times=series.times)
        curve = np.array(model.loss_curve_[-N_TIME_SWEEPS - 1 :])
        assert np.all(np.diff(curve) >= -1e-9 * np.abs(curve[0]))
        assert model.n_iter_ == len(model.loss_curve_)


@pytest.mark.parametrize("seed", range(6))
def test_the_elbo_of_a_small_table_does_not_fall_where_its_times_come_in(seed):
    """Timescales that are guessed well are kept, however little they gain."""
    series = planted_factors(60, 6, share=0.3, seed=seed)
    model = MaskedGradientMF(3, fit_bias="columns").fit(series.X, times=series.times)
    curve = np.array(model.loss_curve_[-N_TIME_SWEEPS - 1 :])
    assert np.all(np.diff(curve) >= -1e-9 * np.abs(curve).max())


@pytest.mark.accuracy
def test_smooth_factors_are_found_and_make_much_of_the_error_vanish(smooth):
    imputer = MFImputer().fit(smooth.X, times=smooth.times)
    assert imputer.rank_ == 2
    assert np.all((imputer.timescale_ > 5) & (imputer.timescale_ < 20))
    assert_array_equal(imputer.residual_variance_, 0)
    error = smooth.error(imputer.transform(smooth.X, times=smooth.times))
    without = smooth.error(MFImputer().fit_transform(smooth.X))
    assert error < 0.9 * without
    assert error < 1.25 * 0.4  # the noise


@pytest.mark.accuracy
def test_residuals_are_found_in_the_columns_that_have_them(residuals):
    imputer = MFImputer().fit(residuals.X, times=residuals.times)
    timescale, variance = imputer.residual_timescale_, imputer.residual_variance_
    assert np.all((timescale[:8] > 2.5) & (timescale[:8] < 10))
    assert np.all((variance[:8] > 0.75) & (variance[:8] < 3))
    assert_array_equal(variance[8:], 0)
    filled = imputer.transform(residuals.X, times=residuals.times)
    without = MFImputer().fit_transform(residuals.X)
    assert residuals.error(filled) < 0.9 * residuals.error(without)


@pytest.mark.accuracy
def test_silent_stretches_are_filled_better_than_by_column_means(smooth):
    series, silent = smooth.without_blocks()
    filled = MFImputer().fit_transform(series.X, times=series.times)
    means = np.broadcast_to(np.nanmean(series.X, axis=0), series.X.shape)
    assert series.error(filled, silent) < 0.8 * series.error(means, silent)


@pytest.mark.accuracy
@pytest.mark.parametrize("planted_series", [planted_factors, planted_residuals])
def test_shuffled_rows_are_filled_as_without_times(planted_series):
    series = planted_series().shuffled()
    filled = MFImputer().fit_transform(series.X, times=np.arange(len(series.X)))
    without = MFImputer().fit_transform(series.X)
    assert series.error(filled) < 1.01 * series.error(without)


@pytest.mark.accuracy
def test_profiles_of_the_day_are_seasonal_unless_hours_are_shuffled(days):
    imputer = MFImputer(2).fit(days.X, times=days.times)
    assert imputer.seasonality_.min() > 0.9
    shuffled = MFImputer(2).fit(days.shuffled().X, times=days.times)
    assert shuffled.seasonality_.max() < 0.05
    hours = np.arange(len(days.X)) * 1.0
    numbers = MFImputer(2).fit(days.X, times=hours)
    assert_array_equal(numbers.seasonality_, 0)  # nothing says what a day is


def test_seasonality_is_a_share_of_the_variance_of_the_prior(days):
    imputer = MFImputer(2).fit(
        days.X + 0.7 * planted_factors(480, 8).complete, times=days.times
    )
    model = imputer.factorization_._model
    seconds = (days.times - np.datetime64(0, "s")) / np.timedelta64(1, "s")
    seasonal = np.var(model.seasons.features(seconds) @ model.slopes, axis=0)
    share = seasonal / (seasonal + 1 / model.row_precision)
    assert_allclose(imputer.seasonality_, share, rtol=1e-6)
    assert 0.02 < share.max() < 0.9


@pytest.mark.accuracy
def test_profiles_of_the_day_are_forecast(days):
    known, ahead = days.X[: 24 * 16], days.complete[24 * 16 :]
    imputer = MFImputer().fit(known, times=days.times[: 24 * 16])
    X = np.vstack([known, np.full_like(ahead, np.nan)])
    filled = imputer.transform(X, times=days.times)[24 * 16 :]
    assert np.sqrt(np.mean((filled - ahead) ** 2)) < 1.15 * 0.3


def test_a_forecast_decays_to_the_mean_and_its_band_to_the_marginal_one(smooth):
    X = np.vstack([smooth.X, np.full((200, smooth.X.shape[1]), np.nan)])
    last = smooth.times[-1]
    times = np.append(smooth.times, last + np.arange(1, 201) * 5.0)
    imputer = MFImputer().fit(smooth.X, times=smooth.times)
    filled, std = imputer.impute(X, times=times, return_std=True)
    # A row that nobody knows anything of.
    alone = np.full((1, X.shape[1]), np.nan)
    mean, marginal = imputer.impute(alone, times=[0.0], return_std=True)
    assert_allclose(filled[-1], mean[0], atol=1e-6)
    assert_allclose(std[-1], marginal[0], rtol=1e-6)
    from_mean = np.abs(filled[len(smooth.X) :] - mean)
    assert np.all(np.diff(from_mean.max(axis=1)) <= 1e-9)
    assert np.all(np.diff(std[len(smooth.X) :], axis=0) >= -1e-9)
    assert np.all(std[len(smooth.X)] < 0.95 * std[-1])


def test_a_gap_is_least_certain_in_its_middle(smooth):
    X = smooth.X.copy()
    X[100:111] = np.nan
    times = np.arange(len(X)) * 1.0
    imputer = MFImputer().fit(smooth.X, times=times)
    _, std = imputer.impute(X, times=times, return_std=True)
    assert np.all(std[105] > std[100])
    assert np.all(std[105] > std[110])
    Z = imputer._standardized(X, np.isnan(X))
    model = imputer.factorization_
    _, covariance = model.transform(Z, times=times, return_cov=True)
    variances = np.diagonal(covariance, axis1=1, axis2=2)[100:111]
    assert np.all(np.diff(variances[:5], axis=0) > 0)
    assert np.all(np.diff(variances[6:], axis=0) < 0)


def test_covariances_come_with_the_factors_of_transform(small, fitted):
    model, Z = fitted
    W, covariance = model.transform(small.X, times=small.times, return_cov=True)
    assert_array_equal(W, Z)
    assert covariance.shape == (*Z.shape, Z.shape[1])
    assert np.all(np.linalg.eigvalsh(covariance) > 0)


def test_a_score_knows_the_neighbours(smooth):
    model = MaskedGradientMF(2).fit(smooth.X, times=smooth.times)
    score = model.score(smooth.X, times=smooth.times)
    assert 1 > score > MaskedGradientMF(2).fit(smooth.X).score(smooth.X) + 0.02
    imputer = MFImputer(2).fit(smooth.X, times=smooth.times)
    score = imputer.score(smooth.X, times=smooth.times)
    assert 1 > score > MFImputer(2).fit(smooth.X).score(smooth.X) + 0.02


def test_a_score_does_not_depend_on_the_order_of_the_rows(small, fitted):
    model, _ = fitted
    score = model.score(small.X, times=small.times)
    order = np.random.default_rng(0).permutation(len(small.X))
    found = model.score(small.X[order], times=small.times[order])
    assert_allclose(found, score, rtol=1e-6)


@pytest.mark.parametrize("name", ["X", "complete"])
def test_a_score_is_that_of_entries_that_are_hidden_in_turn(name, small, fitted):
    model, X = fitted[0], getattr(small, name)
    observed, press = ~np.isnan(X), 0.0
    fold = np.cumsum(observed, axis=1) % 5
    timeline = Timeline.of(small.times, None, len(X))
    for k in range(5):
        hidden = observed & (fold == k)
        seen, places = np.where(hidden, np.nan, X), np.nonzero(hidden)
        x, _ = model._predict_in_time(seen, timeline, places, False)
        press += np.sum((X[hidden] - x) ** 2)
    total = np.nansum((X - model.column_mean_) ** 2)
    score = model.score(X, times=small.times)
    assert_allclose(score, 1 - press / total, rtol=1e-6)


def test_a_score_is_that_of_each_series_by_its_squares(small, fitted):
    """With 20 entries in each series, all folds start anew with it."""
    model, _ = fitted
    X, times = small.complete[:8].copy(), np.arange(8.0)
    X[:, 5] = np.nan
    groups = np.repeat([0, 1], 4)
    score = model.score(X, times=times, groups=groups)
    press = total = 0.0
    for label in (0, 1):
        of = groups == label
        squares = np.nansum((X[of] - model.column_mean_) ** 2)
        press += (1 - model.score(X[of], times=times[of])) * squares
        total += squares
    assert_allclose(score, 1 - press / total, rtol=1e-8)


# Intervals and samples


@pytest.mark.accuracy
@pytest.mark.parametrize("planted_series", [planted_factors, planted_residuals])
@pytest.mark.parametrize("seed", [0, 1])
def test_intervals_for_95_percent_cover_nearly_that(planted_series, seed):
    series = planted_series(seed=seed)
    imputer = MFImputer().fit(series.X, times=series.times)
    given = {"times": series.times, "return_std": True}
    filled, std = imputer.impute(series.X, **given)
    within = np.abs(filled - series.complete) < 1.96 * std
    assert 0.90 < within[series.hidden].mean() < 0.99
    blocks, silent = series.without_blocks()
    imputer = MFImputer().fit(blocks.X, times=series.times)
    filled, std = imputer.impute(blocks.X, **given)
    within = np.abs(filled - series.complete) < 1.96 * std
    assert 0.90 < within[silent].mean() < 0.99


@pytest.fixture(scope="module")
def sampler(small):
    """An imputer that samples, of which each call gives another sample."""
    state = np.random.RandomState(0)
    imputer = MFImputer(2, sample_posterior=True, random_state=state)
    return imputer.fit(small.X, times=small.times)


def test_samples_spread_as_their_deviations_say(small, sampler):
    given = {"times": small.times}
    samples = np.array([sampler.transform(small.X, **given) for _ in range(60)])
    plain = MFImputer(2).fit(small.X, **given)
    filled, std = plain.impute(small.X, return_std=True, **given)
    hidden = small.hidden
    std = std[hidden] / plain.factorization_._model.widening
    ratio = samples.std(axis=0)[hidden] / std
    assert 0.85 < np.median(ratio) < 1.15
    bias = (samples.mean(axis=0) - filled)[hidden] / std
    assert np.sqrt(np.mean(bias**2)) < 0.3
    observed = ~hidden
    assert np.all(samples[:, observed] == small.X[observed])


def test_a_random_state_says_what_is_sampled(small):
    given = {"times": small.times}
    first, again, other = (
        MFImputer(2, sample_posterior=True, random_state=seed).fit_transform(
            small.X, **given
        )
        for seed in (0, 0, 1)
    )
    assert_array_equal(again, first)
    assert np.all(other[small.hidden] != first[small.hidden])


@pytest.mark.parametrize("rows_are_empty", [False, True])
def test_rows_without_order_are_sampled_as_exchangeable_ones(rows_are_empty, small):
    X, times = small.X.copy(), np.zeros(len(small.X))
    if rows_are_empty:  # at all times but one
        times = np.repeat([0.0, 1.0], len(X) // 2)
        X[times == 1] = np.nan
    sampler = MFImputer(2, sample_posterior=True, random_state=0)
    found = sampler.fit_transform(X, times=times)
    assert_array_equal(found, sampler.fit_transform(X))


def test_samples_and_means_keep_to_limits(small):
    limits = {"min_value": -0.3, "max_value": [0.5] * 6}
    for options in ({}, {"sample_posterior": True, "random_state": 0}):
        imputer = MFImputer(2, **limits, **options)
        filled = imputer.fit_transform(small.X, times=small.times)
        assert filled[small.hidden].min() >= -0.3
        assert filled[small.hidden].max() <= 0.5
        within = (filled > -0.3) & (filled < 0.5) & small.hidden
        assert within.sum() > small.hidden.sum() / 10


# Data frames


def frame_of(series, library=pd):
    columns = {f"c{j}": series.X[:, j] for j in range(series.X.shape[1])}
    return library.DataFrame(columns)


@pytest.fixture(scope="module")
def dates(small):
    return START + np.round(3600 * small.times).astype("timedelta64[s]")


@pytest.fixture(scope="module")
def filled_at_dates(small, dates):
    return MFImputer().fit_transform(small.X, times=dates)


def test_the_index_of_a_frame_has_the_times(small, dates, filled_at_dates):
    table = frame_of(small).set_index(pd.DatetimeIndex(dates))
    imputer = MFImputer(time="index").set_output(transform="pandas")
    filled = imputer.fit_transform(table)
    assert_allclose(filled, filled_at_dates, **CLOSE)
    assert filled.index.equals(table.index)
    assert list(filled.columns) == list(table.columns)
    assert_allclose(imputer.transform(table), filled_at_dates, **CLOSE)
    given = {"times": dates}
    score = MFImputer().fit(small.X, **given).score(small.X, **given)
    assert_allclose(imputer.score(table), score, **CLOSE)


@pytest.mark.parametrize("library", [pd, pl])
def test_a_column_of_a_frame_has_the_times(library, small, dates, filled_at_dates):
    table = frame_of(small, library)
    column = {"when": dates.astype("datetime64[us]")}
    if library is pd:
        table.insert(2, "when", column["when"])
    else:
        table = table.insert_column(2, pl.Series("when", column["when"]))
    imputer = MFImputer(time="when")
    assert_allclose(imputer.fit_transform(table), filled_at_dates, **CLOSE)
    assert_allclose(imputer.impute(table), filled_at_dates, **CLOSE)
    assert imputer.n_features_in_ == 6
    names = [f"c{j}" for j in range(6)]
    assert list(imputer.get_feature_names_out()) == names
    imputer.set_output(transform=library.__name__)
    filled = imputer.transform(table)
    assert isinstance(filled, library.DataFrame)
    assert list(filled.columns) == names


def test_names_of_the_input_may_have_that_of_the_times(small, dates):
    table = frame_of(small).assign(when=dates)
    imputer = MFImputer(time="when").fit(table)
    names = imputer.get_feature_names_out(list(table.columns))
    assert list(names) == [f"c{j}" for j in range(6)]
    columns = ColumnTransformer([("filled", imputer, list(table.columns))])
    filled = columns.set_output(transform="pandas").fit_transform(table)
    assert list(filled.columns) == [f"filled__c{j}" for j in range(6)]


def test_groups_go_with_the_times_of_a_frame(small, dates):
    groups = np.arange(len(small.X)) % 2
    expected = MFImputer().fit_transform(small.X, times=dates, groups=groups)
    table = frame_of(small).set_index(pd.DatetimeIndex(dates))
    filled = MFImputer(time="index").fit_transform(table, groups=groups)
    assert_allclose(filled, expected, **CLOSE)


def test_columns_that_are_constant_or_empty_have_no_residuals(small):
    X = np.insert(small.X, [0, 3], [[5.0, np.nan]], axis=1)
    imputer = MFImputer(keep_empty_features=True).fit(X, times=small.times)
    expected = MFImputer().fit(small.X, times=small.times)
    for name in ("residual_timescale_", "residual_variance_"):
        found = getattr(imputer, name)
        assert_array_equal(np.isnan(found), np.isin(np.arange(8), [0, 4]))
        found = np.delete(found, [0, 4])
        assert_allclose(found, getattr(expected, name), rtol=1e-6)
    filled, std = imputer.impute(X, times=small.times, return_std=True)
    assert_array_equal(filled[:, 0], 5.0)
    assert np.isinf(std[:, 4]).all()


# In company


def test_times_are_routed_through_a_pipeline(small):
    y = np.arange(len(small.X)) % 2
    groups = np.arange(len(small.X)) // 50
    given = {"times": small.times, "groups": groups}
    filled = MFImputer().fit_transform(small.X, **given)
    expected = LogisticRegression().fit(filled, y).predict_proba(filled)
    with config_context(enable_metadata_routing=True):
        step = MFImputer().set_fit_request(times=True, groups=True)
        step.set_transform_request(times=True, groups=True)
        pipeline = make_pipeline(step, LogisticRegression()).fit(small.X, y, **given)
        found = pipeline.predict_proba(small.X, **given)
    assert_allclose(found, expected, rtol=1e-8)


def test_times_are_routed_through_a_search_and_a_validation(small):
    given, cv = {"times": small.times}, KFold(3)
    scores = {rank: [] for rank in (1, 2)}
    for train, test in cv.split(small.X):
        for rank in scores:
            model = MaskedGradientMF(rank)
            model.fit(small.X[train], times=small.times[train])
            score = model.score(small.X[test], times=small.times[test])
            scores[rank].append(score)
    with config_context(enable_metadata_routing=True):
        model = MaskedGradientMF(1).set_fit_request(times=True)
        model.set_score_request(times=True)
        search = GridSearchCV(model, {"rank": [1, 2]}, cv=cv).fit(small.X, **given)
        found = cross_validate(model, small.X, cv=cv, params=given)
    means = [np.mean(scores[rank]) for rank in (1, 2)]
    assert_allclose(search.cv_results_["mean_test_score"], means, rtol=1e-8)
    assert_allclose(found["test_score"], scores[1], rtol=1e-8)


def test_a_model_is_no_larger_for_more_rows(smooth):
    parts = [slice(100), slice(400)]
    sizes = []
    for part in parts:
        model = MaskedGradientMF(2, max_iter=10, tol=0)
        model.fit(smooth.X[part], times=smooth.times[part])
        sizes.append(len(pickle.dumps(model)))
    assert sizes[1] < sizes[0] + 500


@pytest.mark.parametrize("return_std", [False, True])
def test_a_large_table_is_filled_part_by_part(return_std, small, monkeypatch):
    imputer = MFImputer().fit(small.X, times=small.times)
    given = {"times": small.times, "return_std": return_std}
    expected = imputer.impute(small.X, **given)
    monkeypatch.setattr("sklearn_mfgd._kernels.linalg.BLOCK", 100)
    assert_array_equal(imputer.impute(small.X, **given), expected)


def test_a_clone_has_the_parameters_and_no_fit(small):
    imputer = MFImputer(time="index")
    table = frame_of(small)
    copy = clone(imputer.fit(table))
    assert copy.time == "index"
    assert vars(copy) == vars(MFImputer(time="index"))


def test_a_warm_start_goes_on_in_time(small):
    model = MaskedGradientMF(3, warm_start=True).fit(small.X, times=small.times)
    value, sweeps = model.loss_curve_[-1], model.n_iter_
    model.fit(small.X, times=small.times)
    assert model.n_iter_ <= sweeps
    assert_allclose(model.loss_curve_[-1], value, rtol=0.02)
    assert model.timescale_.max() > 0
    assert model.fit(small.X).timescale_ is None


def test_each_sweep_is_told(small, capsys):
    model = MaskedGradientMF(3, verbose=1).fit(small.X, times=small.times)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == model.n_iter_
    assert lines[-1].startswith(f"Sweep {model.n_iter_}: ELBO ")


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("max_iter", [1, 2, N_TIME_SWEEPS, N_TIME_SWEEPS + 3])
def test_a_fit_has_at_most_the_sweeps_that_it_may_have(max_iter, small):
    model = MaskedGradientMF(3, max_iter=max_iter)
    Z = model.fit_transform(small.X, times=small.times)
    assert model.n_iter_ == len(model.loss_curve_) <= max_iter
    assert np.isfinite(Z).all()
    assert len(model.timescale_) == model.rank_
    assert model.timescale_.any() == (max_iter > 1)


class Watch:
    """A callback that keeps what it is given, and ends the fit after some sweeps."""

    def __init__(self, n_sweeps=1000):
        self.n_sweeps, self.given = n_sweeps, []

    def setup(self, estimator, context):
        """Take no note of the beginning."""

    teardown = on_fit_task_begin = setup

    def on_fit_task_end(self, estimator, context, *, metadata, fitted_estimator=None):
        if context.task_name == "sweep":
            self.given.append((metadata, fitted_estimator))
        return len(self.given) >= self.n_sweeps


@pytest.mark.parametrize("Estimator", [MaskedGradientMF, MFImputer])
def test_callbacks_get_times_and_groups(Estimator, small):
    pytest.importorskip("sklearn.callback")
    watch = Watch()
    given = {"times": small.times, "groups": np.arange(len(small.X)) // 40}
    Estimator(3).set_callbacks(watch).fit(small.X, **given)
    assert watch.given[-1][0] == given


@pytest.mark.parametrize("Estimator", [MaskedGradientMF, MFImputer])
def test_callbacks_see_estimators_that_know_of_times(Estimator, small):
    pytest.importorskip("sklearn.callback")
    watch, given = Watch(), {"times": small.times}
    model = Estimator(3).set_callbacks(watch).fit(small.X, **given)
    assert len(watch.given) == model.n_iter_
    for _, at_sweep in (watch.given[0], watch.given[-1]):
        assert np.isfinite(at_sweep.transform(small.X, **given)).all()
    first, last = watch.given[0][1], watch.given[-1][1]
    assert_array_equal(first.timescale_, 0)
    assert_array_equal(last.timescale_, model.timescale_)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("Estimator", [MaskedGradientMF, MFImputer])
def test_a_callback_may_end_a_fit_before_or_during_the_sweeps_in_time(Estimator, small):
    pytest.importorskip("sklearn.callback")
    given = {"times": small.times}
    n_iter = Estimator(3).fit(small.X, **given).n_iter_
    for n_sweeps in (2, n_iter - 2):
        model = Estimator(3).set_callbacks(Watch(n_sweeps)).fit(small.X, **given)
        assert model.n_iter_ == n_sweeps
        assert np.isfinite(model.transform(small.X, **given)).all()


@pytest.mark.parametrize("name", ["process_means", "smooth_states", "filter_states"])
@pytest.mark.parametrize("Estimator", [MaskedGradientMF, MFImputer])
def test_ctrl_c_leaves_the_last_fit_as_it_was(Estimator, name, residuals, monkeypatch):
    X, given = residuals.X[:300], {"times": residuals.times[:300]}
    model = Estimator(3).fit(X, **given)
    state, unfitted = vars(model).copy(), Estimator(3)
    run, calls = getattr(chains, name), []

    def interrupted(*arguments, **options):
        calls.append(name)
        if len(calls) % 2 == 0:
            raise KeyboardInterrupt
        return run(*arguments, **options)

    monkeypatch.setattr(chains, name, interrupted)
    for estimator in (model, unfitted):
        with pytest.raises(KeyboardInterrupt):
            estimator.fit(X[:, :12], **given)
    assert vars(model).keys() == state.keys()
    assert all(vars(model)[key] is value for key, value in state.items())
    assert vars(unfitted) == vars(Estimator(3))


# Bad input


BAD_TIMES = {
    "short": ({"times": [1.0, 2.0]}, "times must have a value for each of the 90 rows"),
    "NaN": ({"times": np.append(np.arange(89.0), np.nan)}, "times must not be missing"),
    "NaT": (
        {"times": np.append(START + np.arange(89) * HOUR, np.datetime64("NaT"))},
        "times must not be missing",
    ),
    "short groups": (
        {"times": np.arange(90), "groups": [0, 1]},
        "groups must have a value for each of the 90 rows",
    ),
    "groups alone": ({"groups": np.zeros(90)}, "groups needs times"),
}


@pytest.mark.parametrize("case", BAD_TIMES)
@pytest.mark.parametrize("Estimator", [MaskedGradientMF, MFImputer])
def test_times_that_are_none_are_refused_everywhere(Estimator, case, small):
    given, message = BAD_TIMES[case]
    model = Estimator(2)
    with pytest.raises(ValueError, match=message):
        model.fit(small.X, **given)
    with pytest.raises(ValueError, match=message):
        model.fit_transform(small.X, **given)
    assert vars(model) == vars(Estimator(2))
    model.fit(small.X, times=small.times)
    calls = [model.transform, model.score]
    calls += [model.impute] if Estimator is MFImputer else []
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call(small.X, **given)


@pytest.mark.parametrize("Estimator", [MaskedGradientMF, MFImputer])
def test_rows_of_a_fit_in_time_need_times_later(Estimator, small):
    model = Estimator(2).fit(small.X, times=small.times)
    for call in (model.transform, model.score):
        with pytest.raises(ValueError, match="Pass the times of these rows"):
            call(small.X)


@pytest.mark.parametrize("Estimator", [MaskedGradientMF, MFImputer])
def test_a_fit_without_times_has_no_use_for_them_later(Estimator, small):
    model = Estimator(2).fit(small.X)
    for call in (model.transform, model.score):
        with pytest.raises(ValueError, match="times= was not given to fit"):
            call(small.X, times=small.times)


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"reg": 0.1}, "times needs reg='auto'"),
        ({"n_draws": 3}, "times and n_draws=3 do not go together"),
        ({"early_stopping": True}, "times and early_stopping=True do not go"),
    ],
)
def test_parameters_that_do_not_go_with_times_are_refused(parameters, message, small):
    with pytest.raises(ValueError, match=message):
        MaskedGradientMF(2, **parameters).fit(small.X, times=small.times)


def test_an_imputer_needs_learned_regularization_in_time(small):
    with pytest.raises(ValueError, match="times needs reg='auto'"):
        MFImputer(2, reg=0.1).fit(small.X, times=small.times)


def test_times_are_told_once(small):
    table = frame_of(small)
    with pytest.raises(ValueError, match="both say when rows were measured"):
        MFImputer(time="index").fit(table, times=small.times)
    imputer = MFImputer(time="index").fit(table)
    with pytest.raises(ValueError, match="both say when rows were measured"):
        imputer.transform(table, times=small.times)


@pytest.mark.parametrize(
    "time, library, message",
    [
        ("index", None, "needs a data frame X; got ndarray"),
        ("when", None, "needs a data frame X; got ndarray"),
        ("index", pl, "time='index' needs a data frame with an index"),
        ("when", pd, "time='when' is no column of X"),
        ("when", pl, "time='when' is no column of X"),
    ],
)
def test_tables_without_the_times_that_are_named_are_refused(
    time, library, message, small
):
    table = small.X if library is None else frame_of(small, library)
    with pytest.raises(ValueError, match=message):
        MFImputer(time=time).fit(table)


def test_too_many_columns_for_covariances_are_refused(small, monkeypatch):
    monkeypatch.setattr("sklearn_mfgd._bayes.covariance.MAX_MOMENTS", 10)
    with pytest.raises(ValueError, match="use a smaller rank, or no times"):
        MaskedGradientMF(3).fit(small.X, times=small.times)


def test_dates_and_numbers_are_not_exchanged(small, dates):
    model = MaskedGradientMF(2).fit(small.X, times=dates)
    with pytest.raises(ValueError, match=r"times must be dates, as in fit"):
        model.transform(small.X, times=small.times)
    model = MaskedGradientMF(2).fit(small.X, times=small.times)
    with pytest.raises(ValueError, match=r"times must be numbers, as in fit"):
        model.transform(small.X, times=dates)


def test_a_table_has_columns_besides_its_times(dates):
    table = pytest.importorskip("pandas").DataFrame({"when": dates})
    with pytest.raises(ValueError, match=r"no column besides that of time='when'"):
        MFImputer(time="when").fit(table)


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_steps_may_be_as_short_as_dates_can_tell(unit):
    rng = np.random.default_rng(0)
    steps, X = np.arange(300), rng.normal(size=(300, 12))
    for t in steps[1:]:
        X[t] = 0.95 * X[t - 1] + 0.3 * X[t]  # a residual of each column, no factors
    X[rng.random(X.shape) < 0.3] = np.nan
    imputer = MFImputer(rank=2)
    expected = imputer.fit_transform(X, times=steps)
    assert imputer.residual_timescale_.all()
    dates = np.datetime64("2024-01-01", unit) + steps
    filled = imputer.fit_transform(X, times=dates)
    assert_allclose(filled, expected, atol=1e-8)
