"""What the displays need to know of an estimator and of its data, as dense arrays."""

import numpy as np
from scipy import sparse
from sklearn.pipeline import Pipeline

from .._data.sparse_input import well_formed
from .._data.tables import as_stored, check_table


def factorization_of(estimator):
    """The factorization that an imputer holds, or else the estimator."""
    return getattr(estimator, "factorization_", estimator)


def is_imputer(estimator):
    """Whether it returns X with its holes filled, like the imputers of scikit-learn."""
    return hasattr(estimator, "indicator_")


def dense(estimator, X, mask=None):
    """X as floats, NaN where the estimator takes an entry for missing."""
    last = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    if sparse.issparse(X):
        X = well_formed(X, "X")
        if getattr(last, "_unstored_is_zero", True):
            values = X.toarray().astype(np.float64)
        else:
            entries = X.tocoo()
            values = np.full(X.shape, np.nan)
            values[entries.row, entries.col] = entries.data
    else:
        marker = as_stored(getattr(last, "missing_values", np.nan), X)
        values = check_table(X, fill=marker, ensure_all_finite="allow-nan")
        values = values.astype(np.float64)
        values = np.where(values == marker, np.nan, values)
    return values if mask is None else np.where(np.asarray(mask, bool), values, np.nan)


def seen_columns(imputer):
    """Numbers of the columns that had a value in the fit of an imputer."""
    return np.flatnonzero(~np.isnan(imputer.mean_))


def varying_columns(imputer):
    """Numbers of the columns that its factorization has: constant ones have no part."""
    return np.flatnonzero(imputer._standardization.varies)


def factors_of(estimator, X, mask=None):
    """Row factors and biases, as the factorization of an estimator returns them."""
    if hasattr(estimator, "factorization_"):
        X = dense(estimator, X, mask)
        Z = estimator._standardized(X, np.isnan(X))
        return np.asarray(estimator.factorization_.transform(Z))
    options = {} if mask is None else {"mask": mask}
    return np.asarray(estimator.transform(X, **options))


def reconstruction_of(estimator, X, mask=None):
    """What a fit makes of every entry, also of those that an imputer would not touch.

    NaN in columns that an imputer has never seen. Of imputers of other packages what
    they return is taken, in which observed entries are as they were.
    """
    if hasattr(estimator, "factorization_"):
        columns = varying_columns(estimator)
        Z = factors_of(estimator, X, mask)
        X = estimator.factorization_.inverse_transform(Z)
        result = np.tile(estimator.mean_, (len(X), 1))
        result[:, columns] = estimator._standardization.undo(X, columns)
        return np.clip(result, estimator.min_value, estimator.max_value)
    if hasattr(estimator, "predict_entries"):
        return np.asarray(estimator.inverse_transform(factors_of(estimator, X, mask)))
    if mask is not None:
        X = dense(estimator, X, mask)
    result = estimator.transform(X)
    if not is_imputer(estimator):
        result = estimator.inverse_transform(result)
    return np.asarray(result)
