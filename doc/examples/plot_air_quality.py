"""
Fill in air quality readings
============================

Instruments fail, and values of their tables are missing. Here readings of twelve
stations are hidden, filled in from the others by three methods, and compared with what
was hidden. Run as a script, with the name of a file, it saves the picture there.
"""

# %%
# The data
# --------
#
# Six pollutants at 12 stations of Beijing, hour by hour, in January and February 2014:
# 72 columns, 6 % of whose readings are missing. The weather columns are left out. Some
# of them are exact copies of one another, from which hidden readings could be read off.

import sys
from time import perf_counter

import matplotlib.dates as mdates
import matplotlib.pyplot as plt
import numpy as np
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_mfgd import MaskedGradientMF
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
# Hide a fifth of it
# ------------------
#
# In two ways: single readings, scattered over the table; and whole days of single
# instruments. The second is closer to the real gaps, half of which last for a day or
# longer.

rng = np.random.default_rng(0)
n_days = len(X) // 24
readings = observed & (rng.random(X.shape) < 0.2)
days = observed & (rng.random((n_days, X.shape[1])) < 0.2).repeat(24, axis=0)

# %%
# Fill it in
# ----------
#
# All three get the readings as they are, skewed and positive; the last two scaled to
# unit variance, and all with their default settings. The error is the root mean square
# over the hidden readings, each in standard deviations of its column; the seconds are
# those of both runs.


def column_mean(X):
    return SimpleImputer().fit_transform(X)


def neighbours(X):
    scaler = StandardScaler()
    return scaler.inverse_transform(KNNImputer().fit_transform(scaler.fit_transform(X)))


def factors(X):
    model = make_pipeline(StandardScaler(), MaskedGradientMF(random_state=0))
    return model.inverse_transform(model.fit_transform(X))


methods = {
    "column mean": column_mean,
    "KNNImputer": neighbours,
    "MaskedGradientMF": factors,
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
# Where single readings are missing, the five most similar hours tell nearly as much as
# factors do. Where an instrument is out for a day, the hours most like the present one
# miss the same reading, and factors are well ahead.
#
# Draw it
# -------
#
# Two weeks in February with whole days hidden, and with gaps of their own: each row is
# a column of the table, in standard deviations from its mean. In a few hours nothing
# was read at all. No other column can tell what they were, so they get the means.

stretch = slice(*np.searchsorted(times, np.array(["2014-02-08", "2014-02-22"], "M8")))
scaled = (X - np.nanmean(X, axis=0)) / deviation
reconstructed = (filled - np.nanmean(X, axis=0)) / deviation
panels = {
    "Observed (grey: really missing)": scaled,
    "Given to the model (20 % hidden by whole days)": np.where(days, np.nan, scaled),
    "Reconstructed": reconstructed,
}

fig, axes = plt.subplots(
    4,
    1,
    figsize=(10, 11),
    height_ratios=[3, 3, 3, 2.6],
    layout="constrained",
    sharex=True,
)
edges = mdates.date2num(times[stretch][[0, -1]] + np.array([0, 1], "m8[h]"))
colours = plt.get_cmap("viridis").with_extremes(bad="lightgrey")
for ax, (title, table) in zip(axes, panels.items(), strict=False):
    image = ax.imshow(
        table[stretch].T,
        aspect="auto",
        interpolation="nearest",
        extent=(*edges, len(names), 0),
        vmin=-1.5,
        vmax=3,
        cmap=colours,
    )
    ax.set_title(title, loc="left")
    n_stations = len(air.stations)
    ax.set_yticks(np.arange(len(POLLUTANTS)) * n_stations + n_stations / 2, POLLUTANTS)
    ax.tick_params(axis="y", length=0)
    for boundary in range(n_stations, len(names), n_stations):
        ax.axhline(boundary, color="white", linewidth=1)
fig.colorbar(
    image,
    ax=axes[:3],
    label="standard deviations from the mean",
    extend="both",
    aspect=40,
    pad=0.01,
)

column = names.index("Tiantan PM2.5")
ax, when = axes[3], times[stretch]
truth, hide = X[stretch, column], days[stretch, column]
ax.plot(when, np.where(hide, np.nan, truth), color="black", label="observed")
ax.plot(when[hide], truth[hide], ".", color="tab:red", markersize=4, label="hidden")
ax.plot(when, filled[stretch, column], color="tab:blue", lw=1, label="reconstructed")
ax.set_title(
    f"{names[column]}, one row of the above (grey: really missing)", loc="left"
)
ax.set_ylabel("PM2.5 (µg/m³)")
ax.set_xlabel("2014, local time")
for hour in when[np.isnan(truth)]:
    ax.axvspan(hour, hour + np.timedelta64(1, "h"), color="lightgrey", linewidth=0)
ax.legend(loc="upper right")
ax.xaxis.set_major_locator(mdates.DayLocator(interval=2))
ax.xaxis.set_major_formatter(mdates.DateFormatter("%d %b"))

if len(sys.argv) > 1:
    fig.savefig(sys.argv[1])
plt.show()
