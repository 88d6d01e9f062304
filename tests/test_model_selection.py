"""Entries held out: splits, and scores of whatever predicts them."""

import datetime
import pickle
import re
from fractions import Fraction

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.metrics import make_scorer, max_error, mean_squared_error, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler

from sklearn_mfgd import GradientMF, MaskedGradientMF, MFImputer
from sklearn_mfgd.model_selection import (
    block_entries,
    cross_validate_entries,
    make_entries_scorer,
    train_test_split_entries,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.usefixtures("one_thread"),
]

LARGEST_ERROR = make_scorer(max_error, greater_is_better=False)


@pytest.fixture
def table(planted):
    return planted(m=60, n=12, rank=2, noise=0.2, share_missing=0.1).X


def stored(X, container=sparse.csr_array):
    """Store the observed entries of X, zeros among them."""
    rows, columns = np.nonzero(~np.isnan(X))
    return container(sparse.coo_array((X[rows, columns], (rows, columns)), X.shape))


def dense(S):
    X = np.full(S.shape, np.nan)
    S = S.tocoo()
    X[S.row, S.col] = S.data
    return X


def mean_errors(model, X):
    return cross_validate_entries(model, X, cv=3, random_state=0)["test_score"]


# Splits


LENGTHS, SHARES, TEST_SIZES = (
    st.integers(2, 12),
    st.floats(0.3, 1),
    st.floats(0.05, 0.4),
)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, LENGTHS, SHARES, TEST_SIZES, st.integers(0, 999))
def test_a_split_is_a_partition_that_empties_nothing(m, n, share, test_size, seed):
    rng = np.random.RandomState(seed)
    X = np.where(rng.uniform(size=(m, n)) < share, rng.randint(0, 3, (m, n)), np.nan)
    seen = ~np.isnan(X)
    options = {"test_size": test_size, "random_state": seed}
    n_test = round(test_size * seen.sum())
    try:
        train, test = train_test_split_entries(X, **options)
    except ValueError as error:
        assert n_test < 1 or "without emptying a row or a column" in str(error)
        return
    held = ~np.isnan(test)
    assert_array_equal(~np.isnan(train) ^ held, seen)
    assert held.sum() == n_test
    assert_array_equal(np.where(held, test, train)[seen], X[seen])
    for axis in (0, 1):
        assert_array_equal((~np.isnan(train)).any(axis=axis), seen.any(axis=axis))
    of_sparse = train_test_split_entries(stored(X), **options)
    assert_array_equal([dense(part) for part in of_sparse], [train, test])


@pytest.mark.parametrize(
    "container", [sparse.csr_array, sparse.csc_matrix, sparse.coo_array]
)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_sparse_parts_are_of_the_same_kind(container, dtype):
    X = container(np.arange(20, dtype=dtype).reshape(4, 5))
    for part in train_test_split_entries(X, random_state=0):
        assert (type(part), part.dtype, part.shape) == (type(X), dtype, (4, 5))


def test_a_number_holds_out_that_many_which_the_seed_chooses():
    def held_out(seed):
        options = {"test_size": 7, "random_state": seed}
        return ~np.isnan(train_test_split_entries(np.ones((5, 6)), **options)[1])

    chosen = np.array([held_out(seed) for seed in range(200)])
    assert (chosen.sum(axis=(1, 2)) == 7).all()
    assert (chosen.sum(axis=0) > 10).all()  # no entry is spared
    assert_array_equal(chosen[0], held_out(0))


@pytest.mark.parametrize(
    "X, test_size, message",
    [
        *((np.ones((3, 3)), size, "be a share") for size in (0.0, 1.5, True, "many")),
        (np.where(np.eye(3) > 0, 1, np.nan), 0.4, "only 0 can be"),
        (np.ones((3, 3)), 8, "hold out 8 of 9 observed entries, but only [45]"),
        (sparse.coo_array(([1.0, 2.0], ([0, 0], [1, 1]))), 0.5, "more than once"),
    ],
)
def test_splits_that_are_refused(X, test_size, message):
    with pytest.raises(ValueError, match=message):
        train_test_split_entries(X, test_size=test_size, random_state=0)


