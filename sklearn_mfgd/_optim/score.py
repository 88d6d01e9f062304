"""The honest score: predict entries that were hidden, not entries that were seen."""

from collections.abc import Callable

import numpy as np

from .._data.matrix import folds
from .objective import objective_of


def explained_share(entries, H, fold_in: Callable, column_means, biases) -> float:
    """Share of the variance of hidden entries that folding in the others explains.

    This is Q² = 1 - PRESS / total sum of squares around the column means, from which
    the mean of all entries is already subtracted. ``fold_in(entries, columns)`` returns
    row factors given some of the columns.
    """
    press = 0.0
    for seen, hidden, (seen_columns, hidden_columns) in folds(entries):
        W = fold_in(seen, seen_columns)
        press += 2 * objective_of(hidden, biases).value(W, H[hidden_columns])
    around_means = objective_of(entries, (False, True))
    no_factors = np.zeros((entries.shape[0], 0), H.dtype)
    total = 2 * around_means.value(no_factors, column_means[:, None].astype(H.dtype))
    if total == 0:  # as sklearn.metrics.r2_score does
        return 1.0 if press == 0 else 0.0
    return 1.0 - press / total
