"""
Gaps in time series
===================

The rows of this table have times, and rows that are near in time are similar. The page
makes gaps of three kinds in hourly readings of air quality. It fills them by linear
interpolation, by an imputer that does not know the times, and by an imputer that does.
At the end the imputer forecasts two days.
"""

# %%
# The data
# --------
#
# The table has hourly readings of six pollutants at 12 stations in Beijing, from 20
# January to the end of February 2014. That makes 72 columns. Its real gaps stay missing
# throughout.

from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np

from sklearn_mfgd import MFImputer
from sklearn_mfgd.datasets import load_beijing_air
from sklearn_mfgd.model_selection import block_entries, train_test_split_entries
from sklearn_mfgd.plotting import GapDisplay

POLLUTANTS = ["PM2.5", "PM10", "SO2", "NO2", "CO", "O3"]

air = load_beijing_air()
winter = air.times >= np.datetime64("2014-01-20")
names = [
    f"{station} {pollutant}" for pollutant in POLLUTANTS for station in air.stations
]
columns = [air.feature_names.index(name) for name in names]
times, X = air.times[winter], air.data[winter][:, columns]
deviations = np.nanstd(X, axis=0)
print(f"{X.shape[0]} hours x {X.shape[1]} columns, {np.isnan(X).mean():.1%} missing")

# %%
# Gaps of three kinds
# -------------------
#
# - Single readings: a fifth of the entries, at random.
# - Whole days: a fifth of the days of each column. The other stations have readings on
#   these days.
# - Blackouts: one to six hours without any reading at any station. A fifth of the hours
#   are in a blackout. Only the hours before and after can help.

rng = np.random.default_rng(0)
readings, _ = train_test_split_entries(X, test_size=0.2, random_state=0)

days = block_entries(times, length=np.timedelta64(1, "D"))
n_blocks = X.shape[1] * len(np.unique(days))
whole_days, _ = train_test_split_entries(
    X, test_size=n_blocks // 5, blocks=days, random_state=0
)

is_dark = np.zeros(len(X), bool)
while is_dark.mean() < 0.2:
    first = rng.integers(len(X))
    is_dark[first : first + rng.integers(1, 7)] = True
blackouts = np.where(is_dark[:, np.newaxis], np.nan, X)

tables = {
    "single readings": readings,
    "whole days": whole_days,
    "blackouts": blackouts,
}

# %%
# Fill them
# ---------
#
# ``MFImputer`` needs nothing but the times. The errors are root mean squared errors of
# the hidden readings, in standard deviations of each column. The last column of the
# output is the share of hidden readings that are inside their 95 % interval.


def interpolate(table):
    """Draw a straight line through each gap of each column."""
    filled, numbers = table.copy(), np.arange(len(table))
    for column in filled.T:
        known = ~np.isnan(column)
        column[:] = np.interp(numbers, numbers[known], column[known])
    return filled


def error(filled, table):
    """Root mean squared error of what is hidden in a table."""
    hidden = np.isnan(table) & ~np.isnan(X)
    return np.sqrt(np.mean(((filled - X) / deviations)[hidden] ** 2))


filled, errors = {}, {}
print(f"{'':16}{'interpolation':>14}{'no times':>10}{'times':>8}{'covered':>9}")
start = perf_counter()
for name, table in tables.items():
    without = MFImputer().fit(table)
    imputer = MFImputer().fit(table, times=times)
    filled[name] = {
        "interpolation": (interpolate(table), None),
        "without times": without.impute(table, return_std=True),
        "with times": imputer.impute(table, times=times, return_std=True),
    }
    errors[name] = [error(values, table) for values, _ in filled[name].values()]
    imputed, std = filled[name]["with times"]
    hidden = np.isnan(table) & ~np.isnan(X)
    covered = np.mean((np.abs(imputed - X) <= 1.96 * std)[hidden])
    shown = "{:>14.3f}{:>10.3f}{:>8.3f}".format(*errors[name])
    print(f"{name:16}{shown}{covered:>9.1%}")
print(f"all fits took {perf_counter() - start:.0f} s")

# %%
# - Interpolation is good for single readings and blackouts, where it knows the hours
#   before and after. It is bad for whole days.
# - Without times, the imputer fills each row from the other readings of the same hour.
#   It is good for whole days, where the other stations have readings. In a blackout it
#   can only return the mean of the column.
# - With times, the imputer uses the other readings of the hour and the hours before and
#   after. It has the smallest error for all three kinds.

