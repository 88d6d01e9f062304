"""What counts as observed: NaN, mask, weights, and what a sparse matrix stores.

Whatever X comes as, the observed entries end up as the same `Rows`, numbered row by
row, or as one complete matrix where nothing is missing.

An entry of X is missing where it is NaN, where the mask is False, where a sparse X does
not store it (unless `unstored_is_zero`), and where its entry weight is zero. A positive
entry weight s_ij multiplies the squared error of the entry everywhere:

- here it becomes `Rows.weights` (None where no weights are given: all are 1);
- the kernels minimize ``sum of s_ij (x_ij - prediction_ij)**2`` plus the penalty, so
  an entry of weight 2 counts as two equal entries;
- means (of all entries, of columns), the validation error and the score are weighted;
- with ``reg="auto"`` the noise of an entry has the variance ``noise_variance / s_ij``;
  `ObservedMatrix.with_unit_weights` takes out the mean weight first, so that a factor
  on all weights changes the noise variance only.

Where entries that a sparse X does not store are zeros, these have a weight of one, and
X with an `entry_weight` becomes `WeightedZeros`.
"""

import warnings

import numpy as np
from scipy import sparse

from .._kernels.linalg import row_slices
from .._kernels.rows import Rows
from .sparse_input import SparseMatrix, well_formed
from .weighted_zeros import WeightedZeros

SPARSE_FORMATS = ("csr", "csc", "coo")

# Rows, or X itself where every entry is observed with a weight of one.
Observed = Rows | WeightedZeros | np.ndarray | SparseMatrix


def observe(X, mask, entry_weight, *, unstored_is_zero: bool) -> Observed:
    """Find the observed entries of validated X, as the docstring of the module says."""
    if sparse.issparse(X) and unstored_is_zero:
        _refuse_mask(mask)
        if entry_weight is None:
            return _complete_sparse(X)
        return _weighted_zeros(X, entry_weight)
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
        observed &= _dense(mask, "mask", X.shape)
    if entry_weight is None:
        return X if observed.all() else rows_of(X, observed)
    weights = dense_weights(entry_weight, X.shape, X.dtype)
    observed &= weights > 0
    return rows_of(X, observed)._replace(weights=weights[observed])


def n_observed_of(observed: Observed) -> int:
    """Count the observed entries."""
    if isinstance(observed, Rows):
        return observed.indices.size
    if isinstance(observed, WeightedZeros):
        return observed.n_observed
    return observed.shape[0] * observed.shape[1]


def range_of(observed: Observed) -> tuple[float, float]:
    """Smallest and largest value of the observed entries."""
    values, with_zero = observed, False
    if isinstance(observed, Rows):
        values = observed.values
    elif isinstance(observed, WeightedZeros):
        values = observed.rows.values[observed.rows.weights > 0]
        with_zero = observed.rows.indices.size < np.prod(observed.shape)
    elif sparse.issparse(observed):
        values, with_zero = observed.data, observed.nnz < np.prod(observed.shape)
    low, high = float(values.min(initial=np.inf)), float(values.max(initial=-np.inf))
    return (min(low, 0.0), max(high, 0.0)) if with_zero else (low, high)


def warn_if_constant(values: np.ndarray, shape: tuple[int, int]):
    """Warn where all observed values of an incomplete matrix of a shape are equal."""
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
        "GradientMF, which takes what is not stored for zero, and an entry_weight that "
        "is larger for what is, or a dense X with these zeros to MaskedGradientMF, and "
        "an entry_weight that is smaller for them.",
        stacklevel=4,
    )


def rows_of(X: np.ndarray, observed: np.ndarray) -> Rows:
    """List the entries of a dense X where `observed` is True."""
    m, n = X.shape
    counts = np.count_nonzero(observed, axis=1)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    columns = np.arange(n, dtype=np.int32)
    indices, values = (np.empty(indptr[-1], dtype) for dtype in (np.int32, X.dtype))
    # Some rows at a time, as Ctrl-C waits for the end of a call.
    for block in row_slices(m, n):
        entries = slice(*indptr[[block.start, min(block.stop, m)]])
        seen = observed[block]
        indices[entries] = np.broadcast_to(columns, seen.shape)[seen]
        values[entries] = X[block][seen]
    return Rows(indptr, indices, values, weights=None, n_columns=n)


