"""Non-negative factors beside scikit-learn's NMF, and beside unconstrained ones.

Run ``python doc/benchmarks/bench_nonneg.py`` for all parts, or name some of them:
``python doc/benchmarks/bench_nonneg.py digits planted``. Complete data are fitted by
``GradientMF(non_negative=True)`` and by coordinate descent in
``sklearn.decomposition.NMF`` from three starts; with ``OMP_NUM_THREADS=1`` all of it is
on one thread, and times are those of the processor. A time at equal objective is that
of a fit of as many sweeps as it takes to get there. With missing
values the error is that of hidden entries. Data are in the folder of ``--shared``; what
is absent is left out, and the output says so.
"""

import argparse
import os
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning
from sparse_contestants import movielens, threads

import sklearn_mfgd
from sklearn_mfgd import GradientMF, MaskedGradientMF

warnings.simplefilter("ignore", ConvergenceWarning)

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

# Of scikit-learn's NMF: kind and seed.
STARTS = [("nndsvda", 0), ("random", 0), ("random", 1)]

MOST_SWEEPS = 1000

# Times are measured until the objective is within these shares of the best one.
LEVELS = [0.01, 0.001]

REPEATS = 5


def seconds_of(fit):
    """Fitted model, and the median of the seconds that the processor works on it."""
    found = []
    for _ in range(REPEATS):
        start = time.process_time()
        model = fit()
        found.append(time.process_time() - start)
    return model, float(np.median(found))


def ours(X, rank, max_iter=MOST_SWEEPS, tol=1e-6):
    model = GradientMF(rank, non_negative=True, max_iter=max_iter, tol=tol)
    return model.fit(X)


def theirs(X, rank, start, max_iter=MOST_SWEEPS, tol=1e-8):
    init, seed = start
    options = {"max_iter": max_iter, "tol": tol, "random_state": seed}
    return NMF(rank, init=init, solver="cd", **options).fit(X)


def objective(model):
    return 0.5 * model.reconstruction_err_**2


def sweeps_of_theirs(X, rank, start, level):
    """The smallest number of iterations after which NMF is at the level, or None.

    Its objective never rises, so bisection finds it.
    """
    low, high = 0, MOST_SWEEPS
    if objective(theirs(X, rank, start, tol=0)) > level:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        reached = objective(theirs(X, rank, start, middle, tol=0)) <= level
        low, high = (low, middle) if reached else (middle, high)
    return high


def compare(name, X, rank):
    """Objectives at the end, and times until they are near the best of NMF."""
    print(f"\n{name}, {X.shape[0]} x {X.shape[1]}, rank {rank}: objective, seconds")
    ends = {}
    for start in STARTS:
        model, seconds = seconds_of(partial(theirs, X, rank, start))
        ends[start] = objective(model)
        print(
            f"  NMF {start[0]:8s} {start[1]}  {ends[start]:.6g} {seconds:8.2f} s, "
            f"{model.n_iter_} iterations",
            flush=True,
        )
    best = min(ends.values())
    model, seconds = seconds_of(partial(ours, X, rank))
    print(
        f"  ours            {objective(model):.6g} {seconds:8.2f} s, "
        f"{model.n_iter_} sweeps; {objective(model) / best - 1:+.2%} of the best"
    )
    curve = np.array(model.loss_curve_)
    for share in LEVELS:
        level = best * (1 + share)
        times = []
        for start in STARTS:
            sweeps = sweeps_of_theirs(X, rank, start, level)
            if sweeps is not None:
                fit = partial(theirs, X, rank, start, sweeps, tol=0)
                times.append(seconds_of(fit)[1])
        passed = np.flatnonzero(curve <= level)
        if not passed.size:
            print(f"  within {share:.1%} of the best: ours does not get there")
            continue
        _, own = seconds_of(partial(ours, X, rank, int(passed[0]) + 1, tol=0))
        quickest = min(times)
        print(
            f"  within {share:.1%} of the best: NMF {quickest:.3f} s (quickest of "
            f"{len(times)} starts that get there), ours {own:.3f} s: "
            f"ratio {own / quickest:.2f}",
            flush=True,
        )


def digits(shared):
    """Complete images."""
    for rank in (10, 16, 30):
        compare("Digits", load_digits().data, rank)


def planted(shared):
    """Products of truncated Gaussian factors, with noise."""
    for seed in range(2):
        rng = np.random.default_rng(seed)
        W, H = (np.maximum(rng.normal(size=(n, 20)), 0) for n in (2000, 500))
        X = np.maximum(W @ H.T + 0.5 * rng.normal(size=(2000, 500)), 0)
        compare(f"Planted parts, seed {seed}", X, 20)


def assert_never_rises(model):
    curve = np.array(model.loss_curve_)
    assert (np.diff(curve) <= 1e-9 * curve[0]).all()


def missing(shared):
    """Digits of which 40 % of the pixels are hidden."""
    X = load_digits().data
    hidden = np.random.default_rng(0).random(X.shape) < 0.4
    seen = np.where(hidden, np.nan, X)
    print("\nDigits, 40 % of the pixels hidden: RMSE of these, seconds")
    means = np.broadcast_to(np.nanmean(seen, axis=0), X.shape)
    error = np.sqrt(np.mean((means - X)[hidden] ** 2))
    print(f"  column means                        {error:.3f}")
    for rank in (10, 16, 30):
        for sides in (True, "components", False):
            for reg in (1.0, 10.0, 30.0):
                model = GradientMF(rank, reg=reg, non_negative=sides)
                start = time.perf_counter()
                Z = model.fit_transform(seen)
                seconds = time.perf_counter() - start
                assert_never_rises(model)
                error = (model.inverse_transform(Z) - X)[hidden]
                rmse = np.sqrt(np.mean(error**2))
                name = f"rank {rank}, non_negative={sides!r}, reg={reg:g}"
                print(f"  {name:48s} {rmse:.3f} {seconds:6.2f} s", flush=True)


def ml1m(shared):
    """Ratings, without biases."""
    print("\nMovieLens 1M, 90/10, no biases: RMSE, seconds")
    data = movielens(shared)
    if data is None:
        return
    _, X, (users, items, ratings) = data
    for rank in (10, 20):
        for reg in (3.0, 6.0, 12.0):
            for sides in (True, "components", False):
                options = {"reg": reg, "fit_bias": False, "non_negative": sides}
                start = time.perf_counter()
                with threads(2):
                    model = MaskedGradientMF(rank, **options)
                    Z = model.fit_transform(X)
                seconds = time.perf_counter() - start
                assert_never_rises(model)
                found = np.clip(model.predict_entries(Z, users, items), 1, 5)
                rmse = np.sqrt(np.mean((found - ratings) ** 2))
                name = f"rank {rank}, non_negative={sides!r}, reg={reg:g}"
                print(
                    f"  {name:48s} {rmse:.4f} {seconds:6.2f} s, {model.n_iter_} sweeps",
                    flush=True,
                )


PARTS = {"digits": digits, "planted": planted, "missing": missing, "ml1m": ml1m}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}")
    default = os.environ.get("SKLEARN_MFGD_SHARED_DATA", SHARED_DATA)
    parser.add_argument("--shared", type=Path, default=default, help="folder of data")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    sklearn_mfgd.show_versions()
    for part in arguments.parts or PARTS:
        PARTS[part](arguments.shared)
