"""Steps that are too long: the error, and a shorter step that descends.

A bound of the curvature says where to begin. It holds near the factors that it was
taken at, and a descent goes on to others, so a step is named only once it has been
tried: from where the fit started and for as many sweeps, as the user will. Where the
factors of the optimum are huge, a step may fail that went well for long.
"""

import numpy as np

# Steps of single entries hover about a minimum. A rise of F by less than this share is
# taken for that, and not for the beginning of a divergence.
HOVER = 0.01

# Halvings in search of a step: of one that does not diverge, and from there of one
# under which F falls. At a minimum, where an SVD may start, F cannot fall.
HALVINGS, MORE_HALVINGS = 100, 3


class DivergenceError(ValueError):
    """Raised when a fixed step `eta` makes the objective grow instead of fall.

    Parameters
    ----------
    eta : float
        The step that diverged.
    n_iter : int
        The sweep at which that was seen.
    stable_eta : float
        A step that descends.

    Attributes
    ----------
    eta, n_iter, stable_eta
        As given.

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


def refuse_infinite(loss, n_iter):
    """Raise an error where F is not finite although no step was given."""
    if not np.isfinite(loss):
        place = f"after sweep {n_iter}" if n_iter else "at the start"
        raise ValueError(
            f"The objective is {loss} {place}: numbers leave the range of floats. "
            "Bring the factors of init, or those that warm_start=True goes on from, "
            "nearer to the size of X, and entry_weight nearer to 1, or use float64."
        )


def descending_step(longest, trial, start, hover=HOVER):
    """Halve a step until F falls under it.

    Parameters
    ----------
    longest : float
        Where to begin.
    trial : callable (eta) -> iterable of float
        F after each of the sweeps that a fit may make, from its start.
    start : float
        F there.
    hover : float
        Share of F that it may rise by.

    Returns
    -------
    float
    """
    eta, hovering = longest, None
    for _ in range(HALVINGS):
        loss = np.nan
        for loss in trial(eta):
            if not loss <= start * (1 + hover):
                break
        else:
            if loss < start:
                return eta
            hovering = hovering or eta
        if hovering and eta < hovering / 2**MORE_HALVINGS:
            return hovering
        eta /= 2
    return hovering or eta


def gradient_bound(objective, W, H, penalties):
    """Bound the steps of gradient descent: 1/L, L a bound of the curvature.

    Gradient descent keeps H'H - W'W, so from the largest curvature of today either side
    grows by the largest singular value of the data at the most.
    """
    lipschitz, largest_unit = (
        0.0,
        max(float(penalty.unit.max()) for penalty in penalties),
    )
    for problem, other, penalty in (
        (objective, H, penalties[0]),
        (objective.T, W, penalties[1]),
    ):
        root = np.sqrt(penalty.unit / largest_unit)
        hessian = problem.gram(other) + np.diag(penalty.ridge)
        largest = np.linalg.eigvalsh(root[:, None] * hessian * root)[-1]
        lipschitz = max(lipschitz, largest)
    rank = W.shape[1] - objective.row_bias
    A = objective.deflate(W[:, rank:], H[:, rank:])
    slope = objective.largest_weight * _largest_singular_value(A, W.dtype)
    lipschitz += penalties[0].unit[0] / largest_unit * slope
    return 1.0 / lipschitz / largest_unit if lipschitz > 0 else np.inf


def entry_bound(objective, W, H, penalties):
    """Bound the steps of single entries: half the inverse of the largest curvature.

    That of an entry is the sum of the squares of its two rows, which is at least twice
    its size once it is fitted.
    """
    row_bias, column_bias = objective.row_bias, objective.column_bias
    rank = W.shape[1] - row_bias
    largest = sum(float(np.square(F[:, :rank]).sum(axis=1).max()) for F in (W, H))
    errors = objective.deflate(W[:, rank:], H[:, rank:]).rows.values
    largest = max(largest, 2 * float(np.abs(errors).max()))
    unit, ridge = float(penalties[0].unit[0]), float(penalties[0].ridge[0])
    weight = objective.largest_weight
    of_biases = weight * (row_bias + column_bias)
    scale = max(unit, 1.0)  # first, so that nothing overflows
    return 0.5 / scale / (unit / scale * (weight * largest + ridge) + of_biases / scale)


def _largest_singular_value(A, dtype, n_iter=20):
    """Power iteration."""
    v = np.random.RandomState(0).standard_normal((A.shape[1], 1)).astype(dtype)
    for _ in range(n_iter):
        v = A.T @ (A @ (v / max(np.linalg.norm(v), np.finfo(dtype).tiny)))
    return float(np.sqrt(np.linalg.norm(v)))
