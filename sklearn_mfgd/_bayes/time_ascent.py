"""Coordinate ascent on the ELBO of rows in time, from the fit of exchangeable rows.

Rows and residuals are learned first and columns late: as long as rows are not smooth
yet, what is slow in the residual looks like a factor.
"""

from .coordinate_ascent import full_step
from .time_state import TimeData, TimeState
from .time_sweep import sweep

# Sweeps in which columns stay as the exchangeable fit has them, and others. More sweeps
# fit columns to chance correlations of slow residuals: their errors of hidden entries
# grow again, above all where whole days of a column are missing.
ROW_SWEEPS, COLUMN_SWEEPS = 1, 3
N_TIME_SWEEPS = ROW_SWEEPS + COLUMN_SWEEPS


def ascend_in_time(data: TimeData, state: TimeState, history, *, first_value, max_iter):
    """Make the sweeps; the history is told of each.

    Where the guess of timescales has a lower ELBO than the exchangeable rows, which is
    `first_value`, a sweep from these is tried, too.
    """
    start = state.with_first_timescales(data.axis)
    # The exchangeable fit does not count what it is worth to have no residual process.
    of_none = state.residuals.with_probabilities().elbo()
    n_sweeps = min(N_TIME_SWEEPS, max_iter)
    for number in range(n_sweeps):
        learns = number >= ROW_SWEEPS
        found, value = sweep(data, start, learn_columns=learns)
        if number == 0 and value - of_none < first_value:
            other, other_value = sweep(data, state, learn_columns=learns)
            if other_value > value:
                found, value = other, other_value
        start, value = found, value - of_none
        history.add(start.W, start.H, value, full_step, number + 1 == n_sweeps, start)
        if history.stopped:
            break
    return start
