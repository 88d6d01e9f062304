"""The part of a fit that is for rows in time, after that for exchangeable rows."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .._data.matrix import ObservedMatrix
from .._data.timeline import Timeline
from .._optim.loop import Descent
from .covariance import covariances_are_diagonal
from .hidden_gaps import MIN_ENTRIES, hidden_entries, widening_of, without
from .model import Model
from .posterior import VariationalModel
from .seasons import Seasons
from .time_ascent import ascend_in_time
from .time_axis import TimeAxis, timescales_for
from .time_model import TimeModel
from .time_state import TimeData, TimeState
from .time_sweep import sweep
from .timed_entries import TimedEntries

# Sweeps after which columns have forgotten most of what was hidden.
N_SWEEPS_AGAIN = 2


class TimedFit(NamedTuple):
    """What a fit in time needs besides the `Model` of exchangeable rows."""

    begin: Any  # a `Beginning` with rows that are sorted by time
    timeline: Timeline
    weight: float  # of an entry that counted as one
    seasons: Seasons
    axis: TimeAxis

    @classmethod
    def of(cls, begin, timeline: Timeline, weight: float) -> "TimedFit":
        """Choose seasons, and evaluate them at the times of the rows."""
        seasons = Seasons.of(timeline)
        return cls(begin, timeline, weight, seasons, TimeAxis(timeline, seasons))

    def start(self, model: Model, state) -> tuple[TimeData, TimeState]:
        """Data, and a state of exchangeable rows to start from."""
        entries = TimedEntries.of(self.begin.matrix.rows, self.timeline)
        data = TimeData(model, entries, self.axis)
        state = state.rotated()
        W = model.row_means(state).astype(np.float64)
        given = state.astype(np.float64), W, data, timescales_for(self.timeline)
        return data, TimeState.of(*given)

    def ascend(self, model: Model, history, max_iter: int) -> Descent:
        """Go on from the end of a fit of exchangeable rows."""
        descent, history.more_follows = history.descent(), False
        data, start = self.start(model, descent.state)
        ascend_in_time(
            data,
            start,
            history,
            first_value=descent.loss_curve[-1],
            max_iter=max_iter - descent.n_iter,
        )
        return history.descent()

    def widening(self, state, dtype) -> float:
        """Learn how much wider deviations must be; see `hidden_gaps`."""
        rows = self.begin.matrix.rows
        hidden = hidden_entries(rows, self.timeline)
        # No sweep may have been left for rows in time.
        if np.count_nonzero(hidden) < MIN_ENTRIES or not isinstance(state, TimeState):
            return 1.0
        matrix = ObservedMatrix(without(rows, hidden), 0.0)
        model = self.begin._replace(matrix=matrix).model(dtype)
        data = TimeData(model, TimedEntries.of(matrix.rows, self.timeline), self.axis)
        state = replace(state, residual=None)
        for _ in range(N_SWEEPS_AGAIN):
            state, _ = sweep(data, state, learn_columns=True)
        del data
        timeline = self.timeline._replace(order=np.arange(len(self.timeline.order)))
        fitted = self._replace(timeline=timeline).fitted_at(model, state)
        at = rows.row_numbers[hidden], rows.indices[hidden]
        x, variances = fitted.predict(matrix, *at, with_variances=True)
        return widening_of(x - rows.values[hidden], variances)

    def fitted_at(self, model: Model, state) -> TimeModel:
        """Make the fitted model of a state, of exchangeable rows or of rows in time."""
        in_time = isinstance(state, TimeState)
        state = state if in_time else state.rotated()
        base = VariationalModel.of(model, state, self.begin.feature_map, self.weight)
        if in_time:
            fitted = TimeModel.of(base, state, self.seasons, self.axis)
        else:
            W = model.row_means(state)
            fitted = TimeModel.of_exchangeable(base, W, self.axis.has_dates)
        return fitted._replace(timeline=self.timeline)


def refuse_diagonal_covariances(matrix, rank: int, biases):
    """Refuse tables whose full covariances do not fit into memory."""
    if covariances_are_diagonal(matrix, rank, biases):
        raise ValueError(
            "times needs covariances of all factors, which are too large for "
            f"{matrix.shape[1]} columns and rank={rank}; use a smaller rank, or no "
            "times."
        )