@pytest.mark.parametrize("container", [np.array, sparse.csr_array, sparse.coo_matrix])
def test_infinity_is_refused_as_the_estimators_do(container):
    X = container(np.array([[1.0, 2, 3], [4, 5, -np.inf], [6, 7, 8]]))
    model, message = MaskedGradientMF(1), "Input X contains infinity"
    for call in (train_test_split_entries, model.fit):
        with pytest.raises(ValueError, match=message):
            call(X)
    for call in (cross_validate_entries, make_entries_scorer()):
        with pytest.raises(ValueError, match=message):
            call(model, X)


# Blocks of entries


def hidden_share_of_blocks(hidden, seen, blocks):
    """Share of the observed entries that is hidden, for each label and column."""
    blocks = np.asarray(blocks)
    return [
        hidden[blocks == label, column][seen[blocks == label, column]].mean()
        for label in np.unique(blocks)
        for column in range(seen.shape[1])
        if seen[blocks == label, column].any()
    ]


@settings(max_examples=60, deadline=None)
@given(LENGTHS, LENGTHS, SHARES, TEST_SIZES, st.integers(0, 999))
def test_a_split_hides_whole_blocks_and_empties_nothing(m, n, share, test_size, seed):
    rng = np.random.RandomState(seed)
    X = np.where(rng.uniform(size=(m, n)) < share, rng.randint(0, 3, (m, n)), np.nan)
    seen, blocks = ~np.isnan(X), rng.choice(["mon", "tue", "wed"], m)
    options = {"test_size": test_size, "random_state": seed, "blocks": blocks}
    try:
        train, test = train_test_split_entries(X, **options)
    except ValueError as error:
        assert "blocks of entries" in str(error)
        return
    held = ~np.isnan(test)
    assert_array_equal(~np.isnan(train) ^ held, seen)
    shares = hidden_share_of_blocks(held, seen, blocks)
    assert set(shares) <= {0, 1}
    assert sum(shares) == round(test_size * len(shares))
    for axis in (0, 1):
        assert_array_equal((~np.isnan(train)).any(axis=axis), seen.any(axis=axis))
    of_sparse = train_test_split_entries(stored(X), **options)
    assert_array_equal([dense(part) for part in of_sparse], [train, test])


def test_a_number_holds_out_that_many_blocks_which_the_seed_chooses():
    def held_out(seed):
        options = {"test_size": 5, "random_state": seed, "blocks": [7, 8, 7, 8, 9]}
        return ~np.isnan(train_test_split_entries(np.ones((5, 6)), **options)[1])

    chosen = np.array([held_out(seed) for seed in range(200)])
    assert_array_equal(chosen[:, 0], chosen[:, 2])
    assert_array_equal(chosen[:, 1], chosen[:, 3])
    assert (chosen[:, [0, 1, 4]].sum(axis=(1, 2)) == 5).all()
    assert (chosen.sum(axis=0) > 10).all()  # no block is spared


def test_as_many_blocks_are_hidden_as_rows_and_columns_can_spare():
    X, blocks = np.ones((4, 3)), [0, 0, 1, 1]
    # The blocks that stay cover both days and, if they are of one column, two others.
    with pytest.raises(ValueError, match=r"hold out 4 of 6 blocks .* only [23] can be"):
        train_test_split_entries(X, test_size=4, blocks=blocks)
    held = ~np.isnan(train_test_split_entries(X, test_size=2, blocks=blocks)[1])
    assert held.sum() == 4


@pytest.mark.parametrize("seed", range(10))
def test_as_many_blocks_can_be_held_out_as_the_error_says(seed):
    options = {"blocks": [0, 0, 1, 1], "random_state": seed}
    with pytest.raises(ValueError, match=r"only [12] can be") as refusal:
        train_test_split_entries(np.ones((4, 2)), test_size=3, **options)
    n_free = int(re.search("only ([12])", str(refusal.value))[1])
    train_test_split_entries(np.ones((4, 2)), test_size=n_free, **options)
    with pytest.raises(ValueError, match=r"only [12] can be"):
        train_test_split_entries(np.ones((4, 2)), test_size=n_free + 1, **options)


@pytest.mark.parametrize("labels", [range(60), [f"{row:02}" for row in range(60)]])
def test_a_block_for_each_row_is_no_block(table, labels):
    for one, other in zip(
        train_test_split_entries(table, random_state=0),
        train_test_split_entries(table, random_state=0, blocks=labels),
        strict=True,
    ):
        assert_array_equal(one, other)
    options = {"cv": 3, "random_state": 0}
    one = cross_validate_entries(SimpleImputer(), table, **options)
    other = cross_validate_entries(SimpleImputer(), table, blocks=labels, **options)
    assert_array_equal(one["test_score"], other["test_score"])


