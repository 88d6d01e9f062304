"""Collections as lists of blocks: what is observed of some consecutive rows of X.

A collection is a dask.array, a dask.dataframe, or a list of blocks: delayed ones,
futures, or arrays and sparse matrices in memory.
"""

import sys
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
import pandas as pd
from dask import delayed
from dask.delayed import Delayed
from distributed import Future
from pandas.api.types import is_numeric_dtype
from scipy import sparse

from .._data.observed import SPARSE_FORMATS, check_sparse, observe, rows_of
from .._data.tables import check_table, is_frame
from .._kernels.rows import Rows
from ._errors import block_name, naming
from ._graph import holds_futures, named_blocks

KINDS = (
    "a dask.array, a dask.dataframe or a list of delayed blocks (or of arrays and "
    "sparse matrices in memory)"
)


class Blocks(NamedTuple):
    """The observed entries of a collection, block by block."""

    delayed: list[Delayed]  # each yields the `Rows` of consecutive rows of X
    lengths: tuple[int | None, ...]  # number of rows of each block, None: unknown
    n_columns: int
    dtype: np.dtype  # of the values, float32 or float64
    feature_names: np.ndarray | None

    def like_X(self) -> np.ndarray | pd.DataFrame:
        """A table without rows, of the features that X has."""
        if self.feature_names is None:
            return np.empty((0, self.n_columns))
        return pd.DataFrame(columns=self.feature_names)


class _Source(NamedTuple):
    """Blocks as they are given, and what is known of them without reading any."""

    delayed: list[Delayed]
    lengths: tuple[int | None, ...]
    keys: list  # names of blocks in errors; None: a block in memory
    n_columns: int | None
    dtype: np.dtype | None
    feature_names: np.ndarray | None = None


def is_collection(X) -> bool:
    """Whether X is a collection, not an array, table or sparse matrix in memory."""
    if isinstance(X, list | tuple):
        return len(X) > 0 and all(_is_block(block) for block in X)
    return dask.is_dask_collection(X) or isinstance(X, Future)


def is_dask_frame(X) -> bool:
    """Whether X is a dask.dataframe; it is imported by who makes one.

    To import it takes a second, and pyarrow sets aside a gigabyte of addresses.
    """
    module = sys.modules.get("dask.dataframe")
    return module is not None and isinstance(X, module.DataFrame)


def compute(client, *values) -> tuple:
    """Compute delayed values on the client; None: on whatever Dask would choose."""
    return dask.compute(*values, scheduler=client)


def blocks_of(
    X,
    mask=None,
    entry_weight=None,
    *,
    caller: str,
    client=None,
    like: tuple[int, np.dtype] | None = None,
) -> Blocks:
    """Turn a collection into blocks of observed entries, without reading it.

    Only where X is a list that begins with a delayed block, and `like` does not say how
    many columns and which type the blocks have, is the first one read.
    """
    source = _source_of(X)
    sources = {"X": source.delayed}
    for name, given in (("mask", mask), ("entry_weight", entry_weight)):
        if given is not None:
            sources[name] = _beside(given, name, X, source)
    sources = named_blocks(sources)
    n_columns, dtype = source.n_columns, source.dtype
    expected = "block 0 has"
    if n_columns is None and like is not None:
        (n_columns, dtype), expected = like, "the fit had"
    elif n_columns is None:
        first = block_name(0, "X", source.keys[0])
        facts = delayed(_width_and_type)(sources["X"][0], first, caller)
        ((n_columns, dtype),) = compute(client, facts)
    observe_block = delayed(observed_rows, pure=True)
    nothing = [None] * len(source.delayed)
    arrays = [sources.get(name, nothing) for name in ("X", "mask", "entry_weight")]
    parts = [
        observe_block(
            *block,  # by place: Dask loses futures in named arguments
            block=block_name(number, "X", source.keys[number]),
            wanted=[n_columns, dtype, expected],
            length=source.lengths[number],
            caller=caller,
        )
        for number, block in enumerate(zip(*arrays, strict=True))
    ]
    names = source.feature_names
    return Blocks(parts, source.lengths, n_columns, np.dtype(dtype), names)


