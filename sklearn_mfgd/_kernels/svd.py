"""Leading singular vectors of a matrix that is known by its products."""

import numpy as np

from .linalg import gram_of_rows, product, qr, row_slices

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
    left, right = fix_signs(left, right)
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
    .. [1] G. H. Golub, R. Underwood, "The RowBlock Lanczos Method for Computing
       Eigenvalues", Mathematical Software III (1977).
    """
    if A.shape[0] > A.shape[1]:
        right, singular, left = _lanczos_svd(A.T, rank, dtype)
        return left, singular, right
    m, width = A.shape[0], rank + OVERSAMPLES
    n_blocks = max(min(LARGEST_BASIS // (m * width), MOST_BLOCKS), FEWEST_BLOCKS)
    n_blocks = min(n_blocks, m // width)
    rng = np.random.RandomState(0)  # a place to start from, not a sample
    last, _ = qr(normal_matrix(rng, (m, width), 1.0, dtype))
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
    for part in row_slices(A.shape[0], A.shape[1]):
        gram[:, part] = A @ (A.T @ np.eye(A.shape[0], dtype=dtype)[:, part])
    return gram


def _sketched_svd(A, rank, dtype, rng):
    """Singular triplets of random combinations of columns after a power iteration."""
    basis = product(A, normal_matrix(rng, (A.shape[1], rank + OVERSAMPLES), 1.0, dtype))
    basis = product(A.T, qr(basis)[0])
    basis, _ = qr(product(A, qr(basis)[0]))
    right, small = qr(product(A.T, basis))
    turn, singular, inner = np.linalg.svd(small, full_matrices=False)
    left, right = basis @ inner[:rank].T, right @ turn[:, :rank]
    return left, singular[:rank], right


def fix_signs(left, right):
    """Make the largest entry of each right vector positive: its sign is arbitrary."""
    largest = right[np.abs(right).argmax(axis=0), np.arange(right.shape[1])]
    signs = np.where(largest < 0, -1, 1).astype(right.dtype)
    return left * signs, right * signs


def normal_matrix(rng, shape, size, dtype):
    """Normal numbers of this size, by parts, as Ctrl-C waits for the end of a call."""
    numbers = np.empty(shape, dtype)
    for part in row_slices(*shape):
        numbers[part] = size * rng.standard_normal(numbers[part].shape)
    return numbers
