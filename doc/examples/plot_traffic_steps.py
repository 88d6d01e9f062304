"""
Why a fixed step overflows on traffic, and an exact one does not
================================================================

Gradient descent with a step of 0.01 works on a table of a few rows. On the speeds of
323 loop detectors it overflows in the third sweep. The reason is in the curvature, and
so is the remedy.
"""

# %%
# Speeds of 323 detectors
# -----------------------
#
# A matrix as large as that of the loop detectors of Seattle: 323 detectors x 61 days of
# 288 readings each, one every five minutes. It is simulated here: daily waves of 60
# kinds, each with its own strength on every day, noise of 2 mph, cut to 0 to 80 mph.

import matplotlib.pyplot as plt
import numpy as np

from sklearn_mfgd import DivergenceError, GradientMF

N_DETECTORS, N_DAYS, N_READINGS, N_WAVES = 323, 61, 288, 60

rng = np.random.default_rng(0)
hour = 24 * np.arange(N_READINGS) / N_READINGS
phase = rng.uniform(0, 24, (N_WAVES, 1))
per_day = 1 + np.arange(N_WAVES)[:, None] % 6
wave = np.cos(2 * np.pi * per_day * (hour - phase) / 24)
strength = rng.normal(size=(N_WAVES, N_DAYS, 1))
times = (strength * wave[:, None]).reshape(N_WAVES, -1)
sizes = 6 * 0.9 ** np.arange(N_WAVES)
speeds = 50 + (sizes * rng.normal(size=(N_DETECTORS, N_WAVES))) @ times
speeds += rng.normal(scale=2, size=speeds.shape)
speeds = np.clip(speeds, 0, 80)

# %%
# The step that overflows
# -----------------------
#
# Along a row of W, the loss is a parabola whose curvature is up to the largest
# eigenvalue of HᵀH, a sum over 17,568 columns. A step longer than 2 / curvature ends
# higher than it began. These are the plain steps, with factors uniform in [0, 1]:

start = (
    rng.uniform(size=(N_DETECTORS, N_WAVES)),
    rng.uniform(size=(speeds.shape[1], 60)),
)
W, H = (factor.copy() for factor in start)
curvature = np.linalg.eigvalsh(H.T @ H)[-1]
print(f"steps along W are stable below {2 / curvature:.2g}, and 0.01 is taken")
overflowing = []
with np.errstate(over="ignore", invalid="ignore"):
    for _ in range(3):
        W = W - 0.01 * (W @ (H.T @ H) - speeds @ H)
        H = H - 0.01 * (H @ (W.T @ W) - speeds.T @ W)
        overflowing.append(np.sqrt(np.mean((speeds - W @ H.T) ** 2)))
print("RMSE in mph, sweep by sweep:", *(f"{r:.2g}" for r in overflowing))

# %%
# :class:`~sklearn_mfgd.GradientMF` with the same fixed step ends in an error instead of
# NaN, and the error names a step that is stable.

plain = GradientMF(N_WAVES, solver="gd", init=start, max_iter=6, tol=0)
try:
    plain.set_params(eta=0.01).fit(speeds)
except DivergenceError as error:
    print(error)
    stable = error.stable_eta

# %%
# Steps that do not
# -----------------
#
# With the step that the error names, the loss falls, slowly. With ``eta="auto"`` every
# row takes the step to the bottom of its own parabola, which can be told in closed
# form. The scaled solver also divides the direction by HᵀH, so that all directions are
# as steep. From the start of singular vectors, which is the default, it has nothing
# left to do.

fits = {
    f"gd, eta={stable:.2g} (named by the error)": plain.set_params(eta=stable),
    'gd, eta="auto"': GradientMF(N_WAVES, solver="gd", init=start, max_iter=6, tol=0),
    'scaled, eta="auto"': GradientMF(
        N_WAVES, solver="scaled", init=start, max_iter=6, tol=0
    ),
}
singular_values = np.sqrt(np.linalg.eigvalsh(speeds @ speeds.T)[::-1])
rmse = {
    name: np.sqrt(2 * np.array(model.fit(speeds).loss_curve_) / speeds.size)
    for name, model in fits.items()
}
least = np.sqrt(np.sum(singular_values[N_WAVES:] ** 2) / speeds.size)
default = GradientMF(N_WAVES).fit(speeds).reconstruction_err_ / np.sqrt(speeds.size)
print(f"RMSE of the default {default:.4f} mph, of the truncated SVD {least:.4f} mph")

