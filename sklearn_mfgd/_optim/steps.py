"""One step of all rows of a factor, the other given.

A step moves row i along ``d_i = -P_i^{-1} g_i``, g_i the gradient of the penalized
objective F in row i, and the solvers differ in P alone:

============  =======================  ==========================================
solver        P                        is
============  =======================  ==========================================
``"gd"``      identity                 gradient descent
``"scaled"``  H'H + ridge              scaled gradient descent [1]_, [2]_
``"als"``     the row's own Hessian    alternating least squares
============  =======================  ==========================================

With ``eta="auto"`` each row takes the step that minimizes F along its direction,
``-g_i.d_i / (sum_j (d_i.h_j)^2 + ridge.d_i^2)``, so F never increases; the full step
of ``"als"`` is that step.

Where factors must not be negative, ``"als"`` moves each row to its minimum over such
factors, or most of the way for complete data. The others take the best step within the
bounds towards a point that is feasible: ``"gd"`` towards the projection of its step,
``"scaled"`` towards the minimum of ``g_i.d + 1/2 d.P d`` over ``w_i + d >= 0``. Both
directions descend.

References
----------
.. [1] T. Tong, C. Ma, Y. Chi, "Accelerating Ill-Conditioned Low-Rank Matrix Estimation
   via Scaled Gradient Descent", JMLR 22 (2021).
.. [2] T. Hastie, R. Mazumder, J. D. Lee, R. Zadeh, "Matrix Completion and Low-Rank SVD
   via Fast Alternating Least Squares", JMLR 16 (2015).
"""

from typing import NamedTuple

import numpy as np

from .._kernels.dispatch import non_negative_shared
from .._kernels.linalg import solve_shared

# The new F of a quadratic costs nothing, but below this share of the old one it is the
# rounding of a difference.
CANCELLATION_SHARE = 1e-6


class Step(NamedTuple):
    """Where a step led."""

    factors: np.ndarray
    sizes: np.ndarray
    loss: float | None  # data term and ridge of this side, where known for free


def gradient_step(objective, W, H, penalty, eta) -> Step:
    """Move every row of W against its gradient."""
    value, gradient = _penalized_gradient(objective, W, H, penalty)
    if eta == "auto":
        direction = -gradient
        if penalty.non_negative:
            direction = _projected_direction(objective, W, H, penalty, gradient)
        return _exact_step(objective, W, H, penalty, value, gradient, direction)
    moved = W - (eta * penalty.unit).astype(W.dtype) * gradient
    return Step(penalty.project(moved), np.array([eta]), None)


def scaled_step(objective, W, H, penalty, eta) -> Step:
    """Move every row of W against its gradient, preconditioned by H'H + ridge."""
    value, gradient = _penalized_gradient(objective, W, H, penalty)
    system = objective.gram(H) + np.diag(penalty.ridge)
    if penalty.non_negative:
        direction = non_negative_shared(system, W @ system - gradient, W) - W
    else:
        direction = -solve_shared(system, gradient, len(H))
    direction = direction.astype(W.dtype, copy=False)
    if eta == "auto":
        return _exact_step(objective, W, H, penalty, value, gradient, direction)
    moved = W + W.dtype.type(eta) * direction
    return Step(penalty.project(moved), np.array([eta]), None)


def least_squares_step(objective, W, H, penalty, eta) -> Step:
    """Move every row of W to, or by the fraction eta towards, its minimum."""
    value = None
    if penalty.non_negative:
        exact, value = objective.non_negative_descent(H, penalty.ridge, W)
    else:
        exact = objective.least_squares(H, penalty.ridge)
    if eta == "auto":
        loss = None if value is None else value + penalty.value(exact)
        return Step(exact, np.ones(1), loss)
    moved = W + W.dtype.type(eta) * (exact - W)
    return Step(penalty.project(moved), np.array([eta]), None)


STEPS = {"gd": gradient_step, "scaled": scaled_step, "als": least_squares_step}


def _penalized_gradient(objective, W, H, penalty) -> tuple[float, np.ndarray]:
    value, gradient = objective.value_and_gradient(W, H)
    gradient += penalty.ridge.astype(W.dtype) * W
    return value + penalty.value(W), gradient


def _exact_step(objective, W, H, penalty, value, gradient, direction) -> Step:
    """Minimize F along the direction of each row, where it is quadratic."""
    line = _Line.along(objective, H, penalty, gradient, direction)
    sizes, length = line.sizes, line.length
    if penalty.non_negative:
        sizes = np.minimum(sizes, _room(W, line.direction))
    factors = W + sizes.astype(W.dtype)[:, None] * line.direction
    loss = value + 0.5 * float(sizes @ line.slope)
    sizes = np.divide(sizes, length, out=np.zeros_like(sizes), where=length > 0)
    if penalty.non_negative:  # what is left of a coefficient at its bound is rounding
        factors = np.where(factors <= 4 * np.finfo(W.dtype).eps * W, 0, factors)
        return Step(factors, sizes, None)
    return Step(factors, sizes, loss if loss > CANCELLATION_SHARE * value else None)


class _Line(NamedTuple):
    """The direction of each row, and where F, which is quadratic there, is least."""

    direction: np.ndarray  # with a largest entry of 1, or zero
    length: np.ndarray  # the largest entry that it had
    slope: np.ndarray
    sizes: np.ndarray  # of the steps to the minimum

    @classmethod
    def along(cls, objective, H, penalty, gradient, direction):
        # Scaled to a largest entry of 1, so that no square over- or underflows.
        length = np.abs(direction).max(axis=1)
        direction = direction / np.where(length > 0, length, 1)[:, None]
        # The minimum along d_i is at -g_i.d_i / (sum_j (d_i.h_j)^2 + ridge.d_i^2).
        slope = np.einsum("ij,ij->i", gradient, direction).astype(np.float64)
        curvature = objective.curvature(direction, H) + direction**2 @ penalty.ridge
        zeros = np.zeros_like(slope)
        sizes = np.divide(-slope, curvature, out=zeros, where=curvature > 0)
        return cls(direction, length, slope, sizes)


def _projected_direction(objective, W, H, penalty, gradient):
    """Where the best step against the gradient leads, projected, less W.

    Coefficients that are zero and would become negative take no part in that step.
    """
    free = np.where((W > 0) | (gradient < 0), -gradient, 0)
    line = _Line.along(objective, H, penalty, gradient, free)
    moved = W + line.sizes.astype(W.dtype)[:, None] * line.direction
    return penalty.project(moved) - W


def _room(W, direction):
    """How far each row can go until one of its coefficients becomes negative."""
    room = np.full(W.shape, np.inf)
    np.divide(W, -direction, out=room, where=direction < 0)
    return room.min(axis=1)
