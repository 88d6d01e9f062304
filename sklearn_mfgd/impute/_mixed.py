"""Tables with columns of categories: numbers on the way in, categories on the way out.

`NumbersMixin` is all that an imputer needs to know of them: it fits and fills arrays of
numbers, the encoded columns, and these methods lead there and back. Without categories
they return what they are given.
"""

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from .._data.categories import NUMBER, UNORDERED, Encoding, has_categories, kind_of
from .._data.observed import dense_weights
from .._losses import numbered_losses

# Rows that a link is learned from, evenly spaced ones of more. It has few parameters.
MAX_LINK_ROWS = 20_000


class NumbersMixin:
    """Encode the columns of categories of a data frame, and decode them."""

    _encoding: Encoding | None = None
    loss: Any
    n_features_in_: int
    _takes_categories = False

    def _learn_encoding(self, X):
        """Remember what the columns of X hold; to be called by `fit` first of all."""
        self._encoding = Encoding.of(X) if self._takes_categories else None

    def _coded(self, X):
        """Return X with codes in place of categories, for `check_table`."""
        if self._encoding is not None:
            return self._encoding.coded(X)
        if self._takes_categories and has_categories(X):
            name = X.columns[[kind_of(dtype) != NUMBER for dtype in X.dtypes]][0]
            raise ValueError(
                f"Column {name!r} of X holds categories, and no column did in fit. "
                "Convert it with astype to the type that it had in fit."
            )
        return X

    def _encoded(self, codes, missing):
        """Return encoded columns, and which of their entries are missing."""
        if self._encoding is None:
            return codes, missing
        return self._encoding.expand(codes, missing)

    def _of_columns(self, values):
        """Return, of values of encoded columns, one for each column of X."""
        return values if self._encoding is None else self._encoding.gather(values)

    def _features(self, n_encoded):
        """Return which column of X each of the encoded columns is of."""
        if self._encoding is None:
            return np.arange(n_encoded)
        return self._encoding.spread(np.arange(len(self._encoding.kinds)))

    def _encoded_limits(self, limits):
        """Return limits of the encoded columns; categories have none."""
        if self._encoding is None:
            return limits
        categorical = ~self._encoding.is_of(NUMBER)
        return [
            self._encoding.spread(np.where(categorical, none, limit))
            for none, limit in zip([-np.inf, np.inf], limits, strict=True)
        ]

    def _encoded_weights(self, entry_weight, n_samples):
        """Return weights of the entries of encoded columns, or None."""
        if self._encoding is None or entry_weight is None:
            return entry_weight
        shape = n_samples, len(self._encoding.kinds)
        return self._encoding.spread(dense_weights(entry_weight, shape, np.float64))

    def _encoded_losses(self):
        """Return the loss of all encoded columns, or of some, by their numbers."""
        if self._encoding is None or self.loss == "squared":
            return numbered_losses(self.loss, self.n_features_in_, self._names())
        kinds = self._encoding.kinds
        losses = self.loss
        if isinstance(losses, str):
            losses = {k: losses for k, kind in enumerate(kinds) if kind == NUMBER}
        losses = numbered_losses(losses, len(kinds), self._names())
        for k in losses:
            if kinds[k] != NUMBER:
                raise ValueError(
                    f"loss names column {k}, which holds categories: these are "
                    "imputed by probabilities anyway. Name columns of numbers only."
                )
        return {self._encoding.spans[k].start: name for k, name in losses.items()}

    def _names(self):
        return getattr(self, "feature_names_in_", None)

    def _encoded_names(self, n_encoded):
        """Return the name of the column of X for each of the encoded ones, or None."""
        names = self._names()
        return None if names is None else names[self._features(n_encoded)]

    def _has_unordered(self):
        """Whether there are columns of unordered categories."""
        return self._encoding is not None and self._encoding.is_of(UNORDERED).any()

    def _learn_links(self, fill, encoded, missing, weights=None):
        """Learn how expected values of unordered categories become probabilities.

        ``fill(encoded, missing)`` returns expected values. Those of observed categories
        are what it finds if all entries of their column are missing. Weights, if there
        are any, are of encoded entries.
        """
        encoding = self._encoding
        for k in np.flatnonzero(encoding.is_of(UNORDERED)):
            span = encoding.spans[k]
            rows = np.flatnonzero(~missing[:, span.start])
            rows = rows[:: 1 + len(rows) // MAX_LINK_ROWS]
            if not self._can_have_link(k, encoded[rows, span]):
                continue
            hidden = missing[rows]
            hidden[:, span] = True
            expected = fill(encoded[rows], hidden)[:, span]
            given = None if weights is None else weights[rows, span.start]
            self._learn_link(k, expected, encoded[rows, span], given)

    def _can_have_link(self, k, encoded):
        """Whether there are two categories or more, and all are among the encoded.

        Some may have occurred in rows of weight zero only, or not in these rows.
        """
        n_seen = len(self._encoding.seen[k])
        if n_seen < 2:
            return False
        classes = self._encoding.seen_positions(k, encoded)
        return np.unique(classes).size == n_seen

    def _learn_link(self, k, expected, encoded, weights=None):
        """Learn it for one column from expected and true values of its encoded ones."""
        classes = self._encoding.seen_positions(k, encoded)
        link = logistic_link(expected, classes, encoded, weights)
        self._encoding = self._encoding.with_link(int(k), link)

    def _decoded(self, X, filled, missing, kept, *, expected=None, rng=None):
        """Return the columns of X that are kept, without missing values.

        `filled` are encoded columns without missing values; if they are samples, their
        expected values and a generator draw unordered categories.
        """
        if self._encoding is None:
            return filled if kept.all() else filled[:, kept]
        if rng is None or expected is None:
            codes = self._encoding.codes(filled)
        else:
            codes = self._encoding.sampled_codes(filled, expected, rng)
        missing = self._encoding.gather(missing) & kept
        decoded = self._encoding.decode(codes, X, missing)
        return decoded.iloc[:, np.flatnonzero(kept)]

    def _decoded_numbers(self, values, kept):
        """Return deviations or quantiles of columns that are kept, NaN without order.

        Columns are along the last axis.
        """
        if self._encoding is not None:
            unordered = self._encoding.is_of(UNORDERED)
            values = np.where(unordered, np.nan, self._of_columns(values))
        return values if kept.all() else values[..., kept]

    def _probabilities(self, X, expected, kept) -> dict[Any, Any]:
        """Return a frame of probabilities for each kept column without an order."""
        if self._encoding is None:
            return {}
        probabilities = self._encoding.probabilities(expected)
        return {
            X.columns[k]: type(X)(
                shares,
                index=X.index,
                columns=self._encoding.values_of(k, X.dtypes.iloc[k]),
            )
            for k, shares in probabilities.items()
            if kept[k]
        }


def logistic_link(expected, classes, encoded, weights=None):
    """Return slopes and intercepts, those in the last column, of each class.

    The unit of a column of expected values is their deviation or, if they hardly vary,
    a tenth of that of the encoded ones: what is not predictable gets little slope.
    """
    # Here, as the linear models of scikit-learn take long to import.
    from sklearn.linear_model import LogisticRegression

    unit = np.maximum(expected.std(axis=0), 0.1 * encoded.std(axis=0))
    model = LogisticRegression(tol=1e-7, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(expected / unit, classes, sample_weight=weights)
    link = np.column_stack([model.coef_ / unit, model.intercept_])
    return np.vstack([np.zeros_like(link), link]) if len(link) == 1 else link


def with_marks(decoded, X, marks, features):
    """Return a frame with a column of marks appended for each of some columns of X."""
    decoded = decoded.copy(deep=False)
    for k, column in zip(features, marks.T, strict=True):
        name = f"missingindicator_{X.columns[k]}"
        decoded.insert(decoded.shape[1], name, column, allow_duplicates=True)
    return decoded


def without_imputed(X, marks, kept, encoding: Encoding, names, marker):
    """Return a frame of all columns of `fit`, with missing values where marks are.

    X are the columns that are kept; the others come back without any value. `marks` are
    of all columns.
    """
    import pandas as pd  # X is one of its frames

    at = np.maximum(np.cumsum(kept) - 1, 0)
    result = X.iloc[:, at].copy()
    result.columns = names
    for k in np.flatnonzero(marks.any(axis=0) | ~kept):
        number = encoding.kinds[k] == NUMBER
        if kept[k]:
            missing = marker if number else np.nan
            column = result.iloc[:, k].mask(marks[:, k], missing)
        elif number:
            column = np.full(len(X), marker, dtype=np.float64)
        else:
            dtype = pd.CategoricalDtype(
                encoding.categories[k], ordered=encoding.kinds[k] != UNORDERED
            )
            column = pd.Categorical.from_codes(np.full(len(X), -1), dtype=dtype)
        result.isetitem(k, column)
    return result
