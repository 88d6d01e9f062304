"""Least squares with coefficients that are not negative, many small problems at once.

With a system A and targets b each row minimizes ``w.A w / 2 - b.w`` over w >= 0. It
starts from coefficients that are given, and every move lowers that objective:

- passes of coordinate descent, ``w_k = max(0, w_k - gradient_k / A_kk)``, find which
  coefficients are positive;
- the minimum over these, the face, comes from a system of their own. The step there
  ends where the first of them becomes zero. It leaves the face, and another step
  follows [1]_.

Both alternate until the conditions of Karush, Kuhn and Tucker hold to rounding. If that
takes long, as it can for systems near to singular, the one coefficient that violates
them most enters the face in place of further passes [2]_.

Systems are scaled to a unit diagonal, so that the units of coefficients do not matter.
The system of a face is made definite by `NEARNESS`, whose effect repeated steps undo:
where many coefficients attain the minimum, those near the start are taken.

References
----------
.. [1] J. Nocedal, S. J. Wright, "Numerical Optimization", 2nd edition (2006), section
   16.5: active-set methods for convex problems.
.. [2] C. L. Lawson, R. J. Hanson, "Solving Least Squares Problems" (1974), chapter 23.
"""

import numpy as np

from .linalg import UNDERFLOW_LIMIT

# Added to the unit diagonal of the system of a face.
NEARNESS = 1e-10

# The gradient may violate the conditions by this share of the largest number of a row,
# for each coefficient.
KKT_ROUNDING = 1e-15

# Cycles that begin with passes of coordinate descent, and how many passes. Then one
# coefficient at a time enters the face, in at most the last number of cycles for each.
DESCENDING_CYCLES, MOST_PASSES, MOST_ENTERING = 4, 4, 3

# Steps on one face.
MOST_REFINEMENTS = 3


def minimize(systems: np.ndarray, targets: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Minimize each row from its start, (n_rows, r), by its system, (n_rows, r, r).

    A coefficient of which the system knows nothing is zero; a row of which the system
    has overflowed is NaN.
    """
    diagonal = np.diagonal(systems, axis1=1, axis2=2)
    finite = np.isfinite(diagonal).all(axis=1)
    known = (diagonal > UNDERFLOW_LIMIT) & finite[:, None]
    scale = np.divide(1, np.sqrt(diagonal), out=np.zeros(diagonal.shape), where=known)
    A = np.where(finite[:, None, None], systems, 0)
    A = A * scale[:, :, None] * scale[:, None, :]
    k = np.arange(A.shape[1])
    A[:, k, k] = 1
    b = targets * scale
    w = np.divide(start, scale, out=np.zeros(b.shape), where=known & (start > 0))
    violation, limit = _violation(A, b, w)
    open_rows = (violation > limit[:, None]).any(axis=1)  # not yet at their minimum
    A, b, rows = A[open_rows], b[open_rows], np.flatnonzero(open_rows)
    enters = None
    for cycle in range(DESCENDING_CYCLES + MOST_ENTERING * len(k)):
        if not rows.size:
            break
        descends = cycle < DESCENDING_CYCLES
        solved, enters = _run_cycle(A, b, w[rows], None if descends else enters)
        w[rows], open_rows = solved, enters >= 0
        A, b, rows, enters = (part[open_rows] for part in (A, b, rows, enters))
    w[~finite] = np.nan
    return w * scale


def descend(system, targets, start, n_passes):
    """Make passes of coordinate descent over rows that share a system, (r, r)."""
    w, diagonal = np.array(start, np.float64, order="F"), np.diagonal(system)
    known = diagonal > UNDERFLOW_LIMIT
    w[:, ~known] = 0
    if not np.isfinite(diagonal).all():
        return np.full_like(w, np.nan)
    for _ in range(n_passes):
        for k in np.flatnonzero(known):
            step = (targets[:, k] - w @ system[:, k]) / diagonal[k]
            w[:, k] = np.maximum(w[:, k] + step, 0)
    return w


def _run_cycle(A, b, w, enters):
    """Descend, or let a coefficient of each row enter its face; minimize on the face.

    Returns the new coefficients, and which one violates the conditions most: -1 at the
    minimum, or where the one that entered has left again.
    """
    every = np.arange(len(w))
    if enters is None:
        w = _descend(A, b, w)
        face = w > 0
    else:
        face = w > 0
        face[every, enters] = True
    w = _minimize_on_face(A, b, w, face)
    violation, limit = _violation(A, b, w)
    worst = violation.argmax(axis=1)
    done = violation.max(axis=1) <= limit
    if enters is not None:
        done |= w[every, enters] == 0
    return w, np.where(done, -1, worst)


def _violation(A, b, w):
    """How much each coefficient violates the conditions, and how much is rounding."""
    gradient = _gradient(A, b, w)
    violation = np.where((w > 0) & (gradient > 0), gradient, -gradient)
    largest = np.maximum(np.abs(b), w).max(axis=1, initial=0)
    return violation, w.shape[1] * KKT_ROUNDING * largest


def _gradient(A, b, w):
    return np.einsum("ijk,ik->ij", A, w) - b


def _descend(A, b, w):
    """Make passes of coordinate descent until the same coefficients are positive."""
    gradient, w = _gradient(A, b, w), w.copy()
    moves = np.ones(len(w), bool)
    for _ in range(MOST_PASSES):
        were_positive = w > 0
        for k in range(w.shape[1]):
            after = np.maximum(w[:, k] - gradient[:, k], 0)
            after = np.where(moves, after, w[:, k])
            gradient += (after - w[:, k])[:, None] * A[:, k]
            w[:, k] = after
        moves = (were_positive != (w > 0)).any(axis=1)
    return w


def _minimize_on_face(A, b, w, face):
    """Minimize over the face; coefficients that would become negative leave it."""
    w, k = w.copy(), np.arange(w.shape[1])
    rows, n_steps = np.arange(len(w)), np.zeros(len(w), int)
    while rows.size:
        own, part = A[rows], face[rows]
        systems = own * part[:, :, None] * part[:, None, :]
        systems[:, k, k] = np.where(part, 1 + NEARNESS, 1)
        gradient = np.where(part, _gradient(own, b[rows], w[rows]), 0)
        step = -np.linalg.solve(systems, gradient[..., None])[..., 0]
        before = w[rows]
        # Shares of the step at which a coefficient becomes zero
        shares = np.full_like(step, np.inf)
        np.divide(before, -step, out=shares, where=before + step < 0)
        length = np.minimum(shares.min(axis=1), 1)[:, None]
        blocking = shares == length
        w[rows] = np.where(blocking, 0, np.maximum(before + length * step, 0))
        face[rows] = part & ~blocking
        cut_short = blocking.any(axis=1)
        n_steps[rows] = np.where(cut_short, 0, n_steps[rows] + 1)
        violation, limit = _violation(own, b[rows], w[rows])
        settled = violation.max(axis=1) <= limit
        going_on = cut_short | ~(settled | (n_steps[rows] == MOST_REFINEMENTS))
        rows = rows[going_on]
    return w
