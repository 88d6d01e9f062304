"""The parameters of a fit."""

from typing import NamedTuple

import numpy as np


class FitParameters(NamedTuple):
    """The parameters of an estimator that a fit depends on, under the same names."""

    rank: int
    eta: float | str
    solver: str
    reg: float | str
    noise: str
    pattern: bool
    n_draws: int
    non_negative: bool | str
    init: str | tuple[np.ndarray, np.ndarray]  # a pair is in the units of the solvers
    max_iter: int
    tol: float
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int

    @classmethod
    def of(cls, estimator, **replaced):
        """Read the parameters of an estimator, except those that are `replaced`."""
        names = (name for name in cls._fields if name not in replaced)
        return cls(**{name: getattr(estimator, name) for name in names}, **replaced)


def sides_of(non_negative: bool | str) -> tuple[bool, bool]:
    """Whether row factors, and column factors, must not be negative."""
    return non_negative is True, non_negative is not False