@pytest.mark.parametrize(
    "blocks, message",
    [
        ([0, 1], "blocks must have a value for each of the 3 rows of X; got 2"),
        ([[0], [1], [2]], "blocks must have one dimension"),
        ([0, None, 1], "blocks must not be missing, but row 1"),
        (np.array([0, 1, np.nan]), "blocks must not be missing, but row 2"),
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        train_test_split_entries,
        lambda X, blocks: cross_validate_entries(SimpleImputer(), X, blocks=blocks),
    ],
    ids=["split", "cross-validation"],
)
def test_blocks_that_are_refused(call, blocks, message):
    with pytest.raises(ValueError, match=message):
        call(np.ones((3, 3)), blocks=blocks)


@settings(deadline=None)
@given(
    st.lists(st.integers(-100, 100), min_size=1, max_size=20),
    st.sampled_from(["D", "h", "30m", "m"]),
    st.integers(1, 100),
    st.sampled_from(["D", "h", "45m", "ms"]),
)
def test_blocks_of_dates_are_multiples_of_the_length(ticks, unit, length, length_unit):
    times = np.array(ticks).astype(f"datetime64[{unit}]")
    length = np.timedelta64(length, length_unit)
    microseconds = times.astype("datetime64[us]").astype(np.int64)
    step = int(length.astype("timedelta64[us]").astype(np.int64))
    expected = [int(time) // step for time in microseconds]
    expected = np.unique(expected, return_inverse=True)[1]
    assert_array_equal(block_entries(times, length=length), expected)


@settings(deadline=None)
@given(
    st.lists(st.integers(-30, 30), min_size=1, max_size=20),
    st.integers(1, 10),
    st.sampled_from([1, 10, 1000]),
    st.sampled_from([0, 12345]),
)
def test_blocks_of_numbers_start_at_the_first_time(ticks, length, per_unit, offset):
    exact = [Fraction(tick - min(ticks), length) for tick in ticks]
    expected = np.unique([int(quotient) for quotient in exact], return_inverse=True)[1]
    times = offset + np.array(ticks) / per_unit
    assert_array_equal(block_entries(times, length=length / per_unit), expected)
    if per_unit == 1:
        assert_array_equal(block_entries(ticks, length=length), expected)
    durations = np.array(ticks).astype("timedelta64[h]")
    length = datetime.timedelta(hours=length)
    assert_array_equal(block_entries(durations, length=length), expected)


@pytest.mark.parametrize(
    "length, of_numbers, of_dates",
    [
        # Series "a" has the times 0, 9 and 12; series "b" has 5, 6 and 11.
        (10, [2, 0, 2, 2, 1, 0], [2, 0, 2, 3, 1, 0]),
        (6, [3, 0, 3, 4, 2, 1], [3, 0, 4, 4, 2, 1]),
    ],
)
def test_no_block_crosses_series(length, of_numbers, of_dates):
    times, groups = [5, 0, 6, 11, 12, 9], ["b", "a", "b", "b", "a", "a"]
    blocks = block_entries(times, length=length, groups=groups)
    assert_array_equal(blocks, of_numbers)
    dates, length = np.array(times, "datetime64[h]"), np.timedelta64(length, "h")
    assert_array_equal(block_entries(dates, length=length, groups=groups), of_dates)


def test_a_day_starts_at_midnight_utc_whatever_the_time_zone():
    times = pd.date_range("2024-03-31", periods=26, freq="h", tz="Europe/Berlin")
    blocks = block_entries(times, length=datetime.timedelta(days=1))
    assert_array_equal(blocks, np.repeat([0, 1, 2], [1, 24, 1]))


@pytest.mark.parametrize(
    "times, length",
    [
        (np.array(["0001-01-01", "9999-12-31"], "M8[D]"), np.timedelta64(1, "ns")),
        (np.array([-(2**63) + 1, 2**63 - 1], "M8[ns]"), np.timedelta64(1, "D")),
        (np.array([-(2**63) + 1, 2**63 - 1], "m8[ns]"), np.timedelta64(1, "D")),
        (np.array([0, 1], "M8[as]") - 1, np.timedelta64(10**6, "D")),
        ([-(2**63), 2**63 - 1], 2.0**63),
        ([10**18, 10**18 + 1], 1),
    ],
)
def test_blocks_are_right_at_the_ends_of_the_range(times, length):
    assert_array_equal(block_entries(times, length=length), [0, 1])


def test_blocks_of_large_integers_are_exact():
    times = np.array([0, 9, 10, 19]) + 10**18
    assert_array_equal(block_entries(times, length=10), [0, 0, 1, 1])


@pytest.mark.parametrize(
    "times, length, error, message",
    [
        ([1, 2], 0, ValueError, "length must be positive"),
        ([1, 2], -1.0, ValueError, "length must be positive"),
        ([1, 2], np.nan, ValueError, "length must be positive"),
        ([1, 2], np.inf, ValueError, "length must be positive"),
        ([1, 2], True, TypeError, "length must be a duration"),
        ([1, 2], "1D", TypeError, "length must be a duration"),
        ([1, 2], np.timedelta64(1, "D"), TypeError, "length must be a duration"),
        (["2024-01-01"], 1, TypeError, "length must be a duration"),
        (["2024-01-01"], np.timedelta64(0, "D"), ValueError, "length must be positive"),
        (["2024-01-01"], np.timedelta64("NaT"), ValueError, "length must be positive"),
        (["2024-01-01"], np.timedelta64(1, "Y"), TypeError, "length .* no fixed unit"),
        ([1, np.nan], 1, ValueError, "times must not be missing"),
    ],
)
def test_lengths_and_times_that_are_refused(times, length, error, message):
    with pytest.raises(error, match=message):
        block_entries(times, length=length)


# Cross-validation


class Recorder(TransformerMixin, BaseEstimator):
    """An imputer that fills in zeros and keeps what it is given."""

    keep_empty_features = True

    def fit_transform(self, X, y=None, times=None, groups=None):
        """Fill in zeros."""
        self.given_ = {"X": X, "times": times, "groups": groups}
        return np.nan_to_num(X)

    def fit(self, X, y=None, times=None, groups=None):
        """Keep what is given."""
        self.fit_transform(X, y, times, groups)
        return self

    def transform(self, X, times=None):
        """Fill in zeros; keep the times."""
        self.times_of_transform_ = times
        return np.nan_to_num(X)


class TransformsWithoutTimes(Recorder):
    """A recorder whose transform knows no times."""

    def transform(self, X):
        """Fill in zeros."""
        return super().transform(X)


def given_to(model, X, **options):
    """What the fit of each fold was given."""
    options |= {"cv": 3, "random_state": 0, "return_estimator": True}
    return cross_validate_entries(model, X, **options)["estimator"]


def test_each_block_is_hidden_in_one_fold(table):
    blocks = np.arange(60) // 7
    seen = ~np.isnan(table)
    hidden = [
        seen & np.isnan(fitted.given_["X"])
        for fitted in given_to(Recorder(), table, blocks=blocks)
    ]
    assert_array_equal(sum(hidden), seen)
    shares = np.array([hidden_share_of_blocks(each, seen, blocks) for each in hidden])
    assert set(shares.ravel()) == {0, 1}
    assert np.ptp(shares.sum(axis=1)) <= 1


def test_the_score_is_that_of_the_hidden_blocks(table):
    options = {"blocks": np.arange(60) // 7, "cv": 3, "return_estimator": True}
    results = cross_validate_entries(Recorder(), table, **options)
    for fitted, score in zip(results["estimator"], results["test_score"], strict=True):
        hidden = np.isnan(fitted.given_["X"]) & ~np.isnan(table)
        assert score == pytest.approx(-np.sqrt(np.mean(table[hidden] ** 2)))


def test_times_and_groups_reach_the_fit_as_they_are(table):
    times, groups = pd.date_range("2024-01-01", periods=60), 60 * ["one"]
    for fitted in given_to(Recorder(), table, times=times, groups=groups):
        assert fitted.given_["times"] is times
        assert fitted.given_["groups"] is groups
    for fitted in given_to(Recorder(), table, times=times):
        assert fitted.given_["times"] is times
        assert fitted.given_["groups"] is None


def test_an_estimator_is_passed_nothing_that_is_not_given(table):
    assert len(given_to(SimpleImputer(), table, blocks=np.arange(60) // 7)) == 3
    with pytest.raises(TypeError, match="times"):
        given_to(SimpleImputer(), table, times=np.arange(60))


@pytest.mark.parametrize("imputer", [Recorder(), TransformsWithoutTimes()])
def test_times_are_routed_to_the_steps_that_ask_for_them(table, imputer):
    times = np.arange(60)
    with sklearn.config_context(enable_metadata_routing=True):
        imputer = clone(imputer).set_fit_request(times=True, groups=False)
        asks = type(imputer) is Recorder
        if asks:
            imputer.set_transform_request(times=True)
        model = make_pipeline(imputer, StandardScaler())
        for fitted in given_to(model, table, times=times):
            assert fitted[0].given_["times"] is times
            assert fitted[0].times_of_transform_ is (times if asks else None)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"times": [1, 2]}, "times must have a value for each of the 60 rows"),
        ({"times": 60 * [np.nan]}, "times must not be missing"),
        ({"groups": 60 * [1]}, "groups needs times"),
        ({"times": range(60), "groups": [1]}, "groups must have a value for each"),
    ],
)
def test_times_are_checked_before_any_fit(table, options, message):
    with pytest.raises(ValueError, match=message):
        cross_validate_entries(Recorder(), table, **options)


