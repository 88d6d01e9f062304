"""Splits of the observed entries at random: one by one, or in blocks.

A block is the observed entries of a column in the rows of one label, such as a day. It
is hidden as a whole, so that no entry can be told from its neighbours in the block.
"""

from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from .entries import Entries
from .times import read_groups


def choose_test(entries: Entries, test_size, blocks, random_state) -> np.ndarray:
    """Choose the entries that are held out; no row or column loses all that it has."""
    block_of_entry, count = _number_blocks(entries, blocks)
    n_test = 0
    if isinstance(test_size, Integral) and not isinstance(test_size, bool):
        n_test = int(test_size)
    elif isinstance(test_size, Real) and 0 < test_size < 1:
        n_test = round(test_size * count)
    what = _name_blocks(blocks)
    if n_test < 1:
        raise ValueError(
            f"test_size must be a share between 0 and 1, or a number of {what}, and "
            f"hold out at least one of {count}; got {test_size!r}."
        )
    order = check_random_state(random_state).permutation(count)
    free = order[~must_stay(entries, block_of_entry, order)[order]]
    if n_test > len(free):
        raise ValueError(
            f"test_size={test_size!r} would hold out {n_test} of {count} {what}, but "
            f"only {len(free)} can be without emptying a row or a column. Use a "
            "smaller test_size."
        )
    is_test = np.zeros(count, bool)
    is_test[free[:n_test]] = True
    return is_test[block_of_entry]


def choose_folds(entries: Entries, cv: int, blocks, random_state) -> np.ndarray:
    """Choose the fold of each entry, from 0 to cv - 1."""
    block_of_entry, count = _number_blocks(entries, blocks)
    if count < cv:
        raise ValueError(
            f"cv={cv} folds need as many {_name_blocks(blocks)}; X has {count}."
        )
    folds = np.empty(count, int)
    folds[check_random_state(random_state).permutation(count)] = np.arange(count) % cv
    return folds[block_of_entry]


def _name_blocks(blocks: Any) -> str:
    """What is split, for messages."""
    return "observed entries" if blocks is None else "blocks of entries"


def _number_blocks(entries: Entries, blocks: Any) -> tuple[np.ndarray, int]:
    """Number the block of each entry; tell how many blocks there are.

    Without labels of rows each entry is a block.
    """
    if blocks is None:
        return np.arange(len(entries.values)), len(entries.values)
    n_rows, n_columns = entries.X.shape
    labels = read_groups(blocks, n_rows, "blocks").astype(np.int64)
    numbers = labels[entries.rows] * n_columns + entries.columns
    numbers, block_of_entry = np.unique(numbers, return_inverse=True)
    return block_of_entry, len(numbers)


def must_stay(entries: Entries, block_of_entry, order: np.ndarray) -> np.ndarray:
    """Choose blocks that leave an entry in each row and column that has one.

    In the given random order they are the first block of each row, and of each column
    that these do not cover.
    """
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    in_order = np.argsort(places[block_of_entry], kind="stable")
    rows, columns = entries.rows[in_order], entries.columns[in_order]
    is_first = np.zeros(len(in_order), bool)
    is_first[np.unique(rows, return_index=True)[1]] = True
    numbers, firsts = np.unique(columns, return_index=True)
    is_first[firsts[~np.isin(numbers, columns[is_first])]] = True
    stays = np.zeros(len(order), bool)
    stays[block_of_entry[in_order[is_first]]] = True
    return stays
