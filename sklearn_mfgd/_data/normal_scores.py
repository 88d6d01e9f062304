"""Normal scores: a monotone map of each column, learned from its observed values."""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

# Nodes and weights of the expectation over a standard normal variable.
N_NODES = 15
NODES, NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(N_NODES)
NODE_WEIGHTS = NODE_WEIGHTS / NODE_WEIGHTS.sum()

# The least share of a column that has a finite score.
SMALLEST = np.finfo(np.float64).tiny


class NormalScores(NamedTuple):
    """The distinct values of each column and their scores, both ascending.

    The score of a value is the quantile of the standard normal distribution at the
    middle of its share of the column [1]_, so equal values have equal scores. Between
    values the map is linear, and beyond the least and the largest it stays there: no
    score stands for a value outside the observed range.

    References
    ----------
    .. [1] B. L. van der Waerden, "Order tests for the two-sample problem and their
       power", Indagationes Mathematicae 14 (1952).
    """

    values: np.ndarray  # of one column after the other, divided by 2**exponent
    scores: np.ndarray  # of these values
    starts: np.ndarray  # (n + 1,), where columns begin in `values`
    exponent: np.ndarray  # (n,), int

    @classmethod
    def of(cls, X: np.ndarray, missing: np.ndarray, weights=None):
        """Learn the map of each column; weights of entries are zero where missing."""
        n = X.shape[1]
        values, scores, exponent = [], [], np.zeros(n, int)
        for j in range(n):
            observed = ~missing[:, j]
            column = X[observed, j].astype(np.float64)
            exponent[j] = np.frexp(np.abs(column).max(initial=0))[1]
            column = np.ldexp(column, -exponent[j])
            distinct, place = np.unique(column, return_inverse=True)
            share = np.bincount(
                place,
                None if weights is None else weights[observed, j],
                minlength=len(distinct),
            )
            values.append(distinct)
            scores.append(_scores_of_shares(share))
        starts = np.cumsum([0, *map(len, values)])
        return cls(np.concatenate(values), np.concatenate(scores), starts, exponent)

    def apply(self, X: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """Scores of a table in its type, NaN where missing."""
        scores = np.full(X.shape, np.nan, X.dtype)
        for j in range(X.shape[1]):
            observed = ~missing[:, j]
            column, (values, of_values) = X[observed, j], self._map(j)
            if len(values):
                scaled = self._scaled(column, j)
                scores[observed, j] = np.interp(scaled, values, of_values)
        return scores

    def apply_to(self, values: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Scores of limits; infinite beyond the observed range, which needs none."""
        result = np.empty(len(columns))
        for j, places in by_column(columns):
            known, scores = self._map(j)
            scaled = self._scaled(values[places], j)
            result[places] = np.interp(scaled, known, scores, -np.inf, np.inf)
        return result

    def undo(self, scores: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the values of scores; their last axis runs over entries of columns."""
        result = np.empty(scores.shape)
        for j, places in by_column(columns):
            values, known = self._map(j)
            if len(values):
                found = np.interp(scores[..., places], known, values)
                result[..., places] = np.ldexp(found, self.exponent[j])
            else:
                result[..., places] = 0.0
        return result

    def moments(self, mean, deviation, columns) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of values whose scores are normal.

        An unknown deviation, which is infinite, is that of a score before any data.
        """
        finite = np.where(np.isfinite(deviation), deviation, 1.0)
        scale = self.exponent[columns]
        # From the median on: far from zero, squares of values would cancel.
        median = np.ldexp(self.undo(mean, columns), -scale)
        first, second = np.zeros((2, len(columns)))
        for node, weight in zip(NODES, NODE_WEIGHTS, strict=True):
            values = np.ldexp(self.undo(mean + node * finite, columns), -scale)
            first += weight * (values - median)
            second += weight * np.square(values - median)
        variance = np.maximum(second - np.square(first), 0)
        std = np.where(np.isfinite(deviation), np.sqrt(variance), np.inf)
        return np.ldexp(median + first, scale), np.ldexp(std, scale)

    def ranges(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and largest value of each column, infinite for an empty one."""
        low, high = np.full((2, len(self.exponent)), np.inf)
        low *= -1
        for j in np.flatnonzero(np.diff(self.starts)):
            ends = self._map(j)[0][[0, -1]]
            low[j], high[j] = np.ldexp(ends, self.exponent[j])
        return low, high

    def _map(self, j):
        part = slice(self.starts[j], self.starts[j + 1])
        return self.values[part], self.scores[part]

    def _scaled(self, values, j):
        """Values in the units of the map, infinite where they are too large for it."""
        with np.errstate(over="ignore"):
            return np.ldexp(values.astype(np.float64), -self.exponent[j])


def _scores_of_shares(share: np.ndarray) -> np.ndarray:
    """Return the scores of ascending values that have these shares of a column.

    Each comes from the nearer tail, so that the least share of the largest value
    does not vanish beside one, and scores of negated values are negated.
    """
    below = np.cumsum(share) - share / 2
    above = np.cumsum(share[::-1])[::-1] - share / 2
    tail = np.minimum(below, above) / share.sum() if len(share) else share
    return np.where(below <= above, 1.0, -1.0) * ndtri(np.clip(tail, SMALLEST, 0.5))


def by_column(columns: np.ndarray):
    """Yield each column that occurs in an array, and the places where it does."""
    if not len(columns):
        return
    order = np.argsort(columns, kind="stable")
    numbers, firsts = np.unique(columns[order], return_index=True)
    yield from zip(numbers, np.split(order, firsts[1:]), strict=True)
