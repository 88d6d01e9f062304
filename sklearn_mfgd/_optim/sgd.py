r"""Stochastic gradient descent over the observed entries.

Entry (i, j) with the error e moves both of its rows [1]_,

.. math::

    w_i \leftarrow w_i - \eta_i \left(s_{ij} e h_j + \mathrm{reg}\, w_i / n_i\right),
    \qquad
    h_j \leftarrow h_j - \eta_j \left(s_{ij} e w_i + \mathrm{reg}\, h_j / n_j\right),

and biases likewise. The ridge is shared out among the n entries of a row, so that an
epoch descends the same F as the other solvers.

With ``eta="auto"`` every row has a step of its own, which shrinks with the gradients it
has seen [2]_: in units in which the data have a standard deviation of 1, it is ``RATE /
sqrt(1 + sum of squared gradients / rank)``. An epoch after which F is larger is taken
back and the rate halved, so F never increases.

Rows and columns are dealt out to a grid of blocks. Blocks in different rows and columns
of the grid touch different factors and may run at the same time, in any order, with the
same result [3]_. The grid depends on the shape of the data only.

References
----------
.. [1] Y. Koren, R. Bell, C. Volinsky, "Matrix Factorization Techniques for Recommender
   Systems", Computer 42 (2009).
.. [2] W.-S. Chin, Y. Zhuang, Y.-C. Juan, C.-J. Lin, "A Learning-Rate Schedule for
   Stochastic Gradient Methods to Matrix Factorization", PAKDD 2015.
.. [3] R. Gemulla, E. Nijkamp, P. J. Haas, Y. Sismanis, "Large-Scale Matrix
   Factorization with Distributed Stochastic Gradient Descent", KDD 2011.
"""

from copy import deepcopy
from itertools import pairwise

import numpy as np

from .._kernels import dispatch
from .._kernels.linalg import row_slices
from .divergence import DivergenceError, descending_step, entry_bound, refuse_infinite
from .loop import LONGEST, PATIENCE, History

RATE = 0.1
HALVINGS = 10  # of the rate in a row without a gain: F is as low as it gets
SMALLEST_BLOCK = 32  # rows and columns of a block of the grid, at least
LARGEST_GRID = 16
LARGEST_PILE = 4_000_000  # entries that are shuffled in one call
NO_SIZE = 1e-200  # of squares whose inverse would overflow


def stochastic_descend(
    objective,
    W,
    H,
    penalties,
    *,
    eta,
    max_iter,
    tol,
    rng,
    validate=None,
    n_iter_no_change=5,
    monitor=None,
):
    """Run epochs until the penalized objective F, or the held-out error, stops falling.

    Parameters and result are those of `descend`, with the generator that shuffles the
    entries.

    Raises
    ------
    DivergenceError
        When a fixed step makes F non-finite, or keeps it above that of no factors.
    """

    def penalized(W, H):
        with np.errstate(over="ignore", invalid="ignore"):
            loss = objective.value(W, H)
            return loss + penalties[0].value(W) + penalties[1].value(H)

    def trial(step):
        """F after each epoch from the start, in the order of this fit."""
        factors = first
        epoch = _Epoch(objective, penalties, *factors, step, deepcopy(order))
        for _ in range(max_iter):
            with np.errstate(over="ignore", invalid="ignore"):
                factors = epoch(*factors)
            yield penalized(*factors)

    first, order = (W, H), deepcopy(rng)
    epoch = _Epoch(objective, penalties, W, H, eta, rng)
    start = previous = penalized(W, H)
    refuse_infinite(start, 0)
    # A fixed step ends up hovering about a minimum. What diverges soon leaves behind
    # factors of zero, too.
    ceiling = max(start, 0.5 * objective.total)
    exact = (10 * float(np.finfo(W.dtype).eps)) ** 2 * objective.total
    lowest = start, W, H
    gain, rising, halvings = np.inf, 0, 0
    track = History(
        W,
        H,
        tol=tol,
        validate=validate,
        n_iter_no_change=n_iter_no_change,
        monitor=monitor,
    )
    for n_iter in range(1, max_iter + 1):
        earlier = W, H
        with np.errstate(over="ignore", invalid="ignore"):
            W, H = epoch(W, H)
        loss, last_gain = penalized(W, H), gain
        if eta == "auto" and not loss <= previous:  # take it back
            (W, H), loss, gain = earlier, previous, np.inf
            epoch.halve()
            halvings += 1
            converged = halvings == HALVINGS
        else:
            halvings, gain = 0, previous - loss
            ratio = min(gain / last_gain, LONGEST) if last_gain > 0 < gain else 0.0
            converged = 0 <= gain < (1 - ratio) * tol * loss or loss <= exact
        rising = rising + 1 if loss > ceiling else 0
        if eta != "auto" and (not np.isfinite(loss) or rising == PATIENCE):
            iterates = first, lowest[1:]
            bounds = (entry_bound(objective, *pair, penalties) for pair in iterates)
            longest = min(*bounds, eta / 2)
            raise DivergenceError(eta, n_iter, descending_step(longest, trial, start))
        lowest = min(lowest, (loss, W, H), key=lambda iterate: iterate[0])
        previous = loss
        track.add(W, H, loss, epoch.steps, converged)
        if track.converged:
            break
    return track.descent()