@pytest.mark.parametrize(
    "estimator",
    [
        MaskedGradientMF(4),
        GradientMF(2, reg=1.0),
        MFImputer(5, sample_posterior=True, random_state=0),
        make_pipeline(StandardScaler(), MaskedGradientMF(4)),
        make_pipeline(StandardScaler(), MFImputer()),
        make_pipeline(StandardScaler(), make_pipeline(MinMaxScaler(), KNNImputer())),
        make_pipeline(KNNImputer(), StandardScaler()),
        IterativeImputer(max_iter=2),
    ],
    ids=lambda estimator: str(estimator)[:60],
)
def test_whatever_predicts_entries_is_scored(table, estimator):
    scores = cross_validate_entries(estimator, table, cv=3, random_state=0)
    assert set(scores) == {"fit_time", "score_time", "test_score"}
    assert all(values.shape == (3,) for values in scores.values())
    of_means = mean_errors(SimpleImputer(), table).mean()
    assert 0 > scores["test_score"].mean() > 0.9 * of_means


def test_scores_are_those_of_a_loop_over_the_folds(table):
    options = {"scoring": {"worst": LARGEST_ERROR, "r2": "r2"}, "cv": 4}
    options |= {"random_state": 3, "return_train_score": True}
    scores = cross_validate_entries(SimpleImputer(), table, **options)
    places = np.argwhere(~np.isnan(table))
    order = np.random.RandomState(3).permutation(len(places))
    for k in range(4):
        X, held_out = table.copy(), tuple(places[order[k::4]].T)
        X[held_out] = np.nan
        predicted, truth = np.nanmean(X, axis=0)[held_out[1]], table[held_out]
        worst = max_error(truth, predicted)
        assert scores["test_worst"][k] == pytest.approx(-worst)
        assert scores["test_r2"][k] == pytest.approx(r2_score(truth, predicted))
    # An imputer returns the entries that it was shown.
    assert_array_equal(scores["train_worst"], 0)
    assert_array_equal(scores["train_r2"], 1)


