"""Recommend columns to rows, find similar ones, and keep predictions in a range."""

from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from ._data.observed import range_of
from ._data.sparse_input import well_formed
from ._data.tables import FLOATS
from ._parameters import (
    Data,
    check_clip,
    check_numbers,
    check_row_factors,
    refuse_overflow,
)

# Scores that are held at a time: enough rows for a quick product with all columns.
BLOCK_SCORES = 2**22

# Scores in a group. To find the best of a row, groups are compared by their largest.
GROUP_SIZE = 64

# Least number of groups for each score that is wanted. With fewer, all are compared.
MIN_GROUPS = 4


class RecommendingMixin:
    """Rank predictions; the rest of an estimator is in other mixins."""

    # Of the other mixins, and of the estimator.
    _column_terms: Any
    _model: Any
    _n_features_out: Any
    _responses: Any
    clip: Any
    components_: Any
    n_features_in_: int

    _observed_range: tuple[float, float] | None = None

    def recommend(
        self, Z: Data, n: int = 10, *, exclude: Data = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the columns with the largest predictions for each row.

        ``model.recommend(model.transform(X), exclude=X)`` leaves out the entries that
        each row has already. The method computes the predictions of some rows at a
        time, so the matrix of all predictions need not fit into memory.

        Parameters
        ----------
        Z : array-like of shape (n_samples, n_factors) or (n_samples, n_factors + 1)
            Row factors as `transform` returns them.
        n : int, default=10
            How many columns to recommend to each row.
        exclude : {array-like, sparse matrix} of shape (n_samples, n_features), \
                default=None
            Entries not to recommend, such as what a user has seen: those that a sparse
            matrix stores, those of an array that are not NaN, or those of a Boolean
            array that are True.

        Returns
        -------
        columns : ndarray of int of shape (n_samples, n)
            Indices of columns of X, the largest prediction first. Of equal predictions
            the smaller index comes first. The index is -1 where fewer than `n` columns
            are left.
        scores : ndarray of shape (n_samples, n)
            Their predictions, as `inverse_transform` returns them; NaN where fewer than
            `n` columns are left. `clip` does not change the order.

        Examples
        --------
        Five people and the artists that they have played:

        >>> import numpy as np
        >>> from scipy.sparse import csr_array
        >>> from sklearn_mfgd import GradientMF
        >>> P = csr_array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0],
        ...                [0, 0, 1, 1], [0, 0, 0, 1]])
        >>> model = GradientMF(rank=2, reg=0.1).fit(P, entry_weight=20 * P)
        >>> Z = model.transform(P, entry_weight=20 * P)
        >>> columns, scores = model.recommend(Z, n=2, exclude=P)
        >>> columns
        array([[ 2,  3],
               [ 3, -1],
               [ 0,  3],
               [ 1,  0],
               [ 2,  1]])
        """
        check_is_fitted(self)
        Z, n = check_row_factors(Z, self._n_features_out), _check_count(n)
        shape = len(Z), self.n_features_in_
        exclude = None if exclude is None else _check_excluded(exclude, shape)
        scores_of = partial(self._scores, Z, exclude, self._column_terms(Z.dtype))
        columns, scores = _best(scores_of, shape, n, Z.dtype)
        return columns, self._in_range(scores)

    def similar_columns(
        self, columns: Data, n: int = 10
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the columns that are most similar to some columns.

        Columns are similar if their factors point in nearly the same direction.

        Parameters
        ----------
        columns : int or array-like of int of shape (n_columns,)
            Index of a column of X, or indices of several.
        n : int, default=10
            Number of similar columns for each of them. The column itself is the first.

        Returns
        -------
        similar : ndarray of int of shape (n_columns, n), or (n,) for a single column
            Indices of columns, the most similar first; -1 if there are fewer than `n`.
        similarities : ndarray of shape (n_columns, n), or (n,) for a single column
            Cosines of the angles between their factors, from -1 to 1. Biases do not
            count. 0 for a column whose factors are zero; NaN where there are fewer than
            `n` columns.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn_mfgd import GradientMF
        >>> X = np.array([[1.0, 2, -3], [2, 4, -6], [3, 6, -9]])
        >>> similar, similarities = GradientMF(rank=1).fit(X).similar_columns(2, n=3)
        >>> similarities.round(2)
        array([ 1., -1., -1.])
        """
        check_is_fitted(self)
        return _similar(self.components_.T, columns, "columns", n)

    def similar_rows(
        self, Z: Data, rows: Data, n: int = 10
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the rows that are most similar to some rows.

        Rows are similar if their factors point in nearly the same direction.

        Parameters
        ----------
        Z : array-like of shape (n_samples, n_factors) or (n_samples, n_factors + 1)
            Factors of all rows, as `transform` returns them.
        rows : int or array-like of int of shape (n_rows,)
            Index of a row of Z, or indices of several.
        n : int, default=10
            Number of similar rows for each of them. The row itself is the first.

        Returns
        -------
        similar : ndarray of int of shape (n_rows, n), or (n,) for a single row
            Indices of rows, the most similar first; -1 if there are fewer than `n`.
        similarities : ndarray of shape (n_rows, n), or (n,) for a single row
            Cosines of the angles between their factors, from -1 to 1. Biases do not
            count. 0 for a row whose factors are zero; NaN where there are fewer than
            `n` rows.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn_mfgd import GradientMF
        >>> X = np.outer([1.0, 2, -3], [1, 2, 3, 4])
        >>> model = GradientMF(rank=1)
        >>> similar, similarities = model.similar_rows(model.fit_transform(X), 0, n=2)
        >>> similarities.round(2)
        array([1., 1.])
        """
        check_is_fitted(self)
        Z = check_row_factors(Z, self._n_features_out)
        factors = Z[:, : Z.shape[1] - self._model.biases.row]
        return _similar(factors, rows, "rows", n)

    def _scores(self, Z, exclude, terms, rows):
        """Predict a slice of the rows, with minus infinity for entries to leave out."""
        scores = self._responses(self._reconstruct(Z[rows], *terms))
        if exclude is not None:
            scores[_excluded_places(exclude, rows)] = -np.inf
        return scores

    def _reconstruct(self, Z, H, offset):
        """Predict all entries of some rows, (len(Z), len(H))."""
        with np.errstate(over="ignore", invalid="ignore"):
            X = Z[:, : H.shape[1]] @ H.T
            X += offset
            if self._model.biases.row:
                X += Z[:, -1:]
        return refuse_overflow(X)

    def _note_range(self, observed, *, extend=False):
        """Remember the smallest and the largest observed entry of a fit."""
        low, high = range_of(observed)
        if extend:
            low = min(low, self._observed_range[0])
            high = max(high, self._observed_range[1])
        self._observed_range = low, high

    def _in_range(self, X):
        """Move predictions, in place, to the nearest values in the range of `clip`."""
        limits = check_clip(self.clip)
        if limits is None:
            return X
        if limits == "observed":
            limits = self._observed_range
            if limits is None:  # of a fit on Dask
                raise ValueError(
                    "clip='observed' needs the range of X, which this fit did not "
                    "look for. Use clip=(low, high)."
                )
        return np.clip(X, *limits, out=X)


def _similar(factors, chosen, name, n):
    """Find the rows of a factor matrix with the largest cosines to the chosen rows."""
    n = _check_count(n)
    one = isinstance(chosen, Integral)
    chosen = check_numbers([chosen] if one else chosen, len(factors), name)
    # Divided by the largest first, as a square could over- or underflow.
    largest = np.abs(factors).max(axis=1, initial=0)
    scaled = factors / np.where(largest > 0, largest, 1)[:, None]
    norms = np.linalg.norm(scaled, axis=1)
    directions = scaled / np.where(norms > 0, norms, 1)[:, None]

    cosines = partial(_cosines, directions, chosen)
    found = _best(cosines, (len(chosen), len(factors)), n, factors.dtype)
    return tuple(array[0] for array in found) if one else found


def _cosines(directions, chosen, rows):
    """Cosines between a slice of the chosen directions and all directions."""
    return directions[chosen[rows]] @ directions.T


def _best(scores_of, shape, n, dtype):
    """Numbers and scores of the n columns with the largest scores of each row.

    ``scores_of(rows)`` are those of a slice of the rows, minus infinity for columns to
    leave out.
    """
    m, n_columns = shape
    columns, best = np.full((m, n), -1, np.intp), np.full((m, n), np.nan, dtype)
    step = max(1, BLOCK_SCORES // max(1, n_columns))
    for start in range(0, m, step):
        scores = scores_of(slice(start, start + step))
        for i, (row, least) in enumerate(zip(scores, _bounds(scores, n), strict=True)):
            found = np.flatnonzero((row >= least) & (row > -np.inf))
            # Stable: equal scores stay in the order of the columns.
            found = found[np.argsort(-row[found], kind="stable")[:n]]
            columns[start + i, : found.size] = found
            best[start + i, : found.size] = row[found]
    return columns, best


def _bounds(scores, n):
    """Find scores that at least n columns of each row reach, and not many more.

    The n-th largest of the maxima of groups of columns is such a score.
    """
    m, n_columns = scores.shape
    n_groups = n_columns // GROUP_SIZE
    if n_groups < MIN_GROUPS * n:
        return np.full(m, -np.inf)
    grouped = scores[:, : n_groups * GROUP_SIZE].reshape(m, GROUP_SIZE, n_groups)
    place = n_groups - n
    return np.partition(grouped.max(axis=1), place, axis=1)[:, place]


def _check_count(n):
    if not isinstance(n, Integral) or n < 1:
        raise ValueError(f"n must be a positive integer; got {n!r}.")
    return int(n)


def _check_excluded(exclude, shape):
    """Validate entries to leave out: a sparse matrix that stores them, or a mask."""
    if sparse.issparse(exclude):
        if exclude.format in ("dia", "bsr"):
            raise TypeError(
                f"exclude is sparse in {exclude.format.upper()} format, which cannot "
                "tell what is stored from padding. Pass CSR, CSC or COO."
            )
        checked = sparse.csr_array(well_formed(exclude, "exclude"))
    else:
        checked = np.asarray(exclude)
        if checked.dtype != bool:
            options = {"ensure_all_finite": False, "input_name": "exclude"}
            checked = ~np.isnan(check_array(exclude, dtype=FLOATS, **options))
    if checked.shape != shape:
        raise ValueError(
            f"exclude must have shape {shape}, a row for each of Z and a column for "
            f"each feature; got {checked.shape}."
        )
    return checked


def _excluded_places(exclude, rows):
    """The entries to leave out in a slice of the rows."""
    if not sparse.issparse(exclude):
        return exclude[rows]
    block = exclude[rows].tocoo()
    return block.coords
