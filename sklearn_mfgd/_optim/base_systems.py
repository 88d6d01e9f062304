"""Rows whose systems are one system, corrected for each of a row's entries.

With the base ``S = L L'``, the regressors g_j and the corrections d_ij, row i solves

    (S + sum_j d_ij g_j g_j') u_i = sum_j t_ij g_j.

In the coordinates of the whitened regressors ``a_j = inv(L) g_j`` the base is the unit
matrix, and ``v_i = L' u_i``. A row with k entries, whose a_j are the rows of A, is
solved in one of three ways:

- few entries, or corrections that are not positive: ``v = A' z`` with the k equations
  ``(1 + D A A') z = t``, which is the identity of Woodbury; at once, for a single one;
- more entries, all with positive corrections: by the kernel of weighted least squares,
  with the a_j for regressors, the d_ij for weights and a ridge of 1;
- corrections that take away almost all of the base, or a base that is singular: by its
  own system, summed up in full.
"""

from typing import NamedTuple

import numpy as np

from .._kernels import dispatch
from .._kernels.linalg import (
    SAFE_EIGENVALUE,
    UNDERFLOW_LIMIT,
    row_slices,
    solve_each,
    solve_shared,
)
from .._kernels.rows import Rows
from .objective import MIN_EIGENVALUE_RATIO

# A row has few entries if they are at most this share of its unknowns.
FEW_SHARE = 0.25

# The share of the base that corrections may take away in any direction. What is left
# keeps most of the digits.
MOST_LOST = 0.9


class Regressors(NamedTuple):
    """Regressors g_j and offsets o_j of all columns, and what rows of zeros need."""

    design: np.ndarray  # (n, q) in the type of the data
    offset: np.ndarray  # (n,) float64
    gram: np.ndarray  # (q, q) float64: sum of g g'
    cross: np.ndarray  # (q,) float64: sum of o g
    square: float  # sum of o^2

    @classmethod
    def of(cls, design, offset):
        """Sum up products of the regressors and of their offsets, in float64."""
        q = design.shape[1]
        if offset.any():
            both = np.column_stack([design, offset])
            sums = both.T @ both
            return cls(design, offset, sums[:q, :q], sums[:q, q], float(sums[q, q]))
        wide = design.astype(np.float64, copy=False)
        return cls(design, offset, wide.T @ wide, np.zeros(q), 0.0)


class BaseSystem(NamedTuple):
    """The system of a row of zeros, its solution, and whitened regressors."""

    system: np.ndarray  # (q, q) float64
    least_eigenvalue: float  # lower bound of the eigenvalues of every row's system
    design: np.ndarray  # (n, q): regressors
    solution: np.ndarray  # (q,) float64
    predictions: np.ndarray | None  # (n,): by that solution; None if all are 0
    whitened: np.ndarray | None  # (n, q) in the type of the data; None if singular
    unwhiten: np.ndarray | None  # (q, q): inv(L)

    @classmethod
    def of(cls, regressors: Regressors, ridge):
        """Make the system of a row whose entries are all zeros of weight 1."""
        design, dtype = regressors.design, regressors.design.dtype
        system = regressors.gram + np.diag(ridge)
        solution, predictions = np.zeros(len(system)), None
        if regressors.square > 0:
            solution = solve_shared(system, -regressors.cross[None], len(design))[0]
            predictions = design @ solution.astype(dtype)
            predictions += regressors.offset.astype(dtype)
        whitened = unwhiten = None
        share = _least_share(system)
        if share > SAFE_EIGENVALUE:
            unwhiten = np.linalg.inv(np.linalg.cholesky(system))
            # A system near to singular magnifies the rounding of single precision.
            wide = np.float64 if share < MIN_EIGENVALUE_RATIO else dtype
            whitened = design.astype(wide, copy=False) @ unwhiten.T.astype(wide)
            whitened = whitened.astype(dtype, copy=False)
        least = ridge.min(initial=np.inf)
        given = system, least, design, solution, predictions
        return cls(*given, whitened, unwhiten)


def solve_corrected(rows: Rows, base: BaseSystem) -> np.ndarray:
    """Solve all rows, whose weights are the corrections d and whose values are the t.

    Returns ``base.solution + u_i``, (m, q) in the type of the values.
    """
    dtype = rows.values.dtype
    if base.whitened is None:
        return _solve_in_full(rows, base).astype(dtype)
    single, few, by_kernel, in_full = _ways(rows, base.whitened)
    unwhiten = base.unwhiten.astype(dtype)
    W = np.zeros((rows.shape[0], len(unwhiten)), dtype)
    W[single] = _solve_single(rows, base.whitened, unwhiten, single)
    for numbers, solve in ((few, _solve_few), (by_kernel, _solve_by_kernel)):
        W[numbers] = solve(rows, base.whitened, numbers) @ unwhiten
    if base.solution.any():
        W += base.solution.astype(dtype)
    if in_full.size:
        W[in_full] = _solve_in_full(rows.take(in_full), base)
    return W


