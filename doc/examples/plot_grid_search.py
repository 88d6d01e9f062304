"""
Search rank and step in a pipeline
==================================

A factorization is a step of a :class:`~sklearn.pipeline.Pipeline` like any other, and
``GridSearchCV`` finds its parameters, without labels: the score hides entries and
predicts them.
"""

# %%
# A pipeline for air quality
# --------------------------
#
# 720 hours of 72 pollutant readings at 12 stations, some missing. The scaler comes
# first, since the squared errors of the columns are summed up; it leaves missing values
# as they are.

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_mfgd import DivergenceError, MaskedGradientMF
from sklearn_mfgd.datasets import load_beijing_air

air = load_beijing_air()
pollutants = [
    k
    for k, name in enumerate(air.feature_names)
    if name.split()[-1] in ("PM2.5", "PM10", "SO2", "NO2", "CO", "O3")
]
X = air.data[:720][:, pollutants]
pipeline = Pipeline(
    [
        ("scale", StandardScaler()),
        (
            "factorize",
            MaskedGradientMF(
                solver="gd",
                reg=3.0,
                init="random",
                max_iter=30,
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
# Gradient descent with a fixed step, to see what the step does, and with
# ``eta="auto"``. A step that is too long raises a ``DivergenceError``:
# ``error_score=nan`` lets the search go on, and leaves a grey cell. The folds are whole
# blocks of hours, so each is scored on hours that the fit has not seen.

ranks = [1, 2, 4, 8, 16]
steps = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, "auto"]
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
# The best fixed step is near the edge. The search fits two thirds of the hours at a
# time; does its step suit all of them?

try:
    pipeline.set_params(**search.best_params_).fit(X)
    print("Yes: with all hours the fit descends, too.")
except DivergenceError as error:
    print("No:", error)

# %%
# Without a search
# ----------------
#
# The default learns the number of factors and their regularization in one fit.

default = Pipeline([("scale", StandardScaler()), ("factorize", MaskedGradientMF())])
scores = GridSearchCV(default, {}, cv=3).fit(X)
learned = scores.best_estimator_["factorize"].rank_
print(f"default: Q² = {scores.best_score_:.3f} with {learned} factors")

# %%
# Draw the scores
# ---------------
#
# Too short a step has not arrived after 30 sweeps, and one that is too long does not
# arrive at all. The column on the right needs no choice.

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
ax.set_title("Score of hidden entries in unseen hours (framed: best)", loc="left")
fig.colorbar(image, label="Q²")
plt.show()
