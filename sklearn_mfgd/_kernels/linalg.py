"""Small symmetric systems, many at once, and how BLAS is to run.

Everything here works in float64 whatever the data: a Gram matrix summed in float32
cannot tell a singular row from one that is merely ill-conditioned.
"""

import os
from functools import cache
from threading import Lock

import numpy as np
import threadpoolctl
from scipy import sparse
from threadpoolctl import ThreadpoolController

# Numbers of float64 that a block of work arrays may hold (about 4 MB).
BLOCK = 500_000

# Operations of one call at the most, as Ctrl-C waits for its end; those of SciPy take
# many times longer than those of BLAS.
LONGEST_CALL = {"BLAS": 2e9, "SciPy": 2e8}

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
        The solution of minimum norm where the system is singular, NaN where it or the
        targets have overflowed.
    """
    if not np.isfinite(system).all():
        return np.full(targets.shape, np.nan)
    eigenvalues, vectors = np.linalg.eigh(system)
    inverse = _inverse_or_zero(eigenvalues, n_terms)
    return product(product(targets, vectors) * inverse, vectors.T)


def product(A, B):
    """Multiply ``A @ B`` in calls that are not long.

    Parameters
    ----------
    A : ndarray or sparse matrix of shape (m, n)
        Or anything that sees to it by itself.
    B : ndarray of shape (n, r)
    """
    if not (isinstance(A, np.ndarray) or sparse.issparse(A)):
        return A @ B
    longest = LONGEST_CALL["SciPy" if sparse.issparse(A) else "BLAS"]
    n_calls = int(np.ceil(A.size * B.shape[1] / longest))
    if n_calls <= 1:
        return A @ B
    result = np.empty((A.shape[0], B.shape[1]), np.result_type(A.dtype, B.dtype))
    if sparse.issparse(A):  # its rows are not to be had for free
        for part in np.array_split(np.arange(B.shape[1]), n_calls):
            result[:, part] = A @ B[:, part]
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
        part = A[:, start : start + step]
        gram += part @ part.T
    return gram


def qr(A):
    """Decompose a matrix of few columns in calls that are not long.

    Blocks of rows by themselves, then what they leave [1]_.

    Returns
    -------
    Q : ndarray of shape (m, k), k = min(m, n)
        Its columns are orthonormal.
    R : ndarray of shape (k, n)

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
    found = [np.linalg.qr(A[start : start + step]) for start in range(0, m, step)]
    inner, R = qr(np.concatenate([part.R for part in found]))
    ends = np.cumsum([len(part.R) for part in found])[:-1]
    Q = [part.Q @ own for part, own in zip(found, np.split(inner, ends), strict=True)]
    return np.concatenate(Q), R


def solve_each(systems, targets, n_terms, least=0.0):
    """Solve ``systems_i @ w_i = targets_i``, each row with a system of its own.

    Parameters and result are those of `solve_shared`, with `systems` of shape
    (n_rows, r, r); `least` is a known lower bound of all eigenvalues.
    """
    solution = np.full_like(targets, np.nan)
    finite = np.isfinite(systems).all(axis=(1, 2))
    if not finite.all():
        if finite.any():
            solution[finite] = solve_each(
                systems[finite], targets[finite], n_terms, least
            )
        return solution
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


class one_blas_thread:
    """Context in which BLAS runs on one thread.

    Products of this size gain little from a second one, wait long for it where another
    process holds its core, and give the same bits for any number of threads so. The
    number belongs to the process: of the contexts that are open at once, in whatever
    thread, the first sets it and the last sets it back.
    """

    _lock, _open, _limit = Lock(), 0, None

    def __enter__(self):
        cls = one_blas_thread
        with cls._lock:
            if cls._open == 0:
                _let_any_thread_set_limits()
                cls._limit = _blas().limit(limits=1)
            cls._open += 1

    def __exit__(self, *error):
        cls = one_blas_thread
        with cls._lock:
            cls._open = max(cls._open - 1, 0)
            if cls._open == 0 and cls._limit is not None:
                _let_any_thread_set_limits()
                cls._limit.restore_original_limits()
                cls._limit = None
                _let_any_thread_set_limits()

    @classmethod
    def forget(cls):
        """Start anew in a forked child, where the threads that were inside are gone."""
        cls._lock, cls._open, cls._limit = Lock(), 0, None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=one_blas_thread.forget)


@cache
def _blas():
    return ThreadpoolController().select(user_api="blas")


def _let_any_thread_set_limits():
    """Undo that threadpoolctl 3.8 heeds only the first thread that sets a limit."""
    clear = getattr(threadpoolctl.OpenBLASController, "clear_controlling_thread", None)
    if clear is not None:
        clear(force=True)


def row_slices(length, width):
    """Slices of ``range(length)``, each with about `BLOCK` numbers `width` a step."""
    step = max(1, BLOCK // max(1, width))
    return [slice(start, start + step) for start in range(0, length, step)]


def _safely_definite(systems, least):
    """Tell the rows whose eigenvalues all stay well above rounding.

    The trace of an inverse is at least the inverse of the smallest eigenvalue; a small
    known shift keeps the inversion from failing on singular rows.
    """
    if systems.shape[-1] == 0:
        return np.ones(len(systems), bool)
    largest = np.diagonal(systems, axis1=1, axis2=2).max(axis=1)
    shift = np.where(largest > NOTHING, SAFE * largest, 1.0)
    if least > 10 * shift.max(initial=0.0):
        return np.ones(len(systems), bool)
    inverse = np.linalg.inv(systems + shift[:, None, None] * np.eye(systems.shape[-1]))
    return np.trace(inverse, axis1=1, axis2=2) * shift < 0.1


def _inverse_or_zero(eigenvalues, n_terms):
    """Invert the eigenvalues that are not rounding, zero for the others."""
    eps = np.finfo(np.float64).eps
    share = max(n_terms, eigenvalues.shape[-1]) * eps
    kept = eigenvalues > np.maximum(share * eigenvalues[..., -1:], NOTHING)
    return np.divide(1.0, eigenvalues, out=np.zeros_like(eigenvalues), where=kept)
