"""The observed entries of a matrix as a list, whatever holds the matrix."""

from typing import NamedTuple, Self

import numpy as np
from scipy import sparse
from sklearn.utils import assert_all_finite

from .observed import check_sparse, observe
from .tables import as_stored, check_table


class Entries(NamedTuple):
    """The observed entries of a matrix, row by row, and the matrix."""

    X: np.ndarray | sparse.sparray | sparse.spmatrix
    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, X, caller: str, missing_values: float = np.nan) -> Self:
        """Validate X and list what it observes; errors name the caller.

        What a sparse X does not store is missing; in a dense one, NaN and
        `missing_values`.
        """
        if sparse.issparse(X):
            checked = check_sparse(X, caller, unstored_is_zero=False)
            observed = observe(checked, None, None, unstored_is_zero=False)
            assert_all_finite(observed.values, input_name="X")
            return cls(X, observed.row_numbers, observed.indices, observed.values)
        marker = as_stored(missing_values, X)
        X = check_table(X, fill=marker, ensure_all_finite="allow-nan")
        rows, columns = np.nonzero(~np.isnan(X) & (marker != X))
        return cls(X, rows, columns, X[rows, columns])

    def select(self, chosen: np.ndarray) -> np.ndarray | sparse.sparray:
        """Return a matrix like X in which only the chosen entries are observed."""
        values, places = self.values[chosen], (self.rows[chosen], self.columns[chosen])
        if not sparse.issparse(self.X):
            selected = np.full(self.X.shape, np.nan, self.X.dtype)
            selected[places] = values
            return selected
        is_array = isinstance(self.X, sparse.sparray)
        container = sparse.coo_array if is_array else sparse.coo_matrix
        return container((values, places), self.X.shape).asformat(self.X.format)
