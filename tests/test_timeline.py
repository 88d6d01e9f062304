"""Rows in time: how times and series are read, sorted, and put back."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_mfgd._data.timeline import Timeline

SECOND = np.timedelta64(1, "s")
HOURS = np.array(["2024-03-30T23", "2024-03-31T00", "2024-03-31T04"], "datetime64[h]")
AWARE = [
    datetime.datetime(
        2024, 3, 31, 0, tzinfo=datetime.timezone(datetime.timedelta(hours=1))
    ),
    datetime.datetime(2024, 3, 31, 0, tzinfo=datetime.UTC),
    datetime.datetime(2024, 3, 31, 4, tzinfo=datetime.UTC),
]


def seconds(dates):
    return (dates.astype("datetime64[s]") - np.datetime64(0, "s")) / SECOND


@st.composite
def rows_in_time(draw):
    """Times with ties, and labels of series."""
    n = draw(st.integers(2, 12))
    times = draw(arrays(np.int64, n, elements=st.integers(-5, 5)))
    groups = draw(arrays(np.int64, n, elements=st.integers(0, 3)))
    return times, groups


def naive_gaps(times, groups, kept):
    """Gap of each kept row: time since the latest row of its series before it."""
    gaps = {}
    for row in kept:
        earlier = [
            times[other]
            for other in kept
            if groups[other] == groups[row]
            and (times[other], other) < (times[row], row)
        ]
        gaps[row] = times[row] - max(earlier) if earlier else np.inf
    return gaps


# Order and gaps


@settings(deadline=None)
@given(rows_in_time())
def test_gaps_are_times_since_the_row_before_in_the_same_series(rows):
    times, groups = rows
    timeline = Timeline.of(times, groups, len(times))
    gaps = naive_gaps(times, groups, range(len(times)))
    assert timeline.has_order == any(0 < gap < np.inf for gap in gaps.values())
    assert_array_equal(timeline.gaps, [gaps[row] for row in timeline.order])
    assert_array_equal(timeline.times, times[timeline.order])


@settings(deadline=None)
@given(rows_in_time())
def test_rows_are_sorted_by_series_then_time_then_number(rows):
    times, groups = rows
    timeline = Timeline.of(times, groups, len(times))
    keys = zip(groups, times, range(len(times)), strict=True)
    assert_array_equal(timeline.order, [row for _, _, row in sorted(keys)])
    labels = np.unique(groups, return_inverse=True)[1]
    assert_array_equal(timeline.series, labels[timeline.order])


@settings(deadline=None)
@given(rows_in_time(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(rows, random):
    times, groups = rows
    shuffled = list(range(len(times)))
    random.shuffle(shuffled)
    one = Timeline.of(times, groups, len(times))
    other = Timeline.of(times[shuffled], groups[shuffled], len(times))
    assert_array_equal(one.times, other.times)
    assert_array_equal(one.gaps, other.gaps)
    assert_array_equal(one.series, other.series)


@settings(deadline=None)
@given(rows_in_time(), st.data())
def test_rows_left_out_lengthen_the_gaps_of_those_that_stay(rows, data):
    times, groups = rows
    timeline = Timeline.of(times, groups, len(times))
    kept = np.flatnonzero(data.draw(arrays(bool, len(times))))
    taken = timeline.take(kept)
    gaps = naive_gaps(times, groups, kept)
    assert_array_equal(taken.times, times[kept[taken.order]])
    assert_array_equal(taken.gaps, [gaps[row] for row in kept[taken.order]])
    places = {row: place for place, row in enumerate(timeline.order)}
    assert_array_equal(np.diff([places[row] for row in kept[taken.order]]) > 0, True)


@settings(deadline=None)
@given(rows_in_time())
def test_restore_undoes_the_sorting(rows):
    times, groups = rows
    timeline = Timeline.of(times, groups, len(times))
    X = np.arange(2.0 * len(times)).reshape(-1, 2)
    assert_array_equal(timeline.restore(X[timeline.order]), X)


@pytest.mark.parametrize(
    ("times", "groups"),
    [
        ([3.0], None),
        ([], None),
        ([2, 2, 2], None),
        ([1, 2, 3], ["a", "b", "c"]),
        ([1, 2, 1], ["a", "b", "a"]),
    ],
)
def test_rows_have_no_order_where_no_series_has_two_times(times, groups):
    assert not Timeline.of(times, groups, len(times)).has_order


@pytest.mark.parametrize("times", [[1, 2], [2.0, 1.0], ["2024-01-02", "2024-01-01"]])
def test_rows_have_an_order_where_a_series_has_two_times(times):
    assert Timeline.of([*times, times[0]], ["a", "a", "b"], 3).has_order


def test_without_times_there_is_no_timeline():
    assert Timeline.of(None, None, 3) is None


# What times may be


@pytest.mark.parametrize("unit", ["h", "m", "s", "ms", "us", "ns", "15m", "100ms"])
def test_dates_of_every_unit_are_seconds(unit):
    timeline = Timeline.of(HOURS.astype(f"datetime64[{unit}]"), None, 3)
    assert_array_equal(timeline.times, seconds(HOURS))
    assert_array_equal(timeline.gaps, [np.inf, 3600, 4 * 3600])
    assert timeline.has_dates


@pytest.mark.parametrize("unit", ["ps", "fs", "as"])
def test_the_finest_units_are_seconds_too(unit):
    timeline = Timeline.of(np.array([-1, 2]).astype(f"datetime64[{unit}]"), None, 2)
    expected = 3 * {"ps": 1e-12, "fs": 1e-15, "as": 1e-18}[unit]
    assert_allclose(timeline.gaps[1], expected, rtol=1e-15)


@pytest.mark.parametrize("unit", ["D", "W", "M", "Y"])
def test_coarse_dates_start_where_their_unit_starts(unit):
    dates = np.array(["1960-05-10", "2024-03-31"], f"datetime64[{unit}]")
    assert_array_equal(Timeline.of(dates, None, 2).times, seconds(dates))


@pytest.mark.parametrize(
    "times",
    [
        pd.Series(HOURS, index=[7, 8, 9]),
        pd.DatetimeIndex(HOURS),
        pd.DatetimeIndex(HOURS).as_unit("ns"),
        pd.DatetimeIndex(HOURS, tz="UTC").tz_convert("Europe/Berlin"),
        pd.Series(pd.DatetimeIndex(HOURS, tz="UTC").tz_convert("Asia/Tokyo")),
        pd.Series(HOURS).astype(object),
        list(pd.DatetimeIndex(HOURS, tz="UTC").tz_convert("Asia/Tokyo")),
        pl.Series(HOURS.astype("datetime64[us]")),
        pl.Series(AWARE).dt.convert_time_zone("Asia/Tokyo"),
        AWARE,
        [date.astype("datetime64[us]").item() for date in HOURS],
        np.array(list(HOURS), dtype=object),
        [str(date) for date in HOURS],
        pd.Series([str(date) for date in HOURS]),
        ["2024-03-30T23:00Z", "2024-03-31T01:00+01:00", "2024-03-31T04:00:00Z"],
        HOURS.astype(">M8[s]"),
    ],
    ids=lambda times: f"{type(times).__name__} {getattr(times, 'dtype', '')}",
)
def test_dates_of_any_container_are_the_same_seconds_in_utc(times):
    timeline = Timeline.of(times, None, 3)
    assert_array_equal(timeline.times, seconds(HOURS))
    assert_array_equal(timeline.gaps, [np.inf, 3600, 4 * 3600])
    assert timeline.has_dates


@pytest.mark.parametrize(
    "times",
    [
        [1, 4, 2],
        (1.0, 4.0, 2.0),
        np.array([1, 4, 2], np.float32),
        np.array([1, 4, 2], np.uint8),
        pd.Series([1, 4, 2], dtype="Int64"),
        pl.Series([1, 4, 2]),
        np.array([1, 4.0, np.float32(2)], dtype=object),
        np.array([1, 4, 2], "timedelta64[s]"),
        np.array([1000, 4000, 2000], "timedelta64[ms]"),
        [datetime.timedelta(seconds=number) for number in [1, 4, 2]],
        pd.Series(pd.to_timedelta([1, 4, 2], unit="s")).astype(object),
    ],
    ids=lambda times: f"{type(times).__name__} {getattr(times, 'dtype', '')}",
)
def test_numbers_are_times_as_they_are_and_durations_seconds(times):
    timeline = Timeline.of(times, None, 3)
    assert_array_equal(timeline.order, [0, 2, 1])
    assert_array_equal(timeline.times, [1, 2, 4])
    assert_array_equal(timeline.gaps, [np.inf, 1, 2])
    assert timeline.times.dtype == timeline.gaps.dtype == np.float64
    assert not timeline.has_dates


@pytest.mark.parametrize(
    ("times", "gap"),
    [
        (np.array([1_700_000_000 * 10**9, 1_700_000_000 * 10**9 + 1], "M8[ns]"), 1e-9),
        ([2**62, 2**62 + 1], 1),
        ([-(2**63), 2**63 - 1], 2.0**64),
        (np.array([2**64 - 1, 2**64 - 3], np.uint64), 2),
        ([-(10**30), 10**30], 2e30),
        ([-1e308, 1e308], np.finfo(float).max),
        (list(pd.to_datetime([10**18, 10**18 + 1])), 1e-9),
        (np.array(["0001-01-01", "9999-12-31"], "M8[s]"), 86400 * 3652058),
        ([datetime.date(1, 1, 1), datetime.date(9999, 12, 31)], 86400 * 3652058),
        (["0001-01-01", "9999-12-31"], 86400 * 3652058),
        ([np.datetime64("0001-01-01"), pd.Timestamp("1970-01-01T00:00:00.000000001")],
         86400 * 719162),
    ],
)  # fmt: skip
def test_gaps_are_exact_whatever_the_range_of_the_times(times, gap):
    times = np.array(times, dtype=object) if isinstance(times, list) else times
    assert Timeline.of(times, None, 2).gaps[1] == gap


# What times may not be


@pytest.mark.parametrize(
    "times",
    [
        [0.0, np.nan, 2.0],
        [0.0, np.inf, np.nan],
        [0.0, None, 2.0],
        np.array([0, -np.inf, 2], np.float32),
        np.array(["2024-01-01", "NaT", "NaT"], "M8[s]"),
        np.array([1, "NaT", 3], "m8[s]"),
        pd.Series(["2024-01-01", None, "2024-01-02"], dtype="string"),
        pd.Series([1, None, 3], dtype="Int64"),
        pd.Series(pd.to_datetime(["2024-01-01", None, "2024-01-02"], utc=True)),
        [pd.Timestamp(0), pd.NaT, pd.NaT],
        pl.Series([1, None, 3]),
        pl.Series([datetime.date(2024, 1, 1), None, datetime.date(2024, 1, 2)]),
        np.ma.array([1, 2, 3], mask=[False, True, False]),
    ],
    ids=lambda times: f"{type(times).__name__} {getattr(times, 'dtype', '')}",
)
def test_a_missing_time_is_refused_with_its_row(times):
    with pytest.raises(ValueError, match=r"times must not be missing .* row 1 has"):
        Timeline.of(times, None, 3)


@pytest.mark.parametrize(
    "times",
    [
        [True, False],
        [1j, 2],
        pd.period_range("2024", periods=2),
        [datetime.time(1), datetime.time(2)],
        [object(), object()],
        np.array([True, 2], dtype=object),
        [b"2024-01-01", b"2024-01-02"],
        np.array([1, 2], "timedelta64[Y]"),
        np.array([1, 2], "timedelta64"),
        np.array([1, "2024-01-01"], dtype=object),
        [datetime.date(2024, 1, 1), datetime.timedelta(1)],
    ],
)
def test_what_is_neither_number_nor_date_is_refused(times):
    with pytest.raises(TypeError, match=r"times .*Convert them"):
        Timeline.of(times, None, 2)


@pytest.mark.parametrize("text", ["3", "nan", "", "NaT", "2024", "31.03.2024", "now"])
def test_text_that_is_no_date_is_refused_with_its_row(text):
    with pytest.raises(ValueError, match=r"times .* row 1 has .* cannot be read"):
        Timeline.of(["2024-01-01", text], None, 2)


def test_dates_with_and_without_a_time_zone_do_not_mix():
    times = [datetime.datetime(2024, 1, 1), AWARE[0]]
    with pytest.raises(ValueError, match="times must all have a time zone, or none"):
        Timeline.of(times, None, 2)


@pytest.mark.parametrize("name", ["times", "groups"])
@pytest.mark.parametrize(
    "values",
    [
        3,
        np.ones((3, 1)),
        np.ones((1, 3)),
        pd.DataFrame({"a": [1, 2, 3]}),
    ],
    ids=["scalar", "column", "row", "frame"],
)
def test_times_and_groups_have_one_dimension(name, values):
    arguments = {"times": [1, 2, 3], "groups": None} | {name: values}
    with pytest.raises(ValueError, match=f"{name} must have one dimension"):
        Timeline.of(**arguments, n_rows=3)


def test_lists_of_different_length_are_no_times():
    with pytest.raises(ValueError, match="times must have one dimension"):
        Timeline.of([[1], [2, 3], [4]], None, 3)


@pytest.mark.parametrize("name", ["times", "groups"])
@pytest.mark.parametrize("values", [[1, 2], [1, 2, 3, 4]])
def test_times_and_groups_have_the_length_of_X(name, values):
    arguments = {"times": [1, 2, 3], "groups": None} | {name: values}
    with pytest.raises(ValueError, match=rf"{name} must .* 3 rows of X; got [24]\."):
        Timeline.of(**arguments, n_rows=3)


# Series


@pytest.mark.parametrize(
    "groups",
    [
        ["b", "a", "b", "a"],
        [True, False, True, False],
        (7, -7, 7, -7),
        np.array([1.5, 0.5, 1.5, 0.5]),
        np.array(["2024-01-02", "2024-01-01"] * 2, "M8[D]"),
        pd.Categorical(["b", "a", "b", "a"]),
        pd.Series(["b", "a", "b", "a"], dtype="string", index=[3, 2, 1, 0]),
        pl.Series(["b", "a", "b", "a"]),
        pl.Series(["b", "a", "b", "a"], dtype=pl.Categorical),
        np.array(["b", "a", "b", "a"], np.dtypes.StringDType()),
    ],
    ids=lambda groups: f"{type(groups).__name__} {getattr(groups, 'dtype', '')}",
)
def test_series_may_have_labels_of_any_type(groups):
    timeline = Timeline.of([1, 2, 4, 8], groups, 4)
    assert_array_equal(timeline.order, [1, 3, 0, 2])
    assert_array_equal(timeline.gaps, [np.inf, 6, np.inf, 3])
    assert_array_equal(timeline.series, [0, 0, 1, 1])


@pytest.mark.parametrize(
    "groups",
    [
        ["a", None, "b"],
        ["a", np.nan, "b"],
        np.array([1, np.nan, 2]),
        np.array(["2024-01-01", "NaT", "NaT"], "M8[D]"),
        pd.Series(["a", pd.NA, "b"], dtype="string"),
        pd.Series([1, pd.NA, 2], dtype="Int64"),
        pd.Categorical(["a", None, "b"]),
        pl.Series(["a", None, "b"]),
    ],
    ids=lambda groups: f"{type(groups).__name__} {getattr(groups, 'dtype', '')}",
)
def test_a_missing_label_is_refused_with_its_row(groups):
    with pytest.raises(ValueError, match="groups must not be missing, but row 1 has"):
        Timeline.of([1, 2, 3], groups, 3)


def test_labels_of_several_types_are_refused():
    with pytest.raises(TypeError, match="groups must be labels that can be sorted"):
        Timeline.of([1, 2, 3], ["a", 1, "b"], 3)


def test_groups_need_times():
    with pytest.raises(ValueError, match="groups needs times"):
        Timeline.of(None, [0, 0, 1], 3)


def test_steps_and_spans_are_exact_where_seconds_since_1970_are_not():
    dates = np.datetime64("2024-01-01", "ns") + np.array([0, 3, 4, 9, 100, 101, 103])
    timeline = Timeline.of(dates, [0, 0, 0, 0, 1, 1, 1], 7)
    assert_allclose(timeline.elapsed * 1e9, np.cumsum([0, 3, 1, 5, 0, 1, 2]))
    assert timeline.step == pytest.approx(2e-9)
    assert timeline.span == pytest.approx(9e-9)