@pytest.mark.slow
@pytest.mark.parametrize("container", [sparse.csr_array, sparse.csc_matrix])
def test_sparse_data_have_the_scores_of_dense_ones(table, container):
    table[table > 1] = 0.0
    model, X = MaskedGradientMF(4), stored(table, container)
    assert_allclose(mean_errors(model, X), mean_errors(model, table), rtol=1e-8)
    model, scorer = model.fit(X), make_entries_scorer()
    assert scorer(model, X) == pytest.approx(scorer(model, table), rel=1e-8)


@pytest.mark.slow
def test_folds_may_be_fitted_at_once_in_clones(table):
    options = {"cv": 3, "random_state": 0, "return_estimator": True}
    model = MFImputer()
    one = cross_validate_entries(model, table, **options)
    two = cross_validate_entries(model, table, n_jobs=2, **options)
    assert_array_equal(one["test_score"], two["test_score"])
    assert [type(fitted) for fitted in two["estimator"]] == 3 * [MFImputer]
    assert len({fitted.mean_[0] for fitted in two["estimator"]}) == 3
    assert not hasattr(model, "factorization_")


@pytest.mark.parametrize(
    "estimator, container, message",
    [
        (StandardScaler(), np.array, "leaves hidden entries missing"),
        (MFImputer(add_indicator=True), np.array, r"any \(add_indicator=False\)"),
        (KNNImputer(add_indicator=True), np.array, r"any \(add_indicator=False\)"),
        (GradientMF(2), stored, "for zeros, so entries cannot be hidden"),
        (MFImputer(), stored, "needs an estimator with predict_entries"),
        (SimpleImputer(), stored, "needs an estimator with predict_entries"),
    ],
)
def test_what_cannot_predict_entries_is_refused(table, estimator, container, message):
    X = container(table)
    with pytest.raises(ValueError, match=message):
        cross_validate_entries(estimator, X, cv=2, random_state=0)
    with pytest.raises(ValueError, match=message):
        make_entries_scorer()(estimator.fit(table), X)


