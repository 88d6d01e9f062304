"""Columns as normal scores: skewed ones are imputed well, and within their range."""

import re

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import ndtri
from sklearn.linear_model import Ridge

from sklearn_mfgd import MFImputer
from sklearn_mfgd._data.normal_scores import NormalScores
from sklearn_mfgd.impute._columns import Imputed, Table, Wanted
from sklearn_mfgd.impute._marginals import WeightedColumns, deviations, weighted_mean

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:All .* observed values are"),
    pytest.mark.usefixtures("one_thread", "one_hold_out"),
]

ENDS = 0.025, 0.975


@pytest.fixture(scope="module")
def normal(planted):
    """A table of normal columns with two factors, a fifth of it missing."""
    return planted(m=200, n=8, rank=2, noise=0.4, share_missing=0.2)


@pytest.fixture(scope="module")
def lognormal(normal):
    """Its exponentials: skewed columns whose scores have the factors."""
    return normal._replace(X=np.exp(normal.X), complete=np.exp(normal.complete))


@pytest.fixture
def small(planted):
    """Sixty rows of skewed columns; what is found in them does not matter."""
    return np.exp(planted(m=60, n=6, rank=2, noise=0.4, share_missing=0.2, seed=1).X)


def fit(X, marginal="normal", **options):
    options = {"max_iter": 10, "random_state": 0} | options
    return MFImputer(marginal=marginal, **options).fit(X)


def errors(filled, data):
    """Root mean square and mean absolute error of what was missing."""
    wrong = ((filled - data.complete) / data.complete.std(axis=0))[~data.mask]
    return np.array([np.sqrt(np.mean(wrong**2)), np.mean(np.abs(wrong))])


def assert_in_range(filled, X):
    assert (filled >= np.nanmin(X, axis=0)).all()
    assert (filled <= np.nanmax(X, axis=0)).all()


# What normal scores are for


def test_a_median_and_quantiles_are_values_of_those_of_scores(small):
    missing = np.isnan(small)
    scores = NormalScores.of(small, missing)
    of_scores = fit(scores.apply(small, missing), "none")
    mean, std = (
        part[missing]
        for part in of_scores.impute(scores.apply(small, missing), return_std=True)
    )
    imputer = fit(small, statistic="median")
    filled, quantiles = imputer.impute(small, return_quantiles=(0.5, 0.1, 0.975))
    columns = np.nonzero(missing)[1]
    assert_allclose(filled[missing], scores.undo(mean, columns), rtol=1e-9)
    for quantile, p in zip(quantiles, (0.5, 0.1, 0.975), strict=True):
        expected = scores.undo(mean + std * ndtri(p), columns)
        assert_allclose(quantile[missing], expected, rtol=1e-9)
        assert_array_equal(quantile[~missing], small[~missing])
    # The mean and its deviation are those of the values.
    found = fit(small).impute(small, return_std=True)
    for part, expected in zip(found, scores.moments(mean, std, columns), strict=True):
        assert_allclose(part[missing], expected, rtol=1e-9)


def test_a_median_is_as_far_between_its_neighbours_whatever_the_scale(small):
    missing = np.isnan(small)
    medians = fit(np.log(small), statistic="median").transform(np.log(small))
    mapped = fit(small, statistic="median").transform(small)
    for j in range(small.shape[1]):
        known = np.sort(small[~missing[:, j], j])
        found = np.interp(mapped[:, j], known, np.log(known))
        assert_allclose(found, medians[:, j], atol=1e-9)


@pytest.mark.accuracy
def test_skewed_columns_are_imputed_better_than_as_they_are_or_by_means(lognormal):
    X = lognormal.X
    plain = errors(MFImputer().fit_transform(X), lognormal)
    imputer = MFImputer(marginal="normal").fit(X)
    means = errors(imputer.transform(X), lognormal)
    medians = errors(imputer.set_params(statistic="median").transform(X), lognormal)
    assert (means < 0.75 * plain).all()
    assert means[0] < medians[0]
    assert medians[1] < means[1]


@pytest.mark.accuracy
def test_columns_that_tell_nothing_of_one_another_are_filled_as_by_means():
    rng = np.random.RandomState(0)
    complete = np.exp(rng.standard_normal((200, 6)))
    mask = rng.uniform(size=complete.shape) >= 0.2
    X = np.where(mask, complete, np.nan)
    filled = MFImputer(marginal="normal").fit_transform(X)
    squares = np.square(filled - complete)
    squares_of_means = np.square(np.nanmean(X, axis=0) - complete)
    ours, theirs = (np.where(mask, 0, each) for each in (squares, squares_of_means))
    assert ours.sum() < 1.03 * theirs.sum()
    assert (ours.sum(axis=0) < 1.12 * theirs.sum(axis=0)).all()


