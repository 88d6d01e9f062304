"""Least squares of many rows at once, in NumPy.

Everything here works in float64 whatever the data: a Gram matrix summed in
float32 cannot tell a singular row from one that is merely ill-conditioned.
"""

from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController

# Numbers of float64 that a block of work arrays may hold (about 4 MB).
BLOCK = 500_000

# A row whose eigenvalues are all above this share of its largest diagonal entry is
# solved as it stands; below, they are looked at one by one. The value settles who does
# the work, not the answer.
SAFE = 1e-10

# A system without any larger entry says nothing about its row: the products in it have
# underflowed, or soon would.
NOTHING = 1e-200


def solve_shared(system, targets, n_terms):
    """Solve ``w_i @ system = targets_i`` for every row i, all with one system.

    Parameters
    ----------
    system : ndarray of shape (r, r)
        Symmetric positive semi-definite.
    targets : ndarray of shape (n_rows, r)
    n_terms : int
        How many products were summed into `system`: what rounding can reach.

    Returns
    -------
    solution : ndarray of shape (n_rows, r), float64
        The solution of minimum norm where the system is singular.
    """
    eigenvalues, vectors = np.linalg.eigh(system)
    inverse = _inverse_or_zero(eigenvalues, n_terms)
    return ((targets @ vectors) * inverse) @ vectors.T


def solve_each(systems, targets, n_terms, least=0.0):
    """Solve ``systems_i @ w_i = targets_i``, each row with a system of its own.

    Parameters and result are those of `solve_shared`, with `systems` of shape
    (n_rows, r, r); `least` is a known lower bound of all eigenvalues.
    """
    solution = np.empty_like(targets)
    definite = _safely_definite(systems, least)
    if definite.any():
        solved = np.linalg.solve(systems[definite], targets[definite][..., None])
        solution[definite] = solved[..., 0]
    if not definite.all():
        eigenvalues, vectors = np.linalg.eigh(systems[~definite])
        inverse = _inverse_or_zero(eigenvalues, n_terms)
        coordinates = np.einsum("kji,kj->ki", vectors, targets[~definite])
        solution[~definite] = np.einsum("kij,kj->ki", vectors, coordinates * inverse)
    return solution


def masked_systems(mask, design):
    """Sum ``design_j design_j.T`` over the observed columns j of every row.

    The products of all pairs of factors are laid out as columns, so that one matrix
    product does the sums of all rows.

    Parameters
    ----------
    mask : bool ndarray of shape (n_rows, n_columns)
    design : float64 ndarray of shape (n_columns, r)

    Returns
    -------
    systems : ndarray of shape (n_rows, r, r), float64
    """
    rank = design.shape[1]
    upper = np.triu_indices(rank)
    packed = np.zeros((mask.shape[0], upper[0].size))
    for columns in blocks(mask.shape[1], mask.shape[0] + upper[0].size):
        part = design[columns]
        packed += mask[:, columns].astype(np.float64) @ (
            part[:, upper[0]] * part[:, upper[1]]
        )
    position = np.empty((rank, rank), np.intp)
    position[upper] = position[upper[::-1]] = np.arange(upper[0].size)
    return packed[:, position]


def masked_least_squares(values, mask, design, offset, ridge):
    """Minimize ``sum_j mask_ij (values_ij - offset_j - w_i.design_j)^2 + ridge.w_i^2``.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_columns)
        Zero where not observed.
    mask : bool ndarray of shape (n_rows, n_columns)
    design : ndarray of shape (n_columns, r)
    offset : ndarray of shape (n_columns,) or None
    ridge : ndarray of shape (r,)
        Penalty of each coefficient.

    Returns
    -------
    solution : ndarray of shape (n_rows, r), dtype of `values`
        The solution of minimum norm where a row's system is singular; zeros for a
        row with nothing observed.
    """
    design = design.astype(np.float64, copy=False)
    rank = design.shape[1]
    solution = np.empty((values.shape[0], rank), values.dtype)
    with one_blas_thread():
        for rows in blocks(values.shape[0], values.shape[1] + 4 * rank**2):
            targets = values[rows].astype(np.float64) @ design
            if offset is not None:
                targets -= mask[rows].astype(np.float64) @ (offset[:, None] * design)
            systems = masked_systems(mask[rows], design)
            systems += np.diag(ridge)
            least = ridge.min()
            solution[rows] = solve_each(systems, targets, values.shape[1], least)
    return solution


def one_blas_thread():
    """Context in which BLAS runs on one thread.

    Products of this size gain little from a second one, wait long for it where another
    process holds its core, and give the same bits for any number of threads so.
    """
    return _blas().limit(limits=1, user_api="blas")


@cache
def _blas():
    return ThreadpoolController()


def entry_products(W, H, rows, columns):
    """Multiply ``W[rows[k]] . H[columns[k]]`` for every k, in blocks."""
    products = np.empty(len(rows), np.result_type(W, H))
    for part in blocks(len(rows), W.shape[1]):
        products[part] = np.einsum("ij,ij->i", W[rows[part]], H[columns[part]])
    return products


def blocks(length, width):
    """Slices of ``range(length)``, each with about `BLOCK` numbers `width` a step."""
    step = max(1, BLOCK // max(1, width))
    return [slice(start, start + step) for start in range(0, length, step)]


def _safely_definite(systems, least):
    """Tell the rows whose eigenvalues all stay well above rounding.

    The trace of an inverse is at least the inverse of the smallest eigenvalue; a small
    known shift keeps the inversion from failing on singular rows.
    """
    largest = np.diagonal(systems, axis1=1, axis2=2).max(axis=1)
    shift = np.where(largest > NOTHING, SAFE * largest, 1.0)
    if least > 10 * shift.max():
        return np.ones(len(systems), bool)
    inverse = np.linalg.inv(systems + shift[:, None, None] * np.eye(systems.shape[-1]))
    return np.trace(inverse, axis1=1, axis2=2) * shift < 0.1


def _inverse_or_zero(eigenvalues, n_terms):
    """Invert the eigenvalues that are not rounding, zero for the others."""
    eps = np.finfo(np.float64).eps
    share = max(n_terms, eigenvalues.shape[-1]) * eps
    kept = eigenvalues > np.maximum(share * eigenvalues[..., -1:], NOTHING)
    return np.divide(1.0, eigenvalues, out=np.zeros_like(eigenvalues), where=kept)
