"""
Choosing the rank
=================

The error of a reconstruction falls with every factor, for ever. What falls and rises
again is the error of entries that the fit has not seen.
"""

# %%
# A table with a known answer
# ---------------------------
#
# Five factors, noise, and a fifth of the entries missing.

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import cross_val_score

from sklearn_mfgd import GradientMF, MaskedGradientMF

warnings.simplefilter("ignore", ConvergenceWarning)

rng = np.random.default_rng(0)
sizes, noise = np.array([1.0, 0.9, 0.8, 0.7, 0.6]), 0.6
X = (sizes * rng.normal(size=(150, 5))) @ rng.normal(size=(5, 40))
X += noise * rng.normal(size=X.shape)
X[rng.random(X.shape) < 0.2] = np.nan

# %%
# Two ways to judge a rank
# ------------------------
#
# The error of the reconstruction of what was seen, and the score on rows that were held
# out, which hides a fifth of their entries at a time and predicts them from the others.

ranks = np.arange(1, 13)
reconstruction, score = [], []
for rank in ranks:
    model = GradientMF(rank, max_iter=50)
    reconstruction.append(
        model.fit(X).reconstruction_err_ / np.sqrt((~np.isnan(X)).sum())
    )
    score.append(cross_val_score(model, X, cv=3).mean())
best = ranks[np.argmax(score)]
print(f"by the reconstruction: rank {ranks[np.argmin(reconstruction)]}, the largest")
print(f"by the honest score:   rank {best}")

# %%
# Or leave it to the data
# -----------------------
#
# With the regularization learned, thirty-two factors may be asked for. Those that the
# data do not support are dropped, and the score does not suffer from the rest.

learned = MaskedGradientMF(fit_bias=False)
print(f"learned:               rank {learned.fit(X).rank_}")
learned_score = cross_val_score(learned, X, cv=3).mean()

# %%
# One falls for ever, one has its peak at the truth
# -------------------------------------------------

figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.6), layout="constrained")
left.plot(ranks, reconstruction, "o-", color="C0")
left.axhline(noise, color="black", linestyle=":", linewidth=1)
left.text(12, noise, "noise", ha="right", va="bottom")
left.set(xlabel="rank", ylabel="RMSE of what was seen", ylim=(0, None))
left.set_title("The reconstruction: the more, the better", loc="left")

right.plot(ranks, score, "o-", color="C1")
right.plot(best, max(score), "o", color="black", markersize=9, fillstyle="none")
right.annotate(
    f"rank {best}",
    (best, max(score)),
    xytext=(0, 8),
    textcoords="offset points",
    ha="center",
)
right.axhline(learned_score, color="black", linestyle="--", linewidth=1)
right.text(1, learned_score, "learned", ha="left", va="bottom")
right.set(xlabel="rank", ylabel="Q² of held-out rows", ylim=(0, 1))
right.set_title("The honest score: the true rank", loc="left")
for axes in (left, right):
    axes.set_xticks(ranks[1::2])
    axes.spines[["top", "right"]].set_visible(False)
plt.show()
