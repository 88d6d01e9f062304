"""Where the descent starts: biases, then factors."""

import numpy as np

from .._data.units import times_power
from .._kernels.svd import fix_signs, normal_matrix, truncated_svd
from .penalty import Penalty

# Shrinking by the ridge would start weak factors at exactly zero, where all gradients
# vanish; they start at this share of their size at least.
LEAST_SHARE = 0.1

# Of means that are no part of the model: no penalty, and rounds until they settle.
NO_RIDGE = Penalty(np.zeros(1), np.ones(1))
N_ROUNDS_OF_MEANS = 10

# They replace the zeros in the holes where they leave less than this of the squares.
MUCH = 0.5


def given_factors(init, shape, rank, dtype, exponent):
    """Check factors to start from, and bring them to the units of the solvers."""
    if len(init) != 2:
        raise ValueError(
            f"init must be 'svd', 'random' or a pair (W0, H0); got {len(init)} arrays."
        )
    factors = []
    for name, given, length in zip(("W0", "H0"), init, shape, strict=True):
        given = np.array(given, dtype)
        if given.shape != (length, rank):
            raise ValueError(
                f"init: {name} must have shape {(length, rank)}, one row per "
                f"{'sample' if name == 'W0' else 'feature'} and one column per factor; "
                f"got {given.shape}."
            )
        if not np.isfinite(given).all():
            raise ValueError(f"init: {name} must be finite.")
        factors.append(_scaled(given, name, exponent))
    return factors


def _scaled(given, name, exponent):
    """Starting factors in the units of the solvers, where fourth powers must fit."""
    info, largest = np.finfo(given.dtype), np.abs(given).max()
    limits = info.minexp / 4, info.maxexp / 5
    if largest > 0 and not limits[0] < np.log2(largest) - exponent < limits[1]:
        raise ValueError(
            f"init: {name} has values up to {largest:.3g}, which is too far from "
            f"{2.0**exponent:.3g}, the root of the size of X, to compute with."
        )
    return times_power(given, -exponent)


def initial_biases(objective, penalties, n_rounds=3):
    """Row and column biases by alternating ridge means.

    This is alternating least squares at rank 0. A missing kind of bias is an array
    without columns.

    Returns
    -------
    row_biases : ndarray of shape (m, 0 or 1)
    column_biases : ndarray of shape (n, 0 or 1)
    """
    (m, n), dtype = objective.shape, objective.dtype
    b = np.zeros((m, int(objective.row_bias)), dtype)
    c = np.zeros((n, int(objective.column_bias)), dtype)
    for _ in range(n_rounds):
        if objective.column_bias:
            c = objective.T.least_squares(b, penalties[1].ridge[-1:])
        if objective.row_bias:
            b = objective.least_squares(c, penalties[0].ridge[-1:])
    return b, c


def random_factors(objective, b, c, rank, weight, rng):
    """Gaussian factors whose product is a quarter of the size of the data.

    Smaller than the solution: a fixed step that is stable there is stable on the way.
    """
    square = 2 * objective.value(b, c) / weight
    size = 0.5 * (square / rank) ** 0.25
    m, n = len(b), len(c)
    return tuple(normal_matrix(rng, (rows, rank), size, b.dtype) for rows in (m, n))


def svd_factors(objective, b, c, rank, share, shrink, rng=None):
    """Truncated SVD of the data without biases, zero in the holes, over `share`.

    Dividing by the observed share makes it an unbiased estimate of the complete matrix
    (Achlioptas & McSherry, JACM 2007). Singular values are shrunk by `shrink`, which
    solves the complete problem exactly. With holes, most of a singular value can be
    noise: the product is scaled to fit the observed entries best. Factors beyond the
    smaller side are zero. With `rng` the SVD is that of random combinations of columns.
    """
    m, n = len(b), len(c)
    A = objective.deflate(b, c)
    left, singular, right = truncated_svd(A, rank, b.dtype, rng)
    singular = singular / share
    size = np.sqrt(np.maximum(singular - shrink, LEAST_SHARE * singular))
    W, H = np.zeros((m, rank), b.dtype), np.zeros((n, rank), c.dtype)
    W[:, : size.size], H[:, : size.size] = left * size, right * size
    if share < 1:
        scale = np.sqrt(_best_scale(objective, W, H, b, c)).astype(b.dtype)
        W, H = scale * W, scale * H
    return W, H


def factors_from_means(objective, rank, start):
    """Start a model without biases from means of rows and columns, if these say much.

    Where rows or columns lie far from zero, an SVD with zeros in the holes sees little
    but the holes, and the way from random factors is long. There the means, and the
    start of what they leave, are factors, of which the leading ones are kept.

    Parameters
    ----------
    objective : ObservedObjective
        Without biases.
    rank : int
    start : callable (objective, b, c) -> W, H
        `svd_factors` or `random_factors`.
    """
    (m, n), dtype = objective.shape, objective.dtype
    means = objective.with_biases()
    b, c = initial_biases(means, (NO_RIDGE, NO_RIDGE), N_ROUNDS_OF_MEANS)
    if not _means_say_much(means, b, c):
        return start(objective, np.zeros((m, 0), dtype), np.zeros((n, 0), dtype))
    W, H = start(means, b, c)
    left = np.column_stack([W, b, np.ones_like(b)])
    right = np.column_stack([H, np.ones_like(c), c])
    return _leading(left, right, rank)


def _means_say_much(objective, b, c):
    """Whether means explain most of the data, beyond what they would of any numbers."""
    n_observed = objective.rows.indices.size
    n_free = n_observed - sum(objective.shape) + 1
    left = 2 * objective.value(b, c)
    return left * n_observed < MUCH * objective.total * n_free


def _leading(W, H, rank):
    """The best factors of this rank of ``W H'``, both of the size of the root."""
    bases, triangles = zip(
        *(np.linalg.qr(F.astype(np.float64)) for F in (W, H)), strict=True
    )
    left, singular, right = np.linalg.svd(triangles[0] @ triangles[1].T)
    n_kept = min(rank, singular.size)
    size = np.sqrt(singular[:n_kept])
    pair = bases[0] @ left[:, :n_kept], bases[1] @ right[:n_kept].T
    found = [np.zeros((len(F), rank), F.dtype) for F in (W, H)]
    for factors, vectors in zip(found, fix_signs(*pair), strict=True):
        factors[:, :n_kept] = vectors * size
    return found


def _best_scale(objective, W, H, b, c):
    """The t of least squared error of ``t W H' + b + c``."""
    along = np.column_stack([W, np.zeros_like(b)])  # the biases stay as they are
    gradient = objective.value_and_gradient(
        np.column_stack([np.zeros_like(W), b]), np.column_stack([H, c])
    )[1]
    curvature = objective.curvature(along, np.column_stack([H, c])).sum()
    slope = np.einsum("ij,ij->", along, gradient, dtype=np.float64)
    return max(-slope / curvature, 0.0) if curvature > 0 else 1.0
