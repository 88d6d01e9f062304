"""
Ratings with biases, by two solvers
===================================

Some users are generous, and some films are good. Biases describe these differences, and
factors describe the rest. This page compares two solvers by their error on ratings that
they have not seen, per sweep and per second.
"""

# %%
# Simulated ratings
# -----------------
#
# There are 2,000 users and 500 films. A rating is the sum of a mean of 3.5, a bias of
# the user, a bias of the film, three factors of taste, and noise with a standard
# deviation of 0.8. One in ten ratings is given. The ratings are simulated, so we know
# the true biases.

from itertools import product
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from scipy.sparse import csr_array

from sklearn_mfgd import MaskedGradientMF

N_USERS, N_FILMS, NOISE = 2000, 500, 0.8

rng = np.random.default_rng(0)
user_bias = rng.normal(scale=0.4, size=N_USERS)
film_bias = rng.normal(scale=0.5, size=N_FILMS)
taste = rng.normal(size=(N_USERS, 3)) @ rng.normal(scale=0.4, size=(3, N_FILMS))
truth = 3.5 + user_bias[:, None] + film_bias + taste
users, films = np.nonzero(rng.random(truth.shape) < 0.1)
ratings = truth[users, films] + rng.normal(scale=NOISE, size=len(users))

test = rng.random(len(ratings)) < 0.1
train = csr_array((ratings[~test], (users[~test], films[~test])), shape=truth.shape)
print(f"{train.nnz:,} ratings to learn from, {test.sum():,} to predict")

# %%
# Two solvers, one objective
# --------------------------
#
# Both solvers minimize the same sum of squared errors with the same ridge. Stochastic
# gradient descent ("sgd") takes one rating after the other. Alternating least squares
# ("als") solves for all users, then for all films. Each solver starts twice: from
# random factors, and from the leading singular vectors of the ratings without their
# biases.
#
# ``early_stopping`` holds out a tenth of the training set, and ``validation_curve_`` is
# the error on this tenth after each sweep. Here ``n_iter_no_change=60`` lets the fit
# continue for all 60 sweeps.


def rmse(model, Z):
    prediction = model.predict_entries(Z, users[test], films[test])
    return np.sqrt(np.mean((prediction - ratings[test]) ** 2))


MaskedGradientMF(3, reg=3, solver="sgd", max_iter=1, tol=0).fit(train)  # warm up
curves, models = {}, {}
for solver, init in product(["sgd", "als"], ["random", "svd"]):
    model = MaskedGradientMF(
        3,
        reg=3,
        solver=solver,
        init=init,
        max_iter=60,
        tol=0,
        early_stopping=True,
        n_iter_no_change=60,
        random_state=0,
    )
    start = perf_counter()
    Z = model.fit_transform(train)
    curve = np.array(model.validation_curve_)
    curves[solver, init] = curve, (perf_counter() - start) / len(curve)
    models[solver] = model
    near = np.flatnonzero(curve < curve.min() + 0.005)[0] + 1
    print(
        f"{solver} from {init:<7} within 0.005 of its best after {near:2} sweeps, "
        f"RMSE of the test set {rmse(model, Z):.4f}"
    )

# %%
# Without biases, and with nothing to choose
# ------------------------------------------
#
# If the model has no biases, its three factors have to describe the differences between
# users and between films, too. The default of ``MaskedGradientMF`` has biases. It also
# learns the ridge and the number of factors.

without = MaskedGradientMF(3, reg=3, fit_bias=False)
print(f"no biases: {rmse(without, without.fit_transform(train)):.4f}")
default = MaskedGradientMF(random_state=0)
Z = default.fit_transform(train)
print(f"default:   {rmse(default, Z):.4f} with {default.rank_} factors")
print(f"the truth: {np.sqrt(np.mean((truth[users, films] - ratings)[test] ** 2)):.4f}")

# %%
# Draw it
# -------
#
# From random factors, least squares needs fewer sweeps and less time. From singular
# vectors, both solvers are close to their smallest error after one sweep, so here the
# start matters more than the solver.

fig, axes = plt.subplots(1, 2, figsize=(8.5, 4.4), sharey=True, layout="constrained")
colours = {"sgd": "#E69F00", "als": "#0072B2"}
markers = {"sgd": "^", "als": "o"}
for (solver, init), (curve, seconds) in curves.items():
    sweeps = np.arange(1, len(curve) + 1)
    for ax, x in zip(axes, (sweeps, 1000 * seconds * sweeps), strict=False):
        ax.plot(
            x,
            curve,
            color=colours[solver],
            marker=markers[solver],
            linestyle="--" if init == "random" else "-",
            markevery=[0, 1, 3, 7, 15, 31, 59],
            label=f"{solver} from {init}",
        )
for ax in axes:
    ax.axhline(NOISE, color="0.4", linewidth=1)
    ax.text(0.02, NOISE, "noise", transform=ax.get_yaxis_transform(), va="bottom")
    ax.set_xscale("log")
    ax.set_ylim(0.79, 1.2)
axes[0].legend(loc="upper right")
axes[0].set(xlabel="sweep", ylabel="RMSE of held-out ratings (stars)")
axes[1].set(xlabel="milliseconds")
plt.show()

# %%
# Both solvers find the biases of the films, up to the noise.

fig, ax = plt.subplots(figsize=(4.6, 4.4), layout="constrained")
for solver, model in models.items():
    ax.plot(
        film_bias,
        model.column_bias_,
        markers[solver],
        color=colours[solver],
        markersize=4,
        markerfacecolor="none",
        label=solver,
    )
ends = [film_bias.min(), film_bias.max()]
ax.plot(ends, ends, color="black", linewidth=1)
ax.set(xlabel="true bias of a film (stars)", ylabel="found (stars)")
ax.legend(markerscale=1.5)
plt.show()
