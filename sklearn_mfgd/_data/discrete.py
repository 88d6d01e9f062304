"""Columns of whole numbers: the observed value nearest to an imputed one."""

import numpy as np

from .normal_scores import by_column


def levels_of_whole_numbers(X: np.ndarray, missing: np.ndarray, limits) -> list:
    """Return the distinct values of each column of whole numbers, None for others.

    Only values within the limits of imputed ones count; without any there is None.
    """
    levels = []
    for j, (low, high) in enumerate(zip(*limits, strict=True)):
        values = np.unique(X[~missing[:, j], j]).astype(np.float64)
        whole = (values == np.round(values)).all()
        values = values[(values >= low) & (values <= high)]
        levels.append(values if whole and len(values) else None)
    return levels


def to_nearest(values: np.ndarray, columns: np.ndarray, levels: list) -> np.ndarray:
    """Replace values by the nearest level of their column, the lower one of two.

    The last axis of the values runs over entries of the columns.
    """
    result = values.copy()
    for j, places in by_column(columns):
        if levels[j] is None:
            continue
        middles = levels[j][:-1] / 2 + levels[j][1:] / 2
        result[..., places] = levels[j][np.searchsorted(middles, values[..., places])]
    return result
