"""
Why a fixed step overflows on traffic data
==========================================

Gradient descent with a step of 0.01 works on a table of a few rows. On the speeds of
323 traffic sensors it overflows within three sweeps. This page shows why, and how
``eta="auto"`` avoids it.
"""

# %%
# Speeds at 323 sensors
# ---------------------
#
# We simulate the speeds at 323 traffic sensors on 21 days, with a reading every five
# minutes. Each speed is a sum of 60 daily waves, and the strength of a wave changes
# from day to day. The noise is 2 mph, and the speeds are limited to 0 to 80 mph.

import matplotlib.pyplot as plt
import numpy as np

from sklearn_mfgd import DivergenceError, GradientMF

N_SENSORS, N_DAYS, N_READINGS, N_WAVES = 323, 21, 288, 60

rng = np.random.default_rng(0)
hour = 24 * np.arange(N_READINGS) / N_READINGS
phase = rng.uniform(0, 24, (N_WAVES, 1))
per_day = 1 + np.arange(N_WAVES)[:, None] % 6
wave = np.cos(2 * np.pi * per_day * (hour - phase) / 24)
strength = rng.normal(size=(N_WAVES, N_DAYS, 1))
times = (strength * wave[:, None]).reshape(N_WAVES, -1)
sizes = 6 * 0.9 ** np.arange(N_WAVES)
speeds = 50 + (sizes * rng.normal(size=(N_SENSORS, N_WAVES))) @ times
speeds += rng.normal(scale=2, size=speeds.shape)
speeds = np.clip(speeds, 0, 80)

# %%
# The step that overflows
# -----------------------
#
# The model is X ≈ WHᵀ: W are the factors of the sensors, and H are those of the times.
# If only one row of W moves, the loss is a parabola. Its curvature is at most the
# largest eigenvalue of HᵀH, which is a sum over all 6,048 columns. A step longer than 2
# / curvature ends higher than it began. Here is a plain loop with a step of 0.01. It
# starts from factors that are uniform in [0, 1].

start = (
    rng.uniform(size=(N_SENSORS, N_WAVES)),
    rng.uniform(size=(speeds.shape[1], 60)),
)
W, H = (factor.copy() for factor in start)
curvature = np.linalg.eigvalsh(H.T @ H)[-1]
print(f"steps along W are stable below {2 / curvature:.2g}; this loop takes 0.01")
overflowing = []
with np.errstate(over="ignore", invalid="ignore"):
    for _ in range(3):
        W = W - 0.01 * (W @ (H.T @ H) - speeds @ H)
        H = H - 0.01 * (H @ (W.T @ W) - speeds.T @ W)
        overflowing.append(np.sqrt(np.mean((speeds - W @ H.T) ** 2)))
print("RMSE in mph, sweep by sweep:", *(f"{r:.2g}" for r in overflowing))

# %%
# With the same fixed step :class:`~sklearn_mfgd.GradientMF` raises an error. The
# message names a step that is stable.

plain = GradientMF(N_WAVES, solver="gd", init=start, max_iter=6, tol=0)
try:
    plain.set_params(eta=0.01).fit(speeds)
except DivergenceError as error:
    print(error)
    stable = error.stable_eta

# %%
# Steps that descend
# ------------------
#
# With the step that the error names, the loss falls slowly. With ``eta="auto"`` every
# row takes the step to the bottom of its own parabola. A formula gives the length of
# this step. The solver "scaled" also multiplies the gradient by the inverse of HᵀH, so
# that all directions are equally steep. The default starts from singular vectors. On a
# complete matrix these are already the best factors.

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
# Sensors fail in two ways, and we simulate both. First 40 % of the readings are hidden
# at random. Then 40 % of the days of single sensors are hidden. In the second case no
# reading of the same sensor is near, but the other sensors recorded that day. Two
# sweeps in single precision are enough here.

scattered = rng.random(speeds.shape) < 0.4
days = (rng.random((N_SENSORS, N_DAYS)) < 0.4).repeat(N_READINGS, axis=1)
errors, filled = {}, {}
for name, hidden in {"random readings": scattered, "whole days": days}.items():
    table = np.where(hidden, np.nan, speeds).astype(np.float32)
    model = GradientMF(20, fit_bias=True, reg=100, max_iter=2, tol=0)
    filled[name] = model.inverse_transform(model.fit_transform(table))
    of_sensor = np.nanmean(table, axis=1, keepdims=True)
    errors[name] = [
        np.sqrt(np.mean((prediction - speeds)[hidden] ** 2))
        for prediction in (of_sensor, np.nanmean(table, axis=0), filled[name])
    ]
    print(
        f"{name:<13} RMSE: mean of the sensor {errors[name][0]:.2f}, "
        f"of the time {errors[name][1]:.2f}, factors {errors[name][2]:.2f} mph"
    )

# %%
# Draw it
# -------
#
# In both cases the factors come close to the noise of 2 mph. A hidden day is hardly
# harder to fill than single readings, because the other sensors recorded the same
# hours. Real traffic is less regular than these simulated speeds.

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
    "then infinite",
    transform=ax.get_xaxis_transform(),
    va="top",
)
ax.axhline(least, color="0.4", linewidth=1)
ax.text(6, 0.97 * least, "truncated SVD", ha="right", va="top", color="0.3")
ax.set_yscale("log")
ax.set_yticks([1, 2, 5, 10, 20, 50], [1, 2, 5, 10, 20, 50], minor=False)
ax.yaxis.set_minor_formatter("")
ax.set(xlabel="sweep", ylabel="RMSE (mph)", ylim=(1.2, 60))
ax.set_title('Complete matrix, rank 60: the steps of eta="auto" descend', loc="left")
ax.legend(loc="upper right")

axes = bottom.subplots(1, 2, sharey=True)
sensor, first = 0, np.flatnonzero(days[0, ::N_READINGS])[0]
stretch = slice(first * N_READINGS, (first + 1) * N_READINGS)
for ax, (name, hidden) in zip(
    axes, {"random readings": scattered, "whole days": days}.items(), strict=True
):
    seen = np.where(hidden, np.nan, speeds)[sensor, stretch]
    unseen = np.where(hidden, speeds, np.nan)[sensor, stretch]
    ax.plot(hour, seen, ".", color="black", markersize=3, label="observed")
    ax.plot(hour, unseen, "o", color="#E69F00", ms=3, mfc="none", label="hidden")
    ax.plot(hour, filled[name][sensor, stretch], color="#0072B2", label="factors")
    ax.set_title(f"{name}: RMSE {errors[name][2]:.2f} mph", loc="left")
    ax.set(xlabel="hour of one day, one sensor", xticks=range(0, 25, 6))
axes[0].set_ylabel("speed (mph)")
axes[1].legend(loc="upper left", markerscale=2)
plt.show()
