"""How long fits take, by the size of the data; the table of the page on performance.

Run ``python doc/benchmarks/bench_how_long.py`` (about five minutes), or name parts of
it: ``tables``, ``ratings`` or ``complete``. All estimators have their default
parameters, and all data are made up: factors and noise. Printed are seconds of
processor time that ``fit_transform`` takes with one thread, for which other work on the
machine does not count. Each fit is run three times, or once if it takes more than 20
seconds; the median counts.
"""

import argparse
import os
import time
import warnings

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy loads its libraries

import numpy as np
from imputation_report import rst
from sklearn.exceptions import ConvergenceWarning
from sparse_contestants import synthetic

import sklearn_mfgd
from sklearn_mfgd import GradientMF, MaskedGradientMF, MFImputer, StackingImputer

warnings.simplefilter("ignore", ConvergenceWarning)

PATIENCE = 20  # seconds; what takes longer is run once


def planted(n_rows, n_columns, missing, rank=5, noise=0.5):
    """Make a table of a few factors and noise, without a share of its entries."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_rows, rank)) @ rng.normal(size=(rank, n_columns))
    X += noise * rng.normal(size=X.shape)
    X[rng.random(X.shape) < missing] = np.nan
    return X


def seconds_of_fit(estimator, X):
    """Return the median of the processor time of three fits, or of one long fit."""
    taken = []
    while len(taken) < 3 and sum(taken) <= PATIENCE:
        start = time.process_time()
        estimator.fit_transform(X)
        taken.append(time.process_time() - start)
    return float(np.median(taken))


def shown(seconds):
    """Round as far as such figures can be trusted."""
    if seconds < 0.05:
        return "< 0.1"
    return f"{seconds:.0f}" if seconds >= 9.95 else f"{seconds:.1f}"


def tables():
    """Tables with a fifth of the entries missing."""
    for n_rows, n_columns in ((1000, 20), (10_000, 50), (100_000, 50)):
        X = planted(n_rows, n_columns, missing=0.2)
        what = f"table of {n_rows:,} x {n_columns}, 20 % missing"
        yield what, "MFImputer()", MFImputer(), X
    X = planted(1000, 20, missing=0.2)
    estimator = StackingImputer(random_state=0)
    yield "table of 1,000 x 20, 20 % missing", "StackingImputer()", estimator, X


def ratings():
    """Sparse matrices, of which each stored entry is a rating."""
    for n_entries in (100_000, 1_000_000, 10_000_000):
        X = synthetic(n_entries)
        what = f"{n_entries:,} ratings, {X.shape[0]:,} x {X.shape[1]:,}"
        yield what, "MaskedGradientMF()", MaskedGradientMF(), X


def complete():
    """Matrices without missing entries."""
    for n_rows, n_columns in ((1000, 100), (10_000, 1000)):
        X = planted(n_rows, n_columns, missing=0)
        what = f"complete matrix of {n_rows:,} x {n_columns:,}"
        yield what, "GradientMF()", GradientMF(random_state=0), X


PARTS = {"tables": tables, "ratings": ratings, "complete": complete}


def main():
    """Run the parts that were named, or all, and print their table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    sklearn_mfgd.show_versions()
    rows = [["Data", "Estimator", "Seconds"]]
    for part in arguments.parts or PARTS:
        for what, name, estimator, X in PARTS[part]():
            seconds = seconds_of_fit(estimator, X)
            print(f"  {what:36s} {name:20s} {seconds:8.2f} s", flush=True)
            rows.append([what, f"``{name}``", shown(seconds)])
    print(f"\n{rst(rows)}")


if __name__ == "__main__":
    main()
