"""Observed entries that are hidden to see how well they are predicted.

They are hidden where the table itself has missing values: of a row those entries that
are missing in another row. So an imputer is judged by gaps like those that it is to
fill: columns that are missing together are hidden together.
"""

from numbers import Integral

import numpy as np

# Share of the observed entries that is hidden at a time.
SHARE = 0.2

# Few entries say little. So entries are hidden again, from the whole table,
# until there are enough of them.
MOST_TABLES, ENOUGH_ENTRIES = 5, 20_000

# What a column keeps at least; a row keeps one entry.
FEWEST_OF_COLUMN = 3


def hold_outs(missing: np.ndarray, rng, size: float = SHARE):
    """Yield tables of what is hidden; none where a table is too small for it.

    The size is a share of the observed entries, or their number.
    """
    share = size
    if isinstance(size, Integral):
        share = size / max((~missing).sum(), 1)
    count = 0
    for _ in range(MOST_TABLES):
        hidden = hide_like_missing(missing, share, rng)
        count += np.count_nonzero(hidden)
        if not hidden.any():
            return
        yield hidden
        if count >= ENOUGH_ENTRIES:
            return


def hide_like_missing(missing: np.ndarray, share: float, rng) -> np.ndarray:
    """Choose a share of the observed entries as the table's own are missing.

    Rows in random order lose what another row, chosen at random, does not have. If all
    rows together lose too little, entries chosen one by one make up for it.
    """
    m, n = missing.shape
    observed = ~missing
    n_wanted = round(share * np.count_nonzero(observed))
    left = observed.sum(axis=0) - FEWEST_OF_COLUMN  # that each column can lose
    hidden = np.zeros((m, n), bool)
    donors = np.flatnonzero(missing.any(axis=1) & observed.any(axis=1))
    if len(donors):
        patterns = rng.choice(donors, m)
        for row in rng.permutation(m):
            if n_wanted <= 0:
                break
            lost = observed[row] & missing[patterns[row]] & (left > 0)
            if lost.any() and lost.sum() == observed[row].sum():
                lost[rng.choice(np.flatnonzero(observed[row]))] = False
            hidden[row] = lost
            left -= lost
            n_wanted -= lost.sum()
    if n_wanted > 0:
        _hide_one_by_one(hidden, observed, left, n_wanted, rng)
    return hidden


def _hide_one_by_one(hidden, observed, left, n_wanted, rng):
    """Hide further entries of columns and rows that can lose them, in place."""
    kept = observed.sum(axis=1) - hidden.sum(axis=1)
    rows, columns = np.nonzero(observed & ~hidden)
    for place in rng.permutation(len(rows)):
        if n_wanted <= 0:
            break
        i, j = rows[place], columns[place]
        if left[j] > 0 and kept[i] > 1:
            hidden[i, j] = True
            left[j] -= 1
            kept[i] -= 1
            n_wanted -= 1
