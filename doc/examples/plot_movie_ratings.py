"""
Movie ratings, and how sure they are
====================================

Which ratings would users give to films they have not rated? The default of
:class:`~sklearn_mfgd.MaskedGradientMF` predicts them with nothing to choose, and tells
how far off each prediction may be.
"""

# %%
# The ratings
# -----------
#
# MovieLens 100K has 100,000 ratings of 1 to 5 stars by 943 users of 1,682 films, with a
# split of its own into training and test sets. Its licence does not allow it to come
# with the package. Where it is not found, ratings of the same shape are planted: the
# page says below which of the two it shows.

import os
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from scipy.sparse import csr_array

from sklearn_mfgd import MaskedGradientMF
from sklearn_mfgd.plotting import CalibrationDisplay

SHAPE = 943, 1682


def planted_ratings(n_ratings=100_000):
    """Users, films and stars: biases, four factors, noise, rounded to 1 to 5."""
    rng = np.random.default_rng(0)
    popularity = (np.arange(SHAPE[1]) + 30.0) ** -1.3
    activity = rng.lognormal(sigma=0.9, size=SHAPE[0])
    wanted = activity[:, None] * popularity * rng.exponential(size=SHAPE)
    users, films = np.divmod(np.argsort(-wanted, axis=None)[:n_ratings], SHAPE[1])
    taste = rng.normal(size=(SHAPE[0], 4)) @ rng.normal(scale=0.22, size=(4, SHAPE[1]))
    biases = rng.normal(scale=0.45, size=(SHAPE[0], 1)), 0.5 * rng.normal(size=SHAPE[1])
    stars = 3.5 + sum(biases) + taste + rng.normal(scale=0.85, size=SHAPE)
    stars = np.clip(np.rint(stars), 1, 5)[users, films]
    test = rng.random(n_ratings) < 0.2
    return [np.stack([users, films, stars])[:, part] for part in (~test, test)]


def movielens(folder):
    """The first of the five official splits, 80,000 and 20,000 ratings."""
    parts = [np.loadtxt(folder / name)[:, :3].T for name in ("u1.base", "u1.test")]
    return [part - [[1], [1], [0]] for part in parts]  # numbered from 1


above = [Path.cwd(), *Path.cwd().parents]
places = os.environ.get("SKLEARN_MFGD_SHARED_DATA"), *(p / "shared/data" for p in above)
found = [p for p in places if p and (Path(p) / "ml-100k" / "u1.base").is_file()]
if found:
    source, (train, test) = "MovieLens 100K", movielens(Path(found[0]) / "ml-100k")
else:
    source, (train, test) = "planted ratings", planted_ratings()
users, films = test[:2].astype(int)
stars = test[2]
X = csr_array((train[2], train[:2].astype(int)), shape=SHAPE)
print(f"{source}: {X.nnz:,} ratings to learn from, {len(stars):,} to predict")

# %%
# Predict the test set
# --------------------
#
# In a sparse matrix, what is not stored has not been rated. ``n_draws`` averages over
# that many draws from the posterior, which helps where there are few ratings to a
# factor. Factors that start at zero stay there, which leaves the biases alone. Which
# films a user has rated says something of the user, whatever the stars: by default the
# model learns what, and with ``pattern=False`` it does not.

zeros = tuple(np.zeros((size, 1)) for size in SHAPE)
models = {
    "mean of the film": None,
    "biases alone": MaskedGradientMF(1, reg=5, init=zeros),
    "ridge of 10, rank 10": MaskedGradientMF(10, reg=10, random_state=0),
    "pattern not used": MaskedGradientMF(pattern=False, random_state=0),
    "default": MaskedGradientMF(random_state=0),
    "default, 50 draws": MaskedGradientMF(n_draws=50, random_state=0),
}
predictions = {}
for name, model in models.items():
    start = perf_counter()
    if model is None:
        count = np.bincount(X.indices, minlength=SHAPE[1])
        total = np.bincount(X.indices, X.data, minlength=SHAPE[1])
        prediction = ((total + X.data.mean()) / (count + 1))[films]
    else:
        prediction = model.predict_entries(model.fit_transform(X), users, films)
    predictions[name] = np.clip(prediction, 1, 5)
    rmse = np.sqrt(np.mean((predictions[name] - stars) ** 2))
    print(f"{name:<22} RMSE {rmse:.4f}   {perf_counter() - start:4.1f} s")

# %%
# How sure?
# ---------
#
# Every prediction of the default comes with a standard deviation, larger for films and
# users with few ratings. Where it says so, the errors are larger indeed; the picture
# tells how closely.

model = models["default"]
Z, covariance = model.transform(X, return_cov=True)
predicted, std = model.predict_entries(
    Z, users, films, covariance=covariance, return_std=True
)
off = np.abs(predicted - stars)
print(f"{np.mean(off < 1.645 * std):.1%} are within the interval meant for 90 %")

# %%
# Draw it
# -------
#
# Left, the error against the number of ratings of the film: factors help nearly
# everywhere, and the mean of a film is the worst guess throughout. In the middle, how
# many ratings lie within intervals, against how many should. Right, the test set in ten
# equal groups by the standard deviation predicted; on the line it is exact.

fig, (left, middle, right) = plt.subplots(
    1, 3, figsize=(12, 4.2), layout="constrained", width_ratios=[1.4, 1, 1]
)
n_ratings = np.bincount(X.indices, minlength=SHAPE[1])[films]
edges = np.array([0, 10, 30, 60, 100, 150, 200, 300, 1000])
group = np.digitize(n_ratings, edges) - 1
styles = {
    "mean of the film": {"color": "black", "marker": "s", "linestyle": ":"},
    "biases alone": {"color": "#E69F00", "marker": "^", "linestyle": "--"},
    "default, 50 draws": {"color": "#0072B2", "marker": "o", "linestyle": "-"},
}
for name, style in styles.items():
    square = (predictions[name] - stars) ** 2
    by_group = [np.sqrt(square[group == g].mean()) for g in range(len(edges) - 1)]
    left.plot(by_group, label=name, linewidth=2, **style)
labels = [f"{a} to {b - 1}" for a, b in pairwise(edges[:-1])]
left.set_xticks(range(len(edges) - 1), [*labels, "300 or more"], rotation=30)
left.set(xlabel="ratings of the film in the training set", ylabel="RMSE (stars)")
left.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)
fig.suptitle(source)

CalibrationDisplay.from_predictions(stars, predicted, std, name="default", ax=middle)

groups = np.array_split(np.argsort(std), 10)
expected = [np.sqrt(np.mean(std[g] ** 2)) for g in groups]
measured = [np.sqrt(np.mean((predicted - stars)[g] ** 2)) for g in groups]
ends = [min(expected + measured) - 0.03, max(expected + measured) + 0.03]
right.plot(ends, ends, color="0.5", linewidth=1)
right.plot(expected, measured, "o", color="#0072B2", markersize=7)
right.set(
    xlabel="standard deviation, predicted (stars)", ylabel="RMSE, measured (stars)"
)
right.set(xlim=ends, ylim=ends, aspect="equal")
plt.show()
