"""
Parts of digits, from images with missing pixels
================================================

Factors that are not negative can only add up, so each becomes a part of an image, such
as a stroke. This page finds the parts of handwritten digits, although 40 % of the
pixels are missing, and compares them with factors of either sign.
"""

# %%
# Images with missing pixels
# --------------------------
#
# scikit-learn has 1,797 digits of 8 x 8 pixels. A pixel has values from 0, which is
# white, to 16, which is black.

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
# The ridge keeps both fits from following the noise. With a ridge of 10 instead of 30,
# both have larger errors.

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
# Each factor is an image, and the largest factors come first. Red is positive and blue
# is negative.


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
# Non-negative factors are strokes with white around them. Factors of either sign are
# patterns over the whole image, which cancel one another.
#
# A digit is a few of its parts
# -----------------------------
#
# Each row is a digit. From left to right it shows the given image with missing pixels
# in colour, the filled image, the true image, and the five largest parts of the digit.

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
# ``transform`` finds the weights of new rows with missing values. These weights are not
# negative either. With ``non_negative="components"`` the weights may have either sign,
# and only the parts must not be negative.

new = np.full((1, 64), np.nan)
new[0, 20:44] = X[10, 20:44]
weights = parts.transform(new)
print("weights from three rows of pixels:", weights.round(1)[0])

plt.show()
