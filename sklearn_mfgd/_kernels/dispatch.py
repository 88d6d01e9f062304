"""Observed entries by rows, and the kernels on them: which twin, on which threads."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from . import backend, numpy_kernels
from .threads import OPERATIONS, share_out


def least_squares(rows, H, biases, ridge, draws=None):
    """Minimize the penalized squared error of every row, (n_rows, r).

    The ridge is one of each coefficient, (r,), or of each row besides, (n_rows, r).
    With `draws`, standard normal numbers of that shape, draw the rows from the Gaussian
    of which this is minus the logarithm of the density.
    """
    width = H.shape[1] - biases[1] + biases[0]
    W = np.empty((rows.shape[0], width), H.dtype)
    singular = np.zeros(len(W), np.uint8)
    ridge = np.atleast_2d(np.asarray(ridge, np.float64))
    arguments = *_arguments(rows, H, biases), ridge, draws
    _share_rows(
        rows,
        width**2 + 20 * width,
        width**3 / 3 + 100,
        lambda *part: backend.kernels.least_squares(*arguments, W, singular, *part),
    )
    chosen = np.flatnonzero(singular)
    if chosen.size:  # in float64 and by eigenvalues
        part = rows.take(chosen)
        W_part = np.empty((chosen.size, width), H.dtype)
        numpy_kernels.least_squares(
            *_arguments(part, H, biases),
            ridge if len(ridge) == 1 else ridge[chosen],
            None if draws is None else draws[chosen],
            W_part,
            np.empty(chosen.size, np.uint8),
            0,
            chosen.size,
        )
        W[chosen] = W_part
    return W


def loss_and_gradient(rows, W, H, biases):
    """Half the sum of squared residuals, and its gradient in W."""
    gradient = np.empty((rows.shape[0], H.shape[1] - biases[1] + biases[0]), H.dtype)
    sums = np.empty(len(gradient))
    arguments = _arguments(rows, H, biases)
    W = np.ascontiguousarray(W)
    _share_rows(
        rows,
        *_linear(H),
        lambda *part: backend.kernels.gradient(*arguments, W, gradient, sums, *part),
    )
    return 0.5 * float(sums.sum()), gradient


def product(rows, V):
    """Multiply the sparse matrix of the values, 1 without, by V, (n_columns, r)."""
    out = np.empty((rows.shape[0], V.shape[1]), V.dtype)
    sums = np.empty(len(out))
    arguments = _arguments(rows._replace(weights=None), V, (False, False))
    _share_rows(
        rows,
        *_linear(V),
        lambda *part: backend.kernels.gradient(*arguments, None, out, sums, *part),
    )
    return out


class Posteriors(NamedTuple):
    """What the entries say about the coefficients of every row."""

    means: np.ndarray  # (n_rows, q)
    moments: np.ndarray  # (n_rows, size), see `_moments`
    covariances: np.ndarray | None  # (n_rows, q * (q + 1) / 2), packed
    logdets: np.ndarray  # (n_rows,), of the covariances
    gains: np.ndarray  # (n_rows,), mean times right-hand side


def posterior(sums, which, targets, scale, prior, biases, *, with_covariances=False):
    """Posteriors of the rows, see `numpy_kernels.posterior`.

    Returns
    -------
    Posteriors
    """
    row_bias, column_bias = map(bool, biases)
    n_rows, q = len(which), round(np.sqrt(2 * prior.size + 0.25) - 0.5)
    rank = q - row_bias
    matrix = np.zeros((q, q))
    matrix[np.tril_indices(q)] = prior
    least = np.linalg.eigvalsh(matrix).min(initial=np.inf)
    means = np.empty((n_rows, q), sums.dtype)
    size = (rank + 1) * (rank + 2) // 2 + row_bias * (rank + 2)
    moments = np.empty((n_rows, size), sums.dtype)
    logdets, gains = np.empty(n_rows), np.empty(n_rows)
    singular = np.zeros(n_rows, np.uint8)
    given = sums, which, targets, scale
    shared = prior, least, row_bias, column_bias
    covariances = None
    if with_covariances:
        covariances = np.empty((n_rows, prior.size), sums.dtype)
    found = means, moments, covariances, logdets, gains, singular
    step = max(1, int(OPERATIONS / (2 * q**3 + 200)))
    ranges = [(k, min(k + step, n_rows)) for k in range(0, n_rows, step)]
    _share(
        lambda *part: backend.kernels.posterior(*given, *shared, *found, *part), ranges
    )
    chosen = np.flatnonzero(singular)
    if chosen.size:  # by eigenvalues
        part = [None if array is None else array[chosen] for array in found]
        own = sums, which[chosen], targets[chosen], scale[chosen]
        numpy_kernels.posterior(*own, *shared, *part, 0, chosen.size)
        for whole, few in zip(found, part, strict=True):
            if whole is not None:
                whole[chosen] = few
    return Posteriors(*found[:-1])


def squares(rows, W, H, biases):
    """Sum of the squared residuals of each row, (n_rows,)."""
    sums = np.empty(rows.shape[0])
    arguments = _arguments(rows, H, biases)
    W = np.ascontiguousarray(W)
    _share_rows(
        rows,
        *_linear(H),
        lambda *part: backend.kernels.squares(*arguments, W, sums, *part),
    )
    return sums


def loss(rows, W, H, biases):
    """Half the sum of squared residuals."""
    return 0.5 * float(squares(rows, W, H, biases).sum())


def curvature(rows, D, H, biases):
    """Sum of ``(d_i . g_j)^2`` over each row, (n_rows,)."""
    return squares(rows._replace(values=None), D, H, biases)


def residuals(rows, W, H, biases):
    """Approximation less data of each entry, (n_entries,)."""
    out = np.empty(rows.indices.size, H.dtype)
    arguments = _arguments(rows, H, biases)
    W = np.ascontiguousarray(W)
    _share_rows(
        rows,
        *_linear(H),
        lambda *part: backend.kernels.residuals(*arguments, W, out, *part),
    )
    return out


def entry_products(W, H, rows, columns):
    """Multiply ``W[rows[k]] . H[columns[k]]`` for every k."""
    dtype = np.result_type(W, H)
    W, H = (np.ascontiguousarray(factors, dtype) for factors in (W, H))
    rows, columns = (np.ascontiguousarray(k, np.int64) for k in (rows, columns))
    out = np.empty(len(rows), dtype)
    step = max(1, int(OPERATIONS / (20 + H.shape[1])))
    ranges = [(k, min(k + step, len(rows))) for k in range(0, len(rows), step)]
    _share(
        lambda *part: backend.kernels.entry_products(W, H, rows, columns, out, *part),
        ranges,
    )
    return out


def stochastic_steps(
    entries, ranges, W, H, biases, shares, squares, *, ridges, etas, scales
):
    """Make the steps of ranges of entries that have no row or column in common.

    Parameters
    ----------
    entries : tuple of ndarray
        Rows, columns, values and weights (or None), in the order of the steps.
    ranges : list of pairs
    W, H : ndarray
        Changed in place.
    biases : pair of bool
    shares, squares : pair of ndarray
        For rows and for columns, as are `row_share` and so on of `numpy_kernels.sgd`.
    ridges, etas, scales : pair of float
        For factors and for biases.
    """
    width = H.shape[1]
    step = max(1, int(OPERATIONS / (40 + 8 * width)))

    def work(start, stop):
        for first in range(start, stop, step):  # so that Ctrl-C need not wait
            backend.kernels.sgd(
                *entries,
                W,
                H,
                *map(bool, biases),
                *shares,
                *squares,
                *ridges,
                *etas,
                *scales,
                first,
                min(first + step, stop),
            )

    alone = sum(stop - start for start, stop in ranges) < step
    share_out(
        work, ranges, limit=1 if alone or backend.kernels is numpy_kernels else None
    )


def _arguments(rows, H, biases):
    return np.ascontiguousarray(H), *rows[:4], *map(bool, biases)


def _linear(H):
    """Cost of an entry and of a row where each entry costs a product or two."""
    return 20 + 4 * H.shape[1], 100


def _share_rows(rows, per_entry, per_row, work):
    """Cut the rows into ranges of like cost and share them out."""
    n_rows = rows.shape[0]
    cost = rows.indptr * float(per_entry) + np.arange(n_rows + 1) * float(per_row)
    count = int(np.ceil(cost[-1] / OPERATIONS))
    cuts = np.searchsorted(cost, np.linspace(0, cost[-1], count + 1)[1:-1])
    cuts = np.unique(np.concatenate([[0], cuts, [n_rows]])).tolist()
    _share(work, list(pairwise(cuts)))


def _share(work, ranges):
    # Those in NumPy hold the GIL, and run BLAS.
    share_out(work, ranges, limit=1 if backend.kernels is numpy_kernels else None)