@pytest.mark.slow
@pytest.mark.accuracy
@pytest.mark.parametrize("marginal", ["normal", "auto"])
def test_quantiles_cover_what_they_should_on_both_sides(lognormal, marginal):
    imputer = MFImputer(marginal=marginal, random_state=0).fit(lognormal.X)
    options = {"return_quantiles": ENDS}
    low, high = imputer.impute(lognormal.X, **options)[1][:, ~lognormal.mask]
    truth = lognormal.complete[~lognormal.mask]
    assert 0.92 < np.mean((low <= truth) & (truth <= high)) < 0.98
    assert 0.002 < np.mean(truth < low) < 0.05
    assert 0.002 < np.mean(truth > high) < 0.05


@pytest.mark.parametrize("marginal", ["none", "normal", "auto"])
def test_quantiles_ascend_with_their_probabilities(small, marginal):
    probabilities = 0.01, 0.3, 0.5, 0.7, 0.99
    imputer = fit(small, marginal)
    filled, std, quantiles = imputer.impute(
        small, return_std=True, return_quantiles=probabilities
    )
    assert quantiles.shape == (5, *small.shape)
    assert (np.diff(quantiles, axis=0)[:, np.isnan(small)] >= 0).all()
    assert (quantiles[-1] > quantiles[0])[np.isnan(small)].all()
    assert_array_equal(filled, imputer.transform(small))
    assert_array_equal(std > 0, np.isnan(small))


def test_without_scores_quantiles_are_those_of_a_normal_distribution(small):
    filled, std, quantiles = fit(small, "none").impute(
        small, return_std=True, return_quantiles=ENDS
    )
    expected = [filled + std * ndtri(p) for p in ENDS]
    assert_allclose(quantiles, expected, rtol=1e-12)
    medians = fit(small, "none", statistic="median").transform(small)
    assert_array_equal(medians, filled)


@pytest.mark.pairwise(
    marginal=["normal", "auto"],
    statistic=["mean", "median"],
    dtype=[np.float32, np.float64],
)
def test_what_is_observed_comes_back_bit_by_bit(small, marginal, statistic, dtype):
    X = small.astype(dtype)
    before = X.copy()
    filled = fit(X, marginal, statistic=statistic).transform(X)
    assert filled.dtype == dtype
    assert_array_equal(filled[~np.isnan(X)], X[~np.isnan(X)])
    assert_array_equal(X, before)
    assert np.isfinite(filled).all()


# Where imputed values are


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"statistic": "median"},
        {"sample_posterior": True},
        {"residual": Ridge()},
        {"scale": False},
        {"noise": "shared", "rank": 2},
    ],
    ids=str,
)
def test_no_value_is_outside_the_observed_range(small, options):
    small[3, 2] = 1e4  # an outlier
    imputer = fit(small, **options)
    assert_in_range(imputer.transform(small), small)
    new = np.where(np.arange(6) % 2, np.nan, 1e6) * np.array([[1.0], [-1.0]])
    assert_in_range(imputer.transform(new)[:, 1::2], small[:, 1::2])


@pytest.mark.pairwise(marginal=["normal", "auto"], sample_posterior=[False, True])
def test_limits_hold_and_samples_have_no_pile_at_them(
    small, marginal, sample_posterior
):
    limits = {"min_value": np.nanquantile(small, 0.3, axis=0), "max_value": 1e3}
    options = limits | {"sample_posterior": sample_posterior}
    missing = np.isnan(small)
    filled = fit(small, marginal, **options).transform(small)
    assert (filled >= limits["min_value"])[missing].all()
    assert np.isfinite(filled).all()
    if sample_posterior:
        assert np.mean((filled == limits["min_value"])[missing]) < 0.02


@pytest.mark.parametrize("limit", [{"min_value": 1e3}, {"max_value": -1.0}], ids=str)
@pytest.mark.parametrize("sample_posterior", [False, True])
def test_a_limit_beyond_the_observed_range_is_what_is_imputed(
    small, limit, sample_posterior
):
    small = np.minimum(small, 900)
    imputer = fit(small, **limit, sample_posterior=sample_posterior)
    filled = imputer.transform(small)[np.isnan(small)]
    assert_array_equal(filled, *limit.values())


