"""The history of a descent: loss curves, the best iterate, and who is told of it."""

from typing import Any, NamedTuple

import numpy as np


class Descent(NamedTuple):
    """The result of a descent."""

    W: np.ndarray
    H: np.ndarray
    n_iter: int
    converged: bool  # or ended on purpose, by `validate` or `monitor`
    step: float  # the fixed one, or the median of the steps of the last sweep
    loss_curve: list[float]  # F after each sweep
    validation_curve: list[float]  # held-out error after each sweep; empty without
    state: Any = None  # what else the method knows at (W, H)


class History:
    """Record the sweeps, find the best iterate, and decide on early stopping.

    Parameters
    ----------
    W, H : ndarray
        Where the descent starts.
    tol, validate, n_iter_no_change, monitor
        See `descend`.
    """

    def __init__(self, W, H, *, tol, validate, n_iter_no_change, monitor):
        self._tol, self._max_stale = tol, n_iter_no_change
        self._validate, self._monitor = validate, monitor
        self._losses: list[float] = []
        self._errors: list[float] = []
        self._last = self._best = W, H, None
        self._least_error, self._reference, self._n_stale = np.inf, np.inf, 0
        self._step_sizes, self.converged = _no_steps, False
        if monitor is not None:
            monitor(self.descent())

    def add(self, W, H, loss, step_sizes, converged, state=None) -> None:
        """Record a sweep; ``step_sizes()`` are the lengths of its steps."""
        self._last, self._step_sizes = (W, H, state), step_sizes
        self._losses.append(loss)
        self.converged = converged
        if self._validate is not None:
            self._check_held_out()
            self.converged = converged or self._n_stale >= self._max_stale
        if self._monitor is not None:
            self.converged = self._monitor(self.descent()) or self.converged

    def _check_held_out(self) -> None:
        """Keep the iterate of least error, and count the sweeps without improvement."""
        W, H, _ = self._last
        error = self._validate(W, H)
        if not np.isfinite(error):
            raise ValueError(
                f"The error of the entries that early_stopping=True holds out is "
                f"{error} after sweep {len(self._losses)}: the factors are too large "
                "to multiply. Use a larger reg, or early_stopping=False."
            )
        # The first error improves on none: with tol=1, infinity times 0 is NaN.
        improved = not self._errors or error < self._reference * (1 - self._tol)
        self._errors.append(error)
        self._n_stale = 0 if improved else self._n_stale + 1
        if improved:
            self._reference = error
        if error < self._least_error:
            self._least_error, self._best = error, self._last

    def descent(self) -> Descent:
        """Return the result of a descent that ends here."""
        W, H, state = self._last if self._validate is None else self._best
        step_sizes = self._step_sizes()
        # A row without observed entries makes no step.
        step_sizes = step_sizes[step_sizes > 0]
        return Descent(
            W,
            H,
            n_iter=len(self._losses),
            converged=self.converged,
            step=float(np.median(step_sizes)) if step_sizes.size else 0.0,
            loss_curve=self._losses,
            validation_curve=self._errors,
            state=state,
        )


def _no_steps() -> np.ndarray:
    return np.zeros(0)
