"""Steps that are too long: the error, and the search for a step that descends.

The search begins at a bound of the curvature, which holds near the factors it was
computed at. Where the optimum has huge factors, a step may fail after many sweeps that
went well, so one is named only after a trial from the start, for as many sweeps.
"""

import numpy as np

# Steps of single entries hover about a minimum. A rise of F by less than this share is
# taken for that, and not for the beginning of a divergence.
HOVERING_RISE = 0.01

# Halvings in search of a step that does not diverge, and from there of one under which
# F falls. At a minimum, where an SVD may start, F cannot fall.
MAX_HALVINGS, MAX_MORE_HALVINGS = 100, 3

N_POWER_ITERATIONS = 20  # on A'A, for the largest singular value of A


class DivergenceError(ValueError):
    """Raised when a fixed step `eta` makes the objective grow instead of fall.

    The message and `stable_eta` name a step that works. ``eta="auto"`` never raises it.

    Parameters
    ----------
    eta : float
        The step that was too long.
    n_iter : int
        Number of the sweep in which the objective grew.
    stable_eta : float
        A step with which the objective falls.

    Attributes
    ----------
    eta : float
        The step that was too long.
    n_iter : int
        Number of the sweep in which the objective grew.
    stable_eta : float
        A step with which the objective falls.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mfgd import DivergenceError, GradientMF
    >>> X = np.outer(np.arange(1, 9), [30.0, 40.0, 50.0])
    >>> try:
    ...     GradientMF(rank=1, solver="gd", eta=0.5).fit(X)
    ... except DivergenceError as error:
    ...     model = GradientMF(rank=1, solver="gd", eta=error.stable_eta).fit(X)
    """

    def __init__(self, eta, n_iter, stable_eta):
        super().__init__(eta, n_iter, stable_eta)
        self.eta, self.n_iter, self.stable_eta = eta, n_iter, stable_eta

    def __str__(self):
        eta = self.eta if isinstance(self.eta, str) else f"{self.eta:g}"
        return (
            f"The objective diverged at sweep {self.n_iter} with eta={eta}. A "
            f"step that is stable for these data is eta={self.stable_eta:.3g}; "
            "eta='auto' finds the best step of every row by itself."
        )


def refuse_infinite(loss: float, n_iter: int) -> None:
    """Raise an error if F is not finite although no step was given."""
    if not np.isfinite(loss):
        place = f"after sweep {n_iter}" if n_iter else "at the start"
        raise ValueError(
            f"The objective is {loss} {place}: numbers leave the range of floats. "
            "Bring the factors of init, or those that warm_start=True goes on from, "
            "nearer to the size of X, and entry_weight nearer to 1, or use float64."
        )


def descending_step(longest, losses, start, tolerated_rise=HOVERING_RISE) -> float:
    """Halve a step from the longest on until F falls under it from its start.

    ``losses(eta)`` is F after each sweep, which may rise by the tolerated share.
    """
    eta, hovering = longest, None
    for _ in range(MAX_HALVINGS):
        for loss in losses(eta):
            if not loss <= start * (1 + tolerated_rise):
                break
        else:
            if loss < start:
                return eta
            hovering = hovering or eta
        if hovering and eta < hovering / 2**MAX_MORE_HALVINGS:
            return hovering
        eta /= 2
    return hovering or eta


def gradient_bound(objective, W: np.ndarray, H: np.ndarray, penalties) -> float:
    """Bound the steps of gradient descent: 1/L, L a bound of the curvature."""
    largest_unit = max(float(penalty.unit.max()) for penalty in penalties)
    lipschitz, sides = 0.0, (objective, objective.T)
    for side, other, penalty in zip(sides, (H, W), penalties, strict=True):
        # Largest eigenvalue of U^(1/2) (other' other + ridge) U^(1/2), U the units.
        root = np.sqrt(penalty.unit / largest_unit)
        hessian = side.gram(other) + np.diag(penalty.ridge)
        eigenvalues = np.linalg.eigvalsh(root[:, None] * hessian * root)
        lipschitz = max(lipschitz, eigenvalues[-1])
    # Gradient descent conserves H'H - W'W, so the largest curvature of either side
    # grows by at most the largest singular value of the data.
    rank = W.shape[1] - objective.row_bias
    A = objective.deflate(W[:, rank:], H[:, rank:])
    v = np.random.RandomState(0).standard_normal((len(H), 1)).astype(W.dtype)
    for _ in range(N_POWER_ITERATIONS):
        v = A.T @ (A @ (v / max(np.linalg.norm(v), np.finfo(W.dtype).tiny)))
    growth = objective.largest_weight * float(np.sqrt(np.linalg.norm(v)))
    lipschitz += penalties[0].unit[0] / largest_unit * growth
    return 1.0 / lipschitz / largest_unit if lipschitz > 0 else np.inf


def entry_bound(objective, W: np.ndarray, H: np.ndarray, penalties) -> float:
    """Bound the steps of single entries: half the inverse of the largest curvature.

    The curvature of entry (i, j) is w_i.w_i + h_j.h_j, which is at least twice the size
    of the entry once it is fitted.
    """
    row_bias, column_bias = objective.row_bias, objective.column_bias
    rank = W.shape[1] - row_bias
    largest = sum(float(np.square(F[:, :rank]).sum(axis=1).max()) for F in (W, H))
    deflated = objective.deflate(W[:, rank:], H[:, rank:])
    largest = max(largest, 2 * deflated.largest())
    unit, ridge = float(penalties[0].unit[0]), float(penalties[0].ridge[0])
    # 0.5 / (unit * (weight * largest + ridge) + weight * number of biases), divided by
    # the scale first so that nothing overflows.
    weight, scale = objective.largest_weight, max(unit, 1.0)
    bias_curvature = weight * (row_bias + column_bias) / scale
    return 0.5 / scale / (unit / scale * (weight * largest + ridge) + bias_curvature)