@pytest.mark.parametrize("marginal", ["none", "normal", "auto"])
def test_in_columns_of_whole_numbers_only_observed_ones_are_imputed(small, marginal):
    small[:, :3] = np.where(np.isnan(small[:, :3]), np.nan, np.round(small[:, :3]) * 2)
    imputer = fit(small, marginal, discrete="nearest")
    filled, quantiles = imputer.impute(small, return_quantiles=ENDS)
    mean = fit(small, marginal).transform(small)
    for j in range(3):
        seen = np.unique(small[~np.isnan(small[:, j]), j])
        assert np.isin(filled[:, j], seen).all()
        assert np.isin(quantiles[:, :, j], seen).all()
        distance = np.abs(filled[:, j] - mean[:, j])
        nearest = np.abs(seen - mean[:, j, None]).min(axis=1)
        assert_allclose(distance, nearest, atol=1e-12)
    assert_array_equal(filled[:, 3:], mean[:, 3:])


def test_the_nearest_observed_value_is_within_the_limits(small):
    small = np.round(small)
    limits = {"min_value": 0.6, "max_value": 3.4}
    filled = fit(small, discrete="nearest", **limits).transform(small)
    assert set(filled[np.isnan(small)]) == {1, 2, 3}


@pytest.mark.slow
@pytest.mark.accuracy
def test_samples_are_spread_as_quantiles_say(lognormal):
    X = lognormal.X
    quantiles = fit(X).impute(X, return_quantiles=(0.25, 0.5, 0.75))[1]
    below = [
        fit(X, sample_posterior=True, random_state=seed).transform(X) < quantiles
        for seed in (1, 2, 3)
    ]
    shares = np.mean(below, axis=0)[:, np.isnan(X)].mean(axis=1)
    assert_allclose(shares, [0.25, 0.5, 0.75], atol=0.06)


@pytest.mark.accuracy
def test_rows_in_time_inform_one_another_as_scores_too():
    rng = np.random.RandomState(0)
    times = np.arange(150.0)
    wave = np.sin(times / 12)[:, None] * rng.uniform(1, 2, size=6)
    complete = np.exp(wave + 0.1 * rng.standard_normal(wave.shape))
    X = complete.copy()
    X[40:46] = np.nan  # nothing but time tells of these rows
    X[rng.uniform(size=X.shape) < 0.1] = np.nan
    imputer = MFImputer(marginal="normal", statistic="median").fit(X, times=times)
    filled, quantiles = imputer.impute(X, times=times, return_quantiles=ENDS)
    wrong = np.log(filled / complete)[40:46]
    assert np.sqrt(np.mean(wrong**2)) < 0.15
    assert_in_range(filled, X)
    inside = (quantiles[0] <= complete) & (complete <= quantiles[1])
    assert inside[np.isnan(X)].mean() > 0.85


# Both, weighted


@pytest.mark.slow
@pytest.mark.accuracy
def test_weights_are_of_scores_where_these_are_better_and_else_do_no_harm(
    normal, lognormal
):
    skewed = MFImputer(marginal="auto", random_state=0).fit(lognormal.X)
    symmetric = MFImputer(marginal="auto", random_state=0).fit(normal.X)
    for imputer in skewed, symmetric:
        weights = imputer.marginal_weights_
        assert weights.shape == (8,)
        assert ((weights >= 0) & (weights <= 1)).all()
    assert skewed.marginal_weights_.mean() > 0.85
    assert symmetric.marginal_weights_.mean() < 0.5
    plain = errors(MFImputer().fit_transform(normal.X), normal)
    assert (errors(symmetric.transform(normal.X), normal) < 1.02 * plain).all()


def test_what_both_impute_is_weighted_in_each_column(small):
    options = {"return_std": True, "return_quantiles": ENDS}
    both = fit(small, "auto")
    weights = both.marginal_weights_
    assert weights.max() > weights.min()
    plain, scores, found = (
        imputer.impute(small, **options)
        for imputer in (fit(small, "none"), fit(small, "normal"), both)
    )
    for one, other, part in zip(plain, scores, found, strict=True):
        assert_allclose(part, (1 - weights) * one + weights * other, rtol=1e-9)
    assert fit(small, "none").marginal_weights_ is None
    assert fit(small, "normal").marginal_weights_ is None


