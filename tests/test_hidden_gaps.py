"""Entries that are hidden to learn how wide intervals must be."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sklearn_mfgd import MFImputer
from sklearn_mfgd._bayes.hidden_gaps import (
    MAX_SHARE,
    MIN_LEFT,
    RANGE,
    hidden_entries,
    widening_of,
    without,
)
from sklearn_mfgd._data.observed import rows_of
from sklearn_mfgd._data.timeline import Timeline


def hidden_of(X):
    """What is hidden of a table whose rows are in the order of time, as a mask."""
    observed = ~np.isnan(X)
    has_entry = observed.any(axis=1)
    rows = rows_of(X[has_entry], observed[has_entry])
    timeline = Timeline.of(np.arange(len(X)), None, len(X))
    if not has_entry.all():
        timeline = timeline.take(np.flatnonzero(has_entry))
    chosen = hidden_entries(rows, timeline)
    hidden = np.zeros(X.shape, bool)
    place = np.flatnonzero(has_entry)[rows.row_numbers]
    hidden[place[chosen], rows.indices[chosen]] = True
    assert without(rows, chosen).indices.size == np.count_nonzero(~chosen)
    return hidden


def lengths_of_gaps(mask):
    """Lengths of the stretches of a column that a mask marks."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask, [0]])))
    return edges[1::2] - edges[::2]


def table(n_rows=400, n_columns=12):
    return np.random.default_rng(0).normal(size=(n_rows, n_columns))


def processes(rng, n_rows, n_columns, timescale):
    """Ornstein-Uhlenbeck processes of variance one."""
    phi, X = np.exp(-1 / timescale), rng.normal(size=(n_rows, n_columns))
    for t in range(1, n_rows):
        X[t] = phi * X[t - 1] + np.sqrt(1 - phi**2) * X[t]
    return X


def test_gaps_of_a_column_are_as_long_as_its_missing_ones():
    X = table()
    X[50:74, 3], X[300:324, 7] = np.nan, np.nan
    hidden = hidden_of(X)
    for column in (3, 7):
        assert lengths_of_gaps(hidden[:, column])[:1] <= 24
        assert np.count_nonzero(hidden[:, column]) >= 24


def test_where_all_columns_are_silent_others_are_made_so():
    X = table()
    X[100:120] = np.nan
    hidden = hidden_of(X)
    silent = hidden.all(axis=1)
    assert_array_equal(lengths_of_gaps(silent), [20])
    assert not hidden[100:120].any()


def test_rows_to_be_forecast_hide_as_many_before_them():
    X = table()
    X[-30:] = np.nan
    hidden = hidden_of(X)
    assert hidden[340:370].all()


def test_no_more_than_a_share_is_hidden_and_columns_keep_some():
    rng = np.random.default_rng(1)
    X = table()
    X[rng.random(X.shape) < 0.7] = np.nan
    hidden = hidden_of(X)
    observed = ~np.isnan(X)
    share = np.count_nonzero(hidden) / np.count_nonzero(observed)
    assert 0.25 * MAX_SHARE < share < 1.5 * MAX_SHARE
    assert not hidden[~observed].any()
    assert ((observed & ~hidden).sum(axis=0) >= MIN_LEFT).all()


def test_a_column_of_few_entries_keeps_them():
    X = table()
    X[MIN_LEFT:, 0] = np.nan
    assert not hidden_of(X)[:, 0].any()


def test_single_entries_are_hidden_of_a_complete_table():
    hidden = hidden_of(table())
    assert 0 < hidden.mean() < 0.05
    assert not hidden.all(axis=1).any()


def test_the_factor_makes_intervals_cover_95_percent():
    rng = np.random.default_rng(2)
    errors, variances = 3 * rng.standard_t(4, size=5000), rng.uniform(1, 2, size=5000)
    factor = widening_of(errors, variances)
    covered = np.abs(errors) < 1.959964 * factor * np.sqrt(variances)
    assert np.mean(covered) == pytest.approx(0.95, abs=1e-3) or factor == RANGE[1]
    assert widening_of(errors[:10], variances[:10]) == 1


@pytest.mark.accuracy
def test_intervals_of_whole_days_cover_what_is_hidden():
    rng, shape, times = np.random.default_rng(0), (960, 20), np.arange(960)
    shared = processes(rng, 960, 2, 10) @ rng.normal(size=(2, 20))
    X = shared + 0.5 * processes(rng, *shape, 24) + 0.3 * rng.normal(size=shape)
    hidden = (rng.random((40, 20)) < 0.2).repeat(24, axis=0)
    seen = np.where(hidden, np.nan, X)
    imputer = MFImputer().fit(seen, times=times)
    filled, std = imputer.impute(seen, times=times, return_std=True)
    covered = np.abs(filled - X)[hidden] < 1.96 * std[hidden]
    assert 0.9 < covered.mean() < 0.985
