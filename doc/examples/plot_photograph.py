"""
A photograph with 60 % of its pixels missing
============================================

This page fills in the missing pixels of a photograph. A photograph as a whole is not of
low rank, but its small patches look alike. The page cuts the photograph into patches,
one for each row of a matrix, and fills in this matrix.
"""

# %%
# The photograph
# --------------
#
# The photograph is a part, 204 x 400 pixels, of one that comes with scikit-learn. We
# remove 60 % of the pixels, with all three colours.

import warnings

import matplotlib.pyplot as plt
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_sample_image
from sklearn.exceptions import ConvergenceWarning

from sklearn_mfgd import MaskedGradientMF

photo = load_sample_image("china.jpg")[100:304, :400].astype(np.float32) / 255
rng = np.random.default_rng(0)
hidden = rng.random(photo.shape[:2]) < 0.6
given = np.where(hidden[..., None], np.float32(np.nan), photo)

# %%
# Rows of the photograph
# ----------------------
#
# For comparison, the simplest matrix has a row for each line of pixels, with the three
# colours side by side. Two lines of pixels have little in common.


def complete(model, X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # five sweeps will do
        return model.inverse_transform(model.fit_transform(X))


lines = given.reshape(len(given), -1)
from_lines = complete(MaskedGradientMF(24, tol=1e-2, max_iter=5), lines)
from_lines = from_lines.reshape(photo.shape)

# %%
# Patches
# -------
#
# A patch has 12 x 12 pixels. One begins at every fourth pixel, across and down, and
# each is a row of the matrix. About 58 of its 144 pixels are known. Each pixel is in up
# to nine patches, and we average their reconstructions.

SIZE, STEP = 12, 4
windows = sliding_window_view(given, (SIZE, SIZE, 3))[::STEP, ::STEP, 0]
patches = windows.reshape(-1, SIZE * SIZE * 3)
print(f"{patches.shape[0]:,} patches x {patches.shape[1]} values")

filled = complete(MaskedGradientMF(24, tol=1e-2, max_iter=5), patches)
total, count = np.zeros_like(photo), np.zeros_like(photo)
for (i, j), patch in zip(
    np.ndindex(windows.shape[:2]), filled.reshape(-1, SIZE, SIZE, 3), strict=True
):
    place = slice(i * STEP, i * STEP + SIZE), slice(j * STEP, j * STEP + SIZE)
    total[place] += patch
    count[place] += 1
from_patches = total / count

# %%
# The pixels around
# -----------------
#
# The last method in the comparison uses neither rows nor patches. It averages the known
# pixels around a missing one, with Gaussian weights one pixel wide.


def blurred(channel):
    return gaussian_filter(channel, 1.0)


weight = blurred((~hidden).astype(np.float32))
from_around = np.stack(
    [blurred(np.where(hidden, 0, photo[..., k])) / weight for k in range(3)], axis=-1
)

# %%
# Compare
# -------
#
# The error is the root mean square over the hidden pixels. An error of 1 would be the
# difference between black and white. Patches have the smallest error. Look at the edges
# of the roof in the details: the average around each pixel blurs them.

results = {"lines": from_lines, "patches": from_patches, "average around": from_around}
rmse = {
    name: np.sqrt(np.mean((result - photo)[hidden] ** 2))
    for name, result in results.items()
}
print(*(f"{name}: {error:.4f}" for name, error in rmse.items()), sep="\n")


def draw(ax, picture, title):
    ax.imshow(np.clip(picture, 0, 1), interpolation="nearest")
    ax.set_title(title, loc="left")
    ax.set(xticks=[], yticks=[])


def with_observed(result):
    return np.where(hidden[..., None], result, photo)


fig = plt.figure(figsize=(10, 5.6), layout="constrained")
top, bottom = fig.subfigures(2, 1, height_ratios=[1.3, 1])
white_missing = with_observed(1)
for ax, picture, title in zip(
    top.subplots(1, 2),
    (white_missing, with_observed(from_patches)),
    ("Given: 40 % of the pixels", "Filled in from patches"),
    strict=True,
):
    draw(ax, picture, title)

detail = slice(50, 190), slice(90, 230)
axes = bottom.subplots(1, 5)
draw(axes[0], white_missing[detail], "given")
for ax, (name, result) in zip(axes[1:4], results.items(), strict=True):
    draw(ax, with_observed(result)[detail], name)
    ax.set_xlabel(f"RMSE {rmse[name]:.3f}")
draw(axes[4], photo[detail], "photograph")
plt.show()
