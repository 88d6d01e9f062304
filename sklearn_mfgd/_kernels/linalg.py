"""Small symmetric systems, many at once, and products in calls that are not long.

Systems are solved in float64 whatever the data: a Gram matrix summed in float32 cannot
tell a singular row from one that is merely ill-conditioned.
"""

from functools import singledispatch

import numpy as np
from scipy import sparse

# Numbers of float64 that a block of work arrays may hold (about 4 MB).
BLOCK = 500_000

# Operations of one call at most, as Ctrl-C waits for its end; those of SciPy take many
# times longer than those of BLAS.
LONGEST_CALL = {"BLAS": 2e9, "SciPy": 2e8}

# A system whose eigenvalues are all above this share of its largest diagonal entry is
# solved by elimination, any other by its eigenvalues, with the same answer.
SAFE_EIGENVALUE = 1e-10

# A system without any larger entry says nothing about its row: the products in it have
# underflowed, or soon would.
UNDERFLOW_LIMIT = 1e-200


def solve_shared(system: np.ndarray, targets: np.ndarray, n_terms: int) -> np.ndarray:
    """Solve ``w_i @ system = targets_i`` for every row i, all with one system.

    The system, (r, r), is positive semi-definite, a sum of `n_terms` products, on which
    its rounding depends. The solution, (n_rows, r) and float64, has minimum norm where
    the system is singular and is NaN where it or the targets have overflowed.
    """
    if not np.isfinite(system).all():
        return np.full(targets.shape, np.nan)
    eigenvalues, vectors = np.linalg.eigh(system)
    inverse = _inverse_or_zero(eigenvalues, n_terms)
    return product(product(targets, vectors) * inverse, vectors.T)


