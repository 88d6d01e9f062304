"""Weights of rows and of entries, as one weight of each entry."""

import numpy as np
from sklearn.utils.validation import _check_sample_weight

from .observed import dense_weights

SMALLEST_FLOAT = np.finfo(np.float64).tiny


def weighted_rows(X: np.ndarray, missing: np.ndarray, sample_weight, entry_weight):
    """Drop rows without weight; return X, what is missing, weights of entries, rows.

    The weight of an entry is the product of its own and that of its row, zero where
    missing. The others have a mean of one: new rows, without weights, are of average
    weight. Without any weights these and the rows, the numbers of those that stay, are
    None.
    """
    weights = _product(X, sample_weight, entry_weight)
    if weights is None:
        return X, missing, None, None
    has_weight = weights.any(axis=1)
    if not has_weight.any():
        raise ValueError(
            "There is nothing to learn from: sample_weight times entry_weight is zero "
            "for every entry of X."
        )
    X, missing, weights = X[has_weight], missing[has_weight], weights[has_weight]
    weights[missing] = 0
    weights /= weights.max(initial=SMALLEST_FLOAT)
    weights *= np.count_nonzero(weights) / max(weights.sum(), 1)
    return X, weights == 0, weights, np.flatnonzero(has_weight)


def _product(X, sample_weight, entry_weight):
    """Product of both weights of each entry, where the largest row weight is one."""
    if entry_weight is not None:
        entry_weight = dense_weights(entry_weight, X.shape, np.float64)
    if sample_weight is None:
        return entry_weight
    row_weights = _check_sample_weight(
        sample_weight, X, dtype=np.float64, ensure_non_negative=True
    )[:, None]
    # Divided by the largest first, so that no product is infinite.
    row_weights = row_weights / row_weights.max(initial=SMALLEST_FLOAT)
    if entry_weight is None:
        return np.broadcast_to(row_weights, X.shape)
    return entry_weight * row_weights
