"""Leading singular vectors of a matrix that is known by its products."""

import numpy as np

from .linalg import BLOCK, column_norms, gram_of_rows, product, qr, row_slices

# Directions that the randomized SVD carries beyond the rank (Halko, Martinsson & Tropp,
# SIAM Review 2011).
OVERSAMPLES = 10

# A side of at most this many times that width is decomposed by its whole Gram matrix:
# that costs fewer operations.
GRAM_WIDTHS = 8

# Columns of that matrix that are computed at a time, at least.
GRAM_COLUMNS = 32

# Relative residual at which the Lanczos method ends. Where its start depends on the
# order of rows, it ends near rounding, as far as the precision goes.
TOLERANCE = 1e-3
TIGHT_TOLERANCE = {np.dtype(np.float64): 1e-11, np.dtype(np.float32): TOLERANCE}

# Numbers of blocks of its basis, and of numbers in it. From the fewest on it is tested
# after every few blocks whether they will do.
FEWEST_BLOCKS, MOST_BLOCKS, LARGEST_BASIS = 4, 24, 2**22
BLOCKS_PER_TEST = 2

# Rows are taken for equal if their numbers differ by less than this share of the
# largest number.
SAME = 1e-12

# Of sums of a matrix, less than this share of those with random numbers is rounding.
MIN_SUM = 1e-6


def truncated_svd(A, rank, dtype, rng=None):
    """Leading singular triplets: left vectors, singular values, right vectors.

    A is an array, or anything that can be multiplied and has ``T`` and ``shape``. There
    are `rank` triplets, or as many as the smaller side of A. With a RandomState `rng`
    they come from a random sketch, else they are exact. The largest entry of each right
    vector is positive.
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

    It starts from random combinations of columns, and ends where the residuals of
    the wanted eigenvectors of ``A @ A.T`` are small, or where the basis has grown
    large: of singular values that are as good as equal no vector is better than
    another.

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
    block, tolerance = _first_block(A, width, dtype)
    memory, projection = np.empty((m, n_blocks * width), dtype), np.zeros((0, 0))
    for k in range(1, n_blocks + 1):
        memory[:, (k - 1) * width : k * width] = block
        basis = memory[:, : k * width]
        product_of_block = product(A, product(A.T, block))
        coordinates = basis.T @ product_of_block
        product_of_block -= basis @ coordinates
        # Once more, for what rounding left.
        product_of_block -= basis @ (basis.T @ product_of_block)
        # projection = basis' A A' basis
        projection = np.pad(projection, (0, width))
        projection[:, -width:] = coordinates
        projection[-width:] = coordinates.T
        block, remainder = qr(product_of_block)
        if (k >= FEWEST_BLOCKS and k % BLOCKS_PER_TEST == 0) or k == n_blocks:
            eigenvalues, vectors = np.linalg.eigh(projection)
            vectors = vectors[:, ::-1][:, :rank]
            residuals = np.linalg.norm(remainder @ vectors[-width:], axis=0)
            if residuals.max() <= tolerance * eigenvalues[-1]:
                break
    return _from_left(A, basis @ vectors.astype(dtype))


def _first_block(A, width, dtype):
    """Orthonormal random combinations of columns, and the tolerance that will do.

    Random numbers are dealt out to the rows in an order that depends on what is in
    them: so a result that is not exact is the same in whatever order rows and columns
    come. Where there is no such order, the result has to be exact.
    """
    rng = np.random.RandomState(0)  # a place to start from, not a sample
    order, is_certain = np.arange(A.shape[0]), False
    if dtype == np.float64:  # numbers of single precision are too near to one another
        order, is_certain = _order_of_rows(A, rng, dtype)
    numbers = np.empty((A.shape[0], width), dtype)
    numbers[order] = normal_matrix(rng, numbers.shape, 1.0, dtype)
    # Multiplied, so that equal rows have equal numbers.
    block, _ = qr(product(A, product(A.T, numbers)))
    return block, TOLERANCE if is_certain else TIGHT_TOLERANCE[dtype]


def _order_of_rows(A, rng, dtype):
    """Sort the rows by what is in them; tell whether none could change places.

    With s = A A' 1 the row a has the number a'A's^2, which is the same in whatever
    order rows and columns come. Rows of the same number may be sorted either way if
    they are equal, and then so are their products with random numbers.
    """
    m = A.shape[0]
    vectors = np.ones((m, 1), dtype), normal_matrix(rng, (m, 1), 1.0, dtype)
    sums, random_sums = product(A, product(A.T, np.hstack(vectors))).T
    largest = np.abs(sums).max()
    if largest <= MIN_SUM * np.abs(random_sums).max():  # they are rounding
        return np.arange(m), False
    vector = np.square(sums / largest)[:, None]
    numbers = product(A, product(A.T, vector))[:, 0]
    order = np.argsort(numbers, kind="stable")
    same = np.diff(numbers[order]) <= SAME * np.abs(numbers).max()
    steps = np.abs(np.diff(random_sums[order]))
    return order, not (same & (steps > MIN_SUM * np.abs(random_sums).max())).any()


def _from_left(A, left):
    """Singular triplets from known left vectors: ``A' u = s v``."""
    dtype = left.dtype
    right = product(A.T, left)
    singular = column_norms(right)
    rounding = np.sqrt(max(A.shape) * np.finfo(dtype).eps)
    nonzero = singular > rounding * singular.max(initial=0)
    inverse = np.where(nonzero, 1 / np.where(nonzero, singular, 1), 0)
    right = right * inverse.astype(dtype)
    return left, np.where(nonzero, singular, 0), right


def _gram(A, dtype):
    """Multiply A by its transpose, without writing out an A that is no array."""
    if isinstance(A, np.ndarray):
        return gram_of_rows(A)
    n = A.shape[0]
    gram, step = np.empty((n, n)), max(GRAM_COLUMNS, BLOCK // A.shape[1])
    for start in range(0, n, step):
        columns = slice(start, start + step)
        gram[:, columns] = A @ (A.T @ np.eye(n, dtype=dtype)[:, columns])
    return gram


def _sketched_svd(A, rank, dtype, rng):
    """Singular triplets of random combinations of columns, after a power iteration."""
    basis = product(A, normal_matrix(rng, (A.shape[1], rank + OVERSAMPLES), 1.0, dtype))
    basis = product(A.T, qr(basis)[0])
    basis, _ = qr(product(A, qr(basis)[0]))
    right, small = qr(product(A.T, basis))
    # A' basis = right @ small, so A is about basis @ small' @ right'.
    of_right, singular, of_left = np.linalg.svd(small, full_matrices=False)
    left, right = basis @ of_left[:rank].T, right @ of_right[:, :rank]
    return left, singular[:rank], right


def fix_signs(left, right):
    """Make the largest entry of each right vector positive: its sign is arbitrary."""
    largest = right[np.abs(right).argmax(axis=0), np.arange(right.shape[1])]
    signs = np.where(largest < 0, -1, 1).astype(right.dtype)
    return left * signs, right * signs


def normal_matrix(rng, shape, size, dtype):
    """Normal numbers of this size, by blocks, as Ctrl-C waits for the end of a call."""
    numbers = np.empty(shape, dtype)
    for block in row_slices(*shape):
        numbers[block] = size * rng.standard_normal(numbers[block].shape)
    return numbers