def product(A, B):
    """Multiply ``A @ B`` in calls that are not long.

    A is an array or a sparse matrix; the ``@`` of anything else is used as it is.
    """
    if not (isinstance(A, np.ndarray) or sparse.issparse(A)):
        return A @ B
    longest = LONGEST_CALL["SciPy" if sparse.issparse(A) else "BLAS"]
    n_calls = int(np.ceil(A.size * B.shape[1] / longest))
    if n_calls <= 1:
        return A @ B
    result = np.empty((A.shape[0], B.shape[1]), np.result_type(A.dtype, B.dtype))
    if sparse.issparse(A):  # a slice of its rows would be a copy
        for columns in np.array_split(np.arange(B.shape[1]), n_calls):
            result[:, columns] = A @ B[:, columns]
        return result
    step = max(1, A.shape[0] // n_calls)
    for start in range(0, A.shape[0], step):
        np.matmul(A[start : start + step], B, out=result[start : start + step])
    return result


def gram_of_rows(A):
    """Multiply ``A @ A.T``, float64, in calls that are not long."""
    gram = np.zeros((A.shape[0],) * 2)
    step = max(1, int(LONGEST_CALL["BLAS"] / max(1, A.shape[0] ** 2)))
    for start in range(0, A.shape[1], step):
        columns = A[:, start : start + step]
        gram += columns @ columns.T
    return gram


def qr(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """QR decomposition of a matrix of few columns in calls that are not long.

    Blocks of rows are decomposed by themselves, ``A_k = Q_k R_k``, and then the stacked
    R_k: the blocks of Q are Q_k times the block k of the second Q [1]_. Q is (m, k), R
    is (k, n), k = min(m, n).

    References
    ----------
    .. [1] J. Demmel, L. Grigori, M. Hoemmen, J. Langou, "Communication-optimal Parallel
       and Sequential QR and LU Factorizations", SIAM Journal on Scientific Computing 34
       (2012).
    """
    m, n = A.shape
    step = max(BLOCK // max(1, n), 4 * n)
    if m <= step:
        return np.linalg.qr(A)
    blocks = [np.linalg.qr(A[start : start + step]) for start in range(0, m, step)]
    inner, R = qr(np.concatenate([block.R for block in blocks]))
    inner = np.split(inner, np.cumsum([len(block.R) for block in blocks])[:-1])
    Q = [block.Q @ factor for block, factor in zip(blocks, inner, strict=True)]
    return np.concatenate(Q), R


def solve_each(systems, targets, n_terms: int, least_eigenvalue=0.0) -> np.ndarray:
    """Solve ``systems_i @ w_i = targets_i``, each row with a system of its own.

    As `solve_shared`, with systems of shape (n_rows, r, r); `least_eigenvalue` is a
    known lower bound of all eigenvalues.
    """
    solution = np.full_like(targets, np.nan)
    finite = np.isfinite(systems).all(axis=(1, 2))
    if not finite.all():
        if finite.any():
            chosen = systems[finite], targets[finite]
            solution[finite] = solve_each(*chosen, n_terms, least_eigenvalue)
        return solution
    definite = _safely_definite(systems, least_eigenvalue)
    if definite.any():
        solved = np.linalg.solve(systems[definite], targets[definite][..., None])
        solution[definite] = solved[..., 0]
    if not definite.all():
        eigenvalues, vectors = np.linalg.eigh(systems[~definite])
        inverse = _inverse_or_zero(eigenvalues, n_terms)
        coordinates = np.einsum("kji,kj->ki", vectors, targets[~definite])
        solution[~definite] = np.einsum("kij,kj->ki", vectors, coordinates * inverse)
    return solution


def exact_sum(values: np.ndarray, low=None) -> tuple:
    """Sum of float64 values, along the first axis, as an unevaluated sum of two.

    It has about 30 digits [1]_: rounded to one float64, it does not depend on how the
    values were divided and ordered. `low` are the second parts of values that are such
    sums themselves.

    References
    ----------
    .. [1] D. E. Knuth, "The Art of Computer Programming", volume 2, section 4.2.2:
       the error of a floating-point sum is itself a floating-point number.
    """
    high = np.asarray(values, np.float64)
    low = np.zeros_like(high) if low is None else np.asarray(low, np.float64)
    if len(high) == 0 or not np.isfinite(high).all():
        total = high.sum(axis=0)
        return total, np.zeros_like(total)
    while len(high) > 1:
        half = len(high) // 2
        a, b, odd = high[:half], high[half : 2 * half], slice(2 * half, None)
        total = a + b
        with np.errstate(invalid="ignore"):  # of a sum that has overflowed
            part = total - a
            error = (a - (total - part)) + (b - part)
        error += low[:half] + low[half : 2 * half]
        high, low = np.append(total, high[odd], 0), np.append(error, low[odd], 0)
    return high[0], np.where(np.isfinite(high[0]), low[0], 0.0)[()]


def exact_total(values: np.ndarray, weights=None) -> tuple[float, float]:
    """Sum of values times weights, as two numbers; see `exact_sum`."""
    sums = []
    for place in row_slices(values.size, 1):
        terms = values[place].astype(np.float64)
        if weights is not None:
            terms *= weights[place]
        sums.append(exact_sum(terms))
    return exact_sum(*np.reshape(sums, (-1, 2)).T)


@singledispatch
def inner(A, B, weights=1.0) -> float:
    """Sum of the products of the entries of A and B, columns weighted; exactly.

    See `exact_sum`: the rows of A and B may be divided and ordered in any way.
    """
    sums = [
        exact_sum(inner_of_rows(A[rows], B[rows], weights))
        for rows in row_slices(*A.shape)
    ]
    return sum(exact_sum(*np.reshape(sums, (-1, 2)).T))


def inner_of_rows(A, B, weights):
    """Sum of the products in each row, float64."""
    products = A.astype(np.float64) * B
    return (products * weights).sum(axis=1)


@singledispatch
def column_norms(A) -> np.ndarray:
    """Norm of each column; exactly, as `inner`."""
    sums = [exact_squares(A[rows]) for rows in row_slices(*A.shape)]
    return np.sqrt(sum(exact_sum(*np.stack(sums, axis=1))))


def exact_squares(A) -> np.ndarray:
    """Sum of the squares of each column, as two numbers, (2, n_columns)."""
    return np.stack(exact_sum(np.square(A, dtype=np.float64)))


def row_slices(length: int, width: int) -> list[slice]:
    """Slices of ``range(length)``, each of about `BLOCK` numbers, `width` per row."""
    step = max(1, BLOCK // max(1, width))
    return [slice(start, start + step) for start in range(0, length, step)]


def _safely_definite(systems, least_eigenvalue):
    """Whether all eigenvalues of each system are well above rounding.

    A small known shift keeps the inversion from failing on singular systems.
    """
    if systems.shape[-1] == 0:
        return np.ones(len(systems), bool)
    largest = np.diagonal(systems, axis1=1, axis2=2).max(axis=1)
    shift = np.where(largest > UNDERFLOW_LIMIT, SAFE_EIGENVALUE * largest, 1.0)
    if least_eigenvalue > 10 * shift.max(initial=0.0):
        return np.ones(len(systems), bool)
    # trace(inv(A + shift)) >= 1 / (lambda_min + shift): where it is below 0.1 / shift,
    # lambda_min is above nine times the shift.
    inverse = np.linalg.inv(systems + shift[:, None, None] * np.eye(systems.shape[-1]))
    return np.trace(inverse, axis1=1, axis2=2) * shift < 0.1


def _inverse_or_zero(eigenvalues, n_terms):
    """Inverses of the eigenvalues that are above rounding, zero for the others."""
    share = max(n_terms, eigenvalues.shape[-1]) * np.finfo(np.float64).eps
    kept = eigenvalues > np.maximum(share * eigenvalues[..., -1:], UNDERFLOW_LIMIT)
    return np.divide(1.0, eigenvalues, out=np.zeros_like(eigenvalues), where=kept)