class Always:
    """A member of a stack that imputes the same number everywhere."""

    def __init__(self, value):
        self.value = value

    def impute(self, table, wanted, limits, rng=None):
        values = np.full(np.count_nonzero(table.missing), self.value)
        return Imputed(values, None, np.empty((0, len(values))))


def test_samples_of_a_column_are_of_one_member_chosen_by_its_weight():
    members, weights = [Always(0.0), Always(1.0)], np.array([[1, 0.7, 0], [0, 0.3, 1]])
    table = Table(np.zeros((4, 3)), np.ones((4, 3), bool))
    limits = np.full((2, 3), np.inf) * [[-1], [1]]
    rng = np.random.RandomState(0)
    stack = WeightedColumns(members, weights)
    samples = np.array(
        [
            stack.impute(table, Wanted(), limits, rng).values.reshape(4, 3)
            for _ in range(1000)
        ]
    )
    assert (samples == samples[:, :1]).all()
    assert_allclose(samples[:, 0].mean(axis=0), [0, 0.3, 1], atol=0.05)


def test_what_has_no_weight_may_be_infinite():
    values = np.array([[np.inf, 2, np.inf], [1, 4, 1]])
    weights = np.array([[0, 0.25, 0.5], [1, 0.75, 0.5]])
    assert_array_equal(weighted_mean(values, weights), [1, 3.5, np.inf])


def test_the_unit_of_a_column_is_its_deviation_or_the_size_of_its_one_value():
    X = np.array([[1e300, 3, 0, np.nan], [-1e300, 3, 0, np.nan], [1e300, 3, 0, np.nan]])
    expected = [np.std([1, -1, 1]) * 1e300, 3, 1, 1]
    assert_allclose(deviations(X, np.isnan(X)), expected, rtol=1e-12)


# Tables at the edge

VARIANTS = [
    {"marginal": "normal"},
    {"marginal": "none", "residual": Ridge()},
    {"marginal": "auto", "residual": Ridge()},
    {"marginal": "normal", "sample_posterior": True},
    {"marginal": "auto", "statistic": "median"},
]


def edges(X):
    """Tables with little in them, by name."""
    missing = np.isnan(X)
    few, empty_rows, one_value, constant = (X.copy() for _ in range(4))
    few[9:, 0] = np.nan
    empty_rows[::3] = np.nan
    one_value[1:, 2], one_value[0, 2] = np.nan, 3.0
    constant[:, 2] = np.where(missing[:, 2], np.nan, 1e300)
    alone = np.full((2, 2), np.nan)
    alone[0, 0] = 1
    return {
        "a row": X[:1],
        "three rows": X[:3],
        "a column": X[:, :1],
        "an entry": alone,
        "few in a column": few,
        "empty rows": empty_rows,
        "one value in a column": one_value,
        "a constant column": constant,
        "constant columns": np.where(missing, np.nan, 0.1),
        "far from zero": X + 1e9,
        "complete": np.where(missing, 0, X),
    }


@pytest.mark.parametrize("name", list(edges(np.zeros((12, 3)))))
@pytest.mark.parametrize("options", VARIANTS[:4], ids=str)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_table_with_little_in_it_is_filled(small, name, options):
    X = edges(small)[name]
    imputer = fit(X, **options, max_iter=5, keep_empty_features=True)
    filled = imputer.transform(X)
    assert np.isfinite(filled).all()
    if options.get("sample_posterior"):
        return
    found, std, quantiles = imputer.impute(
        X, return_std=True, return_quantiles=(0.025, 0.5, 0.975)
    )
    assert_array_equal(found, filled)
    assert not np.isnan(quantiles).any()
    assert (np.diff(quantiles, axis=0) >= 0).all()
    assert (std >= 0).all()
    known = np.count_nonzero(~np.isnan(X), axis=0)
    unknown = np.isinf(std)
    assert_array_equal(unknown, np.isnan(X) & (known < 2))


@pytest.mark.parametrize("marginal", ["none", "normal", "auto"])
def test_the_median_of_a_column_of_one_value_is_this(small, marginal):
    X = edges(small)["one value in a column"]
    median = fit(X, marginal).impute(X, return_quantiles=[0.5])[1][0]
    assert_allclose(median[:, 2], 3.0, rtol=1e-12)


def test_a_complete_table_comes_back_and_rows_without_gaps_do(small):
    imputer = fit(small)
    complete = imputer.transform(small)
    assert_array_equal(imputer.transform(complete), complete)


# Weights, output, randomness, errors