def keep_entries(rows: Rows, keep: np.ndarray) -> Rows:
    """Keep the entries where `keep` is True."""
    dropped = np.flatnonzero(~keep)
    return rows.select(keep, np.searchsorted(dropped, rows.indptr))


def check_sparse(X, name: str, *, unstored_is_zero: bool):
    """Refuse what no conversion may touch: it could crash, or lose what was stored."""
    if not sparse.issparse(X):
        return X
    if not unstored_is_zero:
        _refuse_padded_format(X, name)
    return well_formed(X, "X")


def _refuse_padded_format(X, name):
    if X.format in ("dia", "bsr"):
        raise TypeError(
            f"{name} does not take sparse data in {X.format.upper()} format, which "
            "cannot tell a stored zero from padding. Pass CSR, CSC or COO."
        )


def _refuse_mask(mask):
    """Refuse a mask of a sparse X whose unstored entries are zeros."""
    if mask is not None:
        raise ValueError(
            "mask needs a dense X: an entry that a sparse X does not store is an "
            "observed zero here. Pass X.toarray(), or an entry_weight that is 0 for "
            "stored entries to leave out, or use MaskedGradientMF, where an entry that "
            "is not stored is missing."
        )


def _complete_sparse(X: SparseMatrix) -> SparseMatrix:
    """Refuse what would leave an entry of a sparse X missing."""
    if np.isnan(X.data).any():
        raise ValueError(
            "Sparse X stores NaN, but its entries all count as observed (those not "
            "stored are zeros). Pass a dense X, where NaN means missing, or use "
            "MaskedGradientMF."
        )
    return X


def _weighted_zeros(X: SparseMatrix, entry_weight) -> WeightedZeros:
    """List the stored entries of X with their weights; NaN has a weight of zero."""
    rows = _rows_of_sparse(X)
    weights = _weights_at(rows, entry_weight)
    if not sparse.issparse(entry_weight):
        _check_unstored(rows, entry_weight)
    missing = np.isnan(rows.values) | (weights == 0)
    zero = rows.values.dtype.type(0)
    values, weights = (np.where(missing, zero, a) for a in (rows.values, weights))
    return WeightedZeros(rows._replace(values=values, weights=weights))


def _check_unstored(rows: Rows, entry_weight):
    """Refuse dense weights that are not 1 where X stores nothing."""
    entry_weight = _dense(entry_weight, "entry_weight", rows.shape)
    for block in row_slices(*rows.shape):
        start, stop = block.start, min(block.stop, rows.shape[0])
        other = entry_weight[block] != 1
        stored = rows.between(start, stop)
        other[stored.row_numbers, stored.indices] = False
        if other.any():
            i, j = np.argwhere(other)[0] + [start, 0]
            raise ValueError(
                f"entry_weight is {entry_weight[i, j]} at ({i}, {j}), which the sparse "
                "X does not store: such an entry is a zero of weight 1 here. Store a "
                "zero in X there, or pass X.toarray()."
            )


def _rows_of_sparse(X: SparseMatrix, name: str = "X") -> Rows:
    """List the stored entries by rows, sorted; X is well formed, and left as it is."""
    n_stored = X.nnz
    X = X.tocsr()
    least_step = _least_index_step(X)
    if least_step < 0:
        X = X.copy()
        X.has_sorted_indices = False  # the flag may be out of date
        X.sort_indices()
        least_step = _least_index_step(X)
    if X.nnz < n_stored or least_step == 0:
        raise ValueError(
            f"{name} stores an entry more than once. Sum or drop the duplicates first: "
            f"which of them is meant, only you can tell ({name}.sum_duplicates() sums)."
        )
    indices = X.indices.astype(np.int32, copy=False)
    return Rows(X.indptr.astype(np.int64), indices, X.data, None, X.shape[1])


def _least_index_step(X: SparseMatrix) -> int:
    """Least difference from one column index to the next within a row."""
    steps = np.diff(X.indices)
    row_ends = X.indptr[1:-1]
    steps[row_ends[(row_ends > 0) & (row_ends < X.nnz)] - 1] = 1  # to the next row
    return steps.min(initial=1)


