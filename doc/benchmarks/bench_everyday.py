"""Error of imputers on small everyday tables, with three patterns of missing values.

Run ``python doc/benchmarks/bench_everyday.py``, and it prints a table for the page
:doc:`/choosing_an_imputer`; name tables to run only these. A quarter of the entries is
hidden, three times with different seeds, by each of three patterns:

MCAR
    every entry with the same probability;
MAR
    none of one column, and of the others more, the larger that column is in the row;
block
    half of the columns together, in half of the rows.

Printed are root mean squares of the errors of hidden entries, and in brackets mean
absolute errors, both in standard deviations of the columns and averaged over the seeds;
then how many of the hidden values lie within the 95 % intervals of ``MFImputer``. The
tables come with scikit-learn and this package, but for ozone, which is in the folder of
``--shared``; where it is absent it is left out, and the output says so.
"""

import argparse
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from bench_imputation import CONTESTANTS, SHARED_DATA, TABLES, iterative, scaled_errors
from sklearn import datasets
from sklearn.ensemble import ExtraTreesRegressor

SEEDS = 0, 1, 2
SHARE = 0.25  # of hidden entries


# Tables


def _bundled(name, n_rows=None):
    """Read a table of scikit-learn; rows are spread over it, as some are sorted."""

    def read(shared):
        X = getattr(datasets, f"load_{name}")().data.astype(float)
        step = 1 if n_rows is None else len(X) // n_rows
        return X[::step][:n_rows]

    return read


def _station(shared):
    from sklearn_mfgd.datasets import load_beijing_air

    return load_beijing_air().data[:500, :11]


EVERYDAY = {
    "iris": _bundled("iris"),
    "wine": _bundled("wine"),
    "diabetes": _bundled("diabetes"),
    "breast cancer": _bundled("breast_cancer"),
    "digits": _bundled("digits", 300),
    "ozone": TABLES["ozone"],
    "beijing station": _station,
}


# Patterns: which entries are hidden, of those that are observed


def _completely_at_random(X, rng):
    return rng.uniform(size=X.shape) < SHARE


def _at_random(X, rng):
    missing = np.isnan(X).sum(axis=0) + X.shape[0] * (np.nanstd(X, axis=0) == 0)
    driver = rng.choice(np.flatnonzero(missing == missing.min()))
    values = np.where(np.isnan(X[:, driver]), np.nanmedian(X[:, driver]), X[:, driver])
    ranks = np.argsort(np.argsort(values, kind="stable"))
    n = X.shape[1]
    share = 2 * SHARE * n / (n - 1) * (ranks + 0.5) / len(X)
    hidden = rng.uniform(size=X.shape) < share[:, None]
    hidden[:, driver] = False
    return hidden


def _block(X, rng):
    n = X.shape[1]
    columns = rng.permutation(n) < np.ceil(n / 2)
    rows = rng.uniform(size=len(X)) < SHARE * n / columns.sum()
    return np.outer(rows, columns)


PATTERNS = {"MCAR": _completely_at_random, "MAR": _at_random, "block": _block}


# Contestants


def _trees():
    """Few trees and rounds: with the defaults the tables here would take hours."""
    forest = ExtraTreesRegressor(n_estimators=10, min_samples_leaf=3, random_state=0)
    return iterative(estimator=forest, max_iter=3)


FILL = {
    "mean": CONTESTANTS["SimpleImputer"],
    "KNN": CONTESTANTS["KNNImputer, standardized"],
    "Iterative": CONTESTANTS["IterativeImputer"],
    "Iterative, trees": _trees,
    "MFImputer": CONTESTANTS["MFImputer"],
}
OURS = "MFImputer"


class Result(NamedTuple):
    """Of one contestant on one table with one pattern, averaged over the seeds."""

    rmse: float
    mae: float
    coverage: float | None = None

    def __str__(self):
        return f"{self.rmse:.3f} ({self.mae:.3f})"


def contest(X, pattern, name):
    """Fill one table once for each seed."""
    found = []
    for seed in SEEDS:
        hidden = ~np.isnan(X) & PATTERNS[pattern](X, np.random.RandomState(seed))
        seen = np.where(hidden, np.nan, X)
        imputer, coverage = FILL[name](), np.nan
        filled = imputer.fit_transform(seen)
        if name == OURS:
            filled, std = imputer.impute(seen, return_std=True)
            within = np.abs(filled - X)[hidden] <= 1.96 * std[hidden]
            coverage = within.mean()
        errors = scaled_errors(filled, X, hidden)
        found.append((np.sqrt(np.mean(errors**2)), np.abs(errors).mean(), coverage))
    rmse, mae, coverage = np.mean(found, axis=0)
    return Result(rmse, mae, coverage if name == OURS else None)


# What is printed


def row_of(label, pattern, results):
    """One line of cells; the least error is bold."""
    best = min(results.values()).rmse
    cells = [f"**{r}**" if r.rmse == best else str(r) for r in results.values()]
    return [label, pattern, *cells, f"{results[OURS].coverage:.2f}"]


def summary(runs):
    """How far contestants are from the best of each line, and how often they are it."""
    rows = []
    for measure, head in (("rmse", "RMSE"), ("mae", "MAE")):
        errors = np.array([[getattr(r, measure) for r in run.values()] for run in runs])
        ratios = errors / errors.min(axis=1, keepdims=True)
        means = np.exp(np.log(ratios).mean(axis=0))
        wins = (ratios == 1).sum(axis=0)
        rows.append([f"ratio to the best {head}", "", *(f"{x:.3f}" for x in means), ""])
        rows.append([f"least {head}", "", *(f"{x} of {len(runs)}" for x in wins), ""])
    return rows


def rst(rows):
    """A simple table of reStructuredText; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    # A line whose first cell is empty would go on with the one before.
    lines = [
        "  ".join(
            (cell or "\\").ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tables", nargs="*", help=", ".join(EVERYDAY))
    parser.add_argument("--shared", type=Path, default=SHARED_DATA)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rows, runs = [["Table", "Pattern", *FILL, "coverage"]], []
    seconds = dict.fromkeys(FILL, 0.0)
    for table in arguments.tables or EVERYDAY:
        try:
            X = EVERYDAY[table](arguments.shared)
        except FileNotFoundError as error:
            print(f"{table}: left out, {error}", flush=True)
            continue
        label = f"{table}, {len(X)} x {X.shape[1]}"
        for pattern in PATTERNS:
            results = {}
            for name in FILL:
                start = time.perf_counter()
                results[name] = contest(X, pattern, name)
                seconds[name] += time.perf_counter() - start
            runs.append(results)
            rows.append(row_of(label, pattern, results))
            print("  ".join(rows[-1]), flush=True)
            label = ""
    rows += summary(runs)
    rows.append(["seconds", "", *(f"{spent:.1f}" for spent in seconds.values()), ""])
    print(f"\n{rst(rows)}")


if __name__ == "__main__":
    main()
