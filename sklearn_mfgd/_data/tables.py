"""Tables as users have them: masked arrays, frames, columns that are no numbers."""

from contextlib import suppress
from copy import copy
from numbers import Real
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils import check_array

FLOATS = [np.float64, np.float32]

# How names of types begin in pandas, PyArrow and Polars, and what such a column holds.
NO_NUMBERS = {
    "categories": ("cat", "enum", "dictionary"),
    "dates or times": ("date", "time", "duration", "period", "interval"),
}
ADVICE = {
    "categories": "Encode it (OneHotEncoder, OrdinalEncoder; astype(float) if its "
    "categories are quantities), or drop it.",
    "dates or times": "Turn it into numbers, such as hours since a start, or drop it.",
    "pandas.NA": "After X.convert_dtypes() it is a missing number.",
    "text": "Encode it (OneHotEncoder, OrdinalEncoder), or drop it.",
}
# For an estimator that takes the categories of a pandas data frame.
ADVICE_WITH_CATEGORIES = ADVICE | {
    "text": "Convert it with astype('category') if it holds categories; or encode it "
    "(OneHotEncoder, OrdinalEncoder), or drop it.",
}
SELECT = (
    " A ColumnTransformer with make_column_selector(dtype_include='number') takes "
    "the columns of numbers only."
)
SHORT_FLOATS = {np.float16: ("float16", "halffloat"), np.float32: ("float32", "float[")}


def check_table(
    X,
    *,
    unstored: str = "shown",
    fill: Any = np.nan,
    takes_categories: bool = False,
    **options,
):
    """Validate X as `check_array` does with `options`; make it float32 or float64.

    `unstored` says what an entry is that a sparse matrix does not store: "zero",
    "missing", or "shown" where none is taken and sparse columns mean what they show.
    What is masked in a masked array becomes `fill`. `takes_categories` is what errors
    advise: the caller has encoded categories already.
    """
    X = _plain(X, unstored, fill)
    try:
        return check_array(X, dtype=FLOATS, input_name="X", **options)
    except (TypeError, ValueError) as error:
        takes_categories = takes_categories and hasattr(X, "iloc")
        _name_the_column(
            X, error, ADVICE_WITH_CATEGORIES if takes_categories else ADVICE
        )
        raise


def as_stored(value, X) -> np.float64 | np.ndarray:
    """Return the marker of missing values in the type of each column of X."""
    if not isinstance(value, Real):  # pandas.NA
        return np.float64(np.nan)
    if is_frame(X):
        return np.array([_rounded(value, dtype) for dtype in X.dtypes])
    return np.float64(_rounded(value, getattr(X, "dtype", None)))


def is_frame(X) -> bool:
    """Whether X is a data frame, of pandas or of Polars."""
    return hasattr(X, "columns") and hasattr(X, "dtypes")


def _rounded(value: float, dtype) -> float:
    """Round a value to the type, if that is narrower than float64."""
    for kind, beginnings in SHORT_FLOATS.items():
        if str(dtype).lower().startswith(beginnings):
            with np.errstate(over="ignore"):  # then nothing finite is equal to it
                return float(kind(value))
    return float(value)


def _plain(X, unstored: str, fill: Any):
    """Return what `check_array` reads as it was meant."""
    if sparse.issparse(X):
        if unstored != "missing" or X.dtype.kind not in "biuf" or X.dtype in FLOATS:
            return X
        converted = copy(X)  # SciPy would sum duplicates, which are to be refused
        converted.data = X.data.astype(np.float64)
        return converted
    is_list = isinstance(X, list | tuple)
    if is_list and any(isinstance(row, np.ma.MaskedArray) for row in X):
        X = np.ma.array(X)
    elif is_list:
        with suppress(ValueError):  # of rows of different length check_array tells
            X = np.asarray(X)
    if isinstance(X, np.ma.MaskedArray):
        X = _unmasked(X, fill)
    if not is_frame(X):
        _refuse_type("X", getattr(X, "dtype", None), "")
        return X
    for name, dtype in zip(X.columns, X.dtypes, strict=True):
        _refuse_type(f"Column {name!r} of X", dtype, SELECT)
    return _shown(X, unstored)


