"""
Missing values and the truncated SVD
====================================

On a complete matrix, gradient descent and the truncated singular value decomposition
(SVD) find the same approximation. The SVD cannot leave out missing values: you have to
fill them in first. This page shows how much larger the error is then. It also shows a
common mistake, a loop that ignores its mask.
"""

# %%
# A complete matrix
# -----------------
#
# The truncated SVD is the best approximation of rank two. Stochastic gradient descent
# takes one entry after the other. It starts from random factors and finds the same
# approximation.

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patheffects import withStroke

from sklearn_mfgd import GradientMF

A = np.array(
    [[0.3374, 0.6005, 0.1735], [3.3359, 0.0492, 1.8374], [2.9407, 0.5301, 2.2620]]
)


def truncated_svd(X, rank):
    U, s, Vt = np.linalg.svd(X, full_matrices=False)
    return U[:, :rank] * s[:rank] @ Vt[:rank]


def descent(X, mask=None, **params):
    model = GradientMF(2, solver="sgd", init="random", random_state=0, **params)
    return model.inverse_transform(model.fit_transform(X, mask=mask))


of_svd = np.sum((truncated_svd(A, 2) - A) ** 2)
of_descent = np.sum((descent(A, max_iter=1000, tol=0) - A) ** 2)
print(f"sum of squares: SVD {of_svd:.4f}, stochastic gradient descent {of_descent:.4f}")

# %%
# A mask that is not used
# -----------------------
#
# Now two entries are hidden: the first of the second row, and the second of the third
# row. The following loop has a common mistake. It accepts a mask M but never uses it.
# Instead it skips the zeros of A, and A has no zeros.


def sgd_factorise_masked(A, M, rank, num_epochs=1000, lr=0.01):
    rng = np.random.default_rng(0)
    U, V = rng.normal(size=(len(A), rank)), rng.normal(size=(A.shape[1], rank))
    for _ in range(num_epochs):
        for r in range(A.shape[0]):
            for c in range(A.shape[1]):
                if A[r, c] != 0:  # meant: M[r, c]
                    e = A[r, c] - U[r] @ V[c]
                    U[r] = U[r] + e * lr * V[c]
                    V[c] = V[c] + e * lr * U[r]
    return U @ V.T


mask = np.array([[1, 1, 1], [0, 1, 1], [1, 0, 1]], dtype=bool)
forgotten = sgd_factorise_masked(A, mask, 2)
masked = descent(A, mask, max_iter=2000, tol=0)
for name, filled in {"mask not used": forgotten, "mask used": masked}.items():
    squares = (filled - A) ** 2
    print(
        f"{name}: sum of squares {squares[mask].sum():.4f} over observed entries, "
        f"{squares[~mask].sum():.4f} over hidden ones"
    )

# %%
# The loop that ignores its mask has small errors at observed and at hidden entries,
# because it has seen the "hidden" entries. The fit that uses the mask had to predict
# them, and it could not: two factors of a 3 x 3 matrix have eight free numbers, and
# only seven entries are observed.
#
# A larger matrix
# ---------------
#
# This matrix has 60 x 40 entries of rank two, a mean of 2 and a noise of 0.3. More and
# more entries are missing. Before the SVD they are filled with zeros or with the means
# of the columns. ``GradientMF`` leaves them out. Each of the three methods gets three
# factors: two for the rank and one for the mean.

rng = np.random.default_rng(0)
signal = 2 + rng.normal(size=(60, 2)) @ rng.normal(size=(2, 40))
X = signal + rng.normal(scale=0.3, size=signal.shape)
order = rng.random(X.shape)
shares = np.array([0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
errors = {"SVD, missing are zeros": [], "SVD, missing are means": [], "GradientMF": []}
for share in shares:
    observed = order >= share
    means = np.broadcast_to(np.nanmean(np.where(observed, X, np.nan), axis=0), X.shape)
    model = GradientMF(3, reg=0.3, max_iter=1000)
    fits = (
        truncated_svd(np.where(observed, X, 0), 3),
        truncated_svd(np.where(observed, X, means), 3),
        model.inverse_transform(model.fit_transform(X, mask=observed)),
    )
    for name, fit in zip(errors, fits, strict=True):
        errors[name].append(np.sqrt(np.mean((fit - X)[~observed] ** 2)))

# %%
# Above is the small matrix with its values. Below is the error of the hidden entries of
# the larger matrix.

fig = plt.figure(figsize=(9.5, 7), layout="constrained")
top, bottom = fig.subfigures(2, 1, height_ratios=[1, 1.15])
axes = top.subplots(1, 4)
panels = {
    "A": A,
    "Given, with a mask": np.where(mask, A, np.nan),
    "Mask not used": forgotten,
    "Mask used": masked,
}
colours = plt.get_cmap("viridis").with_extremes(bad="lightgrey")
outline = withStroke(linewidth=5, foreground="black")
for ax, (title, values) in zip(axes, panels.items(), strict=True):
    image = ax.imshow(values, cmap=colours, vmin=-0.5, vmax=3.5)
    for (i, j), value in np.ndenumerate(values):
        if np.isnan(value):
            text, colour = "?", "black"
        else:
            text, colour = f"{value:.2f}", "white" if value < 1.7 else "black"
        ax.text(j, i, text, ha="center", va="center", color=colour)
    for i, j in np.argwhere(~mask):
        frame = plt.Rectangle((j - 0.44, i - 0.44), 0.88, 0.88, fill=False)
        frame.set(edgecolor="white", linewidth=2, path_effects=[outline])
        ax.add_patch(frame)
    ax.set_title(title)
    ax.set(xticks=[], yticks=[])
axes[2].set_xlabel("framed entries were seen")
axes[3].set_xlabel("framed entries were hidden")

ax = bottom.subplots()
styles = (
    {"color": "black", "marker": "s", "linestyle": ":"},
    {"color": "#E69F00", "marker": "^", "linestyle": "--"},
    {"color": "#0072B2", "marker": "o", "linestyle": "-"},
)
for (name, values), style in zip(errors.items(), styles, strict=True):
    ax.plot(100 * shares, values, label=name, linewidth=2, **style)
ax.axhline(0.3, color="0.4", linewidth=1)
ax.text(70, 0.27, "noise", ha="right", va="top", color="0.3")
ax.set(xlabel="entries missing (%)", ylabel="RMSE of hidden entries", ylim=(0, None))
ax.set_title("60 x 40, rank two and a mean: error of hidden entries", loc="left")
ax.legend(loc="upper left")
plt.show()
