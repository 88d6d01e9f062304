"""
Gradient descent against the truncated SVD
==========================================

On a complete matrix both find the same approximation. With missing values only one of
them is defined, and a mask that is made but not used is easily overlooked.
"""

# %%
# Complete: the same
# ------------------
#
# The best approximation of rank two is the truncated singular value decomposition
# (SVD). Gradient descent, here the stochastic one, which takes entry by entry, comes as
# close from random factors.

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
# The mask that was forgotten
# ---------------------------
#
# Now the first entry of the second row and the second of the third are to be hidden.
# This loop, found in a notebook, takes a mask M and then never looks at it: it skips
# the zeros of A instead, and A has none.


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
for name, filled in {"mask forgotten": forgotten, "mask used": masked}.items():
    squares = (filled - A) ** 2
    print(
        f"{name}: sum of squares {squares[mask].sum():.4f} over observed entries, "
        f"{squares[~mask].sum():.4f} over hidden ones"
    )

# %%
# Both sums of the first are small, but it had seen the "hidden" entries, and reproduced
# them. The second really had to predict them. It could not: two factors for three rows
# and three columns are eight numbers, without the four that only mix the factors, and
# seven entries are left to tell them.
#
# A matrix with something to learn from
# -------------------------------------
#
# 60 x 40 entries of rank two with a noise of 0.3, and more and more of them missing.
# The SVD needs a complete matrix, so missing values are filled in before, with zeros or
# with the means of the columns; the factorization leaves them out.

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
# The mean of 2 takes a third factor. Draw both: above, the small matrix with its
# values; below, the error of what was hidden in the larger one.

fig = plt.figure(figsize=(9.5, 7), layout="constrained")
top, bottom = fig.subfigures(2, 1, height_ratios=[1, 1.15])
axes = top.subplots(1, 4)
panels = {
    "A": A,
    "Given, with a mask": np.where(mask, A, np.nan),
    "Mask forgotten": forgotten,
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
ax.set_title("60 x 40, rank two and a mean: what was hidden", loc="left")
ax.legend(loc="upper left")
plt.show()
