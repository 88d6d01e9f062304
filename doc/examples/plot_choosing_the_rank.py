"""
Choosing the rank
=================

The error of the observed entries falls with every factor that you add, so it cannot
tell you the right rank. The error of entries that the fit has not seen can: it is
smallest at the true rank. ``MaskedGradientMF`` finds the rank without a search.
"""

# %%
# A table with a known answer
# ---------------------------
#
# We simulate a table with five factors and noise. A fifth of its entries is missing.

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
# The first measure is the error of the observed entries. The second is the score of
# held-out rows, which ``cross_val_score`` computes: it hides a fifth of their entries
# at a time and predicts them from the others.

ranks = np.arange(1, 13)
reconstruction, score = [], []
for rank in ranks:
    model = GradientMF(rank, max_iter=50)
    reconstruction.append(
        model.fit(X).reconstruction_err_ / np.sqrt((~np.isnan(X)).sum())
    )
    score.append(cross_val_score(model, X, cv=3).mean())
best = ranks[np.argmax(score)]
print(f"by observed entries:   rank {ranks[np.argmin(reconstruction)]}, the largest")
print(f"by held-out rows:      rank {best}")

# %%
# Or leave it to the data
# -----------------------
#
# ``MaskedGradientMF`` learns the regularization and starts with 32 factors. It drops
# the factors that the data do not support. Its score is as good as that of the best
# rank.

learned = MaskedGradientMF(fit_bias=False)
print(f"learned:               rank {learned.fit(X).rank_}")
learned_score = cross_val_score(learned, X, cv=3).mean()
print(f"score of rank {best}: {max(score):.3f}, learned: {learned_score:.3f}")

# %%
# Draw both measures
# ------------------
#
# The left picture shows that the error of the observed entries falls with every factor.
# It even falls below the noise. The right picture shows that the score has its peak at
# rank 5.

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 4.2), layout="constrained")
left.plot(ranks, reconstruction, "o-", color="C0", linewidth=3)
left.axhline(noise, color="black", linestyle=":", linewidth=1)
left.text(12, noise, "noise", ha="right", va="bottom")
left.set(xlabel="rank", ylabel="RMSE of observed entries", ylim=(0, None))
left.set_title("Observed entries: always falling", loc="left")

right.plot(ranks, score, "o-", color="C1", linewidth=3)
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
right.set_title("Held-out rows: best at the true rank", loc="left")
for axes in (left, right):
    axes.set_xticks(ranks[1::2])
    axes.spines[["top", "right"]].set_visible(False)
plt.show()