def _dense(given, name: str, shape: tuple[int, int]) -> np.ndarray:
    """A mask or weights as an array like X; what is masked by `numpy.ma` becomes 0."""
    if isinstance(given, np.ma.MaskedArray):
        given = given.filled(0)
    elif not sparse.issparse(given):
        given = np.asarray(given)
    _check(given, name, shape)
    return well_formed(given, name).toarray() if sparse.issparse(given) else given


def _check(given, name, shape):
    """Refuse a mask or weights of another shape than X, or of another type."""
    if given.shape != shape:
        raise ValueError(
            f"{name} has shape {given.shape}, but X has shape {shape}; they must be "
            f"the same. {_advice_on_shape(given.shape, name, shape)}"
        )
    kinds, wanted = "biuf", "real numbers"
    if name == "mask":
        kinds, wanted = "b", "boolean, True where X is observed"
    if given.dtype.kind not in kinds:
        advice = f"{name}.astype({'bool' if name == 'mask' else 'float'})"
        raise ValueError(f"{name} must be {wanted}; got {given.dtype}. Use {advice}.")


def _advice_on_shape(given: tuple, name: str, shape: tuple[int, int]) -> str:
    """Say what to do about a mask or weights of another shape than X."""
    if given == shape[::-1]:
        return f"Use {name}.T."
    if given in ((shape[0],), (shape[0], 1), (shape[1],), (1, shape[1])):
        is_row = given[-1] == shape[1]
        values = name if is_row else f"np.reshape({name}, (-1, 1))"
        return f"Use np.broadcast_to({values}, X.shape)."
    return f"Choose the same rows and columns of both, such as X[rows], {name}[rows]."


def _mask_at(rows, mask):
    """Whether the mask is True, for each listed entry."""
    if not sparse.issparse(mask):
        return _dense(mask, "mask", rows.shape)[rows.row_numbers, rows.indices]
    _check(mask, "mask", rows.shape)
    mask = well_formed(mask, "mask").tocsr().copy()
    mask.sum_duplicates()
    # A matrix of the entries' numbers, from 1, so that its product with the mask stores
    # those of the entries to keep, and 0 for what a stored False hides.
    numbers = np.arange(1, rows.indices.size + 1)
    numbered = sparse.csr_array((numbers, rows.indices, rows.indptr), rows.shape)
    keep = np.zeros(numbers.size + 1, bool)
    keep[numbered.multiply(mask).tocsr().data] = True
    return keep[1:]


def dense_weights(weights, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """Check weights of all entries, those that are missing included."""
    return _valid_weights(_dense(weights, "entry_weight", shape), dtype)


def _weights_at(rows: Rows, weights) -> np.ndarray:
    """Weight of each listed entry."""
    if not sparse.issparse(weights):
        weights = _dense(weights, "entry_weight", rows.shape)
        weights = weights[rows.row_numbers, rows.indices]
        return _valid_weights(weights, rows.values.dtype, rows)
    _refuse_padded_format(weights, "entry_weight")
    _check(weights, "entry_weight", weights.shape)
    stored = _rows_of_sparse(well_formed(weights, "entry_weight"), "entry_weight")
    ours, theirs = ([some.indptr, some.indices] for some in (rows, stored))
    if stored.shape != rows.shape or not all(map(np.array_equal, ours, theirs)):
        raise ValueError(
            "A sparse entry_weight must store exactly the entries that X stores; got "
            f"{stored.indices.size} in shape {stored.shape} for the "
            f"{rows.indices.size} of X in shape {rows.shape}."
        )
    return _valid_weights(stored.values, rows.values.dtype, rows)


def _valid_weights(weights, dtype, rows=None):
    """Weights of a type, finite and not negative; of listed entries, or of a matrix."""
    with np.errstate(over="ignore"):  # refused as infinite below
        weights = weights.astype(dtype)
    wrong = ~np.isfinite(weights) | (weights < 0)
    if wrong.any():
        k = int(np.argmax(wrong))
        if rows is None:
            i, j = np.unravel_index(k, weights.shape)
        else:
            i, j = rows.row_numbers[k], rows.indices[k]
        raise ValueError(
            f"entry_weight must be finite and not negative; it is {weights.flat[k]} at "
            f"({i}, {j}). Use 0 for a missing entry."
        )
    return weights
