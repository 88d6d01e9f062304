"""The evidence lower bound (ELBO), and the priors that maximize it."""

from dataclasses import replace

from .model import Model, State
from .side import SweepStatistics


def elbo(model: Model, state: State, statistics: SweepStatistics) -> float:
    """The ELBO after a sweep, up to constants of the priors."""
    return (
        state.noise.elbo(model.counts, statistics.squares)
        + state.row_prior.elbo(statistics.rows)
        + state.column_prior.elbo(statistics.columns)
    )


def maximize_priors(state: State, statistics: SweepStatistics) -> State:
    """The same state with the priors of largest ELBO in its rotation."""
    return replace(
        state,
        row_prior=state.row_prior.update(statistics.rows),
        column_prior=state.column_prior.update(statistics.columns),
    )
