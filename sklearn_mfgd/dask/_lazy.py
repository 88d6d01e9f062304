"""Lazy results: dask.arrays of what the workers make of each block."""

from itertools import pairwise
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from dask import delayed
from dask.base import tokenize
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph

from .._parameters import check_covariance, check_places, check_row_factors
from ._blocks import Blocks, chunks_of, is_collection
from ._models import (
    ModelOfRows,
    checked_places,
    copy_of,
    entries_in_order,
    model_type,
    places_between,
    predicted,
    reconstructed,
    sums_of_squares,
    transformed,
    transformed_with_covariances,
)


def delayed_model(estimator) -> Delayed:
    """The fitted model as one task, so that each worker gets it once."""
    return delayed(copy_of(estimator, ModelOfRows), traverse=False)


def array_of(
    parts: list[Delayed], lengths, tail: tuple, dtype=None, meta=None
) -> da.Array:
    """A dask.array of which each part is a chunk of rows; None: of unknown length.

    Empty blocks stay chunks, which da.concatenate would drop.
    """
    if meta is None:
        meta = np.empty((0,) * (1 + len(tail)), dtype)
    name = f"blocks-{tokenize(*(part.key for part in parts))}"
    aliases = {(name, k, *(0 for _ in tail)): part.key for k, part in enumerate(parts)}
    graph = HighLevelGraph.from_collections(name, aliases, dependencies=parts)
    rows = tuple(np.nan if length is None else length for length in lengths)
    chunks = (rows, *((size,) for size in tail))
    return da.Array(graph, name, chunks, meta=meta)


def row_factors(estimator, blocks: Blocks) -> da.Array:
    """Row factors of all blocks."""
    model, fold_in = delayed_model(estimator), delayed(transformed)
    parts = [fold_in(model, rows) for rows in blocks.delayed]
    return array_of(parts, blocks.lengths, (estimator._n_features_out,), blocks.dtype)


def row_factors_with_covariances(estimator, blocks: Blocks) -> tuple:
    """Row factors of all blocks, and their covariances.

    The values of an array that is still to be computed cannot choose its type, so the
    units alone say whether squares have a place in single precision.
    """
    width, unit = estimator._n_features_out, estimator._unit_of_factors()
    is_large = unit.max() ** 2 > np.sqrt(np.finfo(np.float32).max)
    dtype = np.dtype(np.float64) if is_large else blocks.dtype
    model = delayed_model(estimator)
    fold_in = delayed(transformed_with_covariances, nout=2)
    pairs = [fold_in(model, rows, dtype) for rows in blocks.delayed]
    Z, covariances = zip(*pairs, strict=True)
    return (
        array_of(Z, blocks.lengths, (width,), blocks.dtype),
        array_of(covariances, blocks.lengths, (width, width), dtype),
    )


def reconstruction(estimator, Z: da.Array) -> da.Array:
    """Complete rows of row factors."""
    Z, n_columns = _checked_factors(estimator, Z), estimator.n_features_in_
    model, reconstruct = delayed_model(estimator), delayed(reconstructed)
    parts = [reconstruct(model, factors) for factors in chunks_of(Z)]
    return array_of(parts, Z.chunks[0], (n_columns,), model_type(Z.dtype))


def _checked_factors(estimator, Z) -> da.Array:
    """Refuse what cannot be row factors; return them with whole rows in each chunk."""
    if not isinstance(Z, da.Array):
        raise TypeError(
            "Z must be a dask.array, as transform returns it for a collection, or an "
            f"array in memory; got {type(Z).__name__}."
        )
    width = estimator._n_features_out
    if Z.ndim != 2 or Z.shape[1] != width:
        raise ValueError(
            f"Z must have {width} columns, as transform returns them; got an array of "
            f"shape {Z.shape}."
        )
    return Z if Z.numblocks[1] == 1 else Z.rechunk({1: -1})