def observed_rows(
    X,
    mask,
    entry_weight,
    *,
    block: str,
    wanted: list,
    length: int | None,
    caller: str,
) -> Rows:
    """List the observed entries of a block; `wanted` is what it has to be like."""
    with naming(block):
        X = _validated(X, caller)
        _check_like(X, *wanted)
        if length is not None and X.shape[0] != length:
            raise ValueError(
                f"it has {X.shape[0]} rows, but the collection says {length}. Make the "
                "collection with the lengths that its blocks have, or with unknown "
                "ones (nan)."
            )
        observed = observe(X, mask, entry_weight, unstored_is_zero=False)
        if isinstance(observed, Rows):
            return observed
        return rows_of(observed, np.ones(observed.shape, bool))


def _validated(X, caller: str):
    """Validate a block, which may be empty, as the estimators in memory do theirs."""
    return check_table(
        check_sparse(X, caller, unstored_is_zero=False),
        unstored="missing",
        accept_sparse=SPARSE_FORMATS,
        ensure_all_finite="allow-nan",
        ensure_min_samples=0,
        estimator=caller,
    )


def _check_like(X, n_columns: int, dtype: np.dtype, expected: str):
    if X.shape[1] != n_columns:
        raise ValueError(
            f"it has {X.shape[1]} columns, but {expected} {n_columns}. Every block "
            "holds complete rows: give all of them the same columns."
        )
    if X.dtype != dtype:
        raise ValueError(
            f"it has values of type {X.dtype}, but {expected} {dtype}. Convert all "
            f"blocks to one type, as by astype({str(np.dtype(dtype))!r})."
        )


def _width_and_type(X, block: str, caller: str) -> tuple[int, np.dtype]:
    with naming(block):
        X = _validated(X, caller)
    return X.shape[1], X.dtype


def _source_of(X) -> _Source:
    """Cut a collection into its blocks."""
    if isinstance(X, Delayed | Future):
        X = [X]
    if isinstance(X, da.Array):
        return _of_array(X)
    if is_dask_frame(X):
        return _of_frame(X)
    if isinstance(X, list | tuple) and is_collection(X):
        return _of_list(X)
    raise TypeError(f"X must be {KINDS}; got {type(X).__name__}.")


def _of_array(X: da.Array) -> _Source:
    """Blocks of a dask.array, each with all of the columns."""
    if X.ndim != 2:
        raise ValueError(f"X must have 2 dimensions; got {X.ndim}.")
    if np.isnan(X.shape[1]):
        raise ValueError(
            "X does not say how many columns it has. Call X.compute_chunk_sizes(), or "
            "make it with a known shape[1]."
        )
    delayed_blocks = _whole_rows(X)
    lengths = tuple(None if np.isnan(size) else int(size) for size in X.chunks[0])
    keys = [block.key for block in delayed_blocks]
    return _Source(delayed_blocks, lengths, keys, X.shape[1], _type_of(X._meta))


def _whole_rows(X: da.Array) -> list[Delayed]:
    """The chunks of X, put together where several hold parts of the same rows."""
    if X.numblocks[1] == 1:
        return chunks_of(X)
    if not sparse.issparse(X._meta):
        return chunks_of(X.rechunk({1: -1}))
    # Not by Dask, which knows only some kinds of sparse chunks.
    parts = np.empty(X.numblocks, object)
    parts.flat = chunks_of(X)
    return [delayed(sparse.hstack, pure=True)(row) for row in parts.tolist()]


def chunks_of(X: da.Array) -> list[Delayed]:
    """The chunks of an array, each as a task."""
    # Dask's optimization loses the data of an array that is on a cluster already.
    optimize = not holds_futures(X.__dask_graph__())
    return X.to_delayed(optimize_graph=optimize).ravel().tolist()


