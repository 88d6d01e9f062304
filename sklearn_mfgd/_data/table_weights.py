"""Weights of rows and of entries, as one weight of each entry."""

import numpy as np
from sklearn.utils.validation import _check_sample_weight

from .observed import dense_weights

TINY = np.finfo(np.float64).tiny


def weighted_rows(X, missing, sample_weight, entry_weight):
    """Give each entry the product of its weight and that of its row.

    Parameters
    ----------
    X : ndarray of shape (m, n)
    missing : ndarray of bool of shape (m, n)
    sample_weight : array-like of shape (m,), a number, or None
    entry_weight : array-like of shape (m, n) or None

    Returns
    -------
    X : ndarray
        The rows that have a weight.
    missing : ndarray of bool
        Of these, and True where the weight is zero.
    weights : ndarray, float64, or None
        Of these, zero where missing, with a mean of one where not, as new rows are
        imputed without weights: they are rows of average weight. None without weights.
    """
    weights = _product(X, sample_weight, entry_weight)
    if weights is None:
        return X, missing, None
    weighty = weights.any(axis=1)
    if not weighty.any():
        raise ValueError(
            "There is nothing to learn from: sample_weight times entry_weight is zero "
            "for every entry of X."
        )
    X, missing, weights = X[weighty], missing[weighty], weights[weighty]
    weights[missing] = 0
    weights /= weights.max(initial=TINY)
    weights *= np.count_nonzero(weights) / max(weights.sum(), 1)
    return X, weights == 0, weights


def _product(X, sample_weight, entry_weight):
    if entry_weight is not None:
        entry_weight = dense_weights(entry_weight, X.shape, np.float64)
    if sample_weight is None:
        return entry_weight
    rows = _check_sample_weight(
        sample_weight, X, dtype=np.float64, ensure_non_negative=True
    )[:, None]
    rows = rows / rows.max(initial=TINY)  # so that no product is infinite
    if entry_weight is None:
        return np.broadcast_to(rows, X.shape)
    return entry_weight * rows
