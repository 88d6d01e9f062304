"""Where a descent starts: biases, then factors."""

import numpy as np

from .._data.units import times_power
from .._kernels.linalg import column_norms, inner
from .._kernels.svd import fix_signs, normal_matrix, truncated_svd
from .penalty import Penalty

# The ridge shrinks a singular value to this share at the least. A factor that starts at
# zero would stay there, as its gradients vanish.
MIN_SHRUNK_SHARE = 0.1

N_ROUNDS_OF_MEANS = 10  # settle means that are no part of the model

# The means replace the zeros of missing entries if less than this share of the sum of
# squares is left without them.
MAX_UNEXPLAINED_SHARE = 0.5


def given_factors(
    init, shape, rank, dtype, exponent, non_negative=(False, False)
) -> list[np.ndarray]:
    """Check the factors of ``init=(W0, H0)``; convert them to the units of solvers."""
    if len(init) != 2:
        raise ValueError(
            f"init must be 'svd', 'random' or a pair (W0, H0); got {len(init)} arrays."
        )
    factors, units = [], ("sample", "feature")
    sides = zip(("W0", "H0"), units, init, shape, non_negative, strict=True)
    for name, unit, given, length, constrained in sides:
        given = np.array(given, dtype)
        if given.shape != (length, rank):
            raise ValueError(
                f"init: {name} must have shape {(length, rank)}, one row per {unit} "
                f"and one column per factor; got {given.shape}."
            )
        if not np.isfinite(given).all():
            raise ValueError(f"init: {name} must be finite.")
        if constrained and (given < 0).any():
            i, k = np.argwhere(given < 0)[0]
            raise ValueError(
                f"init: {name} must not be negative with the non_negative of this "
                f"estimator; {name}[{i}, {k}] is {given[i, k]:.3g}."
            )
        # In the units of solvers, fourth powers must be in the range of floats.
        limits, largest = np.finfo(dtype), np.abs(given).max()
        power = np.log2(largest) - exponent if largest > 0 else 0
        if not limits.minexp / 4 < power < limits.maxexp / 5:
            raise ValueError(
                f"init: {name} has values up to {largest:.3g}, which is too far from "
                f"{2.0**exponent:.3g}, the root of the size of X, to compute with."
            )
        factors.append(times_power(given, -exponent))
    return factors


def initial_biases(objective, penalties, n_rounds=3) -> tuple[np.ndarray, np.ndarray]:
    """Row and column biases, (m, 0 or 1), (n, 0 or 1), by alternating ridge means."""
    n, dtype = objective.shape[1], objective.dtype
    b = objective.row_zeros(int(objective.row_bias))
    c = np.zeros((n, int(objective.column_bias)), dtype)
    for _ in range(n_rounds):
        if objective.column_bias:
            c = objective.T.least_squares(b, penalties[1].ridge[-1:])
        if objective.row_bias:
            b = objective.least_squares(c, penalties[0].ridge[-1:])
    return b, c


def random_factors(objective, b, c, rank, weight, rng) -> tuple[np.ndarray, np.ndarray]:
    """Sample Gaussian factors whose product is a quarter of the size of the data.

    The weight is the sum of the weights of the entries.
    """
    # Smaller than the solution: a fixed step that is stable there is so on the way.
    mean_square = 2 * objective.value(b, c) / weight
    size = 0.5 * (mean_square / rank) ** 0.25
    W, H = (normal_matrix(rng, (len(side), rank), size, b.dtype) for side in (b, c))
    return W, H


