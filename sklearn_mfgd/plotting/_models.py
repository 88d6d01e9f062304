"""Read dense arrays from estimators and their data, for the displays.

This module alone reads private names of estimators: `_standardized` and
`_standardization` of MFImputer, and `_unstored_is_zero` by way of `model_selection`.
"""

import numpy as np
from scipy import sparse
from sklearn.pipeline import Pipeline

from .._data.sparse_input import well_formed
from .._data.tables import as_stored, check_table
from ..model_selection import _is_imputer, _takes_unstored_for_zero


def factorization_of(estimator):
    """Return the factorization that an MFImputer holds, or else the estimator."""
    return getattr(estimator, "factorization_", estimator)


def dense(estimator, X, mask=None) -> np.ndarray:
    """Return X as floats, NaN where the estimator takes an entry for missing."""
    last_step = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    if not sparse.issparse(X):
        marker = as_stored(getattr(last_step, "missing_values", np.nan), X)
        values = check_table(X, fill=marker, ensure_all_finite="allow-nan")
        values = np.where(values == marker, np.nan, values.astype(np.float64))
    elif _takes_unstored_for_zero(last_step):
        values = well_formed(X, "X").toarray().astype(np.float64)
    else:
        stored = well_formed(X, "X").tocoo()
        values = np.full(X.shape, np.nan)
        values[stored.row, stored.col] = stored.data
    return values if mask is None else np.where(np.asarray(mask, bool), values, np.nan)


def varying_columns(imputer) -> np.ndarray:
    """Return the columns that an MFImputer factorizes, which constant ones are not."""
    return np.flatnonzero(imputer._standardization.varies)


def factors_of(estimator, X, mask=None) -> np.ndarray:
    """Return row factors and biases of X from the factorization of an estimator."""
    model = factorization_of(estimator)
    if model is not estimator:
        X = dense(estimator, X, mask)
        return np.asarray(model.transform(estimator._standardized(X, np.isnan(X))))
    options = {} if mask is None else {"mask": mask}
    return np.asarray(estimator.transform(X, **options))


def reconstruction_of(estimator, X, mask=None) -> np.ndarray:
    """Return what a fit predicts for every entry, the observed ones included.

    Columns without a value in the fit of an MFImputer are NaN. Imputers of other
    packages return observed entries as they were.
    """
    model = factorization_of(estimator)
    if model is not estimator or hasattr(estimator, "predict_entries"):
        predicted = np.asarray(model.inverse_transform(factors_of(estimator, X, mask)))
        if model is estimator:
            return predicted
        columns = varying_columns(estimator)
        result = np.tile(estimator.mean_, (len(predicted), 1))
        result[:, columns] = estimator._standardization.undo(predicted, columns)
        return np.clip(result, estimator.min_value, estimator.max_value)
    transformed = estimator.transform(X if mask is None else dense(estimator, X, mask))
    if not _is_imputer(estimator):
        transformed = estimator.inverse_transform(transformed)
    return np.asarray(transformed)
