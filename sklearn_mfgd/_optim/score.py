"""The honest score: predict entries that were hidden, not entries that were seen."""

import numpy as np

from .._data.holdout import folds
from .objective import objective_of


def explained_share(entries, model, column_means: np.ndarray) -> float:
    """Share of the variance of hidden entries that folding in the others explains.

    Q² = 1 - PRESS / total sum of squares around the column means, which are centred.
    """
    H, press = model.H.astype(entries.dtype, copy=False), 0.0
    for seen, hidden, (seen_columns, hidden_columns) in folds(entries):
        W = model.take(seen_columns).fold_in(seen)
        press += 2 * objective_of(hidden, model.biases).value(W, H[hidden_columns])
    around_means = objective_of(entries, (False, True))
    no_factors = np.zeros((entries.shape[0], 0), H.dtype)
    total = 2 * around_means.value(no_factors, column_means[:, None].astype(H.dtype))
    if total == 0:  # as sklearn.metrics.r2_score does
        return 1.0 if press == 0 else 0.0
    return 1.0 - press / total
