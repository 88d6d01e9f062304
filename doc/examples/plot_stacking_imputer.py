"""
A stack of imputers
===================

Which imputer suits a table depends on the table, and in a table on the column.
``StackingImputer`` hides entries that are observed, sees how well each imputer predicts
them, and fills every column with a weighted mean.
"""

# %%
# A table with hidden entries
# ---------------------------
#
# Thirteen measurements of 178 wines. A fifth of the entries is hidden, so that we know
# what the imputers should have filled in.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_wine

from sklearn_mfgd import StackingImputer

wine = load_wine()
truth = wine.data
rng = np.random.default_rng(0)
hidden = rng.random(truth.shape) < 0.2
X = np.where(hidden, np.nan, truth)

# %%
# What the stack expects
# ----------------------
#
# By default, a table of this size has four members: a factorization of the columns as
# they are, one of their normal scores, nearest neighbours, and trees. ``errors_`` and
# ``stacked_errors_`` are root mean squared errors at entries that the stack hid itself.
# They are in units of the column; divided by its deviation, they can be compared.

stack = StackingImputer(random_state=0).fit(X)
names = list(stack.named_imputers_)
deviation = np.nanstd(X, axis=0)
expected = np.vstack([stack.errors_, stack.stacked_errors_]) / deviation
print(f"{len(names)} members: {', '.join(names)}")

# %%
# What it got
# -----------
#
# In the end all members are fitted to everything that is observed. Here are their
# errors, and those of the stack, at the entries that we hid.


def relative_errors(filled):
    """Root mean squared errors of each column, in deviations of the column."""
    squares = np.where(hidden, np.square(filled - truth), 0)
    return np.sqrt(squares.sum(axis=0) / hidden.sum(axis=0)) / deviation


filled = [imputer.transform(X) for imputer in stack.imputers_] + [stack.transform(X)]
found = np.array([relative_errors(values) for values in filled])


def root_mean_square(errors):
    """Of all columns, which count the same."""
    return np.sqrt(np.mean(np.square(errors), axis=1))


labels = [*names, "stack"]
for label, e, f in zip(
    labels, root_mean_square(expected), root_mean_square(found), strict=True
):
    print(f"{label:10s}  expected {e:.3f}  found {f:.3f}")

# %%
# The stack is better than each of its members: it averages them and then corrects the
# mean by what a regressor has learned from its errors. What it expected of itself is
# near to what it got. The members were somewhat better than expected, since in the end
# they are fitted to the hidden entries as well.

figure, ax = plt.subplots(figsize=(8, 4.5))
places = np.arange(len(labels))
for shift, errors, name, colour in [
    (-0.2, expected, "expected: at entries that the stack hid", "0.75"),
    (0.2, found, "found: at entries that we hid", "C0"),
]:
    heights = root_mean_square(errors)
    bars = ax.bar(places + shift, heights, 0.38, color=colour, label=name)
    ax.bar_label(bars, fmt="%.2f", padding=2)
ax.set_xticks(places, labels, fontsize=12)
ax.get_xticklabels()[-1].set_fontweight("bold")
ax.set_ylabel("error / deviation of the column")
ax.set_ylim(0, 1.25 * ax.get_ylim()[1])
ax.legend(loc="upper left", frameon=False)
ax.spines[["top", "right"]].set_visible(False)
figure.tight_layout()
plt.show()

# %%
# Weights
# -------
#
# Every column has weights of its own, shrunk towards those of the whole table, which
# counts as ``shrinkage_`` hidden entries of each column. A member that tells nothing
# new has no weight, even if its errors are small.

figure, ax = plt.subplots(figsize=(8, 6))
image = ax.imshow(stack.weights_.T, cmap="Blues", vmin=0, vmax=1, aspect="auto")
for (j, k), weight in np.ndenumerate(stack.weights_.T):
    colour = "white" if weight > 0.6 else "black"
    ax.text(k, j, f"{weight:.2f}", ha="center", va="center", color=colour)
ax.set_xticks(np.arange(len(names)), names, fontsize=12)
ax.set_yticks(np.arange(X.shape[1]), [n.replace("_", " ") for n in wine.feature_names])
ax.tick_params(length=0)
ax.spines[:].set_visible(False)
ax.set_title(f"weights; the table counts as {stack.shrinkage_:g} entries", loc="left")
figure.colorbar(image, ax=ax)
figure.tight_layout()
plt.show()
