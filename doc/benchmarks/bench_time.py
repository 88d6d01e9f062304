"""Error, coverage and time of imputers on tables whose rows are times, defaults only.

Run ``python doc/benchmarks/bench_time.py`` for all sets and masks, or name some of
them: ``python doc/benchmarks/bench_time.py --sets ngsim los-loop --masks "days 20"``.
Three kinds of masks hide entries, with fixed seeds:

random
    every entry with the same probability;
days
    whole days of a sensor, where the set has several days;
blackouts
    all sensors for one to three hours (ngsim: minutes) from a random row on, until a
    share of the rows is hidden.

Errors are root mean squares over the hidden entries, in standard deviations of the
columns; coverage is the share of hidden entries within the 95 % intervals of
``MFImputer``; seconds are those of ``fit_transform``. Every contestant runs in a
process of its own, one after the other, and is stopped after ten minutes; ``--only``
names some of them. The summary repeats the errors, with the ratio of ``MFImputer`` with
times to the best of the others and to ``MFImputer`` without times, and gives geometric
means of these ratios over sets. ``--quick`` keeps the first 8,000 hours of beijing-air.
Data are in the folder of ``--shared``; what is absent is left out, and the output says
so.

statsmodels has to be installed for the contest. It smooths column by column: a local
level and, where the set has three days or more, a daily season of three harmonics.

Other parts:

``--shuffled``
    Rows are shuffled and get the times 0, 1, 2, ...; the ratio of the error to that
    without times, random masks of 40 %, should be 1.
``--published``
    Figures of BTMF and TRMF from the notebooks of the project transdim
    (github.com/xinychen/transdim), with the masks of these notebooks: an entry of the
    sensors x days x times tensor is kept where ``round(u + 0.5 - rate)`` is 1, with
    ``u`` of the file random_tensor.mat. Zeros of the tensor are missing values: the
    methods do not see them, and they are not scored. MAPE is the mean of
    ``|error| / value`` and RMSE the root mean square error, both in raw units and over
    the entries that are hidden and not zero, of all sensors together. The ranks of BTMF
    and TRMF were chosen for each set there; their seconds are those of the notebooks.
``--forecast``
    At ten cut points the 24 hours that follow are missing in all columns, and nothing
    after them is given. The seasonal naive forecast is the last value observed a
    multiple of 24, or 168, hours before.
``--scaling``
    Seconds and peak memory of the process, with and without times, on 10 columns of
    three planted Ornstein-Uhlenbeck processes and noise, 20 % missing.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from imputation_contestants import StandardizedNeighbours
from imputation_tables import SHARED_DATA, TABLES, hide, scaled_errors

PATIENCE = 600  # seconds
OURS = "MFImputer, times"
EXCHANGEABLE = "MFImputer"


# Sets: X with times in rows, and the times


def _every(minutes, n_rows, start, per_day=None):
    """Times with a fixed step: `per_day` of them each day, or without a break."""
    days, steps = np.divmod(np.arange(n_rows), per_day or n_rows)
    return (
        np.datetime64(start)
        + days * np.timedelta64(1, "D")
        + steps * np.timedelta64(minutes, "m")
    )


def _tensor(folder):
    """A tensor of transdim and its uniform numbers, sensors x days x times of day."""
    from scipy.io import loadmat

    tensor = loadmat(folder / "tensor.mat")["tensor"].astype(float)
    path = folder / "random_tensor.mat"
    uniform = loadmat(path)["random_tensor"] if path.exists() else None
    return tensor, uniform


def _loop(shared):
    X = TABLES["los-loop"](shared)
    return X, _every(5, len(X), "2012-03-01T00:00")


def _metro(shared):
    tensor, _ = _tensor(shared / "hangzhou-metro")
    X = tensor.reshape(80, 25 * 108).T
    return X, _every(10, len(X), "2019-01-01T06:00", per_day=108)


def _parking(shared):
    X = TABLES["birmingham-parking"](shared)
    return X, _every(30, len(X), "2016-10-04T08:00", per_day=18)


def _taxi(shared):
    tensor, _ = _tensor(shared / "nyc-taxi")
    X = tensor.reshape(900, 1464).T
    busiest = np.argsort(-X.sum(axis=0), kind="stable")[:200]
    return X[:, busiest], _every(60, len(X), "2013-05-01T00:00")


def _electricity(shared):
    X = TABLES["electricity-321"](shared)
    return X, _every(60, len(X), "2012-01-01T00:00")


def _beijing(shared):
    X = TABLES["beijing-air"](shared)
    return X, _every(60, len(X), "2013-03-01T00:00")


def _ngsim(shared):
    X = TABLES["ngsim"](shared)
    return X, 5.0 * np.arange(len(X))


def _seattle(shared):
    X = np.load(shared / "seattle-loop-toy" / "toy_data.npy").T
    return X, _every(5, len(X), "2015-01-05T06:00")


SETS = {
    "los-loop": _loop,
    "hangzhou-metro": _metro,
    "birmingham-parking": _parking,
    "nyc-taxi": _taxi,
    "electricity-321": _electricity,
    "beijing-air": _beijing,
    "ngsim": _ngsim,
    "seattle-loop-toy": _seattle,
}
QUICK_ROWS = 8000


def sets_of(arguments, names):
    """Name, X and times of each set that is there."""
    for name in names:
        try:
            X, times = SETS[name](arguments.shared)
        except FileNotFoundError as error:
            print(f"\n{name}: left out, {error}", flush=True)
            continue
        if arguments.quick:
            X, times = X[:QUICK_ROWS], times[:QUICK_ROWS]
        yield name, X, times


# Masks: which entries are hidden, of those that are observed


def seconds_of(times):
    """Seconds since the first row."""
    since = times - times[0]
    return since / np.timedelta64(1, "s") if times.dtype.kind == "M" else since


def days_of(times):
    """Numbers of the days of rows, zeros without dates."""
    if times.dtype.kind != "M":
        return np.zeros(len(times), dtype=int)
    return np.unique(times.astype("datetime64[D]"), return_inverse=True)[1]


def _random(X, times, share, rng):
    return rng.uniform(size=X.shape) < share


def _days(X, times, share, rng):
    day = days_of(times)
    n_days = day.max() + 1
    return (rng.uniform(size=(n_days, X.shape[1])) < share)[day] if n_days > 1 else None


def _blackouts(X, times, share, rng):
    seconds = seconds_of(times)
    hour = 3600 if times.dtype.kind == "M" else 60
    silent = np.zeros(len(X), dtype=bool)
    while silent.mean() < share:
        start = seconds[rng.randint(len(X))]
        silent |= (seconds >= start) & (seconds < start + hour * rng.uniform(1, 3))
    return np.repeat(silent[:, None], X.shape[1], axis=1)


KINDS = {"random": _random, "days": _days, "blackouts": _blackouts}
MASKS = ("random 20", "random 40", "random 60", "days 20", "days 40", "blackouts 20")


def hidden_entries(X, times, mask):
    """Observed entries that a mask hides, or None where there is no such mask."""
    kind, percent = mask.split()
    hidden = KINDS[kind](X, times, int(percent) / 100, np.random.RandomState(0))
    if hidden is None:
        return None
    hidden &= ~np.isnan(X)
    # A column keeps its values where it would lose all: nobody could tell its level.
    hidden[:, (hidden | np.isnan(X)).all(axis=0)] = False
    return hidden


# Contestants: fill X, and where they tell it, standard deviations as a function


def _interpolation(X, times):
    """A straight line between the nearest observed values; the ends are held."""
    seconds, filled = seconds_of(times), X.copy()
    for column in filled.T:
        missing = np.isnan(column)
        if missing.any() and not missing.all():
            seen = ~missing
            column[missing] = np.interp(seconds[missing], seconds[seen], column[seen])
    return np.nan_to_num(filled), None


def _neighbours(X, times):
    return StandardizedNeighbours().fit_transform(X), None


def _smoothed(column, season):
    """A local level and a season of one column, by maximum likelihood and smoother."""
    from statsmodels.tsa.statespace.structural import UnobservedComponents

    mean, deviation = np.nanmean(column), np.nanstd(column)
    if not deviation > 0:
        return np.full(len(column), mean)
    model = UnobservedComponents(
        (column - mean) / deviation, level="local level", freq_seasonal=season
    )
    signal = model.ssm["design"] @ model.fit(disp=False).smoothed_state
    return mean + deviation * signal.ravel()


def _statsmodels(X, times):
    """Smooth each column on a grid of times, where nights without rows are missing."""
    seconds = seconds_of(times)
    step = np.diff(seconds).min()
    row = np.rint(seconds / step).astype(int)
    season = None
    if days_of(times).max() >= 2:
        season = [{"period": 86_400 / step, "harmonics": 3}]
    filled = X.copy()
    for column in filled.T:
        missing = np.isnan(column)
        on_grid = np.full(row[-1] + 1, np.nan)
        on_grid[row] = column
        column[missing] = _smoothed(on_grid, season)[row][missing]
    return np.nan_to_num(filled), None


def _exchangeable(X, times):
    from sklearn_mfgd import MFImputer

    imputer = MFImputer(keep_empty_features=True)
    filled = imputer.fit_transform(X)
    return filled, lambda: imputer.impute(X, return_std=True)[1]


def _ours(X, times):
    from sklearn_mfgd import MFImputer

    imputer = MFImputer(keep_empty_features=True)
    filled = imputer.fit_transform(X, times=times)
    return filled, lambda: imputer.impute(X, times=times, return_std=True)[1]


FILL = {
    "interpolation": _interpolation,
    "KNN": _neighbours,
    "statsmodels": _statsmodels,
    EXCHANGEABLE: _exchangeable,
    OURS: _ours,
}


def peak_megabytes():
    """Largest memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, getrusage counts the parent as well
        peak = next(x for x in status.read_text().splitlines() if "VmHWM" in x)
        return float(peak.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def contest(name, folder, with_std):
    """Fill one table; called in a process of its own."""
    warnings.simplefilter("ignore")
    X, times = np.load(folder / "X.npy"), np.load(folder / "times.npy")
    start = time.perf_counter()
    filled, std = FILL[name](X, times)
    seconds = time.perf_counter() - start
    peak = peak_megabytes()
    std = std() if with_std and std is not None else np.nan
    np.savez(
        folder / "result.npz", filled=filled, std=std, seconds=seconds, megabytes=peak
    )


class Filled(NamedTuple):
    """What a contestant made of a table."""

    values: np.ndarray
    std: np.ndarray
    seconds: float
    megabytes: float

    def error(self, X, hidden):
        """Root mean square error in column deviations."""
        return float(np.sqrt(np.mean(scaled_errors(self.values, X, hidden) ** 2)))

    def coverage(self, X, hidden):
        """Share of hidden entries within the 95 % intervals, NaN without any."""
        if self.std.ndim == 0:
            return np.nan
        hidden = hidden & (np.nanstd(X, axis=0) > 0)
        return float(
            np.mean(np.abs(self.values - X)[hidden] <= 1.96 * self.std[hidden])
        )


def fill(name, X, times, with_std=True):
    """Let a contestant fill X in a process of its own; or say why it did not."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        np.save(folder / "X.npy", X)
        np.save(folder / "times.npy", times)
        command = [sys.executable, __file__, "--contestant", name, "--folder", folder]
        command += ["--std"] if with_std else []
        try:
            done = subprocess.run(
                command, timeout=PATIENCE, capture_output=True, text=True
            )
        except subprocess.TimeoutExpired:
            return f"stopped after {PATIENCE} s"
        if done.returncode:
            return "failed: " + done.stderr.strip().splitlines()[-1][:60]
        with np.load(folder / "result.npz") as file:
            filled, std = file["filled"], file["std"]
            return Filled(filled, std, float(file["seconds"]), float(file["megabytes"]))


# What is printed


def line(label, *cells, width=10):
    """Print one line of a plain table."""
    text = "".join(f"{cell!s:>{width}}" for cell in cells)
    print(f"  {label:26s}{text}".rstrip(), flush=True)


def note(label, reason):
    """Print why a contestant has no figures."""
    print(f"  {label:28s}{reason}", flush=True)


def names_of(arguments):
    """Contestants that are asked for."""
    return [name for name in FILL if name in (arguments.only or FILL)]


class Score(NamedTuple):
    """Of one contestant on one set with one mask."""

    error: float
    coverage: float
    seconds: float


def compare(arguments):
    """All sets, masks and contestants."""
    scores = {}
    for label, X, times in sets_of(arguments, arguments.sets or SETS):
        print(f"\n{label}: {len(X):,} x {X.shape[1]}", flush=True)
        for mask in arguments.masks or MASKS:
            hidden = hidden_entries(X, times, mask)
            if hidden is None:
                continue
            scores[label, mask] = {}
            line(mask, "error", "seconds", "coverage")
            for name in names_of(arguments):
                found = fill(name, np.where(hidden, np.nan, X), times)
                if isinstance(found, str):
                    note(f"  {name}", found)
                    continue
                error, coverage = found.error(X, hidden), found.coverage(X, hidden)
                scores[label, mask][name] = Score(error, coverage, found.seconds)
                shown = "" if np.isnan(coverage) else f"{coverage:.3f}"
                line(f"  {name}", f"{error:.4f}", f"{found.seconds:.1f}", shown)
    summarize(scores, names_of(arguments))


def ratios_of(found):
    """Ours to the best of the others and to no times: errors; and seconds."""
    others = [score.error for name, score in found.items() if name != OURS]
    if OURS not in found or not others:
        return np.nan, np.nan, np.nan
    ours, without = found[OURS], found.get(EXCHANGEABLE, Score(np.nan, np.nan, np.nan))
    return (
        ours.error / min(others),
        ours.error / without.error,
        ours.seconds / without.seconds,
    )


def summarize(scores, names):
    """Print errors and ratios of all cells, then means for each kind of mask."""
    heads = "to the best", "to no times", "in seconds"
    print(f"\nErrors, and ratios of {OURS}")
    line("", *names, *heads, width=17)
    for (label, mask), found in scores.items():
        errors = [
            f"{found[name].error:.3f}" if name in found else "-" for name in names
        ]
        ratios = ["-" if np.isnan(r) else f"{r:.3f}" for r in ratios_of(found)]
        line(f"{label[:12]} {mask}", *errors, *ratios, width=17)
    print("\nGeometric mean over sets (worst)")
    line("", *heads, "coverage", width=16)
    for kind in KINDS:
        cells = [found for (_, mask), found in scores.items() if mask.startswith(kind)]
        cells = [found for found in cells if OURS in found and len(found) > 1]
        if cells:
            ratios = np.array([ratios_of(found) for found in cells])
            means = np.exp(np.mean(np.log(ratios), axis=0))
            shown = [
                f"{mean:.3f} ({worst:.3f})"
                for mean, worst in zip(means, ratios.max(axis=0), strict=True)
            ]
            coverage = [found[OURS].coverage for found in cells]
            line(kind, *shown, f"{min(coverage):.3f}-{max(coverage):.3f}", width=16)


def compare_shuffled(arguments):
    """Ours on shuffled rows with times 0, 1, 2, ... against the fit without times."""
    line("shuffled, random 40 %", EXCHANGEABLE, OURS, "ratio", width=18)
    for label, X, _ in sets_of(arguments, arguments.sets or SETS):
        X = np.random.RandomState(0).permutation(X)
        times = np.arange(len(X), dtype=float)
        hidden = hidden_entries(X, times, "random 40")
        found = [
            fill(name, np.where(hidden, np.nan, X), times, with_std=False)
            for name in (EXCHANGEABLE, OURS)
        ]
        if any(isinstance(filled, str) for filled in found):
            note(label, next(reason for reason in found if isinstance(reason, str)))
            continue
        without, ours = (filled.error(X, hidden) for filled in found)
        line(label, f"{without:.4f}", f"{ours:.4f}", f"{ours / without:.4f}", width=18)


# Published figures: MAPE, RMSE and, where the notebook tells them, seconds
PUBLISHED = {
    ("hangzhou-metro", 40): {"BTMF": (0.240, 30.0), "TRMF": (0.232, 36.6, 153)},
    ("hangzhou-metro", 60): {"BTMF": (0.252, 35.3), "TRMF": (0.244, 41.2, 138)},
    ("birmingham-parking", 40): {"BTMF": (0.0344, 18.2)},
    ("birmingham-parking", 60): {"BTMF": (0.0616, 25.9)},
}


def compare_published(arguments):
    """Ours against published figures, with the masks of the notebooks."""
    for (label, percent), published in PUBLISHED.items():
        if label not in (arguments.sets or SETS):
            continue
        try:
            _, times = SETS[label](arguments.shared)
            tensor, uniform = _tensor(arguments.shared / label)
        except FileNotFoundError as error:
            print(f"\n{label}: left out, {error}", flush=True)
            continue
        kept = np.round(uniform + 0.5 - percent / 100).astype(bool)
        X, kept = (array.reshape(len(array), -1).T for array in (tensor, kept))
        hidden = (X > 0) & ~kept
        print(f"\n{label}, {percent} % random")
        line("", "MAPE", "RMSE", "seconds")
        for name, (mape, rmse, *seconds) in published.items():
            line(f"{name}, published", f"{mape:.4f}", f"{rmse:.2f}", *seconds)
        seen = np.where((X > 0) & kept, X, np.nan)
        for name in names_of(arguments):
            found = fill(name, seen, times, with_std=False)
            if isinstance(found, str):
                note(name, found)
                continue
            errors = (found.values - X)[hidden]
            mape, rmse = (
                np.mean(np.abs(errors) / X[hidden]),
                np.sqrt(np.mean(errors**2)),
            )
            line(name, f"{mape:.4f}", f"{rmse:.2f}", f"{found.seconds:.1f}")


HORIZON, N_CUTS = 24, 10


def seasonal_naive(X, n_known, period):
    """Rows after `n_known`: the last value observed some periods before."""
    forecast = np.full((HORIZON, X.shape[1]), np.nan)
    for step in range(HORIZON):
        row = n_known + step - period
        while row >= n_known:
            row -= period
        while row >= 0 and np.isnan(forecast[step]).any():
            unknown = np.isnan(forecast[step])
            forecast[step, unknown] = X[row, unknown]
            row -= period
    return forecast


def compare_forecasts(arguments):
    """Ours against seasonal naive forecasts of the next 24 hours."""
    known = ("electricity-321", "beijing-air")
    names = [name for name in known if name in (arguments.sets or known)]
    for label, X, times in sets_of(arguments, names):
        errors = {"24 h before": [], "168 h before": [], OURS: []}
        within, seconds = [], []
        for cut in np.linspace(len(X) * 0.6, len(X) - HORIZON, N_CUTS).astype(int):
            end = cut + HORIZON
            scored = ~np.isnan(X)
            scored[:cut] = scored[end:] = False
            for name, period in (("24 h before", 24), ("168 h before", 168)):
                filled = X.copy()
                filled[cut:end] = seasonal_naive(X, cut, period)
                errors[name].append(scaled_errors(filled, X, scored))
            seen = X[:end].copy()
            seen[cut:] = np.nan
            found = fill(OURS, seen, times[:end])
            if isinstance(found, str):
                note(f"rows 0-{cut}", found)
                continue
            # Deviations are those of the whole table, as for the naive forecasts.
            filled, std = X.copy(), np.full(X.shape, np.nan)
            filled[:end], std[:end] = found.values, found.std
            errors[OURS].append(scaled_errors(filled, X, scored))
            scored &= np.nanstd(X, axis=0) > 0
            within.append((np.abs(filled - X) <= 1.96 * std)[scored])
            seconds.append(found.seconds)
        print(f"\n{label}: {HORIZON} hours ahead from {N_CUTS} cut points")
        line("", "error")
        for name, parts in errors.items():
            if parts:
                error = np.sqrt(np.mean(np.concatenate(parts) ** 2))
                line(name, f"{error:.4f}")
        if within:
            coverage = np.concatenate(within).mean()
            print(f"  coverage {coverage:.3f}, {np.mean(seconds):.1f} s a forecast")


def planted(n_rows, n_columns=10, scales=(5, 50, 500), noise=0.5):
    """Columns of Ornstein-Uhlenbeck processes, mixed, and noise; times 0, 1, 2, ..."""
    from scipy.signal import lfilter

    rng = np.random.RandomState(0)
    phi = np.exp(-1 / np.asarray(scales, dtype=float))
    shocks = rng.standard_normal((n_rows, len(scales)))
    shocks[1:] *= np.sqrt(1 - phi**2)
    paths = [lfilter([1], [1, -a], path) for a, path in zip(phi, shocks.T, strict=True)]
    X = np.transpose(paths) @ rng.standard_normal((len(scales), n_columns))
    return X + noise * rng.standard_normal(X.shape), np.arange(n_rows, dtype=float)


def compare_scaling(arguments):
    """Seconds and peak memory with and without times, up to a million rows."""
    line("rows, contestant", "error", "seconds", "peak MB")
    for n_rows in (10_000, 100_000, 1_000_000):
        X, times = planted(n_rows)
        seen, hidden = hide(X, 0.2)
        for name in (EXCHANGEABLE, OURS):
            found = fill(name, seen, times, with_std=False)
            label = f"{n_rows:,} {name}"
            if isinstance(found, str):
                note(label, found)
                continue
            error, peak = found.error(X, hidden), found.megabytes
            line(label, f"{error:.4f}", f"{found.seconds:.1f}", f"{peak:.0f}")


PARTS = {
    "shuffled": compare_shuffled,
    "published": compare_published,
    "forecast": compare_forecasts,
    "scaling": compare_scaling,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, metavar="SET")
    parser.add_argument("--masks", nargs="+", metavar='"KIND PERCENT"')
    parser.add_argument("--only", nargs="+", choices=FILL, metavar="CONTESTANT")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--shared", type=Path, default=SHARED_DATA)
    for part, function in PARTS.items():
        parser.add_argument(f"--{part}", action="store_true", help=function.__doc__)
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--std", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant:
        contest(arguments.contestant, arguments.folder, arguments.std)
        return
    chosen = [PARTS[part] for part in PARTS if getattr(arguments, part)]
    for function in chosen or [compare]:
        function(arguments)


if __name__ == "__main__":
    main()