def sums_by_block(estimator, blocks: Blocks) -> list[Delayed]:
    """What each block adds to the score."""
    model, add_up = delayed_model(estimator), delayed(sums_of_squares)
    return [add_up(model, rows) for rows in blocks.delayed]


def entries(estimator, Z, places: tuple, covariance, return_std: bool):
    """Predict chosen entries; with `return_std` also their deviations.

    Each chunk of places asks every block of Z, unless the places are in memory.
    """
    if not isinstance(Z, da.Array) and not is_collection(Z):
        Z = da.from_array(check_row_factors(Z, estimator._n_features_out), chunks=-1)
    Z = _checked_factors(estimator, Z)
    if np.isnan(Z.shape[0]):
        raise ValueError(
            "predict_entries needs to know how many rows each block of Z has: call "
            "Z.compute_chunk_sizes() first."
        )
    cuts = np.concatenate([[0], np.cumsum(Z.chunks[0])]).tolist()
    factors = chunks_of(Z)
    covariances = [None] * len(factors)
    if return_std:
        covariances = _beside_factors(covariance, Z)
    shape = Z.shape[0], estimator.n_features_in_
    if any(isinstance(axis, da.Array) for axis in places):
        chunks = _lazy_places(*places, shape, cuts)
    else:
        chunks = [_places_in_memory(*places, shape, cuts)]
    model, predict = delayed_model(estimator), delayed(predicted)
    put_in_order = delayed(entries_in_order, nout=2)
    dtype, results = model_type(Z.dtype), []
    for chunk in chunks:
        parts = [
            predict(model, factors[k], covariances[k], own)
            for k, own in chunk.by_block.items()
        ]
        results.append(put_in_order(chunk.length, parts, dtype))
    sizes = [chunk.size for chunk in chunks]
    x, deviations = (
        array_of([result[k] for result in results], sizes, (), dtype) for k in (0, 1)
    )
    return (x, deviations) if return_std else x


def _beside_factors(covariance, Z: da.Array) -> list[Delayed]:
    """Blocks of the covariances of row factors."""
    width = Z.shape[1]
    if np.shape(covariance) != (*Z.shape, width):
        check_covariance(covariance, Z)  # which refuses it
    if not isinstance(covariance, da.Array):
        covariance = da.from_array(covariance)
    covariance = covariance.rechunk((Z.chunks[0], width, width))
    return chunks_of(covariance)


class _Places(NamedTuple):
    """A chunk of the places of entries."""

    by_block: dict  # number of a block of Z: which places lie in it, delayed
    length: Any  # how many there are, maybe delayed
    size: int | None  # the same as far as it is known now


def _places_in_memory(rows, columns, shape: tuple, cuts: list) -> _Places:
    """Send each block of Z the places that lie in it."""
    places = check_places(rows, columns, shape)
    rows = places[0]
    needed = np.unique(np.searchsorted(cuts, rows, side="right") - 1).tolist()
    by_block = {
        k: delayed(places_between(places, cuts[k], cuts[k + 1]), traverse=False)
        for k in needed
    }
    return _Places(by_block, len(rows), len(rows))


def _lazy_places(rows, columns, shape: tuple, cuts: list) -> list[_Places]:
    """Ask of every chunk which of its places lie in each block of Z."""
    rows, columns = da.asarray(rows), da.asarray(columns)
    if rows.ndim != 1 or columns.ndim != 1:
        raise ValueError("rows and columns must be one-dimensional arrays of integers.")
    if rows.chunks != columns.chunks:
        columns = columns.rechunk(rows.chunks)
    check, pick, count = (delayed(f) for f in (checked_places, places_between, len))
    delayed_pairs = zip(chunks_of(rows), chunks_of(columns), strict=True)
    chunks = []
    for pair, size in zip(delayed_pairs, rows.chunks[0], strict=True):
        places = check(*pair, shape)
        by_block = {k: pick(places, *bounds) for k, bounds in enumerate(pairwise(cuts))}
        unknown = np.isnan(size)
        chunks.append(_Places(by_block, count(pair[0]), None if unknown else size))
    return chunks
