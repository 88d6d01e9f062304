"""How much wider intervals must be, learned from gaps that are made on purpose.

A fit that has seen an entry predicts it better than one that has not. So entries are
hidden where others are missing at another time, which makes gaps of the same kinds:
single readings, days of a sensor, or silence of all. Columns and rows are learned again
without them, and predict them.
"""

import numpy as np

from .._data.observed import keep_entries
from .._data.timeline import Timeline
from .._kernels.rows import Rows

# Largest share of the entries that is hidden; only some windows of time lose theirs.
MAX_SHARE, N_WINDOWS = 0.2, 50

# Where hardly anything is missing, this share of the entries is hidden at random.
MIN_SHARE = 0.02

# So many hidden entries tell where 95 % of the errors lie, and how far intervals may be
# scaled.
MIN_ENTRIES, RANGE = 100, (0.7, 4.0)

# Every column keeps as many entries.
MIN_LEFT = 3


def hidden_entries(rows: Rows, timeline: Timeline) -> np.ndarray:
    """Choose entries of sorted rows, a mask; rows without entries are gaps, too."""
    (m, n), rng = rows.shape, np.random.RandomState(0)
    places, n_rows = timeline.places, timeline.n_all
    if places is None:
        places, n_rows = np.arange(m), m
    place = places.astype(np.int64)[rows.row_numbers]
    keys = place * n + rows.indices
    shift = rng.randint(n_rows // 4, max(n_rows // 4 + 1, 3 * n_rows // 4))
    elsewhere = (place + shift) % n_rows * n + rows.indices
    hidden = ~np.isin(elsewhere, keys)
    share = hidden.mean()
    if share > MAX_SHARE:
        n_chosen = max(5, int(N_WINDOWS * MAX_SHARE / share))
        chosen = np.zeros(N_WINDOWS, bool)
        chosen[rng.permutation(N_WINDOWS)[:n_chosen]] = True
        hidden &= chosen[place * N_WINDOWS // n_rows]
    elif share < MIN_SHARE:
        hidden |= rng.uniform(size=len(keys)) < MIN_SHARE
    # Rows to be forecast are a gap that nothing follows: so are as many before them.
    n_to_forecast = min(n_rows - 1 - places[-1], int(MAX_SHARE * m))
    hidden |= rows.row_numbers >= m - n_to_forecast
    left = np.bincount(rows.indices[~hidden], minlength=n)
    return hidden & (left >= MIN_LEFT)[rows.indices]


def without(rows: Rows, hidden) -> Rows:
    """The other entries of the same rows."""
    return keep_entries(rows, ~hidden)


def widening_of(errors, variances) -> float:
    """Factor of deviations with which 1.96 of them cover 95 % of the errors."""
    if len(errors) < MIN_ENTRIES:
        return 1.0
    ratios = np.abs(errors) / np.sqrt(variances)
    return float(np.clip(np.quantile(ratios, 0.95) / 1.959964, *RANGE))