def _of_frame(X) -> _Source:
    """Blocks of a dask.dataframe: its partitions, of unknown length."""
    for name, dtype in X.dtypes.items():
        if not is_numeric_dtype(dtype):
            raise ValueError(
                f"Column {name!r} of X has the type {dtype}, which is not that of "
                "numbers. Drop it, encode it, or convert it by astype(float)."
            )
    delayed_blocks = X.to_delayed()
    names = X.columns.to_numpy(dtype=object)
    if not all(isinstance(name, str) for name in names):
        names = None
    keys = [block.key for block in delayed_blocks]
    lengths = (None,) * len(keys)
    dtype = _type_of(X._meta)
    return _Source(delayed_blocks, lengths, keys, len(X.columns), dtype, names)


def _of_list(X) -> _Source:
    """Blocks of a list, delayed ones and those in memory."""
    keys = [block.key if isinstance(block, Delayed | Future) else None for block in X]
    lengths = tuple(
        block.shape[0] if key is None else None
        for block, key in zip(X, keys, strict=True)
    )
    n_columns = dtype = None
    if keys[0] is None:
        n_columns, dtype = X[0].shape[1], _type_of(X[0])
    return _Source(list(map(_delayed_block, X)), lengths, keys, n_columns, dtype)


def _is_block(block) -> bool:
    if isinstance(block, Delayed | Future) or sparse.issparse(block):
        return True
    return not dask.is_dask_collection(block) and (
        (isinstance(block, np.ndarray) and block.ndim == 2) or is_frame(block)
    )


def _delayed_block(block) -> Delayed:
    if isinstance(block, Delayed):
        return block
    return delayed(block, traverse=False)


def _type_of(X) -> np.dtype:
    """The type of the values that a block like X gets, float32 or float64."""
    X = X[:0] if is_frame(X) else np.empty((0, 1), X.dtype)
    return check_table(X, ensure_min_samples=0).dtype


def _beside(given, name: str, X: Any, source: _Source) -> list[Delayed]:
    """The blocks of a mask or of weights, which lie beside those of X."""
    n_blocks = len(source.delayed)
    if isinstance(X, da.Array) and isinstance(given, da.Array):
        return _beside_array(given, name, X)
    if is_dask_frame(X) and is_dask_frame(given):
        _check_number(given.npartitions, name, n_blocks, "partitions")
        return given.to_delayed()
    lists = isinstance(X, list | tuple) and isinstance(given, list | tuple)
    if lists and is_collection(given):
        _check_number(len(given), name, n_blocks, "blocks")
        return list(map(_delayed_block, given))
    advice = "a collection of the kind of X, with the same blocks"
    if isinstance(X, da.Array):
        advice = "a dask.array with the chunks of X, as of da.from_array(..., X.chunks)"
    raise TypeError(f"{name} must be {advice}; got {type(given).__name__}.")


def _beside_array(given: da.Array, name: str, X: da.Array) -> list[Delayed]:
    if given.ndim != 2:
        raise ValueError(f"{name} must have 2 dimensions, as X; got {given.ndim}.")
    unknown = any(np.isnan(size) for size in (*X.chunks[0], *given.chunks[0]))
    if not unknown and given.shape != X.shape:
        raise ValueError(
            f"{name} has shape {given.shape}, but X has shape {X.shape}; they must be "
            "the same."
        )
    if unknown:
        _check_number(given.numblocks[0], name, X.numblocks[0], "chunks of rows")
    elif given.chunks[0] != X.chunks[0]:
        given = given.rechunk({0: X.chunks[0]})
    return _whole_rows(given)


def _check_number(number: int, name: str, wanted: int, what: str):
    if number != wanted:
        raise ValueError(
            f"{name} has {number} {what}, but X has {wanted}; they must be the same."
        )