fig, ax = plt.subplots(figsize=(7.5, 3), layout="constrained")
contestants = ["linear interpolation", "MFImputer, no times", "MFImputer, times"]
colours = ["#999999", "#E69F00", "#0072B2"]
for number, (label, colour) in enumerate(zip(contestants, colours, strict=True)):
    heights = [of_table[number] for of_table in errors.values()]
    places = np.arange(len(errors)) + 0.27 * (number - 1)
    bars = ax.bar(places, heights, width=0.25, color=colour, label=label)
    ax.bar_label(bars, fmt="%.2f", padding=2, fontsize=9)
ax.set_xticks(np.arange(len(errors)), errors)
ax.tick_params(axis="x", length=0)
ax.set_ylabel("error in deviations")
ax.spines[["top", "right"]].set_visible(False)
ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False)
plt.show()

# %%
# One sensor, three kinds of gaps
# -------------------------------
#
# The pictures show fine particles at one station in February. The band is the 95 %
# interval of the missing reading. It is narrow where other stations have readings, and
# wide in the middle of a blackout. Gaps without circles are real gaps, for which nobody
# knows the truth. Some bands reach below zero, since the model does not know that
# concentrations are positive. ``min_value=0`` would limit the imputed values.

number = names.index("Tiantan PM2.5")
fig, axes = plt.subplots(3, 1, figsize=(9, 8.4), layout="constrained")
windows = {
    "single readings": ("2014-02-09", "2014-02-13"),
    "whole days": ("2014-02-05", "2014-02-17"),
    "blackouts": ("2014-02-09", "2014-02-13"),
}
for ax, (name, (first, last)) in zip(axes, windows.items(), strict=True):
    imputed, std = filled[name]["with times"]
    GapDisplay.from_predictions(
        times,
        tables[name][:, number],
        imputed[:, number],
        std[:, number],
        truth=X[:, number],
        start=first,
        stop=last,
        name="PM2.5 (µg/m³)",
        ax=ax,
    )
    ax.set_title(name.capitalize(), loc="left")
plt.show()

# %%
# The same blackouts without times
# --------------------------------
#
# Without times, the imputer fills every row by itself. In a blackout nothing in the row
# is observed, so the imputed value is the mean of the column. The band is as wide as
# the range in which most values of the column lie.

fig, axes = plt.subplots(2, 1, figsize=(9, 5.6), layout="constrained", sharey=True)
for ax, name in zip(axes, ["without times", "with times"], strict=True):
    imputed, std = filled["blackouts"][name]
    GapDisplay.from_predictions(
        times,
        blackouts[:, number],
        imputed[:, number],
        std[:, number],
        truth=X[:, number],
        start="2014-02-13",
        stop="2014-02-17",
        name="PM2.5 (µg/m³)",
        ax=ax,
    )
    ax.set_title(name.capitalize(), loc="left")
plt.show()

# %%
# What the imputer learned
# ------------------------
#
# The timescale of a factor says how long it remembers: after this time its correlation
# with itself has fallen to 37 %. The factors do not explain all of a column, and what
# they leave may change smoothly over time, too. Where it does, the fit adds a *residual
# process* for the column.

hour = 3600
timescales = np.sort(imputer.timescale_)[::-1] / hour
print("timescales of the factors in hours, the longest first:")
print(", ".join(f"{value:.3g}" for value in timescales[:12]), "...")
print(f"largest share of day and week in a factor: {imputer.seasonality_.max():.0%}")
own = imputer.residual_timescale_ > 0
print(f"{own.sum()} of {len(own)} columns have a residual process")

# %%
# The next two days
# -----------------
#
# A forecast is a gap at the end: rows of NaN with future times. We fit the imputer to
# all but the last two days. Then we pass it a week of the past and these two days
# without any reading. The forecast starts from the last readings. After some hours it
# returns to the typical values for each time of day, and the band is nearly as wide as
# the range of the column. The imputer cannot foresee a change of the weather.

# sphinx_gallery_thumbnail_number = 3
past = times < np.datetime64("2014-02-27")
forecaster = MFImputer().fit(X[past], times=times[past])
recent = times >= np.datetime64("2014-02-20")
upcoming = np.where(past[:, np.newaxis], X, np.nan)[recent]

fig, axes = plt.subplots(2, 1, figsize=(9, 5.6), layout="constrained")
for ax, name in zip(axes, ["Tiantan PM2.5", "Tiantan O3"], strict=True):
    GapDisplay.from_estimator(
        forecaster,
        upcoming,
        names.index(name),
        times=times[recent],
        truth=X[recent, names.index(name)],
        start="2014-02-24",
        name=f"{name.split()[1]} (µg/m³)",
        ax=ax,
    )
    ax.set_title(name, loc="left")
plt.show()