def _unmasked(X: np.ma.MaskedArray, fill: Any) -> np.ndarray:
    """Replace what is masked; numbers become floats, which can be NaN."""
    values, masked = np.asarray(np.ma.getdata(X)), np.ma.getmaskarray(X)
    if values.dtype.kind not in "biuf":
        return np.where(masked, fill, values.astype(object))
    dtype = values.dtype if values.dtype in FLOATS else np.dtype(np.float64)
    return np.where(masked, dtype.type(fill), values.astype(dtype))


def _refuse_type(what: str, dtype, select: str):
    """Refuse a type of column that holds no numbers, and advise what to do."""
    beginning = str(dtype).lower()
    for held, beginnings in NO_NUMBERS.items():
        if beginning.startswith(beginnings):
            raise ValueError(
                f"{what} holds {held} ({dtype}), not numbers. {ADVICE[held]}{select}"
            )


def _shown(X, unstored: str):
    """Turn the sparse columns of a frame into what they show, if there are any."""
    columns = [k for k, dtype in enumerate(X.dtypes) if str(dtype).startswith("Sparse")]
    if not columns:
        return X
    if unstored != "shown" and len(columns) == X.shape[1]:
        fills = [dtype.fill_value for dtype in X.dtypes]
        zeros = all(isinstance(fill, Real) and fill == 0 for fill in fills)
        if zeros and unstored == "missing":
            raise ValueError(
                "All columns of X are sparse, with zeros for what they do not store. "
                "Pass X.sparse.to_dense() if these zeros are observed, or "
                "X.sparse.to_coo() if they are missing."
            )
        if zeros:
            return X  # check_array makes a sparse matrix of it
        if unstored == "missing" and all(fill != fill for fill in fills):
            return _stored(X)
    X = X.copy(deep=False)
    for k in columns:
        X.isetitem(k, np.asarray(X.iloc[:, k]))
    return X


def _stored(X) -> sparse.coo_array:
    """Make a sparse matrix of what the columns of a frame store."""
    columns = [X.iloc[:, k].array for k in range(X.shape[1])]
    rows = [column.sp_index.indices for column in columns]
    numbers = np.repeat(np.arange(len(rows)), [len(indices) for indices in rows])
    values = np.concatenate([column.sp_values for column in columns])
    return sparse.coo_array((values, (np.concatenate(rows), numbers)), shape=X.shape)


def _name_the_column(X, error: Exception, advice: dict[str, str]):
    """Say which column holds no numbers, if that was the error."""
    kind = TypeError if isinstance(error, TypeError) else ValueError
    for name, column in _columns(X):
        try:
            np.asarray(column, dtype=np.float64)
        except (TypeError, ValueError):
            row, value = _first_non_number(column)
            raise kind(
                f"Column {name!r} of X holds {value!r} in row {row}, which is no "
                f"number. {advice[_kind_of(value)]}{SELECT} ({error})"
            ) from error


def _columns(X) -> list:
    """Names and values of the columns that may hold something else than numbers."""
    if is_frame(X):
        columns = X.iloc if hasattr(X, "iloc") else X
        return [(name, columns[:, k]) for k, name in enumerate(X.columns)]
    try:
        X = np.asarray(X)
    except (TypeError, ValueError):
        return []
    return list(enumerate(X.T)) if X.ndim == 2 and X.dtype.kind in "OSU" else []


def _first_non_number(column) -> tuple:
    """Number and value of the first row that cannot be converted."""
    for row, value in enumerate(np.asarray(column, dtype=object)):
        try:
            np.asarray([value], dtype=np.float64)
        except (TypeError, ValueError):
            return row, value
    return 0, column  # each can be, but not the column


def _kind_of(value) -> str:
    """What a value is that is no number, as a key of `ADVICE`."""
    if type(value).__name__ == "NAType":
        return "pandas.NA"
    if hasattr(value, "year") or hasattr(value, "total_seconds"):
        return "dates or times"
    return "text"
