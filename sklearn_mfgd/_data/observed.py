"""What counts as observed: NaN, mask, weights, and what a sparse matrix stores.

Whatever X comes as, the observed entries end up as the same `Rows`, numbered row by
row, or as one complete matrix where nothing is missing. So all that follows depends on
the pattern of observed entries and not on the container.
"""

import warnings

import numpy as np
from scipy import sparse

from .._kernels.linalg import row_slices
from .._kernels.rows import Rows
from .sparse_input import well_formed

SPARSE_FORMATS = ("csr", "csc", "coo")


def observe(X, mask, entry_weight, *, unstored_is_zero):
    """Find the observed entries of X.

    Parameters
    ----------
    X : ndarray or sparse matrix of shape (m, n)
        NaN means missing.
    mask : array-like or sparse matrix of bool of shape (m, n), or None
    entry_weight : array-like or sparse matrix of shape (m, n), or None
        Zero means missing.
    unstored_is_zero : bool
        Whether entries that a sparse X does not store are observed zeros, or missing.

    Returns
    -------
    observed : Rows, or X itself where every entry is observed with a weight of 1
    """
    if sparse.issparse(X) and unstored_is_zero:
        return _complete_sparse(X, mask, entry_weight)
    if sparse.issparse(X):
        rows = _rows_of_sparse(X)
        keep = ~np.isnan(rows.values)
        if mask is not None:
            keep &= _mask_at(rows, mask)
        if entry_weight is not None:
            weights = _weights_at(rows, entry_weight)
            rows = rows._replace(weights=weights)
            keep &= weights > 0
        return rows if keep.all() else keep_entries(rows, keep)
    observed = np.isfinite(X)
    if mask is not None:
        observed &= _dense_mask(mask, X.shape)
    if entry_weight is None:
        return X if observed.all() else rows_of(X, observed)
    weights = dense_weights(entry_weight, X.shape, X.dtype)
    observed &= weights > 0
    return rows_of(X, observed)._replace(weights=weights[observed])


def warn_if_constant(values, shape):
    """Warn where what is observed of an incomplete matrix is one value only.

    Parameters
    ----------
    values : ndarray of shape (n_observed,)
    shape : tuple of int
        That of the matrix.
    """
    if not 1 < values.size < shape[0] * shape[1] or min(shape) == 1:
        return
    value = values[0]
    # MFImputer, which warns by itself, hands over a table of zeros, but for rounding.
    if abs(value) < 1e-9 or not (values == value).all():
        return
    warnings.warn(
        f"All {values.size} observed values are {value:g}: there is nothing to learn "
        "about the missing ones. If they mark what happened (clicks, purchases) and "
        "nothing else did, the rest is not missing but zero: pass a sparse X to "
        "GradientMF, which takes what is not stored for zero, or a dense X with these "
        "zeros to MaskedGradientMF, and an entry_weight that is smaller for them.",
        stacklevel=4,
    )


def rows_of(X, observed):
    """List the entries of a dense X where `observed` is True."""
    m, n = X.shape
    counts = np.count_nonzero(observed, axis=1)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    numbers = np.arange(n, dtype=np.int32)
    indices, values = (np.empty(indptr[-1], dtype) for dtype in (np.int32, X.dtype))
    for part in row_slices(m, n):  # by parts, as Ctrl-C waits for the end of a call
        own, seen = slice(*indptr[[part.start, min(part.stop, m)]]), observed[part]
        indices[own] = np.broadcast_to(numbers, seen.shape)[seen]
        values[own] = X[part][seen]
    return Rows(indptr, indices, values, weights=None, n_columns=n)


def keep_entries(rows, keep):
    """Keep the entries where `keep` is True."""
    dropped = np.flatnonzero(~keep)
    return rows.select(keep, np.searchsorted(dropped, rows.indptr))


def check_sparse(X, name, *, unstored_is_zero):
    """Refuse what no conversion may touch: it could crash, or lose what was stored.

    Returns
    -------
    X, or where it is sparse, one like it that shares its values and may be converted
    """
    if not sparse.issparse(X):
        return X
    if not unstored_is_zero:
        refuse_format(X, name)
    checked = well_formed(X, "X")
    if not unstored_is_zero and X.dtype not in (np.float32, np.float64):
        _rows_of_sparse(checked)  # SciPy sums duplicates when it converts the type
    return checked


def refuse_format(X, name):
    """Refuse sparse formats whose conversion would drop or invent stored zeros."""
    if sparse.issparse(X) and X.format in ("dia", "bsr"):
        raise TypeError(
            f"{name} does not take sparse data in {X.format.upper()} format, which "
            "cannot tell a stored zero from padding. Pass CSR, CSC or COO."
        )


def _complete_sparse(X, mask, entry_weight):
    for name, given in (("mask", mask), ("entry_weight", entry_weight)):
        if given is not None:
            raise ValueError(
                f"{name} needs a dense X: an entry that a sparse X does not store is "
                "an observed zero here. Pass X.toarray(), or use MaskedGradientMF, "
                "where such an entry is missing."
            )
    if np.isnan(X.data).any():
        raise ValueError(
            "Sparse X stores NaN, but its entries all count as observed (those not "
            "stored are zeros). Pass a dense X, where NaN means missing, or use "
            "MaskedGradientMF."
        )
    return X


