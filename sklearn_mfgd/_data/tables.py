"""Tables as users have them: masked arrays, frames, columns that are no numbers."""

from contextlib import suppress
from copy import copy
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from .advice import (
    Column,
    instead_of_infinity,
    instead_of_other_names,
    where_not_finite,
)

FLOATS = [np.float64, np.float32]

# How names of types begin in pandas, PyArrow and Polars, and what such a column holds.
NO_NUMBERS = {
    "categories": ("cat", "enum", "dictionary"),
    "dates or times": ("date", "time", "duration", "period", "interval"),
}
SHORT_FLOATS = {np.float16: ("float16", "halffloat"), np.float32: ("float32", "float[")}


def check_table(
    X,
    *,
    unstored: str = "shown",
    fill: Any = np.nan,
    takes_categories: bool = False,
    times: str = "",
    **options,
):
    """Validate X as `check_array` does with `options`; make it float32 or float64.

    `unstored` says what an entry is that a sparse matrix does not store: "zero",
    "missing", or "shown" where none is taken and sparse columns mean what they show.
    What is masked in a masked array becomes `fill`. `takes_categories` and `times` are
    what errors advise, see `Column`.
    """
    column = partial(Column, takes_categories=takes_categories, times=times)
    X = _plain(X, unstored, fill, column)
    try:
        return check_array(X, dtype=FLOATS, input_name="X", **options)
    except (TypeError, ValueError) as error:
        _name_the_column(X, error, column)
        _say_where_not_finite(X, error)
        _say_what_to_do_about_the_shape(X, error)
        raise


def note_features(estimator, X, *, reset: bool):
    """Remember the names and the number of the columns, or compare with those of fit.

    It is `validate_data` of scikit-learn without a check of values, and says what to do
    about other columns than those of the fit.
    """
    try:
        validate_data(estimator, X, reset=reset, skip_check_array=True)
    except ValueError as error:
        if hasattr(X, "columns") and hasattr(estimator, "feature_names_in_"):
            advice = instead_of_other_names(X, list(estimator.feature_names_in_))
        else:
            advice = "Pass all columns of fit, in the same order, with NaN for values "
            advice += "that are not known."
        raise ValueError(f"{str(error).rstrip()}\n{advice}") from error


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


def _plain(X, unstored: str, fill: Any, column):
    """Return what `check_array` reads as it was meant."""
    if sparse.issparse(X):
        _refuse_type(column(X, None), X.dtype)
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
        _refuse_type(column(X, None), getattr(X, "dtype", None))
        return X
    for name, dtype in zip(X.columns, X.dtypes, strict=True):
        _refuse_type(column(X, name), dtype)
    return _shown(X, unstored)


def _unmasked(X: np.ma.MaskedArray, fill: Any) -> np.ndarray:
    """Replace what is masked; numbers become floats, which can be NaN."""
    values, masked = np.asarray(np.ma.getdata(X)), np.ma.getmaskarray(X)
    if values.dtype.kind not in "biuf":
        return np.where(masked, fill, values.astype(object))
    dtype = values.dtype if values.dtype in FLOATS else np.dtype(np.float64)
    return np.where(masked, dtype.type(fill), values.astype(dtype))


def _refuse_type(column: Column, dtype):
    """Refuse a type of column that holds no numbers, and advise what to do."""
    what = "X" if column.name is None else f"Column {column.name!r} of X"
    beginning = str(dtype).lower()
    if beginning.startswith("complex"):
        raise ValueError(  # it begins as the message of scikit-learn does
            f"Complex data not supported. {what} is of type {dtype}. "
            f"{column.of_complex_numbers()}"
        )
    for held, beginnings in NO_NUMBERS.items():
        if beginning.startswith(beginnings):
            is_time = held == "dates or times"
            advice = column.of_times(dtype) if is_time else column.of_categories(held)
            raise ValueError(f"{what} holds {held} ({dtype}), not numbers. {advice}")


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


def _name_the_column(X, error: Exception, column):
    """Say which column holds no numbers, if that was the error."""
    kind = TypeError if isinstance(error, TypeError) else ValueError
    for name, values in _columns(X):
        try:
            np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            row, value = _first_non_number(values)
            advice = _advice_on(value, values, column(X, name))
            if not isinstance(value, str):  # checks of scikit-learn want its words
                advice += f" ({error})"
            raise kind(
                f"Column {name!r} of X holds {value!r} in row {row}, which is no "
                f"number. {advice}"
            ) from error


def _advice_on(value, values, column: Column) -> str:
    """Say what to do about a column of these values of which one is no number."""
    if type(value).__name__ == "NAType":
        return "After X = X.convert_dtypes() it is a missing number."
    if hasattr(value, "total_seconds") or hasattr(value, "year"):
        return column.of_times("objects")
    if isinstance(value, complex):
        return column.of_complex_numbers()
    if not isinstance(value, str):
        return column.of_objects()
    values = list(np.asarray(values, dtype=object))
    numbers = [_is_number(one) for one in values]
    texts = {str(v) for v, number in zip(values, numbers, strict=True) if not number}
    finite = [v for v, number in zip(values, numbers, strict=True) if number]
    n_numbers = np.isfinite(np.asarray(finite, dtype=np.float64)).sum()
    return column.of_mark(value) if n_numbers >= len(texts) else column.of_categories()


def _say_where_not_finite(X, error: Exception):
    """Say where an infinite value is, or a NaN that means no missing value."""
    text = str(error)
    is_nan = "contains NaN" in text
    if not (is_nan or "contains infinity" in text):
        return
    where = where_not_finite(X, np.isnan if is_nan else np.isinf)
    if where is None:
        return
    if is_nan:
        raise ValueError(
            f"Input X contains NaN, first in {where}, and missing_values is another "
            "value. Use missing_values=np.nan, and NaN for all missing values of X."
        ) from error
    raise ValueError(
        f"{text} The first is in {where}. If it stands for a missing value, use "
        f"{instead_of_infinity(X)}."
    ) from error


def _say_what_to_do_about_the_shape(X, error: Exception):
    """Say what to do about a table of three dimensions, or without rows or columns."""
    text, shape = str(error), getattr(X, "shape", ())
    if "with dim" in text and len(shape) > 2:
        advice = "A table has rows and columns: use X.reshape(len(X), -1)."
    elif "0 sample" in text:
        advice = "X has no rows: look at X.shape, and at how X was read or filtered."
    elif "0 feature" in text:
        advice = "X has no columns: look at X.shape, and at how they were chosen."
    else:
        return
    raise ValueError(f"{text} {advice}") from error


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
        if not _is_number(value):
            return row, value
    return 0, column  # each can be, but not the column


def _is_number(value) -> bool:
    """Whether a value can be converted to a number."""
    try:
        np.asarray([value], dtype=np.float64)
    except (TypeError, ValueError):
        return False
    return True
