"""Data as a fit takes them, from blocks."""

import numpy as np

from .._data.observed import warn_if_constant
from .._data.prepared import PreparedData
from .._kernels.rows import Biases, Rows
from ._blocks import Blocks, compute


def prepare(estimator, blocks: Blocks) -> PreparedData:
    """Bring what is observed to the units of the solvers."""
    rows = _stacked(compute(estimator.client, *blocks.delayed))
    if rows.indices.size == 0:
        raise ValueError("There is nothing to fit: every entry of X is missing.")
    warn_if_constant(rows.values, rows.shape)
    biases = Biases(
        row=estimator.fit_bias is True, column=estimator.fit_bias is not False
    )
    return PreparedData.of(rows, biases, unit_variance=estimator.reg == "auto")


def _stacked(blocks: tuple[Rows, ...]) -> Rows:
    """Put the rows of all blocks into one."""
    counts = np.concatenate([np.diff(rows.indptr) for rows in blocks])
    arrays = [
        None
        if any(array is None for array in arrays)
        else np.concatenate(arrays, dtype=arrays[0].dtype)
        for arrays in zip(*(rows[1:4] for rows in blocks), strict=True)
    ]
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return Rows(indptr, *arrays, blocks[0].n_columns)
