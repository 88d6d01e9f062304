"""
What a factorization can know
=============================

Two matrices of rank two have 40 % of their entries missing, a small one and a larger
one. The pictures show the mask, the observed entries, the reconstruction and the truth.
In the small matrix too few entries are observed to predict the others.
"""

# %%
# Two matrices of rank two
# ------------------------
#
# One matrix has 5 x 6 entries and one has 50 x 60, both with a noise of 0.05. We sort
# rows and columns so that similar ones are neighbours. This makes the pictures easier
# to read and does not change the fit.

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
# On the small matrix, 2,000 steps of 0.05 bring the loss close to zero. The ``mask`` is
# True where an entry is observed; other values are not read. A larger matrix needs
# shorter steps, since each row sums over more columns. With ``eta="auto"`` you choose
# no step.

X, mask = matrices[0]
model = GradientMF(
    2, solver="gd", eta=0.05, init="random", max_iter=2000, tol=0, random_state=0
)
curve = model.fit(X, mask=mask).loss_curve_
for sweep in 1, 10, 100, len(curve):
    print(f"loss after {sweep} sweeps: {curve[sweep - 1]:.2g}")

# %%
# How many observed entries are enough?
# -------------------------------------
#
# - The small matrix has 18 free numbers in its factors, and about as many observed
#   entries. The fit reproduces the observed entries, and nothing determines the hidden
#   ones. A low loss says nothing about them.
# - The larger matrix has 216 free numbers and about 1,800 observed entries. The fit
#   predicts the hidden entries as well as the noise allows.

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
        f"{2 * sum(X.shape) - 4} free numbers; RMSE of observed entries "
        f"{np.sqrt(np.mean(residual[mask] ** 2)):.3f}, of hidden ones "
        f"{np.sqrt(np.mean(residual[~mask] ** 2)):.3f}"
    )

# %%
# Side by side
# ------------
#
# The three pictures of values have the same colours. Missing entries are hatched.

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
