"""The part of a fit that is for rows in time, after that for exchangeable rows."""

from typing import NamedTuple

import numpy as np

from .._data.timeline import Timeline
from .covariance import covariances_are_diagonal
from .model import Model
from .posterior import VariationalModel
from .seasons import Seasons
from .time_ascent import TimeData, TimeState, ascend_in_time
from .time_axis import TimeAxis, timescales_for
from .time_model import TimeModel
from .timed_entries import TimedEntries


class TimedFit(NamedTuple):
    """The data of a fit in time, and what it makes a fitted model of."""

    data: TimeData
    seasons: Seasons
    grid: np.ndarray  # timescales to choose from
    weight: float  # of an entry that counted as one
    feature_map: object

    @classmethod
    def of(cls, begin, timeline: Timeline, weight: float) -> "TimedFit":
        """Prepare the rows of a `Beginning`, which are sorted by time."""
        seasons = Seasons.of(timeline)
        axis = TimeAxis(timeline, seasons)
        entries = TimedEntries.of(begin.rows, timeline)
        data = TimeData(begin.model(np.float64), entries, axis)
        given = seasons, timescales_for(timeline), weight, begin.feature_map
        return cls(data, *given)

    def start(self, state) -> TimeState:
        """Start from a state of exchangeable rows."""
        state = state.rotated().astype(np.float64)
        return TimeState.of(state, self.data, self.grid)

    def ascend(self, state, history, max_iter: int) -> TimeState:
        """Go on from the end of a fit of exchangeable rows."""
        last = history.descent().loss_curve[-1]
        given = self.data, self.start(state), history
        return ascend_in_time(*given, first_value=last, max_iter=max_iter)

    def fitted_at(self, state) -> TimeModel:
        """Make the fitted model of a state, of exchangeable rows or of rows in time."""
        if not isinstance(state, TimeState):
            state = self.start(state)
        model: Model = self.data.model
        base = VariationalModel.of(model, state, self.feature_map, self.weight)
        return TimeModel.of(base, state, self.seasons, self.data.axis)


def refuse_diagonal_covariances(shape, rank: int, biases):
    """Refuse tables of so many columns that only diagonal covariances fit in memory."""
    if covariances_are_diagonal(shape, rank, biases):
        raise ValueError(
            f"times needs covariances of all factors, which are too large for "
            f"{shape[1]} columns and rank={rank}; use a smaller rank, or no times."
        )
