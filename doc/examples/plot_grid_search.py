"""
Search rank and step in a pipeline
==================================

A factorization is a step of a :class:`~sklearn.pipeline.Pipeline`, and
:class:`~sklearn.model_selection.GridSearchCV` finds its parameters. You need no labels:
the score hides entries and predicts them. ``MaskedGradientMF`` with its default
settings gets a better score without a search.
"""

# %%
# A pipeline for air quality
# --------------------------
#
# The table has 360 hours of 72 pollutant readings at 12 stations, some of them missing.
# The factorization adds up the squared errors of all columns, so the columns should
# have the same scale. ``StandardScaler`` comes first and leaves missing values as they
# are.

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_mfgd import MaskedGradientMF
from sklearn_mfgd.datasets import load_beijing_air

air = load_beijing_air()
pollutants = [
    k
    for k, name in enumerate(air.feature_names)
    if name.split()[-1] in ("PM2.5", "PM10", "SO2", "NO2", "CO", "O3")
]
X = air.data[:360][:, pollutants]
pipeline = Pipeline(
    [
        ("scale", StandardScaler()),
        (
            "factorize",
            MaskedGradientMF(
                solver="gd",
                reg=3.0,
                init="random",
                max_iter=20,
                tol=0,
                random_state=0,
            ),
        ),
    ]
)

# %%
# The grid
# --------
#
# The grid has four ranks, four fixed steps and ``eta="auto"``, for gradient descent
# (``solver="gd"``). A step that is too long raises a ``DivergenceError``. With
# ``error_score=np.nan`` the search continues and scores this step as NaN. Each fold is
# a block of hours, so the score is that of hours that the fit has not seen.

ranks = [1, 2, 4, 8]
steps = [3e-4, 1e-3, 3e-3, 1e-2, "auto"]
search = GridSearchCV(
    pipeline,
    {"factorize__rank": ranks, "factorize__eta": steps},
    cv=3,
    error_score=np.nan,
    refit=False,
)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", ConvergenceWarning)
    warnings.simplefilter("ignore", FitFailedWarning)
    warnings.filterwarnings("ignore", "One or more of the test scores are non-finite")
    search.fit(X)
print("best:", search.best_params_, f"with Q² = {search.best_score_:.3f}")

# %%
# Without a search
# ----------------
#
# The default of ``MaskedGradientMF`` learns the regularization and the number of
# factors from the data, in one fit.

default = Pipeline([("scale", StandardScaler()), ("factorize", MaskedGradientMF())])
scores = GridSearchCV(default, {}, cv=3).fit(X)
learned = scores.best_estimator_["factorize"].rank_
print(f"default: Q² = {scores.best_score_:.3f} with {learned} factors")

# %%
# Draw the scores
# ---------------
#
# With short steps the fit is far from its end after 20 sweeps, and with long steps it
# diverges. With ``eta="auto"`` every row takes the best step, so there is no step to
# choose.

results = search.cv_results_
table = np.full((len(ranks), len(steps)), np.nan)
for params, score in zip(results["params"], results["mean_test_score"], strict=True):
    row = ranks.index(params["factorize__rank"])
    table[row, steps.index(params["factorize__eta"])] = score

fig, ax = plt.subplots(figsize=(8, 5), layout="constrained")
colours = plt.get_cmap("viridis").with_extremes(bad="lightgrey")
image = ax.imshow(
    table, cmap=colours, vmin=0.3, vmax=0.9, aspect="auto", origin="lower"
)
best = np.unravel_index(np.nanargmax(table), table.shape)
for (i, j), score in np.ndenumerate(table):
    text = "diverged" if np.isnan(score) else f"{score:.2f}"
    dark = score < 0.65
    ax.text(
        j,
        i,
        text,
        ha="center",
        va="center",
        color="white" if dark else "black",
        weight="bold" if (i, j) == best else "normal",
    )
ax.add_patch(
    plt.Rectangle((best[1] - 0.48, best[0] - 0.47), 0.96, 0.94, fill=False, lw=2.5)
)
ax.set_xticks(range(len(steps)), [str(step) for step in steps])
ax.set_yticks(range(len(ranks)), ranks)
ax.set(xlabel="step, eta", ylabel="rank")
ax.set_title("Score of hidden entries in unseen hours (framed: the best)", loc="left")
fig.colorbar(image, label="Q²")
plt.show()