def svd_factors(objective, b, c, rank, share, shrink, rng=None) -> tuple:
    """Truncated SVD of the data without biases, zero where missing, over `share`.

    The share makes it an unbiased estimate of the complete matrix (Achlioptas &
    McSherry, JACM 2007). Shrinking solves the ridge problem of complete data exactly;
    with missing entries, most of a singular value can be noise, and the product is
    scaled to fit the observed entries best. With `rng` the SVD is that of random
    combinations of columns.
    """
    left, singular, right = truncated_svd(objective.deflate(b, c), rank, b.dtype, rng)
    singular = singular / share
    size = np.sqrt(np.maximum(singular - shrink, MIN_SHRUNK_SHARE * singular))
    scaling = (np.eye(size.size, rank) * size[:, None]).astype(b.dtype)
    W, H = left @ scaling, right @ scaling
    if share < 1:
        # The t >= 0 of least squared error, which is quadratic in t, of t W H' + b + c.
        direction = np.hstack([W, np.zeros_like(b)])  # biases stay as they are
        biases_only, other = np.hstack([np.zeros_like(W), b]), np.hstack([H, c])
        gradient = objective.value_and_gradient(biases_only, other)[1]
        curvature = objective.curvature(direction, other)[:, None]
        curvature, slope = inner(curvature, curvature**0), inner(direction, gradient)
        t = max(-slope / curvature, 0.0) if curvature > 0 else 1.0
        scale = np.sqrt(t).astype(c.dtype)
        W, H = scale * W, scale * H
    return W, H


def factors_from_means(objective, rank, start) -> tuple | list:
    """Start a model without biases from the means of rows and columns, if these fit.

    Where these lie far from zero, an SVD with zeros for missing entries mostly sees
    which are missing, and the way from random factors is long. ``start(objective, b,
    c)`` is applied to what the means leave, and the leading factors of both are kept.
    """
    (m, n), dtype = objective.shape, objective.dtype
    with_means = objective.with_biases()
    no_ridge = Penalty(np.zeros(1), np.ones(1))
    b, c = initial_biases(with_means, (no_ridge, no_ridge), N_ROUNDS_OF_MEANS)
    # Do they explain most of the data, allowing for the degrees of freedom?
    n_observed = objective.n_observed
    largest = MAX_UNEXPLAINED_SHARE * objective.total * (n_observed - m - n + 1)
    if not 2 * with_means.value(b, c) * n_observed < largest:
        return start(objective, objective.row_zeros(0), np.zeros((n, 0), dtype))
    W, H = start(with_means, b, c)
    # W H' + b 1' + 1 c' = [W, b, 1] [H, 1, c]'
    W = np.hstack([W, b, np.ones_like(b)])
    H = np.hstack([H, np.ones_like(c), c])
    # With H = Q R, the right singular vectors of W H' are Q V, those of W R' being V.
    basis, triangle = np.linalg.qr(H.astype(np.float64))
    products = W.astype(np.float64) @ triangle.T
    squares, V = np.linalg.eigh(np.asarray(products.T @ products))
    singular = np.sqrt(np.maximum(squares[::-1][:rank], 0))
    V = V[:, ::-1][:, :rank]
    inverse = np.divide(1, singular, out=np.zeros_like(singular), where=singular > 0)
    vectors = fix_signs(products @ (V * inverse), basis @ V)
    scaling = np.eye(len(singular), rank) * np.sqrt(singular)[:, None]
    return [(vectors_of_side @ scaling).astype(dtype) for vectors_of_side in vectors]


def non_negative_parts(W, H) -> tuple[np.ndarray, np.ndarray]:
    """Non-negative factors from pairs of singular vectors, as many.

    The parts of one sign of a pair are its best non-negative approximation [1]_. Of
    those of both signs the largest products are taken, with parts of the same norm.

    References
    ----------
    .. [1] C. Boutsidis, E. Gallopoulos, "SVD based initialization: A head start for
       nonnegative matrix factorization", Pattern Recognition 41 (2008).
    """
    parts = [np.maximum(np.hstack([F, -F]), 0) for F in (W, H)]
    norms = [column_norms(part) for part in parts]
    sizes = norms[0] * norms[1]
    chosen = np.argsort(-sizes, kind="stable")[: W.shape[1]]
    factors = []
    for part, norm in zip(parts, norms, strict=True):
        scale = np.divide(np.sqrt(sizes), norm, out=np.zeros_like(norm), where=norm > 0)
        factors.append((part * scale)[:, chosen].astype(part.dtype))
    return tuple(factors)