class _Epoch:
    """One pass over the entries in the order of the grid."""

    def __init__(self, objective, penalties, W, H, eta, rng):
        rows = objective.rows
        self._biases = objective.row_bias, objective.column_bias
        self._ridge = tuple(float(penalties[0].ridge[k]) for k in (0, -1))
        if objective.column_bias and not objective.row_bias:
            self._ridge = float(penalties[1].ridge[0]), float(penalties[1].ridge[-1])
        self._rng, self._given = rng, eta
        order, self._grid, self._bounds = _deal(rows, rng)
        self._entries = tuple(
            None if array is None else array[order]
            for array in (rows.row_numbers, rows.indices, rows.values, rows.weights)
        )
        counts = (
            np.diff(rows.indptr),
            np.bincount(rows.indices, minlength=rows.n_columns),
        )
        self._shares = [(1 / np.maximum(n, 1)).astype(W.dtype) for n in counts]
        self._squares, self._scales = [None, None], (0.0, 0.0)
        if eta == "auto":
            rank = max(1, H.shape[1] - objective.column_bias)
            weight = 1.0 if rows.weights is None else rows.weights.mean(dtype=float)
            square = objective.total / (weight * rows.indices.size)
            rms = np.sqrt(square) if square > 0 else 1.0
            # Steps and gradients of data of mean square 1, in the units of these data.
            self._squares = [np.zeros((n, 2), W.dtype) for n in rows.shape]
            sizes = rank * rms**3 * weight**2, (rms * weight) ** 2
            self._scales = tuple(1 / max(size, NO_SIZE) for size in sizes)
            # A step of the ridge alone must not lead beyond zero.
            share = 1 / min(n[n > 0].min() for n in counts)
            etas = RATE / max(rms * weight, NO_SIZE), RATE / weight
            self._etas = tuple(
                1 / (ridge * share) if eta * ridge * share > 1 else eta
                for eta, ridge in zip(etas, self._ridge, strict=True)
            )
        else:
            self._etas = eta * float(penalties[0].unit[0]), eta

    def __call__(self, W, H):
        W, H = W.copy(), H.copy()
        for shift in self._rng.permutation(self._grid):
            # Blocks (k, k + shift): no two of them share a row or a column.
            diagonal = [
                k * self._grid + (k + shift) % self._grid for k in range(self._grid)
            ]
            dispatch.stochastic_steps(
                self._entries,
                [self._bounds[k : k + 2].tolist() for k in diagonal],
                W,
                H,
                self._biases,
                self._shares,
                self._squares,
                ridges=self._ridge,
                etas=self._etas,
                scales=self._scales,
            )
        return W, H

    def halve(self):
        """Halve the steps after an epoch that is taken back."""
        self._etas = tuple(eta / 2 for eta in self._etas)
        with np.errstate(over="ignore", invalid="ignore"):
            for squares in self._squares:  # that overflowed: they would end all steps
                squares[~np.isfinite(squares * max(self._scales))] = 0

    def steps(self):
        """Steps of the factors, of rows and columns."""
        if self._squares[0] is None:
            return np.array([self._given])
        seen = np.concatenate([squares[:, 0] for squares in self._squares])
        return self._etas[0] / np.sqrt(1 + self._scales[0] * seen)


def _deal(rows, rng):
    """Deal rows and columns out to a grid, and shuffle the entries of each block.

    Returns
    -------
    order : ndarray of shape (n_entries,)
        The entries block by block.
    grid : int
        Blocks on either side.
    bounds : ndarray of shape (grid**2 + 1,)
        Where the blocks begin in `order`.
    """
    grid = int(np.clip(min(rows.shape) // SMALLEST_BLOCK, 1, LARGEST_GRID))
    hands = [(rng.permutation(n) % grid).astype(np.uint16) for n in rows.shape]
    numbers = hands[0][rows.row_numbers] * np.uint16(grid) + hands[1][rows.indices]
    order, bounds = _grouped(numbers, grid**2)
    for start, stop in pairwise(bounds.tolist()):
        _shuffle(order[start:stop], rng)
    return order, grid, bounds


def _grouped(numbers, n_groups):
    """Sort the positions of numbers below `n_groups` by these, in calls not long.

    Returns
    -------
    order : ndarray
    bounds : ndarray of shape (n_groups + 1,)
        Where the groups begin in `order`.
    """
    parts = row_slices(numbers.size, 1)
    counts = np.zeros((len(parts), n_groups), np.intp)
    for part, own in zip(parts, counts, strict=True):
        own += np.bincount(numbers[part], minlength=n_groups)
    bounds = np.concatenate([[0], np.cumsum(counts.sum(axis=0))])
    order, place = np.empty(numbers.size, np.intp), bounds[:-1].copy()
    for part, own in zip(parts, counts, strict=True):
        first = np.concatenate([[0], np.cumsum(own)[:-1]])
        found = np.argsort(numbers[part], kind="stable")
        places = np.arange(found.size) + np.repeat(place - first, own)
        order[places] = part.start + found
        place += own
    return order, bounds


def _shuffle(order, rng):
    """Put numbers into random order in place, in calls that are not long.

    Where there are many they are dealt out to piles, which are shuffled one by one.
    """
    if order.size <= LARGEST_PILE:
        rng.shuffle(order)
        return
    n_piles = -(-2 * order.size // LARGEST_PILE)
    piles = np.empty(order.size, np.uint16)
    for part in row_slices(order.size, 1):
        piles[part] = rng.randint(n_piles, size=piles[part].size)
    dealt, bounds = _grouped(piles, n_piles)
    whole = order.copy()
    for start, stop in pairwise(bounds.tolist()):
        pile = whole[dealt[start:stop]]
        rng.shuffle(pile)
        order[start:stop] = pile
