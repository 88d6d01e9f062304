r"""Weights of the members of a stack, from their errors at hidden entries.

The errors are an array (n_hidden, k), in standard deviations of the columns, and an
error of the stack is a weighted mean of those of its k members. The weights of column j
minimize, over the simplex,

.. math:: w' (E_j + \lambda E) w

where E_j is the sum of e e' over the hidden entries of the column, and E the mean over
all hidden entries: the table counts as λ entries of each column. With an infinite λ all
columns have the weights of the table.
"""

from typing import NamedTuple

import numpy as np

# How many entries of a column the table may count as. The first of two that are equally
# good is chosen.
SHRINKAGES = (np.inf, 1000.0, 500.0, 200.0, 100.0, 50.0, 20.0)

# Into how many parts hidden entries are divided to judge weights by entries that these
# were not made from.
N_PARTS = 5

# Share of its diagonal that is added to a matrix of squared errors, so that members
# which are equal have equal weights; and the least diagonal, as a share of the largest.
RIDGE, LEAST_DIAGONAL = 1e-9, 1e-20

# Rounds of reweighting for absolute errors: of weights that are kept and those of the
# table, and of weights of columns that tell which λ is good.
N_ROUNDS, N_ROUNDS_OF_PARTS = 100, 5

# Share of the mean absolute error below which an error counts as that large: its weight
# would be infinite.
LEAST_ERROR = 1e-3

# The variance of standardized errors is at least this, that of a perfect stack, too.
LEAST_VARIANCE = 1e-12


class HiddenErrors(NamedTuple):
    """Errors of the members at hidden entries, and the columns of these."""

    values: np.ndarray  # (n_hidden, k), in deviations of the columns
    columns: np.ndarray  # (n_hidden,)
    n_columns: int
    parts: np.ndarray  # (n_hidden,), see `parts_of`

    def take(self, chosen: np.ndarray) -> "HiddenErrors":
        """Return those of some of the entries."""
        return self._replace(
            values=self.values[chosen],
            columns=self.columns[chosen],
            parts=self.parts[chosen],
        )


class StackWeights(NamedTuple):
    """Weights of members, and what the stack does at entries that they did not see."""

    weights: np.ndarray  # (k, n_columns)
    shrinkage: float  # λ
    errors: np.ndarray  # (n_hidden,), each by weights from the other parts


def stack_weights(
    errors: HiddenErrors, shrinkage: float | None, *, absolute: bool
) -> StackWeights:
    """Find the weights of every column, and λ if it is None.

    Minimized are squared errors or `absolute` ones.
    """
    candidates = SHRINKAGES if shrinkage is None else (shrinkage,)
    parts = errors.parts
    left_out = np.empty((len(candidates), len(parts)))
    for part in np.unique(parts):
        hidden = parts == part
        n_rounds = N_ROUNDS_OF_PARTS if absolute else 1
        weights = weights_of_columns(errors.take(~hidden), candidates, n_rounds)
        left_out[:, hidden] = stacked(weights, errors.take(hidden))
    losses = np.abs(left_out) if absolute else np.square(left_out)
    best = int(np.argmin(losses.mean(axis=1)))
    chosen = candidates[best]
    n_rounds = N_ROUNDS if absolute else 1
    weights = weights_of_columns(errors, (chosen,), n_rounds)[0]
    return StackWeights(weights.T, chosen, left_out[best])


