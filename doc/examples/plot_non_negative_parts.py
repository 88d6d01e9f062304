"""
Parts of digits, from images with missing pixels
================================================

Factors of either sign add and subtract. Factors that are not negative can only add, so
each becomes a part of an image: a stroke, or a piece of one. Here they are found from
images of digits of which 40 % of the pixels are missing.
"""

# %%
# Images with missing pixels
# --------------------------
#
# scikit-learn has 1,797 digits of 8 x 8 pixels, from 0 for white to 16 for black.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from sklearn_mfgd import GradientMF

X = load_digits().data
hidden = np.random.default_rng(0).random(X.shape) < 0.4
given = np.where(hidden, np.nan, X)

# %%
# Two fits
# --------
#
# The ridge keeps either fit from following the noise. With 10 in place of 30 both are
# less exact.

parts = GradientMF(rank=16, non_negative=True, reg=30.0)
W = parts.fit_transform(given)
either_sign = GradientMF(rank=16, reg=30.0)
V = either_sign.fit_transform(given)

for name, model, factors in (
    ("non-negative", parts, W),
    ("of either sign", either_sign, V),
):
    error = (model.inverse_transform(factors) - X)[hidden]
    print(f"{name:15s} error of a hidden pixel: {np.sqrt(np.mean(error**2)):.2f}")

# %%
# What the factors look like
# --------------------------
#
# Each factor is an image. The largest come first: red is positive, blue is negative.


def by_size(model, factors):
    """Components as images, the largest contribution first."""
    size = np.linalg.norm(factors, axis=0) * np.linalg.norm(model.components_, axis=1)
    images = model.components_[np.argsort(-size)].reshape(-1, 8, 8)
    return images / np.abs(images).max(axis=(1, 2), keepdims=True)


figure, axes = plt.subplots(4, 8, figsize=(8, 4.8), layout="constrained")
for rows, title, images in (
    (axes[:2], "non-negative", by_size(parts, W)),
    (axes[2:], "of either sign", by_size(either_sign, V)),
):
    rows[0, 0].set_title(f"Factors {title}", loc="left")
    for ax, image in zip(rows.flat, images, strict=True):
        ax.imshow(image, cmap="RdBu_r", vmin=-1, vmax=1)
        ax.set_axis_off()

# %%
# Non-negative factors are strokes with white around them. Those of either sign are
# patterns over the whole image which cancel one another.
#
# A digit is a few of its parts
# -----------------------------
#
# From left to right: what was given, with missing pixels in colour, the reconstruction,
# the truth, and the five parts that have the most in it.

chosen, greys = [10, 23, 47], plt.get_cmap("Greys").with_extremes(bad="wheat")
figure, axes = plt.subplots(len(chosen), 8, figsize=(8, 3.4), layout="constrained")
filled = parts.inverse_transform(W)
norms = np.linalg.norm(parts.components_, axis=1)
for row, i in zip(axes, chosen, strict=True):
    largest = np.argsort(-W[i] * norms)[:5]
    in_digit = W[i, largest, None] * parts.components_[largest]
    images = [given[i], filled[i], X[i], *in_digit]
    for ax, image in zip(row, images, strict=True):
        ax.imshow(image.reshape(8, 8), cmap=greys, vmin=0, vmax=16)
        ax.set(xticks=[], yticks=[])
for ax, title in zip(axes[0], ["given", "filled", "truth", "parts"], strict=False):
    ax.set_title(title)

print(f"{np.mean(W == 0):.0%} of the weights are zero")

# %%
# New rows
# --------
#
# ``transform`` finds the weights of rows with missing values, and they are not negative
# either. ``non_negative="components"`` would leave the weights free and constrain the
# parts alone.

new = np.full((1, 64), np.nan)
new[0, 20:44] = X[10, 20:44]
weights = parts.transform(new)
print("weights from three rows of pixels:", weights.round(1)[0])

plt.show()