# %%
# Random readings, and whole days
# -------------------------------
#
# Detectors fail in both ways. 40 % of the readings are hidden at random, then 40 % of
# the days of single detectors. The second leaves no reading nearby in time, but the
# other detectors saw that day. Two sweeps are enough, and so is single precision.

scattered = rng.random(speeds.shape) < 0.4
days = (rng.random((N_DETECTORS, N_DAYS)) < 0.4).repeat(N_READINGS, axis=1)
errors, filled = {}, {}
for name, hidden in {"random readings": scattered, "whole days": days}.items():
    table = np.where(hidden, np.nan, speeds).astype(np.float32)
    model = GradientMF(20, fit_bias=True, reg=100, max_iter=2, tol=0)
    filled[name] = model.inverse_transform(model.fit_transform(table))
    of_detector = np.nanmean(table, axis=1, keepdims=True)
    errors[name] = [
        np.sqrt(np.mean((prediction - speeds)[hidden] ** 2))
        for prediction in (of_detector, np.nanmean(table, axis=0), filled[name])
    ]
    print(
        f"{name:<13} RMSE: mean of the detector {errors[name][0]:.2f}, "
        f"of the time {errors[name][1]:.2f}, factors {errors[name][2]:.2f} mph"
    )

# %%
# Draw it
# -------
#
# The factors come close to the noise of 2 mph in both cases: the columns that a day
# consists of were seen by the other detectors, so a whole day is hardly harder here.
# That is a property of data of low rank, not of traffic in general.

fig = plt.figure(figsize=(10, 7.5), layout="constrained")
top, bottom = fig.subfigures(2, 1, height_ratios=[1.1, 1])
ax = top.subplots()
styles = [
    {"color": "#D55E00", "marker": "s", "linestyle": "--"},
    {"color": "#E69F00", "marker": "^", "linestyle": "-."},
    {"color": "#0072B2", "marker": "o", "linestyle": "-"},
]
for (name, curve), style in zip(rmse.items(), styles, strict=True):
    ax.plot(np.arange(1, len(curve) + 1), curve, label=name, **style)
ax.annotate(
    "",
    (1, 1),
    xytext=(1, 0.8),
    xycoords=("data", "axes fraction"),
    arrowprops={"arrowstyle": "-|>", "linewidth": 2, "color": "black"},
)
ax.text(
    1.1,
    0.96,
    "the plain loop, eta=0.01, far above: "
    f"{overflowing[0]:.0e} mph after one sweep,\n{overflowing[1]:.0e} after two, "
    "then no longer a number",
    transform=ax.get_xaxis_transform(),
    va="top",
)
ax.axhline(least, color="0.4", linewidth=1)
ax.text(6, 0.97 * least, "truncated SVD", ha="right", va="top", color="0.3")
ax.set_yscale("log")
ax.set_yticks([1, 2, 5, 10, 20, 50], [1, 2, 5, 10, 20, 50], minor=False)
ax.yaxis.set_minor_formatter("")
ax.set(xlabel="sweep", ylabel="RMSE (mph)", ylim=(1.2, 60))
ax.set_title("Complete matrix, rank 60: exact steps descend", loc="left")
ax.legend(loc="upper right")

axes = bottom.subplots(1, 2, sharey=True)
detector, first = 0, np.flatnonzero(days[0, ::N_READINGS])[0]
stretch = slice(first * N_READINGS, (first + 1) * N_READINGS)
for ax, (name, hidden) in zip(
    axes, {"random readings": scattered, "whole days": days}.items(), strict=True
):
    seen = np.where(hidden, np.nan, speeds)[detector, stretch]
    unseen = np.where(hidden, speeds, np.nan)[detector, stretch]
    ax.plot(hour, seen, ".", color="black", markersize=3, label="observed")
    ax.plot(hour, unseen, "o", color="#E69F00", ms=3, mfc="none", label="hidden")
    ax.plot(hour, filled[name][detector, stretch], color="#0072B2", label="factors")
    ax.set_title(f"{name}: RMSE {errors[name][2]:.2f} mph", loc="left")
    ax.set(xlabel="hour of one day, one detector", xticks=range(0, 25, 6))
axes[0].set_ylabel("speed (mph)")
axes[1].legend(loc="upper left", markerscale=2)
plt.show()