def parts_of(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Assign entries to parts: those of a column to all parts in turn, by their rows.

    An entry that is hidden more than once is always in the same part, as weights would
    have seen it otherwise. Columns start with different parts, so that those with a
    single entry are not all in one.
    """
    entries = np.column_stack([columns, rows])
    entries, numbers = np.unique(entries, axis=0, return_inverse=True)
    in_order, numbers = entries[:, 0], numbers.reshape(-1)
    places = np.arange(len(in_order)) - np.searchsorted(in_order, in_order)
    return ((places + in_order) % N_PARTS)[numbers]


def stacked(weights: np.ndarray, errors: HiddenErrors) -> np.ndarray:
    """Errors of stacks with weights of shape (..., n_columns, k)."""
    return np.einsum("...ik,ik->...i", weights[..., errors.columns, :], errors.values)


def weights_of_columns(errors: HiddenErrors, shrinkages, n_rounds: int) -> np.ndarray:
    """Find the weights for several λ: an array (n_shrinkages, n_columns, k).

    In one round squares are minimized; in several, reweighted, absolute errors. E is
    then that of the last round for the table.
    """
    absolute = n_rounds > 1
    table, of_table = _weights_of_table(errors.values, N_ROUNDS if absolute else 1)
    shape = (errors.n_columns, len(table))
    importance = np.ones(len(errors.columns))
    if absolute:
        importance = _importance(errors.values @ of_table)
    found = np.empty((len(shrinkages), *shape))
    for weights, shrinkage in zip(found, shrinkages, strict=True):
        weights[:] = of_table
        if np.isinf(shrinkage):
            continue
        reweighted = importance
        for _ in range(n_rounds):
            moments = _moments_of_columns(errors, reweighted) + shrinkage * table
            unknown = ~moments.any(axis=(1, 2))  # no entry, and λ is zero
            weights[:] = np.where(unknown[:, None], of_table, simplex_weights(moments))
            if absolute:
                reweighted = _importance(stacked(weights, errors))
    return found


def _weights_of_table(values: np.ndarray, n_rounds: int):
    """Find E and the weights that minimize w' E w; reweighted if there are rounds."""
    importance = np.ones(len(values))
    for _ in range(n_rounds):
        moments = (values * importance[:, None]).T @ values / max(1, len(values))
        weights = simplex_weights(moments[None])[0]
        importance = _importance(values @ weights)
    return moments, weights


def _importance(errors: np.ndarray) -> np.ndarray:
    """Weights with which squared errors are, to first order, absolute ones."""
    absolute = np.abs(errors)
    least = LEAST_ERROR * absolute.mean() if len(absolute) else 0
    return 1 / np.maximum(absolute, least or 1.0)


def _moments_of_columns(errors: HiddenErrors, importance: np.ndarray) -> np.ndarray:
    """Sum e e' over the entries of each column: an array (n_columns, k, k)."""
    values, columns, n_columns, _ = errors
    k = values.shape[1]
    moments = np.empty((n_columns, k, k))
    for a in range(k):
        scaled = importance * values[:, a]
        for b in range(a + 1):
            sums = np.bincount(columns, scaled * values[:, b], minlength=n_columns)
            moments[:, a, b] = moments[:, b, a] = sums
    return moments


def simplex_weights(moments: np.ndarray) -> np.ndarray:
    """Minimize w' E w over the simplex, exactly, for every E of shape (..., k, k).

    With w = z / sum(z) these are the z ≥ 0 with E z ≥ 1 and equality where z > 0.
    """
    diagonals = np.diagonal(moments, axis1=-2, axis2=-1)
    largest = diagonals.max(axis=-1, keepdims=True)
    diagonals = np.maximum(diagonals, LEAST_DIAGONAL * largest)
    roots = np.sqrt(np.where(largest > 0, diagonals, 1))
    scaled = moments / (roots[..., :, None] * roots[..., None, :])
    scaled += RIDGE * np.eye(moments.shape[-1])
    least = (roots.min(axis=-1, keepdims=True) / roots).astype(np.float64)
    solution = np.maximum(_complementary(scaled, least), 0) / roots
    # Of sizes that can be summed whatever the units of the errors.
    solution /= solution.max(axis=-1, keepdims=True)
    return solution / solution.sum(axis=-1, keepdims=True)


def _complementary(matrices: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Find the z ≥ 0 with C z ≥ b, and equality where z > 0, by Murty's pivoting.

    Whether each z is zero is changed one at a time, the last wrong one first. For
    positive definite matrices this comes to an end at the one solution.
    """
    n, k = bounds.shape
    identity, tolerance = np.eye(k, dtype=bool), 1e-12 * bounds
    solution, free = np.zeros((n, k)), np.ones((n, k), bool)
    open_ = np.arange(n)
    # Two values that are equal but for rounding could be changed in turn forever.
    for _ in range(min(2**k, 20 * k)):
        C, b, is_free = matrices[open_], bounds[open_], free[open_]
        both = is_free[:, :, None] & is_free[:, None, :]
        z = np.linalg.solve(
            np.where(both, C, identity), np.where(is_free, b, 0)[:, :, None]
        )
        slack = (C @ z)[:, :, 0] - b
        solution[open_] = z[:, :, 0]
        wrong = np.where(is_free, z[:, :, 0] < 0, slack < -tolerance[open_])
        open_, wrong = open_[wrong.any(axis=1)], wrong[wrong.any(axis=1)]
        if not len(open_):
            break
        last = k - 1 - np.argmax(wrong[:, ::-1], axis=1)
        free[open_, last] ^= True
    return solution


def deviation_factors(squares: np.ndarray, errors: HiddenErrors) -> np.ndarray:
    """Factors of deviations that make squared standardized errors average to one.

    `squares` are those of the stack at hidden entries. The factor of a column is shrunk
    to the table's by as many entries as predict, in the likelihood, the parts left out.
    """
    _, columns, n_columns, parts = errors
    losses = np.zeros(len(SHRINKAGES))
    for part in np.unique(parts):
        hidden = parts == part
        if hidden.all():
            continue
        variances = _variances(
            squares[~hidden], columns[~hidden], n_columns, SHRINKAGES
        )
        at_hidden = variances[:, columns[hidden]]
        losses += (np.log(at_hidden) + squares[hidden] / at_hidden).sum(axis=1)
    chosen = SHRINKAGES[int(np.argmin(losses))]
    return np.sqrt(_variances(squares, columns, n_columns, (chosen,))[0])


def _variances(squares, columns, n_columns, shrinkages) -> np.ndarray:
    """Mean squares of columns, each with entries of the table's mean square."""
    of_table = max(squares.mean(), LEAST_VARIANCE)
    counts = np.bincount(columns, minlength=n_columns)
    sums = np.bincount(columns, squares, minlength=n_columns)
    variances = np.full((len(shrinkages), n_columns), of_table)
    for variance, shrinkage in zip(variances, shrinkages, strict=True):
        if np.isfinite(shrinkage):
            variance[:] = (sums + shrinkage * of_table) / (counts + shrinkage)
    return np.maximum(variances, LEAST_VARIANCE)
