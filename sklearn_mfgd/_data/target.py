"""y is ignored, unless it is a mask or weights that were passed in its place."""

import warnings

import numpy as np
from scipy import sparse


def check_target(y, X, remedy: str, stacklevel: int = 4):
    """Refuse a y that can only be a mask, and warn of one that could be.

    Numbers can be targets that happen to be as many as the columns. `remedy` says what
    to do where a mask or weights were meant.
    """
    if y is None:
        return
    shape = _shape_of(y)
    # With a single column there is nothing to factorize, but there are targets (m, 1).
    if len(shape) != 2 or shape[1] < 2 or shape != _shape_of(X):
        return
    if _is_boolean(y):
        raise ValueError(
            f"y is boolean and has the shape of X, {shape}, as a mask has. But y is "
            f"ignored: {remedy}. If it is a target, pass y.astype(int)."
        )
    warnings.warn(
        f"y has the shape of X, {shape}, and is ignored, which is right for a target. "
        f"If it is a mask or weights, {remedy}.",
        stacklevel=stacklevel,
    )


def _shape_of(values) -> tuple:
    try:
        return tuple(values.shape if hasattr(values, "shape") else np.shape(values))
    except (TypeError, ValueError):  # of lists of different length
        return ()


def _is_boolean(y) -> bool:
    if sparse.issparse(y):
        return y.dtype == bool
    y = np.asarray(y)
    if y.dtype == object:  # a column of a nullable type of pandas
        return all(isinstance(value, bool | np.bool_) for value in y.flat)
    return y.dtype == bool
