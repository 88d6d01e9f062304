"""Which values are missing to an imputer, and which columns it returns."""

import warnings
from numbers import Real
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils.validation import (
    FLOAT_DTYPES,
    _check_feature_names_in,
    check_array,
    check_is_fitted,
)

from .._data.tables import as_stored, check_table, note_features
from .._parameters import Data
from ._mixed import NumbersMixin, with_marks, without_imputed


class TableMixin(NumbersMixin):
    """Validate tables; name, add and drop columns; put missing values back."""

    add_indicator: bool
    indicator_: Any
    keep_empty_features: bool
    missing_values: Any
    n_features_in_: int
    _filled: np.ndarray  # columns with values in `fit`

    def inverse_transform(self, X: Data) -> Any:
        """Take the imputed values out again: `add_indicator` marks where they are.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_output_features)
            What `transform` returns with ``add_indicator=True``.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            X with `missing_values` where a value was imputed, and in the whole of a
            dropped column. A column without missing values in `fit` has no marks, so
            values that were imputed there later stay. The result is a data frame if
            `fit` had columns of categories.

        Raises
        ------
        ValueError
            If the fit had ``add_indicator=False``.
        """
        check_is_fitted(self)
        if self.indicator_ is None:
            raise ValueError(
                "inverse_transform needs add_indicator=True in fit: without these "
                "columns nothing tells what was imputed."
            )
        kept = self._kept
        n_output = kept.sum() + len(self.indicator_.features_)
        if self._encoding is not None:
            return self._inverse_of_frame(X, kept, n_output)
        X = check_array(X, dtype=FLOAT_DTYPES, input_name="X")
        if X.shape[1] != n_output:
            raise ValueError(
                f"X must have {n_output} columns, as transform returns them; got "
                f"{X.shape[1]}."
            )
        missing = np.nan if _is_nan(self.missing_values) else self.missing_values
        result = np.full((len(X), self.n_features_in_), missing, X.dtype)
        result[:, kept] = X[:, : kept.sum()]
        features = self.indicator_.features_
        marked = X[:, kept.sum() :].astype(bool)
        result[:, features] = np.where(marked, missing, result[:, features])
        return result

    def _inverse_of_frame(self, X, kept, n_output):
        """Put back missing values of a frame of mixed columns."""
        if not (hasattr(X, "iloc") and X.shape[1] == n_output):
            raise ValueError(
                f"X must be a pandas data frame with {n_output} columns, as transform "
                "returns them."
            )
        marks = np.zeros((len(X), len(kept)), dtype=bool)
        n_kept = kept.sum()
        marks[:, self.indicator_.features_] = X.iloc[:, n_kept:].to_numpy(dtype=bool)
        names = getattr(self, "feature_names_in_", range(len(kept)))
        marker = np.nan if _is_nan(self.missing_values) else self.missing_values
        X = X.iloc[:, :n_kept]
        return without_imputed(X, marks, kept, self._encoding, names, marker)

    def get_feature_names_out(self, input_features: Data = None) -> np.ndarray:
        """Return the names of the columns that `transform` returns.

        Parameters
        ----------
        input_features : array-like of str of shape (n_features,), default=None
            Names of the columns of X. By default those seen in `fit`, or x0, x1, ...

        Returns
        -------
        names : ndarray of str of shape (n_output_features,)
            The names of the columns that are kept, then those of `add_indicator`.
        """
        check_is_fitted(self)
        names = _check_feature_names_in(self, self._names_of_features(input_features))
        kept = names[self._kept]
        if self.indicator_ is None:
            return kept
        marked = names[self.indicator_.features_]
        marks = [f"missingindicator_{name}" for name in marked]
        return np.concatenate([kept, np.asarray(marks, dtype=object)])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = _is_nan(self.missing_values)
        tags.input_tags.positive_only = getattr(self, "loss", None) == "poisson"
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _names_of_features(self, names: Data) -> Data:
        """Return the names, or None, of the columns of an input that are features."""
        return names

    @property
    def _kept(self):
        """Columns of X that are in the output."""
        return self._of_columns(self._filled) | self.keep_empty_features

    def _validate(self, X, *, reset):
        """Return encoded columns of X, and which of their entries are missing."""
        if sparse.issparse(X):
            raise ValueError(
                f"{type(self).__name__} fills in every missing value of X, of shape "
                f"{X.shape}, and returns a dense array; sparse X is not accepted. Use "
                "X.toarray() if it is small and has NaN where values are missing, or "
                "MaskedGradientMF, which predicts chosen entries of a sparse X."
            )
        if reset:
            self._learn_encoding(X)
        nan = _is_nan(self.missing_values)
        marker = as_stored(self.missing_values, X)
        if self._encoding is not None:  # before columns are read as those of the fit
            note_features(self, X, reset=reset)
        checked = check_table(
            self._coded(X),
            takes_categories=self._takes_categories,
            times="time" if hasattr(self, "time") else "",
            estimator=self,
            fill=marker,
            ensure_all_finite="allow-nan" if nan else True,
        )
        note_features(self, X, reset=reset)
        missing = np.isnan(checked) if nan else checked == marker.astype(checked.dtype)
        return self._encoded(checked, missing)

    def _note_filled(self, missing):
        """Remember which columns have values; refuse none, and warn of others."""
        self._filled = ~missing.all(axis=0)
        if not self._filled.any():
            raise ValueError(
                "There is nothing to learn from: every entry of X is missing, or of "
                "weight zero. Check how X was read, and missing_values."
            )
        dropped = np.flatnonzero(~self._kept)
        if dropped.size:
            names = self._names()
            features = (dropped if names is None else names[dropped]).tolist()
            warnings.warn(
                f"Skipping features without any observed values: {features}. "
                f"{type(self).__name__} leaves these columns out of its output. Use "
                "keep_empty_features=True to keep them, filled with zeros, or take "
                "them out of X before.",
                stacklevel=6,
            )

    def _fit_indicator(self, missing):
        """Make what adds the columns of `add_indicator`, or None."""
        if not self.add_indicator:
            return None
        # Here, as the imputers of scikit-learn take long to import.
        from sklearn.impute import MissingIndicator

        indicator = MissingIndicator(missing_values=np.nan, error_on_new=False)
        return indicator.fit(np.where(self._of_columns(missing), np.nan, 0.0))

    def _with_indicator(self, filled, X, missing):
        if self.indicator_ is None:
            return filled
        marks = self._of_columns(missing)[:, self.indicator_.features_]
        if self._encoding is not None:
            return with_marks(filled, X, marks, self.indicator_.features_)
        return np.hstack([filled, marks.astype(filled.dtype)])


def _is_nan(value):
    # All that a fit accepts beside numbers is pandas.NA, a NaN once X is an array.
    return not isinstance(value, Real) or bool(np.isnan(value))