@pytest.mark.filterwarnings("ignore:Skipping features without any observed values")
@pytest.mark.parametrize("imputer", [MFImputer, SimpleImputer])
def test_an_imputer_that_drops_columns_is_told_to_keep_them(table, imputer):
    table[:, 3] = np.nan
    table[5, 3] = 1.0  # empty whenever this entry is held out
    with pytest.raises(ValueError, match="use keep_empty_features=True"):
        cross_validate_entries(imputer(), table, cv=2, random_state=0)
    kept = imputer(keep_empty_features=True)
    scores = cross_validate_entries(kept, table, cv=2, random_state=0)
    assert np.isfinite(scores["test_score"]).all()


def test_a_scaled_imputer_is_scored_in_the_units_of_the_data(table):
    """Scaling by one number changes no imputed value, so scores stay the same."""
    doubled = FunctionTransformer(lambda X: 2 * X, lambda X: X / 2, check_inverse=False)
    found = mean_errors(make_pipeline(doubled, KNNImputer()), table)
    assert_allclose(found, mean_errors(KNNImputer(), table), rtol=1e-12)


@pytest.mark.parametrize(
    "scoring, message",
    [(max_error, "make_scorer"), ("no_score", "no_score"), ([], "Empty list")],
    ids=["a metric", "no such name", "none"],
)
def test_scores_that_are_refused(table, scoring, message):
    with pytest.raises(ValueError, match=message):
        cross_validate_entries(SimpleImputer(), table, cv=2, scoring=scoring)
    with pytest.raises(ValueError, match=message):
        make_entries_scorer(scoring)


def test_more_folds_than_blocks_are_refused():
    X, blocks = np.ones((4, 2)), [0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"cv=5 .* blocks of entries; X has 4"):
        cross_validate_entries(SimpleImputer(), X, cv=5, blocks=blocks)


def test_folds_that_are_refused(table):
    for number in (1, 2.5, None):
        with pytest.raises(ValueError, match="cv must be a number of folds"):
            cross_validate_entries(SimpleImputer(), table, cv=number)
        with pytest.raises(ValueError, match="n_folds must be a number of folds"):
            make_entries_scorer(n_folds=number)
    with pytest.raises(ValueError, match="need as many observed entries; X has 3"):
        cross_validate_entries(SimpleImputer(), np.ones((1, 3)), cv=4)
    with pytest.raises(ValueError, match="every entry of X is missing"):
        make_entries_scorer()(MFImputer().fit(table), np.full_like(table, np.nan))


# Scorers of hidden entries


def hidden_entries(model, X, n_folds):
    """Return each entry, and what a model predicts of it from the others of its row."""
    predicted, truth = [], []
    for row in X:
        seen = np.flatnonzero(~np.isnan(row))
        for fold in range(n_folds):
            hidden, shown = seen[fold::n_folds], row.copy()
            shown[hidden] = np.nan
            Z = model.transform(shown[None])
            if Z.shape[1] != len(row):
                Z = model.inverse_transform(Z)
            predicted.extend(Z[0, hidden])
            truth.extend(row[hidden])
    return np.array(truth), np.array(predicted)


