"""
Classification after imputation
===============================

Four imputers fill the same table, and a classifier learns from each result. This page
compares how well the classifier does. It does best on the table that ``MFImputer``
filled.
"""

# %%
# Data from a factor model
# ------------------------
#
# The table has 30 noisy features, which share five factors. The label depends on two of
# these factors. Half of the entries are missing, in training rows and in test rows.
# These data fit the model of ``MFImputer``. On real tables the differences are smaller.

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_mfgd import MFImputer

warnings.simplefilter("ignore", ConvergenceWarning)  # IterativeImputer, three sweeps

rng = np.random.default_rng(0)
factors = rng.normal(size=(500, 5))
X = factors @ rng.normal(size=(5, 30)) + rng.normal(size=(500, 30))
y = (factors[:, 0] + factors[:, 1] + 0.3 * rng.normal(size=500) > 0).astype(int)
X[rng.random(X.shape) < 0.5] = np.nan

# %%
# The same folds for all
# ----------------------
#
# An imputer in a pipeline sees only the training rows, and it sees no labels. The last
# model of the list needs no imputer, because its boosted trees accept missing values.
# These trees are another kind of classifier than the logistic regression of the other
# models, so the difference in score does not come from imputation alone.

models = {
    name: make_pipeline(imputer, StandardScaler(), LogisticRegression())
    for name, imputer in {
        "MFImputer": MFImputer(),
        "KNNImputer": KNNImputer(),
        "IterativeImputer, 3 sweeps": IterativeImputer(max_iter=3, random_state=0),
        "SimpleImputer": SimpleImputer(),
    }.items()
}
models["boosting, no imputer"] = HistGradientBoostingClassifier(
    max_iter=50, random_state=0
)
folds = StratifiedKFold(5, shuffle=True, random_state=0)
areas = {
    name: cross_val_score(model, X, y, cv=folds, scoring="roc_auc")
    for name, model in models.items()
}
for name, area in areas.items():
    print(f"{name:26s} {area.mean():.3f} +- {area.std():.3f}")

# %%
# The dots are means over the five folds, and the bars are standard deviations.

figure, axes = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
colours = ["#0072B2"] + ["#999999"] * 4
for place, (area, colour) in enumerate(zip(areas.values(), colours, strict=True)):
    axes.errorbar(
        area.mean(),
        place,
        xerr=area.std(),
        fmt="o",
        color=colour,
        capsize=6,
        lw=3,
        ms=10,
    )
axes.set_yticks(range(len(areas)), areas)
axes.set_ylim(len(areas) - 0.5, -0.5)
axes.set_xlabel("area under the ROC curve")
axes.grid(axis="x", color="0.85")
plt.show()
