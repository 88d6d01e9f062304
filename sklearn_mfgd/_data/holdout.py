"""Entries that are hidden on purpose: for early stopping, and for the score."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from sklearn.utils.random import sample_without_replacement

from .._kernels.dispatch import entry_products
from .._kernels.rows import Biases
from .matrix import CompleteMatrix, ObservedMatrix

Entries = CompleteMatrix | ObservedMatrix


class HeldOut(NamedTuple):
    """Entries that the solver does not see."""

    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    weights: np.ndarray | None


def hold_out(entries: Entries, fraction: float, random_state):
    """Hide a random share of the observed entries; return the others and the hidden.

    Sampled are their numbers in row-major order: the container of X does not matter.
    """
    n = entries.n_observed
    size = int(fraction * n)
    if not 0 < size < n:
        raise ValueError(
            f"validation_fraction={fraction} of {n} observed entries leaves {size} to "
            f"validate on and {n - size} to fit; use another fraction or "
            "early_stopping=False."
        )
    hidden = np.sort(sample_without_replacement(n, size, random_state=random_state))
    return entries.listed(hidden=hidden), HeldOut(*entries.at(hidden))


def validation_error(held_out: HeldOut, biases: Biases) -> Callable:
    """Root mean squared error of the held-out entries, as a function of the factors."""

    def validate(W, H):
        rank = H.shape[1] - biases.column
        rows, columns = held_out.rows, held_out.columns
        error = entry_products(W[:, :rank], H[:, :rank], rows, columns)
        error -= held_out.values
        if biases.row:
            error += W[rows, -1]
        if biases.column:
            error += H[columns, -1]
        squares = np.square(error, dtype=np.float64)
        return float(np.sqrt(np.average(squares, weights=held_out.weights)))

    return validate


def folds(entries: Entries, n_folds: int = 5) -> Iterator[tuple]:
    """Split the entries of each row, its observed ones going to the folds in turn.

    Yields for each fold the matrices of seen and of hidden entries, and a pair: which
    columns each of them holds. Complete data are split by columns, which is the same.
    """
    if isinstance(entries, CompleteMatrix):
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