def _ways(rows: Rows, whitened) -> tuple[np.ndarray, ...]:
    """Numbers of rows with a single entry, with few, for the kernel, and in full."""
    (m, q), counts = (rows.shape[0], whitened.shape[1]), np.diff(rows.indptr)
    few, in_full = counts <= max(1, FEW_SHARE * q), np.zeros(m, bool)
    if (rows.weights <= 0).any():
        row_numbers = rows.row_numbers
        loses = np.zeros(m, bool)
        loses[row_numbers[rows.weights <= 0]] = True
        # The a_j bound what an entry takes away: S - g g' >= (1 - a.a) S.
        lost = np.maximum(-rows.weights, 0) * _squares(whitened)[rows.indices]
        in_full = np.bincount(row_numbers, lost, minlength=m) > MOST_LOST
        in_full |= loses & (counts > q)
        few |= loses
    few &= ~in_full & (counts > 0)
    by_kernel = ~few & ~in_full & (counts > 0)
    # What all columns are made ready for pays if there are more rows than columns.
    single = few & (counts == 1)
    single &= np.count_nonzero(single) > len(whitened)
    return tuple(map(np.flatnonzero, (single, few & ~single, by_kernel, in_full)))


def _squares(whitened):
    """Squared length of each row, float64."""
    return np.einsum("ij,ij->i", whitened, whitened, dtype=np.float64)


def _solve_single(rows: Rows, whitened, unwhiten, numbers):
    """Solve rows with a single entry: multiples of the vector ``inv(S) g_j``."""
    if numbers.size == 0:
        return 0
    places = rows.indptr[numbers]
    columns, corrections = rows.indices[places], rows.weights[places]
    z = rows.values[places] / (1 + corrections * _squares(whitened)[columns])
    solution = (whitened @ unwhiten)[columns]
    solution *= z.astype(whitened.dtype)[:, None]
    return solution


def _solve_few(rows: Rows, whitened, numbers):
    """Solve rows with few entries, those with the same number of them together."""
    V = np.empty((len(numbers), whitened.shape[1]), whitened.dtype)
    counts = np.diff(rows.indptr)[numbers]
    for count in np.unique(counts):
        chosen = np.flatnonzero(counts == count)
        for block in row_slices(len(chosen), count * whitened.shape[1]):
            starts = rows.indptr[numbers[chosen[block]]]
            places = starts[:, None] + np.arange(count)
            A = whitened[rows.indices[places]]
            products = (A @ A.transpose(0, 2, 1)).astype(np.float64, copy=False)
            equations = rows.weights[places][..., None] * products
            equations[:, range(count), range(count)] += 1
            targets = rows.values[places][..., None].astype(np.float64, copy=False)
            z = np.linalg.solve(equations, targets).astype(A.dtype, copy=False)
            V[chosen[block]] = (z.transpose(0, 2, 1) @ A)[:, 0]
    return V


def _solve_by_kernel(rows: Rows, whitened, numbers):
    """Solve rows by weighted least squares with a ridge of 1."""
    chosen = rows.take(numbers)
    chosen = chosen._replace(values=chosen.values / chosen.weights)
    ridge = np.ones(whitened.shape[1])
    return dispatch.least_squares(chosen, whitened, (False, False), ridge)


def _solve_in_full(rows: Rows, base: BaseSystem) -> np.ndarray:
    """Solve rows by their own systems, float64, with minimum norm where singular."""
    q = len(base.system)
    solution = np.empty((rows.shape[0], q))
    for block in row_slices(rows.shape[0], q * q):
        start, stop = block.start, min(block.stop, rows.shape[0])
        systems = np.repeat(base.system[None], stop - start, axis=0)
        targets = np.empty((stop - start, q))
        for k, i in enumerate(range(start, stop)):
            entries = slice(rows.indptr[i], rows.indptr[i + 1])
            G = base.design[rows.indices[entries]].astype(np.float64, copy=False)
            systems[k] += (rows.weights[entries, None] * G).T @ G
            targets[k] = rows.values[entries] @ G
        targets += systems @ base.solution
        n_terms, least = len(base.design), base.least_eigenvalue
        solution[block] = solve_each(systems, targets, n_terms, least)
    return solution


def _least_share(system) -> float:
    """Smallest eigenvalue as a share of the largest; NaN where numbers overflowed."""
    if not np.isfinite(system).all():
        return np.nan
    eigenvalues = np.linalg.eigvalsh(system)
    return eigenvalues[0] / max(eigenvalues[-1], UNDERFLOW_LIMIT) if len(system) else 1
