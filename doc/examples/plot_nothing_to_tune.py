"""
Factors that find their own number
==================================

A table has four factors and noise, and the fit starts with 32 factors. You choose no
ridge and no rank. The fit learns how much to shrink each factor, and drops the factors
that explain nothing. Four are left.
"""

# %%
# A table with a known answer
# ---------------------------
#
# We simulate a table with four factors. Each explains half as much variance as the one
# before. The noise is as large as the smallest factor, and half of the entries are
# missing.

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sklearn_mfgd import MaskedGradientMF

rng = np.random.default_rng(0)
sizes = np.array([1, 2, 4, 8]) ** -0.5
signal = (sizes * rng.normal(size=(400, 4))) @ rng.normal(size=(4, 60))
X = signal + sizes[-1] * rng.normal(size=signal.shape)
hidden = rng.random(X.shape) < 0.5
table = np.where(hidden, np.nan, X)

# %%
# Follow the factors during the fit
# ---------------------------------
#
# For every factor the fit learns two precisions: p for the rows and q for the columns.
# A precision is one over a variance. The contribution of the factor to an entry has a
# standard deviation of about ``1 / sqrt(p * q)``. We stop the fit after 1, 2, 3, ...
# sweeps, to look at the factors on the way.

n_sweeps = MaskedGradientMF().fit(table).n_iter_
found, errors = np.full((n_sweeps, 32), np.nan), []
for n in range(1, n_sweeps + 1):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopped on purpose
        model = MaskedGradientMF(max_iter=n)
        filled = model.inverse_transform(model.fit_transform(table))
    contributions = (model.row_precision_ * model.column_precision_) ** -0.5
    found[n - 1, : model.rank_] = np.sort(contributions)[::-1]
    errors.append(np.sqrt(np.mean((filled - signal)[hidden] ** 2)))
print(f"{model.rank_} factors are left after {n_sweeps} sweeps")

# %%
# Four remain
# -----------
#
# The left picture shows that the 28 factors which explain nothing shrink together. The
# fit drops them once the evidence lower bound (ELBO), its measure of how well the model
# explains the data, is better without them. The right picture shows the error on hidden
# entries, compared with the true values without noise. It falls and stays down, so the
# fit does not follow the noise.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
sweeps = np.arange(1, n_sweeps + 1)
left.semilogy(sweeps, found[:, 4:], color="0.65", linewidth=1)
left.semilogy(sweeps, found[:, :4], color="C0", linewidth=2.5)
for size in sizes:
    left.axhline(size, color="black", linestyle=":", linewidth=1)
last = np.flatnonzero(np.isfinite(found[:, 5]))[-1]
left.annotate(
    "dropped",
    (sweeps[last], found[last, 5]),
    xytext=(8, 12),
    textcoords="offset points",
    color="0.35",
)
left.set(xlabel="sweep", ylabel="standard deviation of a contribution")
left.set_title("4 of 32 factors stay (dotted: true sizes)", loc="left")

right.plot(sweeps, errors, color="C0", linewidth=2.5)
right.axhline(sizes[-1], color="black", linestyle=":", linewidth=1)
right.text(n_sweeps, sizes[-1], "noise", ha="right", va="bottom")
right.set(xlabel="sweep", ylabel="RMSE of hidden entries", ylim=(0, None))
right.set_title("The error falls and stays down", loc="left")
for axes in (left, right):
    axes.spines[["top", "right"]].set_visible(False)
plt.show()
