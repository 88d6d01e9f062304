r"""One epoch of stochastic gradient descent over the observed entries.

Entry (i, j) with the error e moves both of its rows [1]_,

.. math::

    w_i \leftarrow w_i - \eta_i \left(s_{ij} e h_j + \mathrm{reg}\, w_i / n_i\right),
    \qquad
    h_j \leftarrow h_j - \eta_j \left(s_{ij} e w_i + \mathrm{reg}\, h_j / n_j\right),

and biases likewise. The ridge is shared out among the n entries of a row, so that an
epoch descends the same F as the other solvers.

With ``eta="auto"`` every row has a step of its own, which shrinks with the gradients it
has seen [2]_: in units in which the data have a standard deviation of 1, it is
``LEARNING_RATE / sqrt(1 + sum of squared gradients / rank)``. An epoch after which F is
larger is taken back and the rate halved, so F never increases.

References
----------
.. [1] Y. Koren, R. Bell, C. Volinsky, "Matrix Factorization Techniques for Recommender
   Systems", Computer 42 (2009).
.. [2] W.-S. Chin, Y. Zhuang, Y.-C. Juan, C.-J. Lin, "A Learning-Rate Schedule for
   Stochastic Gradient Methods to Matrix Factorization", PAKDD 2015.
"""

import numpy as np

from .._kernels import dispatch
from .divergence import HOVERING_RISE, entry_bound
from .grid import deal
from .penalty import penalized_loss
from .sweeps import Iterate

LEARNING_RATE = 0.1
MAX_TAKEN_BACK = 10  # epochs in a row: F is as low as it gets
MIN_SQUARE = 1e-200  # the inverse of a smaller one would overflow


class StochasticEpochs:
    """Epochs that visit the entries in the order of a grid, shuffled once."""

    rounding, probation = 0.0, 0
    tolerated_rise, full_step_descends = HOVERING_RISE, False

    def __init__(self, objective, penalties, eta: float | str, rng):
        self.objective, self.penalties, self.eta = objective, penalties, eta
        self._rng, self._n_taken_back = rng, 0
        rows, dtype = objective.rows, objective.dtype
        self._biases = objective.row_bias, objective.column_bias
        ridge = penalties[not objective.row_bias].ridge  # the one with biases, if any
        self._ridges = float(ridge[0]), float(ridge[-1])
        self._order, self._n_groups, self._starts = deal(rows, rng)
        self._places = rows.row_numbers[self._order], rows.indices[self._order]
        self._entries = self._in_order(rows)
        by_columns = np.bincount(rows.indices, minlength=rows.n_columns)
        counts = np.diff(rows.indptr), by_columns
        self._shares = [(1 / np.maximum(n, 1)).astype(dtype) for n in counts]
        if eta == "auto":
            self._squares = [np.zeros((n, 2), dtype) for n in rows.shape]
            self._etas, self._scales = self._schedule(counts)
        else:
            self._squares, self._scales = [None, None], (0.0, 0.0)
            self._etas = eta * float(penalties[0].unit[0]), eta

    def _schedule(self, counts: tuple[np.ndarray, np.ndarray]) -> tuple[tuple, tuple]:
        """Return first steps and scales of squared gradients, of factors and biases."""
        rows, total = self.objective.rows, self.objective.total
        rank = max(1, len(self.penalties[1].ridge) - self.objective.column_bias)
        weight = 1.0 if rows.weights is None else rows.weights.mean(dtype=float)
        square = total / (weight * rows.indices.size)
        rms = np.sqrt(square) if square > 0 else 1.0
        # Those of data of mean square 1, converted to the units of these data.
        squares = rank * rms**3 * weight**2, (rms * weight) ** 2
        scales = tuple(1 / max(square, MIN_SQUARE) for square in squares)
        etas = LEARNING_RATE / max(rms * weight, MIN_SQUARE), LEARNING_RATE / weight
        # A step of the ridge alone must not lead beyond zero.
        share = 1 / min(n[n > 0].min() for n in counts)
        pairs = zip(etas, [ridge * share for ridge in self._ridges], strict=True)
        return tuple(1 / own if eta * own > 1 else eta for eta, own in pairs), scales

    def ceiling(self, start: float) -> float:
        # A fixed step ends up hovering about a minimum, so a start below F of no
        # factors is no ceiling. What diverges soon leaves factors of zero behind, too.
        return max(start, 0.5 * self.objective.total)

    def step_bound(self, at: Iterate) -> float:
        return entry_bound(self.objective, at.W, at.H, self.penalties)

    def sweep(self, last: Iterate, last_gain: float) -> Iterate:
        """Run an epoch; with ``eta="auto"`` take it back if F rises."""
        W, H = last.W.copy(), last.H.copy()
        if not self.objective.is_squared:  # a quadratic for the whole epoch
            if self.eta == "auto":
                self.objective.adapt(W, H)
            self._entries = self._in_order(self.objective.quadratic(W, H).rows)
        with np.errstate(over="ignore", invalid="ignore"):
            self._visit_entries(W, H)
        loss = penalized_loss(self.objective, self.penalties, W, H)
        if self.eta == "auto" and not loss <= last.loss:
            self._n_taken_back += 1
            self._etas = tuple(eta / 2 for eta in self._etas)
            with np.errstate(over="ignore", invalid="ignore"):
                for squares in self._squares:  # that overflowed would end all steps
                    squares[~np.isfinite(squares * max(self._scales))] = 0
            exhausted = self._n_taken_back == MAX_TAKEN_BACK
            return last._replace(step_sizes=self.step_sizes, converged=exhausted)
        self._n_taken_back = 0
        return Iterate(W, H, loss, self.step_sizes)

    def _in_order(self, rows) -> tuple:
        """Entries in the order in which an epoch visits them."""
        given = rows.values, rows.weights
        parts = (None if part is None else part[self._order] for part in given)
        return *self._places, *parts

    def _visit_entries(self, W: np.ndarray, H: np.ndarray) -> None:
        """Make the steps of all entries, the blocks of a diagonal at the same time."""
        n, given = self._n_groups, (self._biases, self._shares, self._squares)
        lengths = {"ridges": self._ridges, "etas": self._etas, "scales": self._scales}
        for shift in self._rng.permutation(n):
            # Blocks (k, k + shift): no two of them share a row or a column.
            diagonal = [k * n + (k + shift) % n for k in range(n)]
            ranges = [self._starts[k : k + 2].tolist() for k in diagonal]
            dispatch.stochastic_steps(self._entries, ranges, W, H, *given, **lengths)

    def step_sizes(self) -> np.ndarray:
        if self.eta != "auto":
            return np.array([self.eta])
        sums = np.concatenate([squares[:, 0] for squares in self._squares])
        return self._etas[0] / np.sqrt(1 + self._scales[0] * sums)
