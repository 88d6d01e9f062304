"""Times and labels of series as a user passes them: read and validated.

Times that are counted (integers, dates, durations) stay integers here, so that they are
sorted and subtracted exactly, and become floats only then: two readings a nanosecond
apart keep their gap half a century after 1970.
"""

import datetime
from collections.abc import Callable
from fractions import Fraction
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

# How long a tick of numpy.datetime64 is: in seconds, or ticks per second below one.
SECONDS_PER_TICK = {"W": 604800, "D": 86400, "h": 3600, "m": 60, "s": 1}
TICKS_PER_SECOND = {
    unit: 1000.0**power for power, unit in enumerate(["ms", "us", "ns", "ps"], start=1)
} | {"fs": 1e15, "as": 1e18}


class Ticks(NamedTuple):
    """Times as integers or floats, and how long their unit is.

    A tick is `size` divided by `per_unit`, in seconds for dates and durations.
    """

    numbers: np.ndarray  # int64, uint64 or float64
    size: float = 1
    per_unit: float = 1
    has_dates: bool = False
    is_duration: bool = False

    def in_units(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers of ticks as float64: seconds, or the units of the user."""
        # Divided, because powers of ten are floats and their inverses are not.
        return numbers.astype(np.float64) * self.size / self.per_unit

    def differences(self) -> np.ndarray:
        """Difference of each from the one before; right where they do not fall."""
        if self.numbers.dtype.kind != "f":
            # Modulo 2**64, so that the difference of two int64 cannot overflow.
            return self.in_units(np.diff(self.numbers.astype(np.uint64)))
        with np.errstate(over="ignore"):
            differences = np.diff(self.numbers)
        return np.minimum(differences, np.finfo(np.float64).max)


def read_times(times: Any, n_rows: int | None = None) -> Ticks:
    """Validate times of any kind; `n_rows` is how many there must be, if known."""
    values = _as_vector(_to_utc(times), "times", n_rows)
    if values.dtype.kind in "OUST":
        values = _from_objects(values)
    kind = values.dtype.kind
    if kind in "mM":
        _refuse_missing(np.isnat(values), values, "times")
        return _ticks_of_stamps(values, "times")
    if kind not in "iuf":
        raise TypeError(
            f"times must be numbers or dates (datetime64); got {values.dtype}. "
            "Convert them first."
        )
    if kind == "f":
        values = values.astype(np.float64)
        _refuse_missing(~np.isfinite(values), values, "times")
        return Ticks(values)
    return Ticks(values.astype(np.uint64 if kind == "u" else np.int64))


def read_length(length: Any, times: Ticks) -> Fraction | float:
    """Validate the length of a block; for dates and durations, convert to ticks."""
    is_duration = isinstance(length, datetime.timedelta | np.timedelta64)
    is_number = isinstance(length, Real) and not isinstance(length, bool | np.bool_)
    wants_duration = times.has_dates or times.is_duration
    if not (is_duration if wants_duration else is_number and not is_duration):
        raise TypeError(
            "length must be a duration, such as numpy.timedelta64(1, 'D'), where times "
            "are dates or durations, and a number in the units of times where they are "
            f"numbers; got {length!r}."
        )
    if is_duration:
        stamp = _stamp_of_duration(length)
        is_positive = stamp > np.timedelta64(0)  # and not NaT
    else:
        is_positive = 0 < length < np.inf
    if not is_positive:
        raise ValueError(f"length must be positive and finite; got {length!r}.")
    if not is_duration:
        return float(length)
    ticks = _ticks_of_stamps(np.array([stamp]), "length")
    in_seconds = int(ticks.numbers[0]) * Fraction(ticks.size) / Fraction(ticks.per_unit)
    return in_seconds * Fraction(times.per_unit) / Fraction(times.size)


def read_groups(groups: Any, n_rows: int, name: str = "groups") -> np.ndarray:
    """Validate labels of rows and number them, in the order of the labels."""
    if groups is None:
        return np.zeros(n_rows, np.intp)
    if not hasattr(groups, "dtype"):  # or NaN among strings would become "nan"
        try:
            groups = np.array(groups, dtype=object)
        except ValueError as error:
            raise ValueError(f"{name} must be a sequence of labels.") from error
    labels = _as_vector(groups, name, n_rows)
    if labels.dtype.kind in "mM":
        missing = np.isnat(labels)
    elif labels.dtype.kind in "biufcSU":
        missing = labels != labels
    else:
        labels = labels.astype(object)
        missing = np.fromiter(map(_is_missing, labels), bool, len(labels))
    _refuse_missing(missing, labels, name)
    if labels.dtype.kind != "O":
        return np.unique(labels, return_inverse=True)[1]
    try:  # not by sorting all of them, which takes long for a million strings
        numbers = {label: number for number, label in enumerate(sorted(set(labels)))}
        return np.array([numbers[label] for label in labels], np.intp)
    except TypeError as error:
        raise TypeError(
            f"{name} must be labels that can be sorted, all of one type. Convert them, "
            "for example to strings."
        ) from error


def _to_utc(times):
    """Take the time zone off a Series or index of pandas: dates in UTC stay."""
    dtype = getattr(times, "dtype", None)
    if getattr(dtype, "tz", None) is not None and hasattr(dtype, "unit"):
        return times.to_numpy(dtype=f"datetime64[{dtype.unit}]")
    return times


def _as_vector(values, name: str, n_rows: int | None) -> np.ndarray:
    """Convert to an array of one dimension, of the length that X has."""
    if np.ma.isMaskedArray(values):
        _refuse_missing(np.ma.getmaskarray(values).ravel(), values.ravel(), name)
    try:
        array = np.asarray(values)
    except ValueError as error:  # of lists of different length
        raise ValueError(f"{name} must have one dimension.") from error
    if array.ndim != 1:
        remedy = f"Use {name}.ravel()." if array.ndim == 2 else "Pass a sequence."
        raise ValueError(
            f"{name} must have one dimension, a value for each row of X; got an array "
            f"of shape {array.shape}. {remedy}"
        )
    if n_rows is not None and len(array) != n_rows:
        raise ValueError(
            f"{name} must have a value for each of the {n_rows} rows of X; got "
            f"{len(array)}."
        )
    return array


def _refuse_missing(missing: np.ndarray, values: np.ndarray, name: str):
    """Raise an error that names the first row whose value is missing."""
    if missing.any():
        row = int(np.argmax(missing))
        what = "missing or infinite" if name == "times" else "missing"
        raise ValueError(
            f"{name} must not be {what}, but row {row} has {values[row]}. Leave out "
            f"such rows of X and of {name}, or fill in their {name}."
        )


def _is_missing(value) -> bool:
    """Whether an object is None, NaN, NaT or NA of pandas."""
    return value is None or type(value).__name__ == "NAType" or bool(value != value)


def _ticks_of_stamps(stamps: np.ndarray, name: str) -> Ticks:
    """Count datetime64 or timedelta64 in ticks of their unit."""
    has_dates = stamps.dtype.kind == "M"
    unit, count = np.datetime_data(stamps.dtype)
    if unit in ("Y", "M") and has_dates:  # neither has a fixed length
        stamps = stamps.astype("datetime64[D]")
        unit, count = "D", 1
    if unit not in SECONDS_PER_TICK and unit not in TICKS_PER_SECOND:
        raise TypeError(
            f"{name} of type {stamps.dtype} have no fixed unit. Convert them, for "
            "example to timedelta64[s]."
        )
    return Ticks(
        stamps.astype(np.int64),
        size=count * SECONDS_PER_TICK.get(unit, 1),
        per_unit=TICKS_PER_SECOND.get(unit, 1),
        has_dates=has_dates,
        is_duration=not has_dates,
    )


def _from_objects(values: np.ndarray) -> np.ndarray:
    """Convert objects that are all numbers, dates, ISO strings or durations."""
    values = values.astype(object)
    missing = np.fromiter(map(_is_missing, values), bool, len(values))
    _refuse_missing(missing, values, "times")
    kinds = [_kind_of(value) for value in values]
    for row, kind in enumerate(kinds):
        if kind is None:
            raise TypeError(
                "times must be numbers, dates (datetime64, datetime or ISO strings) or "
                f"durations, but row {row} has {values[row]!r} of type "
                f"{type(values[row]).__name__}. Convert them first."
            )
        if kind is not kinds[0]:
            raise TypeError(
                "times must all be of one kind, but row 0 has "
                f"{values[0]!r} and row {row} {values[row]!r}. Convert them first."
            )
    convert = kinds[0] if kinds else _number
    converted = [_convert_one(convert, row, value) for row, value in enumerate(values)]
    if convert is _number:
        numbers = np.array(converted)
        # Integers that are too large for 64 bits remain objects.
        return numbers.astype(np.float64) if numbers.dtype == object else numbers
    if convert is _stamp_of_duration:
        return _in_one_unit(converted)
    _refuse_mixed_zones(converted)
    return _in_one_unit([stamp for stamp, _ in converted])


def _kind_of(value) -> Callable | None:
    """The function that converts an object, None if it is no time."""
    if isinstance(value, str | datetime.date | np.datetime64):
        return _stamp_of_date
    if isinstance(value, datetime.timedelta | np.timedelta64):
        return _stamp_of_duration
    is_number = isinstance(value, Real) and not isinstance(value, bool | np.bool_)
    return _number if is_number else None


def _convert_one(convert: Callable, row: int, value):
    """Convert an object; errors name its row."""
    try:
        return convert(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"times must be numbers or dates, but row {row} has {value!r}, which "
            "cannot be read. Write dates as 2024-03-31T12:00 and numbers as float."
        ) from error


def _number(value: Real) -> int | float:
    """Convert a number, and leave an integer as exact as it is."""
    return int(value) if isinstance(value, Integral) else float(value)


def _stamp_of_date(value) -> tuple[np.datetime64, bool | None]:
    """Convert a date to datetime64 in UTC; tell whether it has a time zone.

    None for a date that cannot have one.
    """
    if isinstance(value, str):
        value = datetime.datetime.fromisoformat(value)
    if isinstance(value, datetime.datetime):
        has_zone = value.tzinfo is not None
        if hasattr(value, "to_datetime64"):  # of pandas, with nanoseconds; in UTC
            return value.to_datetime64(), has_zone
        if has_zone:
            value = value.astimezone(datetime.UTC).replace(tzinfo=None)
        return np.datetime64(value, "us"), has_zone
    return np.datetime64(value), None


def _stamp_of_duration(value) -> np.timedelta64:
    """Convert a duration to timedelta64."""
    has_nanoseconds = hasattr(value, "to_timedelta64")  # of pandas
    return value.to_timedelta64() if has_nanoseconds else np.timedelta64(value)


def _in_one_unit(stamps: list[np.datetime64 | np.timedelta64]) -> np.ndarray:
    """Make one array of dates or durations: in the finest unit where all fit in it."""
    finest = np.array(stamps)
    seconds = np.array([stamp.astype(f"{finest.dtype.kind}8[s]") for stamp in stamps])
    if (finest.astype(seconds.dtype) == seconds).all():
        return finest
    # Nanoseconds overflow three centuries from 1970, which NumPy does not tell.
    return np.array([stamp.astype(f"{finest.dtype.kind}8[us]") for stamp in stamps])


def _refuse_mixed_zones(converted: list[tuple[np.datetime64, bool | None]]):
    """Raise an error where some dates have a time zone and others have none."""
    if {has_zone for _, has_zone in converted} >= {True, False}:
        raise ValueError(
            "times must all have a time zone, or none (then they are taken as UTC); "
            "some of these have one and others have not."
        )
