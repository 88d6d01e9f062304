"""Where the descent starts: biases, then factors."""

import numpy as np

from ._linalg import blocks, gram_of_rows, product, qr
from ._model import Side, times_power

# Directions that the randomized SVD carries beyond the rank (Halko, Martinsson & Tropp,
# SIAM Review 2011).
OVERSAMPLES = 10

# A side of at most this many times that width is decomposed by its whole Gram matrix:
# that costs fewer operations.
GRAM_WIDTHS = 16

# Where the Lanczos method ends: in double precision near rounding, as what depends on
# its start depends on the order of rows and columns. Its blocks, and their numbers.
TOLERANCE = {np.dtype(np.float64): 1e-11, np.dtype(np.float32): 1e-3}
FEWEST_BLOCKS, MOST_BLOCKS, LARGEST_BASIS = 4, 24, 2**22

# Shrinking by the ridge would start weak factors at exactly zero, where all gradients
# vanish; they start at this share of their size at least.
LEAST_SHARE = 0.1

# Of means that are no part of the model: no penalty, and rounds until they settle.
NO_RIDGE = Side(np.zeros(1), np.ones(1))
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


def initial_biases(objective, sides, n_rounds=3):
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
            c = objective.T.least_squares(b, sides[1].ridge[-1:])
        if objective.row_bias:
            b = objective.least_squares(c, sides[0].ridge[-1:])
    return b, c


def random_factors(objective, b, c, rank, weight, rng):
    """Gaussian factors whose product is a quarter of the size of the data.

    Smaller than the solution: a fixed step that is stable there is stable on the way.
    """
    square = 2 * objective.value(b, c) / weight
    size = 0.5 * (square / rank) ** 0.25
    m, n = len(b), len(c)
    return tuple(_normal(rng, (rows, rank), size, b.dtype) for rows in (m, n))


def _normal(rng, shape, size, dtype):
    """Normal numbers of this size, by parts, as Ctrl-C waits for the end of a call."""
    numbers = np.empty(shape, dtype)
    for part in blocks(*shape):
        numbers[part] = size * rng.standard_normal(numbers[part].shape)
    return numbers


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
    for factors, vectors in zip(found, _fix_signs(*pair), strict=True):
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


def truncated_svd(A, rank, dtype, rng=None):
    """Leading singular triplets, `rank` or the smaller side of A.

    Parameters
    ----------
    A : ndarray, or what can be multiplied and has T and shape
    rank : int
    dtype : dtype
    rng : RandomState or None
        Of a rough sketch; without, they are exact.

    Returns
    -------
    left, singular, right
        Right vectors have a positive entry where they are largest.
    """
    small = min(A.shape)
    if rng is not None:
        left, singular, right = _sketched_svd(A, min(rank, small), dtype, rng)
    elif small <= max(rank, GRAM_WIDTHS * (rank + OVERSAMPLES)):
        left, singular, right = _exact_svd(A, min(rank, small), dtype)
    else:
        left, singular, right = _lanczos_svd(A, rank, np.dtype(dtype))
    left, right = _fix_signs(left, right)
    return left, singular, right


def _exact_svd(A, rank, dtype):
    """Leading singular triplets by the eigenvectors of the smaller Gram matrix."""
    if A.shape[0] > A.shape[1]:
        right, singular, left = _exact_svd(A.T, rank, dtype)
        return left, singular, right
    _, vectors = np.linalg.eigh(_gram(A, dtype))
    return _from_left(A, vectors[:, ::-1][:, :rank].astype(dtype))


def _lanczos_svd(A, rank, dtype):
    """Leading singular triplets by the block Lanczos method [1]_.

    It ends where the residuals of the wanted eigenvectors of ``A @ A.T`` are small, or
    where the basis has grown large: of singular values that are as good as equal no
    vector is better than another.

    References
    ----------
    .. [1] G. H. Golub, R. Underwood, "The Block Lanczos Method for Computing
       Eigenvalues", Mathematical Software III (1977).
    """
    if A.shape[0] > A.shape[1]:
        right, singular, left = _lanczos_svd(A.T, rank, dtype)
        return left, singular, right
    m, width = A.shape[0], rank + OVERSAMPLES
    n_blocks = max(min(LARGEST_BASIS // (m * width), MOST_BLOCKS), FEWEST_BLOCKS)
    n_blocks = min(n_blocks, m // width)
    rng = np.random.RandomState(0)  # a place to start from, not a sample
    last, _ = qr(_normal(rng, (m, width), 1.0, dtype))
    whole, projection = np.empty((m, n_blocks * width), dtype), np.zeros((0, 0))
    for k in range(1, n_blocks + 1):
        whole[:, (k - 1) * width : k * width] = last
        basis = whole[:, : k * width]
        ahead = product(A, product(A.T, last))
        within = basis.T @ ahead
        ahead -= basis @ within
        ahead -= basis @ (basis.T @ ahead)  # once more, for what rounding left
        projection = np.pad(projection, (0, width))
        projection[:, -width:] = within
        projection[-width:] = within.T
        last, rest = qr(ahead)
        if k % FEWEST_BLOCKS == 0 or k == n_blocks:
            sizes, vectors = np.linalg.eigh(projection)
            vectors = vectors[:, ::-1][:, :rank]
            residuals = np.linalg.norm(rest @ vectors[-width:], axis=0)
            if residuals.max() <= TOLERANCE[dtype] * sizes[-1] or k == n_blocks:
                break
    return _from_left(A, basis @ vectors.astype(dtype))


def _from_left(A, left):
    """Singular triplets of which the left vectors are known."""
    dtype = left.dtype
    right = product(A.T, left)
    singular = np.linalg.norm(right, axis=0)
    nonzero = singular > np.sqrt(max(A.shape) * np.finfo(dtype).eps) * singular.max(
        initial=0
    )
    right = np.divide(right, singular, out=np.zeros_like(right), where=nonzero)
    return left, np.where(nonzero, singular, 0), right


def _gram(A, dtype):
    """Multiply A with its transpose, without writing out an A that is no array."""
    if isinstance(A, np.ndarray):
        return gram_of_rows(A)
    gram = np.empty((A.shape[0],) * 2)
    for part in blocks(A.shape[0], A.shape[1]):
        gram[:, part] = A @ (A.T @ np.eye(A.shape[0], dtype=dtype)[:, part])
    return gram


def _sketched_svd(A, rank, dtype, rng):
    """Singular triplets of random combinations of columns after a power iteration."""
    basis = product(A, _normal(rng, (A.shape[1], rank + OVERSAMPLES), 1.0, dtype))
    basis = product(A.T, qr(basis)[0])
    basis, _ = qr(product(A, qr(basis)[0]))
    right, small = qr(product(A.T, basis))
    turn, singular, inner = np.linalg.svd(small, full_matrices=False)
    left, right = basis @ inner[:rank].T, right @ turn[:, :rank]
    return left, singular[:rank], right


def _fix_signs(left, right):
    """Make the largest entry of each right vector positive: its sign is arbitrary."""
    largest = right[np.abs(right).argmax(axis=0), np.arange(right.shape[1])]
    signs = np.where(largest < 0, -1, 1).astype(right.dtype)
    return left * signs, right * signs
