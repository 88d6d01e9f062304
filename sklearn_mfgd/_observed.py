"""What counts as observed, and the data in the units of the solvers.

Data are divided by a power of four near their largest value, so that no square over-
or underflows; factors then differ by a power of two and nothing is rounded.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse
from sklearn.utils.random import sample_without_replacement

from ._kernels import blocks, entry_products
from ._objective import CompleteObjective, MaskedObjective


class Entries(NamedTuple):
    """The observed entries of a matrix, scaled and centred."""

    values: np.ndarray  # (m, n): dense, centred, zero in the holes; or sparse, raw
    mask: np.ndarray | None  # (m, n) bool; None when every entry is observed
    mean: float  # already subtracted from dense values, not from sparse ones

    @property
    def n_observed(self):
        """Number of observed entries."""
        m, n = self.values.shape
        return m * n if self.mask is None else int(np.count_nonzero(self.mask))

    def counts(self, axis):
        """Observed entries of each column (axis 0) or row (axis 1)."""
        if self.mask is None:
            return np.full(self.values.shape[1 - axis], self.values.shape[axis])
        return np.count_nonzero(self.mask, axis=axis)

    def column_means(self):
        """Mean of each column; the mean of all where a column was never observed."""
        sums = np.asarray(self.values.sum(axis=0, dtype=np.float64)).ravel()
        shift = 0.0 if sparse.issparse(self.values) else self.mean
        return sums / np.maximum(self.counts(axis=0), 1) + shift

    def objective(self, *, row_bias, column_bias):
        """Squared error over these entries."""
        biases = {"row_bias": row_bias, "column_bias": column_bias}
        if self.mask is not None:
            return MaskedObjective(self.values, self.mask, **biases)
        mean = self.mean if sparse.issparse(self.values) else 0.0
        return CompleteObjective(self.values, mean=mean, **biases)

    def restrict(self, mask):
        """Keep only the entries where `mask` is True, all of them observed."""
        return Entries(np.where(mask, self.values, 0), mask, self.mean)

    def columns(self, chosen):
        """Keep only some columns of complete data."""
        return Entries(self.values[:, chosen], None, self.mean)


def observed_mask(X, mask):
    """Combine a mask with the NaN of X.

    Returns
    -------
    mask : bool ndarray of shape (n_samples, n_features) or None
        None when every entry is observed.

    Raises
    ------
    ValueError
        When `mask` is not boolean, has another shape than X or comes with sparse X,
        and when sparse X stores NaN.
    """
    if sparse.issparse(X):
        if mask is not None:
            raise ValueError(
                "mask needs a dense X: an entry that a sparse X does not store is an "
                "observed zero. Pass X.toarray(), or mark missing entries as NaN there."
            )
        if np.isnan(X.data).any():
            raise ValueError(
                "Sparse X stores NaN, but its entries all count as observed (those not "
                "stored are zeros). Pass a dense X, where NaN means missing."
            )
        return None
    observed = np.isfinite(X)
    if mask is not None:
        mask = np.asarray(mask)
        if mask.shape != X.shape:
            raise ValueError(
                f"mask has shape {mask.shape}, but X has shape {X.shape}; they must be "
                "the same."
            )
        if mask.dtype != bool:
            raise ValueError(
                f"mask must be boolean, True where X is observed; got {mask.dtype}."
            )
        observed &= mask
    return None if observed.all() else observed


def scale_exponent(X, mask):
    """Find k such that ``X / 4**k`` is of order one; 0 when X is all zeros."""
    values = X.data if sparse.issparse(X) else X
    where = True if mask is None else mask
    largest = max(
        float(values.max(initial=0, where=where)),
        -float(values.min(initial=0, where=where)),
    )
    return round(np.log2(largest) / 2) if largest > 0 else 0


def entries_of(X, mask, *, exponent, mean=None, centred=True):
    """Copy X into the units of the solvers.

    Parameters
    ----------
    X : ndarray or sparse matrix
    mask : bool ndarray or None
        As `observed_mask` returns it.
    exponent : int
        The result is X / 4**exponent.
    mean : float, optional
        Already in these units; the mean of the observed entries when not given.
    centred : bool
        False: nothing is subtracted.
    """
    if sparse.issparse(X):
        values = X.copy()
        values.sum_duplicates()
        values.data = np.ldexp(values.data, -2 * exponent)
        n_observed = values.shape[0] * values.shape[1]
    else:
        values = np.ldexp(X, -2 * exponent)
        n_observed = values.size
        if mask is not None:
            values[~mask] = 0
            n_observed = np.count_nonzero(mask)
    if not centred:
        return Entries(values, mask, 0.0)
    if mean is None:
        mean = float(values.sum(dtype=np.float64)) / n_observed
    if not sparse.issparse(values):
        np.subtract(values, mean, out=values, where=True if mask is None else mask)
    return Entries(values, mask, mean)


class HeldOut(NamedTuple):
    """Entries that the solver does not see."""

    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray


def hold_out(entries, fraction, random_state):
    """Hide a share of the observed entries, chosen among them in row-major order.

    Returns
    -------
    training : Entries
    held_out : HeldOut
    """
    m, n = entries.values.shape
    size = int(fraction * entries.n_observed)
    if not 0 < size < entries.n_observed:
        raise ValueError(
            f"validation_fraction={fraction} of {entries.n_observed} observed entries "
            f"leaves {size} to validate on and {entries.n_observed - size} to fit; use "
            "another fraction or early_stopping=False."
        )
    chosen = np.sort(
        sample_without_replacement(entries.n_observed, size, random_state=random_state)
    )
    if entries.mask is None:
        training, flat = np.ones((m, n), bool), chosen
    else:
        training, flat = entries.mask.copy(), _positions(entries.mask, chosen)
    rows, columns = np.unravel_index(flat, (m, n))
    training[rows, columns] = False
    held_out = HeldOut(rows, columns, entries.values[rows, columns])
    return entries.restrict(training), held_out


def validation_error(held_out, biases):
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
        return float(np.sqrt(np.mean(np.square(error, dtype=np.float64))))

    return validate


def _positions(mask, chosen):
    """Flat positions of chosen True entries of a mask, numbered row by row."""
    flat, counted = [], 0
    for rows in blocks(*mask.shape):
        here = np.flatnonzero(mask[rows])
        wanted = chosen[np.searchsorted(chosen, counted) :] - counted
        flat.append(here[wanted[wanted < here.size]] + rows.start * mask.shape[1])
        counted += here.size
    return np.concatenate(flat)


def folds(entries, n_folds=5):
    """Split the entries of each row: its k-th observed one goes to fold k mod n_folds.

    Yields
    ------
    seen, hidden : Entries
        Complementary. Complete data are split by columns, which is the same.
    columns : pair of ndarray or slice
        The columns that `seen` and `hidden` hold.
    """
    n = entries.values.shape[1]
    if entries.mask is None:
        turn = np.arange(n) % n_folds
        for fold in range(min(n_folds, n)):
            pair = np.flatnonzero(turn != fold), np.flatnonzero(turn == fold)
            yield *(entries.columns(chosen) for chosen in pair), pair
        return
    turn = np.empty(entries.mask.shape, np.uint8)
    for rows in blocks(*turn.shape):
        turn[rows] = (np.cumsum(entries.mask[rows], axis=1) - 1) % n_folds
    for fold in range(n_folds):
        hidden = entries.mask & (turn == fold)
        if hidden.any():
            parts = entries.restrict(entries.mask & ~hidden), entries.restrict(hidden)
            yield *parts, (slice(None), slice(None))
