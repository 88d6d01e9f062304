"""
Which loss?
===========

Squared error suits most measurements. This page shows three kinds of data that it does
not suit, and the loss to use instead: outliers, answers of yes or no, and counts.
"""

# %%
# Outliers
# --------
#
# The table has 12 columns that share three factors. A fifth of its values is missing,
# and two of the others are gross errors: 10,000 and -100,000 in a column whose values
# are mostly below 5.

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import expit
from sklearn.metrics import log_loss, mean_poisson_deviance

from sklearn_mfgd import MaskedGradientMF, MFImputer

BAD, GOOD, FAINT = "#D55E00", "#0072B2", "#BBBBBB"

rng = np.random.default_rng(0)
factors, loadings = rng.standard_normal((300, 3)), rng.standard_normal((12, 3))
measured = factors @ loadings.T + 0.3 * rng.standard_normal((300, 12))
hidden = rng.uniform(size=measured.shape) < 0.2
table = np.where(hidden, np.nan, measured)
first, second = np.flatnonzero(~hidden[:, 3])[:2]
table[first, 3], table[second, 3] = 1e4, -1e5

# %%
# Three imputers fill the column with the gross errors. The losses ``"student_t"`` and
# ``"huber"`` are for outliers. The first learns all its regularization, and the second
# needs a number for ``reg``.

imputers = {
    'loss="squared"': MFImputer(),
    'loss="student_t"': MFImputer(loss="student_t"),
    'loss="huber", rank=3, reg=1': MFImputer(loss="huber", rank=3, reg=1.0),
}
fig, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
rows = hidden[:, 3]
for ax, (name, imputer) in zip(axes, imputers.items(), strict=True):
    filled = imputer.fit_transform(table)
    error = np.sqrt(np.mean((filled - measured)[rows, 3] ** 2))
    colour = BAD if "squared" in name else GOOD
    ax.axline((0, 0), slope=1, color=FAINT, zorder=0)
    ax.scatter(measured[rows, 3], filled[rows, 3], 14, colour)
    ax.set_title(f"{name}\nerror {error:.3g}", loc="left", fontsize=10)
    ax.set_xlabel("true value")
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("imputed value")
plt.show()

# %%
# With squared error the two gross errors spoil the whole column, as the scale of the
# first picture shows. The other two losses ignore them.
#
# Yes or no
# ---------
#
# 500 people answer 40 questions, and a fifth of the answers is missing. With squared
# error the answers are the numbers 0 and 1, and a prediction can be any number. The
# loss ``"logistic"`` predicts probabilities.

logits = 2 * rng.standard_normal((500, 3)) @ rng.standard_normal((3, 40))
answers = (rng.uniform(size=logits.shape) < expit(logits)).astype(float)
hidden = rng.uniform(size=answers.shape) < 0.2
table = np.where(hidden, np.nan, answers)

# sphinx_gallery_thumbnail_number = 2
fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", sharey=True)
bins = np.linspace(-0.5, 1.5, 41)
for ax, loss in zip(axes, ["squared", "logistic"], strict=True):
    model = MaskedGradientMF(loss=loss)
    predicted = model.inverse_transform(model.fit_transform(table))[hidden]
    found = log_loss(answers[hidden], np.clip(predicted, 0.001, 0.999))
    ax.axvspan(-0.5, 0, color="#EEEEEE", zorder=0)
    ax.axvspan(1, 1.5, color="#EEEEEE", zorder=0)
    values = [predicted[answers[hidden] == answer] for answer in (0, 1)]
    ax.hist(values, bins, stacked=True, color=[BAD, GOOD], label=["no", "yes"])
    ax.set_title(f'loss="{loss}"\nlog loss {found:.3f}', loc="left", fontsize=10)
    ax.set_xlabel("predicted for a hidden answer")
    ax.set_xlim(-0.5, 1.5)
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("answers")
axes[1].legend(title="true answer", frameon=False)
plt.show()

