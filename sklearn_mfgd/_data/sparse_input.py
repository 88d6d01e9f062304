"""Sparse matrices as users have them: refused where malformed, never changed.

Where indices and pointers lie, SciPy reads and writes outside of the arrays.
"""

from typing import Any

import numpy as np
from scipy import sparse

SparseMatrix = Any  # sparse.sparray or sparse.spmatrix, for which SciPy has no types


def well_formed(X: SparseMatrix, name: str) -> SparseMatrix:
    """Check a sparse matrix, and return one that may be converted, not LIL or DOK.

    It shares the values with X, which stays as it is.
    """
    try:
        if len(X.shape) != 2 or min(X.shape) < 0:
            raise ValueError(f"its shape {X.shape} is not that of a matrix")
        container, arrays = REBUILD[X.format](X)
        kind = "array" if isinstance(X, sparse.sparray) else "matrix"
        return getattr(sparse, f"{container}_{kind}")(arrays, shape=X.shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} is a malformed sparse matrix: {error}.") from error


# Each of these returns the name of a format and the checked arrays to build it from.


def _compressed(X: SparseMatrix) -> tuple:
    m, n = X.shape if X.format == "csr" else X.shape[::-1]
    indices, indptr = _compressed_arrays(X, m, n)
    return X.format, (_vector(X.data, "data")[: len(indices)], indices, indptr)


def _blocks(X: SparseMatrix) -> tuple:
    data = _numbers(np.asarray(X.data))
    if data.ndim != 3 or 0 in data.shape[1:]:
        raise ValueError(f"data has the shape {data.shape}, not that of blocks")
    height, width = data.shape[1:]
    if X.shape[0] % height or X.shape[1] % width:
        raise ValueError(f"blocks of {height} x {width} do not fill {X.shape}")
    m, n = X.shape[0] // height, X.shape[1] // width
    indices, indptr = _compressed_arrays(X, m, n)
    return "bsr", (data[: len(indices)], indices, indptr)


def _compressed_arrays(X: SparseMatrix, m: int, n: int) -> tuple:
    """Indices and pointers of m rows of n entries (or the same of columns)."""
    indptr, indices = _integers(X.indptr, "indptr"), _integers(X.indices, "indices")
    if len(indptr) != m + 1:
        raise ValueError(f"indptr has {len(indptr)} elements, not {m + 1}")
    if indptr[0] != 0:
        raise ValueError("indptr does not begin with 0")
    if (indptr[1:] < indptr[:-1]).any():
        raise ValueError("indptr decreases")
    if len(indices) != len(X.data):
        raise ValueError(f"{len(indices)} indices are there for {len(X.data)} values")
    if indptr[-1] > len(indices):
        raise ValueError(f"indptr ends with {indptr[-1]}, beyond the indices")
    indices = indices[: int(indptr[-1])]  # what comes after them is room to spare
    _check_range(indices, n)
    return indices, indptr


def _coordinates(X: SparseMatrix) -> tuple:
    coords = [_integers(index, "an index array") for index in X.coords]
    data = _vector(X.data, "data")
    if len(coords) != 2 or {len(index) for index in coords} != {len(data)}:
        raise ValueError("rows, columns and values differ in number")
    return _checked_coordinates(data, coords, X.shape)


def _diagonals(X: SparseMatrix) -> tuple:
    offsets, data = _integers(X.offsets, "offsets"), _numbers(np.asarray(X.data))
    if data.ndim != 2 or len(data) != len(offsets):
        raise ValueError("each diagonal needs an offset and a row of data")
    if len(np.unique(offsets)) != len(offsets):
        raise ValueError("two diagonals have the same offset")
    # SciPy casts offsets to a narrow type, after it has counted what they hold.
    inside = (offsets > -X.shape[0]) & (offsets < X.shape[1])
    return "dia", (data[inside], offsets[inside])


def _lists(X: SparseMatrix) -> tuple:
    rows, data = (np.asarray(lists, dtype=object) for lists in (X.rows, X.data))
    if rows.shape != X.shape[:1] or data.shape != X.shape[:1]:
        raise ValueError("there is not one list for each row")
    lengths = np.array([len(row) for row in rows], np.int64)
    if (lengths != [len(values) for values in data]).any():
        raise ValueError("rows and data differ in length")
    columns = np.array([j for row in rows for j in row] or np.empty(0, int))
    values = np.array([x for row in data for x in row], dtype=X.dtype)
    coords = np.repeat(np.arange(len(rows)), lengths), _integers(columns, "rows")
    return _checked_coordinates(_numbers(values), coords, X.shape)


def _keys(X: SparseMatrix) -> tuple:
    keys = np.array(list(X.keys()) or np.empty((0, 2), int))
    if keys.shape != (len(X.keys()), 2):
        raise ValueError("a key is not a pair of indices")
    values = np.array(list(X.values()), dtype=X.dtype)
    coords = [_integers(index, "a key") for index in keys.T]
    return _checked_coordinates(_numbers(values), coords, X.shape)


def _checked_coordinates(data, coords, shape):
    for index, length in zip(coords, shape, strict=True):
        _check_range(index, length)
    return "coo", (data, tuple(coords))


REBUILD = {"csr": _compressed, "csc": _compressed, "bsr": _blocks}
REBUILD |= {"coo": _coordinates, "dia": _diagonals, "lil": _lists, "dok": _keys}


def _vector(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 1:
        raise ValueError(f"{name} has {values.ndim} dimensions, not one")
    return _numbers(values)


def _numbers(values: np.ndarray) -> np.ndarray:
    """Values of a type that SciPy can hold in any format."""
    if values.dtype == np.float16 or values.dtype.kind not in "biufc":
        return values.astype(np.float64)
    return values


def _integers(index: np.ndarray, name: str) -> np.ndarray:
    index = np.asarray(index)
    if index.ndim != 1 or index.dtype.kind not in "iu":
        raise ValueError(f"{name} must be a vector of integers, not of {index.dtype}")
    return index


def _check_range(index: np.ndarray, length: int):
    if index.size and not 0 <= index.min() <= index.max() < length:
        raise ValueError(f"an index lies outside [0, {length})")