def _rows_of_sparse(X, name="X"):
    """List the stored entries by rows, sorted; X is well formed, and left as it is."""
    n_stored = X.nnz
    X = X.tocsr()
    least = _least_step(X)
    if least < 0:
        X = X.copy()
        X.has_sorted_indices = False  # the flag may be out of date
        X.sort_indices()
        least = _least_step(X)
    if X.nnz < n_stored or least == 0:
        raise ValueError(
            f"{name} stores an entry more than once. Sum or drop the duplicates first: "
            f"which of them is meant, only you can tell ({name}.sum_duplicates() sums)."
        )
    return Rows(
        X.indptr.astype(np.int64),
        X.indices.astype(np.int32, copy=False),
        X.data,
        None,
        X.shape[1],
    )


def _least_step(X):
    """Least difference from one column index to the next within a row."""
    steps = np.diff(X.indices)
    ends = X.indptr[1:-1]
    steps[ends[(ends > 0) & (ends < X.nnz)] - 1] = 1  # from one row to the next
    return steps.min(initial=1)


def _check_mask(mask, shape):
    if mask.shape != shape:
        raise ValueError(
            f"mask has shape {mask.shape}, but X has shape {shape}; they must be the "
            "same."
        )
    if mask.dtype != bool:
        raise ValueError(
            f"mask must be boolean, True where X is observed; got {mask.dtype}."
        )


def _dense_mask(mask, shape):
    if sparse.issparse(mask):
        _check_mask(mask, shape)
        return well_formed(mask, "mask").toarray()
    mask = _filled(mask, False)
    _check_mask(mask, shape)
    return mask


def _mask_at(rows, mask):
    """Whether the mask is True, for each entry."""
    if not sparse.issparse(mask):
        return _dense_mask(mask, rows.shape)[rows.row_numbers, rows.indices]
    _check_mask(mask, rows.shape)
    mask = well_formed(mask, "mask").tocsr().copy()
    mask.sum_duplicates()
    numbers = np.arange(1, rows.indices.size + 1)
    found = sparse.csr_array((numbers, rows.indices, rows.indptr), rows.shape)
    found = found.multiply(mask).tocsr().data
    keep = np.zeros(numbers.size + 1, bool)
    keep[found] = True
    return keep[1:]


def _filled(values, missing):
    """An array; where it was masked by `numpy.ma`, it says missing."""
    if isinstance(values, np.ma.MaskedArray):
        return values.filled(missing)
    return np.asarray(values)


def _check_weights(weights, shape):
    if weights.shape != shape:
        raise ValueError(
            f"entry_weight has shape {weights.shape}, but X has shape {shape}; they "
            "must be the same."
        )
    if weights.dtype.kind not in "biuf":
        raise ValueError(f"entry_weight must be real numbers; got {weights.dtype}.")


def dense_weights(weights, shape, dtype):
    """Check weights of all entries, those that are missing included."""
    if sparse.issparse(weights):
        _check_weights(weights, shape)
        weights = well_formed(weights, "entry_weight").toarray()
    weights = _filled(weights, 0)
    _check_weights(weights, shape)
    return _checked_weights(weights, dtype, lambda k: np.unravel_index(k, shape))


def _weights_at(rows, weights):
    """Weight of each entry."""
    if not sparse.issparse(weights):
        numbers = rows.row_numbers
        weights = _filled(weights, 0)
        _check_weights(weights, rows.shape)
        weights = weights[numbers, rows.indices]
        where = lambda k: (numbers[k], rows.indices[k])  # noqa: E731
        return _checked_weights(weights, rows.values.dtype, where)
    refuse_format(weights, "entry_weight")
    if weights.dtype.kind not in "biuf":
        raise ValueError(f"entry_weight must be real numbers; got {weights.dtype}.")
    stored = _rows_of_sparse(well_formed(weights, "entry_weight"), "entry_weight")
    same = stored.shape == rows.shape and np.array_equal(stored.indptr, rows.indptr)
    if not (same and np.array_equal(stored.indices, rows.indices)):
        raise ValueError(
            "A sparse entry_weight must store exactly the entries that X stores; got "
            f"{stored.indices.size} in shape {stored.shape} for the "
            f"{rows.indices.size} of X in shape {rows.shape}."
        )
    where = lambda k: (stored.row_numbers[k], stored.indices[k])  # noqa: E731
    return _checked_weights(stored.values, rows.values.dtype, where)


def _checked_weights(weights, dtype, where):
    with np.errstate(over="ignore"):  # refused as infinite below
        weights = weights.astype(dtype)
    wrong = ~np.isfinite(weights) | (weights < 0)
    if wrong.any():
        k = int(np.argmax(wrong.ravel()))
        i, j = where(k)
        raise ValueError(
            f"entry_weight must be finite and not negative; it is {weights.flat[k]} at "
            f"({i}, {j}). Use 0 for a missing entry."
        )
    return weights