# %%
# In the grey areas predictions are below 0 or above 1, so they cannot be probabilities.
# To compare the two losses, we limit the predictions of squared error to 0.001 and
# 0.999.
#
# Counts
# ------
#
# The table has 400 rows of 30 counts. The expected counts, or rates, are products of
# the effects of two factors. With squared error, a prediction is a sum of such effects,
# and some predictions are negative. Squared error also treats an error of three at a
# count of 100 like an error of three at a count of 0. The loss ``"poisson"`` predicts
# rates, which are positive.

logs = 0.5 + 0.8 * rng.standard_normal((400, 2)) @ rng.standard_normal((2, 30))
rates = np.exp(logs)
counts = rng.poisson(rates).astype(float)
hidden = rng.uniform(size=counts.shape) < 0.3
table = np.where(hidden, np.nan, counts)

fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
for ax, loss in zip(axes, ["squared", "poisson"], strict=True):
    model = MaskedGradientMF(loss=loss)
    predicted = model.inverse_transform(model.fit_transform(table))[hidden]
    shown = np.maximum(predicted, 0.01)
    deviance = mean_poisson_deviance(counts[hidden], shown)
    colour = BAD if loss == "squared" else GOOD
    ax.axline((1, 1), (10, 10), color=FAINT, zorder=0)
    ax.scatter(rates[hidden], shown, 5, colour, alpha=0.5, linewidths=0)
    ax.set(xscale="log", yscale="log", xlabel="true rate of a hidden count")
    ax.set_title(f'loss="{loss}"\ndeviance {deviance:.2f}', loc="left", fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("predicted rate")
axes[0].text(2, 0.013, "0.01 or less, or negative")
plt.show()

# %%
# How a loss becomes squared error
# --------------------------------
#
# A fit minimizes a sequence of parabolas, each of which is a weighted squared error.
# The filled dot is the current prediction. There the parabola touches the loss. The
# empty dot is the minimum of the parabola, and the next prediction. The first three
# parabolas lie above their loss, so each step lowers the loss. For counts no such
# parabola exists. The step in the last picture would raise the loss, so the fit
# shortens it.

p = np.linspace(-6, 6, 241)


def student_t(p, dof=4.0):
    """Loss of the value 0 given the prediction p."""
    return (dof + 1) / 2 * np.log1p(p**2 / dof)


def huber(p, threshold=1.345):
    """Loss of the value 0 given the prediction p."""
    inner = np.minimum(np.abs(p), threshold)
    return inner * (np.abs(p) - inner / 2)


def logistic(p):
    """Loss of the answer 1 given its logit p."""
    return np.logaddexp(0, -p)


def poisson(p):
    """Loss of the count 3 given the logarithm p of its rate."""
    return np.exp(p) - 3 * p


curves = {  # a loss, the prediction, the weight of the parabola, what is drawn
    "student_t, x = 0, p = 3.5": (student_t, 3.5, 5 / (4 + 3.5**2)),
    "huber, x = 0, p = 3.5": (huber, 3.5, 1.345 / 3.5),
    "logistic, x = 1, p = -2": (logistic, -2.0, np.tanh(1) / 4),
    "poisson, x = 3, p = 0": (poisson, 0.0, 1.0),
}
fig, axes = plt.subplots(1, 4, figsize=(9, 2.8), layout="constrained")
for ax, (name, (loss, at, weight)) in zip(axes, curves.items(), strict=True):
    slope = (loss(at + 1e-5) - loss(at - 1e-5)) / 2e-5
    parabola = loss(at) + slope * (p - at) + weight / 2 * (p - at) ** 2
    best = at - slope / weight
    ax.plot(p, loss(p), color="black", label="loss")
    ax.plot(p, parabola, color=GOOD, linestyle="--", label="parabola")
    ax.plot(at, loss(at), "o", color="black")
    ax.plot(best, loss(best), "o", markerfacecolor="white", color="black")
    ax.set_title(name, loc="left", fontsize=9)
    ax.set_xlabel("prediction p")
    ax.set_ylim(min(loss(p)) - 0.3, loss(at) + 2.5)
    ax.set_yticks([])
    ax.spines[["top", "right", "left"]].set_visible(False)
axes[2].legend(frameon=False, fontsize=8, loc="upper right")
plt.show()

# %%
# The page :doc:`/which_loss` says which loss suits which values.