def test_scores_are_those_of_the_table_with_rows_repeated(small):
    counts = np.random.RandomState(0).randint(1, 4, size=60)
    weighted = MFImputer(marginal="normal", max_iter=5).fit(small, sample_weight=counts)
    repeated = MFImputer(marginal="normal", max_iter=5).fit(
        small.repeat(counts, axis=0)
    )
    assert_allclose(weighted.mean_, repeated.mean_, atol=1e-12)
    assert_allclose(weighted.scale_, repeated.scale_, rtol=1e-12)
    plain = MFImputer(marginal="normal", max_iter=5).fit(small)
    assert np.abs(plain.mean_ - weighted.mean_).max() > 1e-6


@pytest.mark.slow
def test_a_row_of_no_weight_is_left_out(small):
    seen = np.arange(60) % 5 > 0
    fitted = fit(small[seen], "auto")
    weighted = MFImputer(marginal="auto", max_iter=10, random_state=0)
    weighted.fit(np.where(seen[:, None], small, 1e5), sample_weight=seen.astype(float))
    assert_allclose(weighted.transform(small), fitted.transform(small), rtol=1e-9)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_the_output_is_a_data_frame_if_that_is_set(small, options):
    frame = pd.DataFrame(small, index=np.arange(60)[::-1]).add_prefix("c")
    imputer = MFImputer(max_iter=3, random_state=0, **options)
    filled = imputer.set_output(transform="pandas").fit_transform(frame)
    assert list(filled.columns) == list(frame.columns)
    assert_array_equal(filled.index, frame.index)
    assert not filled.isna().any(axis=None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"marginal": "auto"}, {"residual": Ridge()}, {"sample_posterior": True}],
    ids=str,
)
def test_the_seed_decides_all_that_is_random(small, options):
    options = {"marginal": "normal"} | options
    one, two, other = (
        fit(small, **options, random_state=seed).transform(small) for seed in (1, 1, 2)
    )
    assert_array_equal(one, two)
    assert (one != other).any()


class LastSweep:
    """A callback that keeps the fitted imputer of each sweep."""

    def setup(self, estimator, context):
        self.imputers = []

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, X, fitted_estimator=None):
        if context.task_name == "sweep":
            self.imputers.append(fitted_estimator)


@pytest.mark.parametrize("options", VARIANTS[:3], ids=str)
def test_callbacks_see_the_sweeps_of_the_first_factorization_only(small, options):
    pytest.importorskip("sklearn.callback")
    watch = LastSweep()
    imputer = MFImputer(max_iter=6, tol=0, random_state=0, **options)
    imputer.set_callbacks(watch).fit(small)
    assert len(watch.imputers) == imputer.n_iter_ == 6
    seen = watch.imputers[-1].transform(small)
    marginal = "normal" if options["marginal"] == "normal" else "none"
    expected = MFImputer(max_iter=6, tol=0, marginal=marginal).fit_transform(small)
    assert_allclose(seen, expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"marginal": "normal", "reg": 1.0}, "marginal='normal' needs reg='auto'"),
        ({"marginal": "auto", "reg": 1.0}, "marginal='auto' needs reg='auto'"),
        ({"residual": Ridge(), "sample_posterior": True}, "use residual=None"),
        ({"marginal": "uniform"}, "The 'marginal' parameter"),
        ({"statistic": "mode"}, "The 'statistic' parameter"),
        ({"discrete": True}, "The 'discrete' parameter"),
        ({"residual": "trees"}, "The 'residual' parameter"),
    ],
    ids=str,
)
def test_parameters_that_do_not_fit_are_an_error(small, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        MFImputer(**options).fit(small)


@pytest.mark.parametrize(
    "probabilities",
    [0.5, (), (0, 0.5), (0.5, 1), (np.nan,), [(0.1, 0.9)], "median", (None, {})],
    ids=str,
)
def test_wrong_probabilities_are_an_error_that_says_what_is_right(small, probabilities):
    message = "return_quantiles must be a sequence of probabilities between 0 and 1"
    with pytest.raises(ValueError, match=message):
        fit(small, max_iter=1).impute(small, return_quantiles=probabilities)


@pytest.mark.parametrize("options", [{"reg": 1.0}, {"sample_posterior": True}], ids=str)
def test_quantiles_need_what_deviations_need(small, options):
    imputer = MFImputer(max_iter=1, **options).fit(small)
    with pytest.raises(
        ValueError, match="return_quantiles needs a fit with reg='auto'"
    ):
        imputer.impute(small, return_quantiles=ENDS)
