"""Entries that are hidden on purpose: for early stopping, and for the score."""

from collections.abc import Callable, Iterator
from functools import singledispatch
from typing import NamedTuple

import numpy as np
from sklearn.utils.random import sample_without_replacement

from .._kernels.dispatch import entry_products
from .._kernels.linalg import exact_total
from .._kernels.rows import Biases
from .matrix import CompleteMatrix, ObservedMatrix
from .weighted_zeros import WeightedZeros

Entries = CompleteMatrix | ObservedMatrix | WeightedZeros


class HeldOut(NamedTuple):
    """Entries that the solver does not see."""

    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    weights: np.ndarray | None


@singledispatch
def hold_out(entries: Entries, fraction: float, random_state):
    """Hide a random share of the observed entries; return the others and the hidden.

    Sampled are their numbers in row-major order: the container of X does not matter.
    """
    hidden = hold_out_positions(entries.n_observed, fraction, random_state)
    return entries.listed(hidden=hidden), HeldOut(*entries.at(hidden))


def hold_out_positions(n: int, fraction: float, random_state) -> np.ndarray:
    """Sample a share of the numbers below n, in order."""
    size = int(fraction * n)
    if not 0 < size < n:
        raise ValueError(
            f"validation_fraction={fraction} of {n} observed entries leaves {size} to "
            f"validate on and {n - size} to fit; use another fraction or "
            "early_stopping=False."
        )
    return np.sort(sample_without_replacement(n, size, random_state=random_state))


@singledispatch
def validation_error(held_out: HeldOut, biases: Biases) -> Callable:
    """Root mean squared error of the held-out entries, as a function of the factors."""

    def validate(W, H):
        squares, weight = squared_error(held_out, W, H, biases)
        return float(np.sqrt(sum(squares) / sum(weight)))

    return validate


def squared_error(held_out: HeldOut, W, H, biases: Biases) -> np.ndarray:
    """Weighted squared error and weight of held-out entries, each as two numbers."""
    rank = H.shape[1] - biases.column
    rows, columns, weights = held_out.rows, held_out.columns, held_out.weights
    error = entry_products(W[:, :rank], H[:, :rank], rows, columns)
    error -= held_out.values
    if biases.row:
        error += W[rows, -1]
    if biases.column:
        error += H[columns, -1]
    weight = (float(rows.size), 0.0) if weights is None else exact_total(weights)
    squares = np.square(error, dtype=np.float64)
    return np.array([exact_total(squares, weights), weight])


def folds(entries: Entries, n_folds: int = 5) -> Iterator[tuple]:
    """Split the entries of each row, its observed ones going to the folds in turn.

    Yields for each fold the matrices of seen and of hidden entries, and a pair: which
    columns each of them holds. Data that are no list of entries are split by columns,
    which is the same where none is missing.
    """
    if isinstance(entries, CompleteMatrix | WeightedZeros):
        n = entries.shape[1]
        fold_of_column = np.arange(n) % n_folds
        for fold in range(min(n_folds, n)):
            hidden = fold_of_column == fold
            columns = np.flatnonzero(~hidden), np.flatnonzero(hidden)
            yield *(entries.take_columns(some) for some in columns), columns
        return
    indptr = entries.rows.indptr
    starts = np.repeat(indptr[:-1], np.diff(indptr))
    fold_of_entry = (np.arange(entries.n_observed) - starts) % n_folds
    for fold in range(n_folds):
        hidden = fold_of_entry == fold
        if hidden.any():
            seen = entries.listed(hidden)
            yield seen, entries.listed(~hidden), (slice(None), slice(None))
