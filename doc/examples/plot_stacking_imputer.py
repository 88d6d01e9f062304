"""
A stack of imputers
===================

Which imputer is best depends on the table, and even on the column.
:class:`~sklearn_mfgd.StackingImputer` hides observed entries and measures how well each
imputer predicts them. Then it fills every column with a weighted mean. On this page it
has a smaller error than each of the four imputers that it combines.
"""

# %%
# A table with hidden entries
# ---------------------------
#
# The table has 13 measurements of 178 wines. We hide a fifth of the entries, so that we
# can compare the imputed values with the true ones.

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
# The errors that the stack expects
# ---------------------------------
#
# For a table of this size, the stack combines four imputers by default. We call them
# its members:
#
# - ``factors`` is ``MFImputer``.
# - ``scores`` is ``MFImputer`` with ``marginal="normal"``: it first transforms each
#   column so that its values have a normal distribution.
# - ``neighbours`` averages the most similar rows.
# - ``trees`` predicts each column from the others by randomized trees.
#
# The attributes ``errors_`` and ``stacked_errors_`` are root mean squared errors at the
# entries that the stack itself hid. We divide them by the standard deviations of the
# columns, so that columns can be compared.

stack = StackingImputer(random_state=0).fit(X)
names = list(stack.named_imputers_)
deviation = np.nanstd(X, axis=0)
expected = np.vstack([stack.errors_, stack.stacked_errors_]) / deviation
print(f"{len(names)} members: {', '.join(names)}")

# %%
# The errors at our hidden entries
# --------------------------------
#
# At the end, the stack fits all members to all observed entries. These are the errors
# of the members and of the stack at the entries that we hid.


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
# The stack has a smaller error than each member. It averages the members, and then a
# regressor corrects the average. The errors are a little smaller than expected, because
# the final members were fitted to more entries.

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
# Every column has its own weights. With few hidden entries a column's own weights would
# be uncertain, so they are shrunk towards the weights of the whole table. A member that
# adds nothing new gets no weight, even if its errors are small.

# sphinx_gallery_thumbnail_number = 2
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
