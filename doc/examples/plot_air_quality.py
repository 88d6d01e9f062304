"""
Fill in air quality readings
============================

Instruments fail, so tables of their readings have gaps. This page hides readings of
twelve stations, fills them in by three methods, and compares the results with the
hidden readings. :class:`~sklearn_mfgd.MFImputer` has the smallest errors.
"""

# %%
# The data
# --------
#
# The table has hourly readings of six pollutants at 12 stations in Beijing, from
# January and February 2014. That makes 72 columns. 6 % of the readings are missing.
#
# If you run this page as a script, you can pass the name of a file. The script then
# saves the picture in this file.

import sys
from time import perf_counter

import matplotlib.dates as mdates
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Patch
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.preprocessing import StandardScaler

from sklearn_mfgd import MFImputer
from sklearn_mfgd.datasets import load_beijing_air

POLLUTANTS = ["PM2.5", "PM10", "SO2", "NO2", "CO", "O3"]

air = load_beijing_air()
hours = slice(*np.searchsorted(air.times, np.array(["2014-01-01", "2014-03-01"], "M8")))
# One pollutant after the other, each with its 12 stations.
names = [
    f"{station} {pollutant}" for pollutant in POLLUTANTS for station in air.stations
]
columns = [air.feature_names.index(name) for name in names]
times, X = air.times[hours], air.data[hours][:, columns]
observed = ~np.isnan(X)
print(f"{X.shape[0]} hours x {X.shape[1]} columns, {1 - observed.mean():.1%} missing")

# %%
# Hide a fifth of the readings
# ----------------------------
#
# We hide readings in two ways: single readings at random, and whole days of single
# instruments. Real gaps are of both kinds. Of the readings that are missing in the
# original table, more than a third are in gaps of a day or longer.

rng = np.random.default_rng(0)
n_days = len(X) // 24
readings = observed & (rng.random(X.shape) < 0.2)
days = observed & (rng.random((n_days, X.shape[1])) < 0.2).repeat(24, axis=0)

# %%
# Fill it in
# ----------
#
# All methods have their default settings. ``KNNImputer`` compares rows, so it gets
# columns that are scaled to unit variance. The error is the root mean squared error of
# the hidden readings, in standard deviations of their columns. The seconds are the
# total for both ways of hiding.


def column_mean(table):
    return SimpleImputer().fit_transform(table)


def neighbours(table):
    scaler = StandardScaler()
    scaled = scaler.fit_transform(table)
    return scaler.inverse_transform(KNNImputer().fit_transform(scaled))


def factors(table):
    return MFImputer().fit_transform(table)


methods = {
    "column mean": column_mean,
    "KNNImputer": neighbours,
    "MFImputer": factors,
}
deviation = np.nanstd(X, axis=0)

print("held-out RMSE     single readings    whole days     seconds")
for name, method in methods.items():
    errors, start = [], perf_counter()
    for hidden in readings, days:
        filled = method(np.where(hidden, np.nan, X))
        errors.append(np.sqrt(np.mean(((filled - X) / deviation)[hidden] ** 2)))
    seconds = perf_counter() - start
    print(f"{name:<18}{errors[0]:15.3f}{errors[1]:14.3f}{seconds:12.1f}")

# %%
# For single readings, ``KNNImputer`` is nearly as good as ``MFImputer``. It averages
# the five most similar hours. If an instrument fails for a day, these hours lack the
# same reading, and ``MFImputer`` has a much smaller error.
#
# Draw it
# -------
#
# The picture shows ten days in February. In the upper two panels, each row is a column
# of the table. White readings were hidden for a day, and grey readings are missing in
# the original table. The imputer fills both. In a few hours no station reported
# anything. In these hours no other column can help, so ``MFImputer`` fills in the
# means.
#
# The lowest panel shows one instrument. The two days with the highest pollution were
# hidden. The other stations recorded these days, and the imputed readings are close to
# the hidden ones.

stretch = slice(*np.searchsorted(times, np.array(["2014-02-10", "2014-02-20"], "M8")))
when, hide = times[stretch], days[stretch]
scaled = (X - np.nanmean(X, axis=0)) / deviation
imputed = (filled - np.nanmean(X, axis=0)) / deviation
panels = {
    "Given: a table with gaps": np.where(days, np.nan, scaled),
    "Filled in by MFImputer": imputed,
}

plt.rcParams.update({"font.size": 12, "axes.titlesize": 14})
fig, axes = plt.subplots(
    3, 1, figsize=(10, 9), height_ratios=[3, 3, 2.6], layout="constrained", sharex=True
)
edges = mdates.date2num(when[[0, -1]] + np.array([0, 1], "m8[h]"))
n_stations = len(air.stations)
for ax, (title, table) in zip(axes, panels.items(), strict=False):
    image = ax.imshow(
        table[stretch].T,
        aspect="auto",
        interpolation="nearest",
        extent=(*edges, len(names), 0),
        vmin=-1.5,
        vmax=3,
        cmap=plt.get_cmap("viridis").with_extremes(bad="white"),
    )
    ax.set_title(title, loc="left", weight="bold")
    ax.set_yticks(np.arange(len(POLLUTANTS)) * n_stations + n_stations / 2, POLLUTANTS)
    ax.tick_params(axis="y", length=0)
    for boundary in range(n_stations, len(names), n_stations):
        ax.axhline(boundary, color="black", linewidth=1)
really_missing = np.where(observed[stretch].T, np.nan, 0.45)
axes[0].imshow(
    really_missing,
    aspect="auto",
    interpolation="nearest",
    extent=(*edges, len(names), 0),
    vmin=0,
    vmax=1,
    cmap="Greys",
)
axes[0].legend(
    handles=[
        Patch(facecolor="white", edgecolor="black", label="hidden for a day"),
        Patch(facecolor="0.65", edgecolor="black", label="really missing"),
    ],
    loc="lower right",
    bbox_to_anchor=(1, 1),
    ncols=2,
    frameon=False,
)
bar = fig.colorbar(image, ax=axes[:2], extend="both", aspect=40, pad=0.01)
bar.set_ticks([-1, 0, 1, 2, 3], labels=["low", "mean", "", "", "high"])

column = names.index("Dongsi PM2.5")
ax, truth, hide = axes[2], X[stretch, column], hide[:, column]
ax.plot(when, filled[stretch, column], color="#0072B2", lw=2, label="filled in")
ax.plot(when, np.where(hide, np.nan, truth), color="black", lw=2, label="given")
ax.plot(when[hide], truth[hide], "o", color="#D55E00", ms=4, mfc="none", label="hidden")
first, *_, last = np.flatnonzero(hide)
ax.axvspan(when[first], when[last], color="0.93", zorder=0)
ax.set_title("Fine particles at Dongsi, µg/m³", loc="left", weight="bold")
ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False)
ax.set_ylim(0, None)
ax.spines[["top", "right"]].set_visible(False)
ax.xaxis.set_major_locator(mdates.DayLocator(interval=2))
ax.xaxis.set_major_formatter(mdates.DateFormatter("%d %b"))

if len(sys.argv) > 1:
    fig.savefig(sys.argv[1])
plt.show()
