"""The honest score: predict what was hidden, not what was seen."""

import numpy as np

from .._data.holdout import folds
from .objective import objective_of


def explained_share(entries, model, column_means):
    """Share of the variance of hidden entries that folding in the others explains.

    Parameters
    ----------
    entries : CompleteMatrix or ObservedMatrix
    model : RidgeModel, or another fitted model
    column_means : ndarray of shape (n_features,)
        What the prediction is compared with, less ``entries.mean``.

    Returns
    -------
    float
        Q²: 1 - PRESS / total sum of squares around `column_means`.
    """
    H, press = model.H.astype(entries.dtype, copy=False), 0.0
    for seen, hidden, (seen_columns, hidden_columns) in folds(entries):
        W = model.take(seen_columns).fold_in(seen)
        press += 2 * objective_of(hidden, model.biases).value(W, H[hidden_columns])
    bare = objective_of(entries, (False, True))
    no_factors = np.zeros((entries.shape[0], 0), H.dtype)
    total = 2 * bare.value(no_factors, column_means[:, None].astype(H.dtype))
    if total == 0:  # as sklearn.metrics.r2_score does
        return 1.0 if press == 0 else 0.0
    return 1.0 - press / total
