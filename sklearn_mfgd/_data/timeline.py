"""Rows in time: sorted by series and time, with the gaps between them."""

from typing import Any, NamedTuple, Self

import numpy as np

from .times import read_groups, read_times


class Timeline(NamedTuple):
    """Rows in the order of their series and times."""

    order: np.ndarray  # number in X of each row here: by series, then by time, stable
    times: np.ndarray  # float64; dates are seconds since 1970-01-01 UTC
    gaps: np.ndarray  # float64: time since the row before; inf where a series starts
    has_dates: bool

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
        return type(self)(order, self.times[places], gaps, self.has_dates)

    def restore(self, sorted_rows: np.ndarray) -> np.ndarray:
        """Put the rows of an array back from the order here to that of X."""
        restored = np.empty_like(sorted_rows)
        restored[self.order] = sorted_rows
        return restored
