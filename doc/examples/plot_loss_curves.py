"""
Three solvers on easy and hard matrices
=======================================

This page compares gradient descent, scaled gradient descent and alternating least
squares on four matrices. The matrices are harder and harder to fit: their largest
singular value is 1, 10, 100 and 1,000 times their smallest. Alternating least squares
is fast on all.
"""

# %%
# Four matrices
# -------------
#
# All matrices have 400 rows, 200 columns, rank 10 and a root mean square of 1. Half of
# their entries are missing, and there is no noise, so a perfect fit exists. The
# *condition number* is the largest singular value divided by the smallest.

import warnings
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sklearn_mfgd import GradientMF
from sklearn_mfgd.plotting import LossCurveDisplay

RANK = 10
CONDITIONS = 1, 10, 100, 1000
SOLVERS = "gd", "scaled", "als"

rng = np.random.default_rng(0)
left = np.linalg.qr(rng.normal(size=(400, RANK)))[0]
right = np.linalg.qr(rng.normal(size=(200, RANK)))[0]
mask = rng.random((400, 200)) < 0.5


def conditioned(condition):
    X = left * np.geomspace(1, 1 / condition, RANK) @ right.T
    return X / np.sqrt(np.mean(X**2))


# %%
# Fit each matrix with each solver
# --------------------------------
#
# Every fit starts from the same random factors. It stops after 200 sweeps, or when only
# rounding error is left. With ``eta="auto"``, the default, every row takes its best
# step. The seconds of a sweep are the seconds of the fit divided by the number of
# sweeps.

curves = {}
for condition in CONDITIONS:
    X = conditioned(condition)
    for solver in SOLVERS:
        model = GradientMF(
            RANK, solver=solver, init="random", tol=0, max_iter=200, random_state=0
        )
        start = perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(X, mask=mask)
        seconds = (perf_counter() - start) / model.n_iter_
        rmse = np.sqrt(2 * np.array(model.loss_curve_) / mask.sum())
        curves[condition, solver] = rmse, seconds

# %%
# This table counts the sweeps until the root mean squared error is a millionth of the
# root mean square of the data.

print("condition number", *(f"{condition:>8}" for condition in CONDITIONS))
for solver in SOLVERS:
    needed = []
    for condition in CONDITIONS:
        reached = np.flatnonzero(curves[condition, solver][0] <= 1e-6)
        needed.append(str(reached[0] + 1) if len(reached) else "> 200")
    print(f"{solver:<16}", *(f"{n:>8}" for n in needed))

# %%
# - "als", alternating least squares, solves for every row exactly. The condition number
#   hardly matters.
# - "scaled" multiplies the gradient by the inverse of HᵀH, where H are the column
#   factors. This matrix is the same for all rows, although each row has other observed
#   columns. The solver is fast up to a condition number of 10 and slow at 100. At 1,000
#   it does not reach this error in 200 sweeps.
# - "gd", plain gradient descent, is fast only if all singular values are equal.
#
# Draw it
# -------
#
# The upper pictures show the error by sweep, the lower ones by time.

fig, axes = plt.subplots(
    2, 4, figsize=(11, 6), sharex="row", sharey=True, layout="constrained"
)
for (above, below), condition in zip(axes.T, CONDITIONS, strict=True):
    of_solvers = {solver: curves[condition, solver] for solver in SOLVERS}
    rmse = {solver: curve for solver, (curve, _) in of_solvers.items()}
    when = {
        solver: seconds * np.arange(1, len(curve) + 1)
        for solver, (curve, seconds) in of_solvers.items()
    }
    LossCurveDisplay(rmse).plot(above)
    LossCurveDisplay(rmse, seconds=when).plot(below)
    above.set(title=f"condition number {condition:,}", xlim=(0, 100))
    below.set(xlabel="seconds", xscale="log")
for ax in axes.flat:
    ax.set(ylabel="", yscale="log", ylim=(1e-9, 3))
    ax.grid(alpha=0.3)
    if ax is not axes[0, 0]:
        ax.get_legend().remove()
for ax in axes[:, 0]:
    ax.set_ylabel("RMSE of observed entries")
plt.show()