@pytest.mark.parametrize(
    "model, n_folds",
    [(GradientMF(2), 2), (MaskedGradientMF(3), 5), (MFImputer(), 3), (KNNImputer(), 5)],
)
def test_a_scorer_hides_every_entry_once(table, model, n_folds):
    model.fit(table[:40])
    truth, predicted = hidden_entries(model, table[40:], n_folds)
    mean_square = mean_squared_error(truth, predicted)
    for scoring, expected in (
        ("neg_root_mean_squared_error", -np.sqrt(mean_square)),
        ("r2", r2_score(truth, predicted)),
        (LARGEST_ERROR, -max_error(truth, predicted)),
    ):
        scorer = make_entries_scorer(scoring, n_folds=n_folds)
        assert scorer(model, table[40:]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", [make_pipeline(StandardScaler(), MFImputer()), KNNImputer()], ids=type
)
def test_cross_val_score_takes_a_scorer_without_y(table, model):
    options = {"cv": 3, "scoring": make_entries_scorer(), "error_score": "raise"}
    scores = cross_val_score(model, table, **options)
    assert (scores < 0).all()
    scaled = cross_val_score(model, 4 * table, **options)
    assert_allclose(scaled, 4 * scores, rtol=0.02)  # in units of X


@pytest.mark.slow
@pytest.mark.parametrize("estimator, n_jobs", [(GradientMF(), None), (MFImputer(), 2)])
def test_a_grid_search_finds_the_rank_by_a_scorer(planted, estimator, n_jobs):
    X = planted(m=150, n=15, rank=2, noise=0.3, share_missing=0.1).X
    scorer = make_entries_scorer()
    grid = {"rank": [1, 2], "reg": [1.0]}
    search = GridSearchCV(estimator, grid, scoring=scorer, cv=3, n_jobs=n_jobs).fit(X)
    assert search.best_params_["rank"] == 2
    assert -search.best_score_ == pytest.approx(0.35, abs=0.1)
    assert search.score(X) == scorer(search.best_estimator_, X)


def test_a_scorer_gives_several_scores_at_once(table):
    model, names = MFImputer(4).fit(table), ["r2", "neg_mean_absolute_error"]
    expected = {name: make_entries_scorer(name)(model, table) for name in names}
    assert make_entries_scorer(names)(model, table) == expected
    scorer = make_entries_scorer(names)
    scores = cross_validate(model, table, cv=2, scoring=scorer)
    assert {f"test_{name}" for name in names} < set(scores)


@pytest.mark.slow
@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("Frame", [pd.DataFrame, pl.DataFrame])
def test_frames_keep_their_names(table, Frame):
    X = Frame({f"c{k}": column for k, column in enumerate(table.T)})
    for model in (MFImputer(), make_pipeline(StandardScaler(), MaskedGradientMF(3))):
        expected = make_entries_scorer()(clone(model).fit(table), table)
        found = make_entries_scorer()(model.fit(X), X)
        assert found == pytest.approx(expected, rel=1e-9)


def test_a_scorer_can_be_pickled_and_works_with_routing(table):
    scorer = pickle.loads(pickle.dumps(make_entries_scorer("r2", n_folds=3)))
    assert "n_folds=3" in repr(scorer)
    with sklearn.config_context(enable_metadata_routing=True):
        search = GridSearchCV(MFImputer(), {"rank": [1, 2]}, scoring=scorer, cv=2)
        assert search.fit(table).best_params_ == {"rank": 2}


# What it is for: settings


@pytest.mark.slow
@pytest.mark.accuracy
def test_the_planted_rank_is_found_by_the_score_and_by_learning(planted):
    """In 19 of 20 seeds; the error of a reconstruction would take the largest."""
    by_score, by_learning = 0, 0
    for seed in range(20):
        X = planted(150, 30, 3, noise=0.3, share_missing=0.1, seed=seed).X
        ranks = {"rank": [2, 3, 4, 6]}
        search = GridSearchCV(GradientMF(max_iter=10, tol=1e-3), ranks, cv=3).fit(X)
        by_score += search.best_params_["rank"] == 3
        by_learning += MaskedGradientMF(10).fit(X).rank_ == 3
    assert min(by_score, by_learning) >= 19


@pytest.mark.parametrize("solver", ["als", "scaled", "gd", "sgd"])
def test_a_grid_search_chooses_among_steps_and_ridges(table, solver):
    model = MaskedGradientMF(2, solver=solver, max_iter=5, random_state=0)
    grid = {"eta": ["auto", 1e-3], "reg": [0.1, 10.0]}
    search = GridSearchCV(model, grid, cv=2).fit(table)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_params_["eta"] == "auto"
