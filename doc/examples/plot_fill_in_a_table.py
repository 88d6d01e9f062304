"""
Fill in a table
===============

:class:`~sklearn_mfgd.MFImputer` fills the gaps of a pandas DataFrame with ten
numeric columns and a column of categories. It also says how certain each value is.
"""

# %%
# A table with missing values
# ---------------------------
#
# The table describes 569 samples of breast tissue: ten measurements of the cells, and
# the diagnosis. It comes with scikit-learn and is complete. We delete a fifth of its
# values at random, so that we can compare the imputed values with the true ones.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_mfgd import MFImputer

dataset = load_breast_cancer(as_frame=True)
truth = dataset.data.iloc[:, :10].rename(
    columns=lambda name: name.removeprefix("mean ")
)
truth["diagnosis"] = pd.Categorical.from_codes(dataset.target, dataset.target_names)
hidden = np.random.default_rng(0).random(truth.shape) < 0.2
table = truth.mask(hidden)
table.iloc[:5, [0, 1, 2, 3, 10]]

# %%
# Fill it in
# ----------
#
# The columns need no scaling, and the categories need no encoding. The result is a
# DataFrame with the same columns and types. Observed values are unchanged.

imputer = MFImputer().fit(table)
filled = imputer.transform(table)
filled.iloc[:5, [0, 1, 2, 3, 10]].round(3)

# %%
# Compare it with other imputers
# ------------------------------
#
# The error is the root mean squared error of the imputed numbers, in standard
# deviations of their columns. Zero is perfect, and a column mean has an error of about
# 1. The two other imputers take numbers only, so they get the ten numeric columns.
# :class:`~sklearn.impute.KNNImputer` gets scaled columns.

numbers = truth.columns[:10]
deviation = table[numbers].std()


def rmse(values):
    """Root mean squared error of the hidden numbers, in standard deviations."""
    relative = (values - truth[numbers]) / deviation
    return np.sqrt(np.mean(relative.to_numpy()[hidden[:, :10]] ** 2))


scaler = StandardScaler().set_output(transform="pandas")
scaled = scaler.fit_transform(table[numbers])
neighbours = scaler.inverse_transform(KNNImputer().fit_transform(scaled))
means = SimpleImputer().fit_transform(table[numbers])
errors = {
    "column mean": rmse(means),
    "KNNImputer": rmse(neighbours),
    "MFImputer": rmse(filled[numbers]),
}
for name, error in errors.items():
    print(f"{name:12} {error:.3f}")

# %%
# How certain is a value?
# -----------------------
#
# ``impute`` returns a standard deviation for each number with ``return_std=True``, and
# the probability of each category with ``return_proba=True``. The interval of 1.96
# standard deviations on either side should contain 95 % of the true values.

filled, std = imputer.impute(table, return_std=True)
std = pd.DataFrame(std, columns=filled.columns)
inside = (filled[numbers] - truth[numbers]).abs() <= 1.96 * std[numbers]
print(f"{inside.to_numpy()[hidden[:, :10]].mean():.1%} of the true values are inside")

filled, probabilities = imputer.impute(table, return_proba=True)
unknown = hidden[:, 10]
right = (filled["diagnosis"] == truth["diagnosis"])[unknown]
print(f"{right.mean():.0%} of the {unknown.sum()} hidden diagnoses are right")
probabilities["diagnosis"][unknown].head().round(2)

# %%
# The first three pictures show the hidden values of one column each: the true value,
# the imputed value, and its 95 % interval. On the diagonal both values agree. The
# radius almost determines the perimeter. No other column tells much about the texture,
# so its intervals are wide. The last picture shows the errors of the imputers.

fig, axes = plt.subplots(2, 2, figsize=(8, 6.4), layout="constrained")
for ax, name in zip(axes.flat, ["perimeter", "compactness", "texture"], strict=False):
    rows = hidden[:, truth.columns.get_loc(name)]
    ax.axline((truth[name].mean(),) * 2, slope=1, color="0.6", linewidth=1)
    ax.errorbar(
        truth[name][rows],
        filled[name][rows],
        1.96 * std[name][rows],
        fmt="o",
        color="#0072B2",
        ecolor="#A6CBE3",
        markersize=3,
        elinewidth=1,
    )
    ax.set_title(name.capitalize(), loc="left")
    ax.set_xlabel("true value")
for ax in axes[:, 0]:
    ax.set_ylabel("imputed value")
last = axes[1, 1]
bars = last.bar(list(errors), errors.values(), color=["#999999"] * 2 + ["#0072B2"])
last.bar_label(bars, fmt="%.2f", padding=2)
last.set_xticks(range(3), ["column\nmean", "KNN-\nImputer", "MF-\nImputer"])
last.margins(y=0.12)
last.set_title("RMSE in deviations", loc="left")
for ax in axes.flat:
    ax.spines[["top", "right"]].set_visible(False)
plt.show()

# %%
# In a pipeline
# -------------
#
# ``MFImputer`` is a transformer, so it can be a step of a pipeline. Here a classifier
# predicts the diagnosis from the ten columns with missing values.

from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

known = ~unknown
model = make_pipeline(MFImputer(), StandardScaler(), LogisticRegression())
scores = cross_val_score(model, table[numbers][known], table["diagnosis"][known])
print(f"accuracy {scores.mean():.1%}")
