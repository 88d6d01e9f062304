"""Entries are hidden where the table itself has missing values."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sklearn_mfgd._data.hidden import (
    ENOUGH_ENTRIES,
    FEWEST_OF_COLUMN,
    MOST_TABLES,
    hide_like_missing,
    hold_outs,
)


@pytest.fixture
def rng():
    return np.random.RandomState(0)


def missing_at_random(rng, m=80, n=10, share=0.2):
    return rng.uniform(size=(m, n)) < share


def missing_together(m=80):
    """Three columns that a third of the rows lack together, and three complete ones."""
    missing = np.zeros((m, 6), bool)
    missing[: m // 3, :3] = True
    return missing


MASKS = {
    "at random": missing_at_random(np.random.RandomState(1)),
    "together": missing_together(),
    "complete": np.zeros((60, 5), bool),
    "one entry": np.arange(300).reshape(60, 5) == 7,
    "a row and a column empty": np.logical_or.outer(
        np.arange(60) == 3, np.arange(6) == 2
    ),
    "empty rows": np.add.outer(np.arange(60) % 2 * 5, np.arange(5)) > 4,
}


@pytest.mark.parametrize("name", list(MASKS))
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_the_share_is_reached_but_for_the_rest_of_a_row(name, share, rng):
    missing = MASKS[name]
    hidden = hide_like_missing(missing, share, rng)
    wanted = round(share * np.count_nonzero(~missing))
    assert wanted <= np.count_nonzero(hidden) < wanted + missing.shape[1]


@pytest.mark.parametrize("name", list(MASKS))
def test_only_what_is_observed_is_hidden_and_something_of_rows_and_columns_stays(
    name, rng
):
    missing = MASKS[name]
    for _ in range(5):
        hidden = hide_like_missing(missing, 0.4, rng)
        assert not (hidden & missing).any()
        kept = ~missing & ~hidden
        assert_array_equal(kept.any(axis=1), (~missing).any(axis=1))
        seen = (~missing).any(axis=0)
        assert (kept.sum(axis=0)[seen] >= FEWEST_OF_COLUMN).all()


def test_columns_keep_their_last_entries_and_rows_their_last_one(rng):
    missing = np.zeros((30, 4), bool)
    missing[3:, 0] = True  # three values
    missing[5:, 1] = True  # five
    missing[:10, 3] = True
    for _ in range(20):
        kept = ~missing & ~hide_like_missing(missing, 0.9, rng)
        assert_array_equal(kept.sum(axis=0)[:2], [3, 3])
        assert kept.any(axis=1).all()


def test_of_a_complete_table_columns_keep_their_last_entries(rng):
    kept = ~hide_like_missing(np.zeros((8, 20), bool), 1.0, rng)
    assert_array_equal(kept.sum(axis=0), 20 * [FEWEST_OF_COLUMN])


def test_a_row_that_has_just_what_another_lacks_keeps_an_entry(rng):
    missing = np.zeros((60, 6), bool)
    missing[::2, :3] = missing[1::2, 3:] = True
    hidden = hide_like_missing(missing, 0.4, rng)
    assert (hidden.sum(axis=1) == 2).any()
    assert (hidden.sum(axis=1) < 3).all()


def test_columns_that_are_missing_together_are_hidden_together(rng):
    hidden = hide_like_missing(missing_together(), 0.1, rng)
    assert hidden[:, :3].any()
    assert_array_equal(hidden[:, 0], hidden[:, 1])
    assert_array_equal(hidden[:, 0], hidden[:, 2])
    assert not hidden[:, 3:].any()


def test_of_a_complete_table_entries_are_hidden_one_by_one(rng):
    hidden = hide_like_missing(np.zeros((200, 10), bool), 0.1, rng)
    assert np.count_nonzero(hidden) == 200
    # As many of each column but for chance: 20, of deviation 4.2.
    assert (np.abs(hidden.sum(axis=0) - 20) < 17).all()
    assert len(np.unique(hidden, axis=0)) > 10


@pytest.mark.parametrize("shape", [(1, 5), (3, 5), (5, 1)])
def test_of_a_table_that_is_too_small_nothing_is_hidden(shape, rng):
    missing = np.zeros(shape, bool)
    assert not hide_like_missing(missing, 0.5, rng).any()
    assert list(hold_outs(missing, rng)) == []


@pytest.mark.parametrize(("m", "n_tables"), [(30, MOST_TABLES), (5000, 2), (10000, 1)])
def test_tables_are_hidden_from_until_there_are_enough_entries(m, n_tables, rng):
    tables = list(hold_outs(np.zeros((m, 10), bool), rng))
    assert len(tables) == n_tables
    counts = [np.count_nonzero(hidden) for hidden in tables]
    assert counts == [2 * m] * n_tables
    assert n_tables == MOST_TABLES or sum(counts) >= ENOUGH_ENTRIES
    assert all((one != other).any() for one, other in pairwise(tables))


def test_the_same_seed_hides_the_same():
    missing = missing_at_random(np.random.RandomState(3))
    one, two = (hide_like_missing(missing, 0.1, np.random.RandomState(5)) for _ in "12")
    assert_array_equal(one, two)
    other = hide_like_missing(missing, 0.1, np.random.RandomState(6))
    assert (one != other).any()


def test_a_share_may_be_a_float_of_any_type():
    missing = missing_at_random(np.random.RandomState(3))
    one, two = (
        next(hold_outs(missing, np.random.RandomState(5), size))
        for size in (0.25, np.float32(0.25))
    )
    assert_array_equal(one, two)
