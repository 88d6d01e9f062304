"""Rows in time: sorted by series and time, with the gaps between them."""

from fractions import Fraction
from typing import Any, NamedTuple, Self

import numpy as np

from .times import Ticks, read_groups, read_length, read_times


class Timeline(NamedTuple):
    """Rows in the order of their series and times."""

    order: np.ndarray  # number in X of each row here: by series, then by time, stable
    times: np.ndarray  # float64; dates are seconds since 1970-01-01 UTC
    gaps: np.ndarray  # float64: time since the row before; inf where a series starts
    has_dates: bool
    # Where some rows were left out: places of the others among all, sorted, and how
    # many these were.
    places: np.ndarray | None = None
    n_all: int | None = None

    @classmethod
    def of(cls, times: Any, groups: Any, n_rows: int) -> Self | None:
        """Validate `times` and `groups` as a user passes them.

        None if `times` is None.
        """
        if times is None:
            if groups is not None:
                raise ValueError("groups needs times: pass times= as well.")
            return None
        ticks = read_times(times, n_rows)
        series = read_groups(groups, n_rows)
        order = np.lexsort((ticks.numbers, series))
        sorted_series = series[order]
        starts = np.ones(n_rows, bool)
        starts[1:] = sorted_series[1:] != sorted_series[:-1]
        ticks = ticks._replace(numbers=ticks.numbers[order])
        gaps = np.full(n_rows, np.inf)
        gaps[1:] = ticks.differences()
        gaps[starts] = np.inf
        return cls(order, ticks.in_units(ticks.numbers), gaps, ticks.has_dates)

    @property
    def has_order(self) -> bool:
        """Whether any series has two different times; else rows are exchangeable."""
        return bool(np.any((self.gaps > 0) & np.isfinite(self.gaps)))

    @property
    def series(self) -> np.ndarray:
        """Number of the series of each row here, from 0."""
        return np.cumsum(np.isinf(self.gaps)) - 1

    @property
    def elapsed(self) -> np.ndarray:
        """Sum of the gaps up to each row, which is exact where `times` are rounded."""
        return np.cumsum(np.where(np.isfinite(self.gaps), self.gaps, 0.0))

    @property
    def step(self) -> float:
        """Median of the gaps within series, ties left out."""
        return float(np.median(self.gaps[(self.gaps > 0) & np.isfinite(self.gaps)]))

    @property
    def span(self) -> float:
        """Time from the first to the last row of the longest series."""
        starts, elapsed = np.flatnonzero(np.isinf(self.gaps)), self.elapsed
        ends = np.append(starts[1:], len(elapsed)) - 1
        return float((elapsed[ends] - elapsed[starts]).max())

    def take(self, kept: np.ndarray) -> Self:
        """Leave out all rows but those whose numbers in X are given, sorted.

        The rows that stay are renumbered from 0, and their gaps span the rows between
        them that are left out.
        """
        is_kept = np.zeros(len(self.order), bool)
        is_kept[kept] = True
        places = np.flatnonzero(is_kept[self.order])
        # A sum from after the row that was kept before is infinite where it crosses
        # the start of a series.
        after_last = np.concatenate([[0], places + 1])
        gaps = np.add.reduceat(self.gaps[: after_last[-1]], after_last[:-1])
        new_numbers = np.cumsum(is_kept) - 1
        order = new_numbers[self.order[places]]
        return type(self)(
            order,
            self.times[places],
            gaps,
            self.has_dates,
            places if self.places is None else self.places[places],
            len(self.order) if self.n_all is None else self.n_all,
        )

    def restore(self, sorted_rows: np.ndarray) -> np.ndarray:
        """Put the rows of an array back into the order of X."""
        restored = np.empty_like(sorted_rows)
        restored[self.order] = sorted_rows
        return restored


def cut_into_blocks(times: Any, length: Any, groups: Any) -> np.ndarray:
    """Cut each series into blocks of equal length; number the block of each row.

    A series starts with a block, but dates are cut at multiples of the length since
    1970-01-01 UTC. Blocks are numbered by series, then by time; empty ones are not.
    """
    ticks = read_times(times)
    n_rows = len(ticks.numbers)
    series = read_groups(groups, n_rows)
    length = read_length(length, ticks)
    if ticks.has_dates:
        blocks = _exact_quotients(ticks.numbers, length)
    else:
        blocks = _quotients_from_start(ticks, series, length)
    in_order, blocks = np.unique(blocks, return_inverse=True)
    return np.unique(series * len(in_order) + blocks, return_inverse=True)[1]


def _quotients_from_start(ticks: Ticks, series: np.ndarray, length) -> np.ndarray:
    """How many whole lengths lie between the start of the series and each time."""
    numbers = ticks.numbers
    order = np.lexsort((numbers, series))
    firsts = np.unique(series[order], return_index=True)[1]
    starts = numbers[order[firsts]][series]
    if numbers.dtype.kind != "f":  # modulo 2**64, where differences fit
        elapsed = numbers.astype(np.uint64) - starts.astype(np.uint64)
        if ticks.is_duration:
            return _exact_quotients(elapsed, length)
        rounding = np.zeros(len(numbers))
    else:
        elapsed = numbers - starts
        rounding = np.abs(numbers) + np.abs(starts)
    quotients = elapsed / length
    # 0.3 / 0.1 is less than 3: what differs from an integer by rounding is one.
    tolerance = 4 * np.finfo(np.float64).eps * (quotients + rounding / length)
    nearest = np.rint(quotients)
    is_whole = np.abs(quotients - nearest) <= tolerance
    return np.where(is_whole, nearest, np.floor(quotients))


def _exact_quotients(numbers: np.ndarray, length: Fraction) -> np.ndarray:
    """Divide integers by a fraction and round down, without error or overflow."""
    if length.denominator == 1 and length.numerator < 2**63:
        return numbers // length.numerator
    products = numbers.astype(object) * length.denominator
    return products // length.numerator
