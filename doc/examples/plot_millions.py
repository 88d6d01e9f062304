"""
A million ratings, with a progress bar
======================================

Time and memory grow with the number of observed entries, not with the size of the
matrix. This page fits a million ratings in seconds, shows a progress bar, and
measures how the error depends on the number of ratings.
"""

# %%
# A million simulated ratings
# ---------------------------
#
# The matrix has 10,000 users and 2,000 films, which are 20 million entries. Only 5 % of
# them are rated. As in real ratings, a few users and films have most of the ratings.
# The ratings have biases, eight factors of decreasing size, and noise of 0.7 stars.

from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm
from scipy.sparse import csr_array

from sklearn_mfgd import MaskedGradientMF

SHAPE, N_RATINGS, NOISE = (10_000, 2_000), 1_400_000, 0.7

rng = np.random.default_rng(0)
popularity = (np.arange(SHAPE[1]) + 20.0) ** -0.8
activity = np.sort(rng.lognormal(size=SHAPE[0]))[::-1]
users = rng.choice(SHAPE[0], N_RATINGS, p=activity / activity.sum())
films = rng.choice(SHAPE[1], N_RATINGS, p=popularity / popularity.sum())
cells = np.sort(users * SHAPE[1] + films)
cells = rng.permutation(cells[np.diff(cells, prepend=-1) > 0])  # no pair twice
users, films = np.divmod(cells, SHAPE[1])

W = rng.normal(size=(SHAPE[0], 8)).astype(np.float32)
H = (0.5 * 0.7 ** np.arange(8) * rng.normal(size=(SHAPE[1], 8))).astype(np.float32)
truth = 3.5 + 0.4 * rng.normal(size=SHAPE[0])[users]
truth += 0.4 * rng.normal(size=SHAPE[1])[films]
truth += np.einsum("ij,ij->i", W[users], H[films])
ratings = (truth + rng.normal(scale=NOISE, size=len(truth))).astype(np.float32)

# %%
# Fit, and see the progress
# -------------------------
#
# A tenth of the ratings is kept for a test. The others become a sparse matrix of single
# precision. In a sparse matrix, an entry that is not stored is missing. Here users rate
# films by chance, so ``pattern=False`` saves time: the model need not learn from which
# films a user has rated.
#
# From version 1.9 on, scikit-learn has callbacks. Its ``ProgressBar`` shows how far the
# fit has come; it needs the package rich. With earlier versions, ``verbose=1`` prints a
# line after each sweep.

test = slice(len(cells) // 10)
train = slice(len(cells) // 10, None)


def matrix(part):
    return csr_array((ratings[part], (users[part], films[part])), shape=SHAPE)


X = matrix(train)
model = MaskedGradientMF(rank=10, pattern=False, max_iter=30)
try:
    from sklearn.callback import ProgressBar

    model.set_callbacks(ProgressBar())
except ImportError:
    model.set_params(verbose=1)

start = perf_counter()
Z_all = model.fit_transform(X)
duration = perf_counter() - start
print(
    f"{X.nnz:,} entries, {X.nnz / np.prod(SHAPE):.1%} of the matrix: "
    f"{model.n_iter_} sweeps, {model.rank_} factors, {duration:.1f} s"
)


def rmse(model, Z):
    prediction = model.predict_entries(Z, users[test], films[test])
    return np.sqrt(np.mean((prediction - ratings[test]) ** 2))


print(f"RMSE of the test set {rmse(model, Z_all):.3f}, the noise alone has {NOISE}")

# %%
# Fewer ratings
# -------------
#
# Now an eighth, a quarter and half of the ratings predict the same test set.

sizes, errors = [], []
for share in 1 / 8, 1 / 4, 1 / 2:
    part = slice(train.start, train.start + int(share * X.nnz))
    fewer = MaskedGradientMF(rank=10, pattern=False, max_iter=30)
    sizes.append(part.stop - part.start)
    errors.append(rmse(fewer, fewer.fit_transform(matrix(part))))
    print(f"{sizes[-1]:>9,} ratings: RMSE {errors[-1]:.3f}")
sizes.append(X.nnz)
errors.append(rmse(model, Z_all))

# %%
# Draw it
# -------
#
# The first picture shows where the ratings are. The users are sorted by activity and
# the films by popularity.

fig, ax = plt.subplots(figsize=(6, 4.2), layout="constrained")
counts, *_ = np.histogram2d(
    users, films, bins=(50, 50), range=[[0, SHAPE[0]], [0, SHAPE[1]]]
)
image = ax.imshow(
    100 * counts / (SHAPE[0] * SHAPE[1] / 50**2),
    extent=(0, SHAPE[1], SHAPE[0], 0),
    aspect="auto",
    norm=LogNorm(),
    cmap="viridis",
)
ax.set(xlabel="film, by popularity", ylabel="user, by activity")
ax.set_title("Where the ratings are", loc="left")
fig.colorbar(image, ax=ax, label="entries observed (%)", format="%g")
plt.show()

# %%
# More ratings give a smaller error.

fig, ax = plt.subplots(figsize=(5, 3.6), layout="constrained")
millions = np.array(sizes) / 1e6
ax.plot(millions, errors, "o-", color="#0072B2", linewidth=2)
ax.axhline(NOISE, color="0.4", linewidth=1)
ax.text(0.03, NOISE, "noise", transform=ax.get_yaxis_transform(), va="bottom")
ax.set(xlabel="ratings (millions)", ylabel="RMSE of the test set (stars)")
plt.show()
