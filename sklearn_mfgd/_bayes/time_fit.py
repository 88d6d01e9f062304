"""The part of a fit that is for rows in time, after that for exchangeable rows."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .._data.matrix import ObservedMatrix
from .._data.timeline import Timeline
from .._optim.loop import Descent
from .covariance import covariances_are_diagonal
from .hidden_gaps import MIN_ENTRIES, hidden_entries, widening_of, without
from .model import Model
from .posterior import VariationalModel
from .seasons import Seasons
from .time_ascent import TimeData, TimeState, ascend_in_time, sweep
from .time_axis import TimeAxis, timescales_for
from .time_model import TimeModel
from .timed_entries import TimedEntries

# Sweeps after which columns have forgotten what was hidden.
N_SWEEPS_AGAIN = 2


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

    def ascend(self, history, max_iter: int) -> Descent:
        """Go on from the end of a fit of exchangeable rows; return its descent."""
        descent, history.more_follows = history.descent(), False
        ascend_in_time(
            self.data,
            self.start(descent.state),
            history,
            first_value=descent.loss_curve[-1],
            max_iter=max_iter - descent.n_iter,
        )
        return history.descent()

    def widening(self, begin, state: TimeState, timeline: Timeline) -> float:
        """Learn how much wider deviations must be; see `hidden_gaps`."""
        rows = begin.rows.astype(np.float64)
        hidden = hidden_entries(rows, timeline)
        if not isinstance(state, TimeState):  # a callback has ended the fit
            state = self.start(state)
        if np.count_nonzero(hidden) < MIN_ENTRIES:
            return 1.0
        shown = begin._replace(rows=without(rows, hidden))
        fit = TimedFit.of(shown, timeline, self.weight)
        known = self.data.entries.by_columns(~hidden)
        state = replace(state, residual=state.residual[known])
        for _ in range(N_SWEEPS_AGAIN):
            state, _ = sweep(fit.data, state, learn_columns=True)
        at = rows.row_numbers[hidden], rows.indices[hidden]
        sorted_rows = timeline._replace(order=np.arange(len(timeline.order)))
        model, matrix = fit.fitted_at(state, sorted_rows), ObservedMatrix(shown.rows, 0)
        x, variances = model.predict(matrix, *at, with_variances=True)
        return widening_of(x - rows.values[hidden], variances)

    def fitted_at(self, state, timeline, widening: float = 1.0) -> TimeModel:
        """Make the fitted model of a state, of exchangeable rows or of rows in time."""
        if not isinstance(state, TimeState):
            state = self.start(state)
        model: Model = self.data.model
        base = VariationalModel.of(model, state, self.feature_map, self.weight)
        model = TimeModel.of(base, state, self.seasons, self.data.axis)
        return model._replace(widening=widening, timeline=timeline)


def refuse_diagonal_covariances(shape, rank: int, biases):
    """Refuse tables of so many columns that only diagonal covariances fit in memory."""
    if covariances_are_diagonal(shape, rank, biases):
        raise ValueError(
            f"times needs covariances of all factors, which are too large for "
            f"{shape[1]} columns and rank={rank}; use a smaller rank, or no times."
        )
