"""
Mask, observed, approximation, truth
====================================

A matrix of rank two, of which 60 % is observed, is approximated from that. Side by side
it shows what a factorization can know, and what it cannot.
"""

# %%
# Two matrices of rank two
# ------------------------
#
# One of 5 x 6 entries, and one of 50 x 60, both with a noise of 0.05. Rows and columns
# are sorted by the angle between their two factors, so that similar ones are
# neighbours: that makes the picture easier to read, and no difference to the fit.

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sklearn_mfgd import GradientMF
from sklearn_mfgd.plotting import MatrixDisplay


def planted(n_rows, n_columns, seed):
    """A matrix of rank two with noise, and which of its entries are observed."""
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(n_rows, 2))
    H = rng.normal(size=(n_columns, 2))
    W, H = (factor[np.argsort(np.arctan2(*factor.T))] for factor in (W, H))
    X = W @ H.T + 0.05 * rng.normal(size=(n_rows, n_columns))
    return X, rng.random(X.shape) < 0.6


matrices = [planted(5, 6, seed=6), planted(50, 60, seed=0)]

# %%
# Plain gradient descent
# ----------------------
#
# 2,000 steps of 0.05 bring the small matrix to a loss of almost nothing. The larger one
# needs shorter steps, since each row sums over more columns; with ``eta="auto"`` there
# is no step to choose. The ``mask`` is True where an entry is observed. Values
# elsewhere are not read.

X, mask = matrices[0]
model = GradientMF(
    2, solver="gd", eta=0.05, init="random", max_iter=2000, tol=0, random_state=0
)
curve = model.fit(X, mask=mask).loss_curve_
for sweep in 1, 10, 100, len(curve):
    print(f"loss after {sweep} sweeps: {curve[sweep - 1]:.2g}")

# %%
# What it cannot know
# -------------------
#
# Two factors for 5 rows and 6 columns are 18 numbers, when the four that only mix the
# factors are taken off. There are about as many observations, so the fit reproduces
# them all, and the hidden entries can be nearly anything: a low loss says nothing about
# them. (Other seeds of this example give errors from 0.07 to over 200.) The larger
# matrix has 1,800 observations for 216 numbers, and there the hidden entries come out
# as well as the noise allows.

models = []
for X, mask in matrices:
    model = GradientMF(2, tol=0, max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        W = model.fit_transform(X, mask=mask)
    models.append(model)
    residual = model.inverse_transform(W) - X
    print(
        f"{X.shape[0]} x {X.shape[1]}: {mask.sum()} observed for "
        f"{2 * sum(X.shape) - 4} numbers; RMSE of observed entries "
        f"{np.sqrt(np.mean(residual[mask] ** 2)):.3f}, of hidden ones "
        f"{np.sqrt(np.mean(residual[~mask] ** 2)):.3f}"
    )

# %%
# Side by side
# ------------
#
# The three pictures of values share their colours; what is missing is hatched.

fig, axes = plt.subplots(2, 4, figsize=(10, 7), layout="constrained")
for row, model, (X, mask) in zip(axes, models, matrices, strict=True):
    MatrixDisplay.from_estimator(
        model,
        np.where(mask, X, np.nan),
        truth=X,
        panels=["mask", "observed", "reconstruction", "truth"],
        ax=row,
    )
plt.show()
