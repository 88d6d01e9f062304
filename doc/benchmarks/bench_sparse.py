"""Sparse data, unstored means missing: time and memory against the peers.

Run ``python doc/benchmarks/bench_sparse.py`` for all parts, or name some of them:
``python doc/benchmarks/bench_sparse.py sweep import``. ``search`` looks again for the
best settings of cmfrec, and runs only when named. The contestants of a comparison take
turns, times are medians, and ratios are of one run. A sweep is timed as the difference
of fits of more and of fewer sweeps, so that what comes before and after cancels. Run it
on two cores that do nothing else.

Peers, where installed: ``pip install cmfrec implicit scikit-surprise libmf pandas``
(the first and the last but one need a compiler). MovieLens 1M is ``ml-1m/ratings.npz``
in the folder of ``--shared``. A part that lacks its data or a peer says so.
"""

import argparse
import contextlib
import importlib.metadata
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sparse_contestants import (
    N_THREADS,
    cmfrec_error,
    cmfrec_fit,
    implicit_fit,
    movielens,
    ours,
    peer,
    peer_fits,
    rmse,
    synthetic,
    threads,
)
from threadpoolctl import threadpool_limits

import sklearn_mfgd
from sklearn_mfgd import MaskedGradientMF

warnings.simplefilter("ignore", ConvergenceWarning)  # fixed numbers of sweeps

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

# Ours in `quality`, with the fewest of these sweeps that will do. Chosen on the test
# entries, as the peers' settings are; the ranks differ from theirs.
OURS_BEST = dict(rank=14, reg=12.0, init="svd")
SWEEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 40)

# Its best of rank 100 on this split.
LIBMF_PUBLISHED = 0.8406

SUMMARY = []  # what, ours, theirs, ratio


def take_turns(contestants, n_rounds=5, patience=60):
    """Median seconds of each contestant, without a first round that warms up.

    Who has run for `patience` seconds sits out the rounds that are left.
    """
    seconds = {name: [] for name in contestants}
    for _ in range(n_rounds + 1):
        for name, run in contestants.items():
            if sum(seconds[name]) < patience:
                start = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(s[1:] or s)) for name, s in seconds.items()}


def sweep_seconds(fits, counts=(2, 6), n_rounds=5, **others):
    """Median seconds of one sweep of each of `fits`, and of one run of `others`."""
    few, many = counts
    runs = {(name, n): partial(fit, n) for name, fit in fits.items() for n in counts}
    taken = take_turns(runs | others, n_rounds)
    seconds = {name: taken[name] for name in others}
    for name in fits:
        seconds[name] = (taken[name, many] - taken[name, few]) / (many - few)
    return seconds


def product(n=3000):
    """The yardstick: a run of NumPy's product of two n x n float32, and its GFLOP."""
    A = np.random.default_rng(0).random((n, n), np.float32)

    def run():
        with threadpool_limits(N_THREADS, "blas"):
            return A @ A

    return run, 2e-9 * n**3


def matmul(shared):
    """The rate of NumPy's product, with which the sweeps are compared."""
    run, gflop = product()
    rate = gflop / take_turns({"product": run})["product"]
    print(f"\nNumPy, 3000 x 3000 float32 on {N_THREADS} threads: {rate:.0f} GFLOP/s")


def sweep(shared):
    """One sweep of alternating least squares, same biases and ridge."""
    print("\nSeconds of one sweep")
    print("  implicit has another objective, all entries: only its time is comparable")
    print("  GFLOP: 2 nnz rank^2, the halves of the symmetric products on both sides")
    data = movielens(shared)
    if data is not None:
        _sweeps("MovieLens 1M", data[0], counts=(2, 6), n_rounds=5)


def large(shared):
    """The same on ten million entries: minutes a sweep of the peers' exact solver."""
    print("\nSeconds of one sweep")
    _sweeps("synthetic", synthetic(10_000_000), counts=(1, 3), n_rounds=3)


def _sweeps(data, X, counts, n_rounds, reg=20.0):
    peers = [name for name in ("cmfrec", "implicit") if peer(name)]
    print(f"  {data}: {X.shape[0]:,} x {X.shape[1]:,}, {X.nnz:,} entries")
    triples, matrix = X.tocoo(), sparse.csr_matrix(X)
    run, gflop = product()
    for rank in (32, 64, 128):
        fits = {"ours": partial(ours, X, rank, reg)}
        if "cmfrec" in peers:
            cmfrec = partial(cmfrec_fit, triples, k=rank, lambda_=reg)
            fits["cmfrec exact"] = partial(cmfrec, use_cg=False)
            fits["cmfrec CG"] = partial(cmfrec, use_cg=True)
        if "implicit" in peers:
            fits["implicit CG"] = partial(implicit_fit, matrix, rank)
        taken = sweep_seconds(fits, counts, n_rounds, product=run)
        rate, best = 2e-9 * X.nnz * rank**2 / taken["ours"], gflop / taken["product"]
        times = ", ".join(f"{name} {taken[name]:.3f} s" for name in fits)
        print(f"    rank {rank:3d}: {times}")
        share = f"{rate / best:.0%} of the {best:.0f} of matmul"
        print(f"      ours: {rate:.0f} GFLOP/s, {share}", flush=True)
        for name in list(fits)[1:]:
            compare(f"sweep, {data}, rank {rank}: {name}", taken["ours"], taken[name])


def quality(shared):
    """Time to the test error of the peers' best."""
    print("\nMovieLens 1M 90/10: seconds of a fit to the test RMSE of each peer")
    data = movielens(shared)
    if data is None:
        return
    X, _, (rows, columns, ratings) = data
    fits, errors = peer_fits(data), {}
    for n_sweeps in SWEEPS if fits else ():
        model, Z = ours(X, n_sweeps=n_sweeps, **OURS_BEST)
        errors[n_sweeps] = rmse(model.predict_entries(Z, rows, columns), ratings)
    for name, run in fits.items():
        target = run()
        contestants = {"theirs": run}
        n_sweeps = next((n for n, error in errors.items() if error <= target), None)
        if n_sweeps:
            contestants["ours"] = partial(ours, X, n_sweeps=n_sweeps, **OURS_BEST)
        taken = take_turns(contestants, n_rounds=3)
        print(f"  {name:22s} {target:.4f} in {taken['theirs']:5.2f} s; ours", end=" ")
        if n_sweeps:
            reached = f"{errors[n_sweeps]:.4f} in {taken['ours']:5.2f} s"
            print(f"{reached}, {n_sweeps} sweeps", flush=True)
            compare(f"fit to RMSE {target:.4f}: {name}", taken["ours"], taken["theirs"])
        else:
            n_sweeps = min(errors, key=errors.get)
            print(f"not: {errors[n_sweeps]:.4f} after {n_sweeps} sweeps", flush=True)


def default(shared):
    """Time at which a fit with the defaults passes the error published for LIBMF."""
    print(f"\nMovieLens 1M 90/10: the defaults, to test RMSE {LIBMF_PUBLISHED}")
    data = movielens(shared)
    if data is None:
        return
    X, _, (rows, columns, ratings) = data

    def fit(max_iter):
        with threads(N_THREADS):
            model = MaskedGradientMF(max_iter=max_iter)
            return model, model.fit_transform(X)

    for n_sweeps in SWEEPS:
        model, Z = fit(n_sweeps)
        error = rmse(model.predict_entries(Z, rows, columns), ratings)
        if error <= LIBMF_PUBLISHED:
            seconds = take_turns({"ours": partial(fit, n_sweeps)}, n_rounds=3)["ours"]
            print(f"  {error:.4f} in {seconds:.2f} s, {n_sweeps} sweeps", flush=True)
            return
    print(f"  not: {error:.4f} after {model.n_iter_} sweeps", flush=True)


def search(shared):
    """A grid around CMFREC_BEST."""
    print("\nTest RMSE of cmfrec on MovieLens 1M 90/10")
    data = movielens(shared)
    if data is None or not peer("cmfrec"):
        return
    grid = [(dict(k=k), (18, 20, 22, 25), (4, 5, 6, 10)) for k in (32, 64)]
    grid += [(dict(k=k, use_cg=False), (20, 22), (4, 6)) for k in (32, 64)]
    grid += [(dict(k=k), (9, 12, 15), (8, 15, 30)) for k in (8, 10, 12, 14, 16, 24)]
    grid.append((dict(k=64, scale_lam=True), (0.06, 0.065, 0.07, 0.08), (6, 8, 10)))
    grid.append((dict(k=64, add_implicit_features=True), (20, 22), (4, 5, 6)))
    for kind, ridges, counts in grid:
        found = []
        for ridge in ridges:
            for niter in counts:
                start = time.perf_counter()
                error = cmfrec_error(data, niter, lambda_=ridge, **kind)
                found.append((error, ridge, niter, time.perf_counter() - start))
        error, ridge, niter, seconds = min(found)
        setting = ", ".join(f"{name}={value}" for name, value in kind.items())
        best = f"lambda {ridge}, {niter} sweeps, {seconds:.1f} s"
        print(f"  {setting:32s} best {error:.4f}: {best}", flush=True)


def scaling(shared):
    """Time of a sweep and peak memory by the number of entries; one thread and two."""
    print("\nSynthetic, rank 32: time of a sweep and peak memory of a fit")
    print("  peak: X included, W and H left out, over the bytes of X")
    for millions in (1, 3, 10, 30):
        X = synthetic(millions * 1_000_000)
        fit = partial(ours, X, 32, 20.0)
        fits = {"ours": fit}
        if millions == 10:
            fits["1 thread"] = partial(fit, n_threads=1)
        taken = sweep_seconds(fits, counts=(1, 5), n_rounds=3)
        rate = f"{1e3 * taken['ours'] / millions:.1f} ms a million"
        print(f"  {millions:2d} million: {taken['ours']:6.3f} s, {rate},", end=" ")
        print(f"peak {_peak(X):.2f} times X", flush=True)
        if millions == 10:
            print(f"    with one thread {taken['1 thread']:.3f} s")
            compare("sweep, 10 million: one thread", taken["ours"], taken["1 thread"])


def _peak(X):
    """The peak in a process of its own, started afresh."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("data", "indices", "indptr"):
            np.save(Path(folder, name), getattr(X, name))
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(_peak_of_fit, (folder, X.shape))


def _peak_of_fit(folder, shape):
    parts = [np.load(f"{folder}/{name}.npy") for name in ("data", "indices", "indptr")]
    X = sparse.csr_array(tuple(parts), shape)
    ours(X[:100, :100], 32, 20.0, 1)  # what is loaded once is not of the data
    before = _high_water()
    model, Z = ours(X, 32, 20.0, 2)
    grown = _high_water() - before - Z.nbytes - model.components_.nbytes
    return 1 + grown / sum(part.nbytes for part in parts)


def _high_water():
    """Largest resident size so far, allocations of compiled code included.

    Linux only: `getrusage` starts with the size of the process that started this one.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return np.nan
    line = next(line for line in status.read_text().splitlines() if "VmHWM" in line)
    return 1024 * int(line.split()[1])


def transform(shared):
    """Folding rows in against half a sweep, which solves as many systems."""
    X, new = synthetic(10_000_000), synthetic(10_000_000, seed=1)
    fit = partial(ours, X, 32, 20.0)
    model, _ = fit(1)

    def fold_in():
        with threads(N_THREADS):
            model.transform(new)

    taken = sweep_seconds({"sweep": fit}, (1, 5), 5, transform=fold_in)
    half = taken["sweep"] / 2
    print("\nSynthetic, 10 million entries, rank 32: transform of as many new rows")
    print(f"  {taken['transform']:.3f} s, half a sweep {half:.3f} s", end=": ")
    print(f"{taken['transform'] / half:.2f} times as long")
    compare("transform: half a sweep", taken["transform"], half)


def import_(shared, n_rounds=11):
    """What importing the package adds to the scikit-learn that it needs anyway."""
    code = (
        "import time; start = time.perf_counter();"
        "import sklearn.base, sklearn.utils.validation, sklearn.decomposition;"
        "middle = time.perf_counter(); import sklearn_mfgd;"
        "print(middle - start, time.perf_counter() - middle)"
    )
    times, environment = [], dict(os.environ)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # modules are compiled once
    for _ in range(n_rounds + 1):
        command = [sys.executable, "-c", code]
        printed = subprocess.check_output(command, env=environment)
        times.append([1e3 * float(number) for number in printed.split()])
    base, added = np.median(times[1:], axis=0)
    print(f"\nImport: scikit-learn {base:.0f} ms, sklearn_mfgd adds {added:.1f} ms")


def solvers(shared):
    """The figures behind solver="auto": als and scaled to within 0.3 % of the end."""
    print("\nPlanted rank and noise: sweeps and time to F within 0.3 % of its end")
    print("  n: entries of a row or column, in the mean")
    print("  shape       density  rank     n            als         scaled  als/scaled")
    for m, n in ((323, 4392), (2000, 1000)):
        for density in (0.01, 0.05, 0.2, 0.5, 0.9):
            for rank in (10, 32, 64, 100, 200):
                X, reg = _planted(m, n, density, rank)
                cells, ratio = _race(X, rank, reg)
                print(f"  {m:4d} x {n:4d} {density:8.2f} {rank:5d}", end=" ")
                print(f"{2 * X.nnz / (m + n):5.0f} {cells} {ratio:11.2f}", flush=True)


def _planted(m, n, density, rank, noise=0.3):
    """Entries of unit variance plus noise, and the ridge that suits both."""
    rng = np.random.default_rng(0)
    W, H = (rng.standard_normal((k, rank)) * rank**-0.25 for k in (m, n))
    noisy = W @ H.T + noise * rng.standard_normal((m, n))
    i, j = np.nonzero(rng.random((m, n)) < density)
    X = sparse.csr_array((noisy[i, j].astype(np.float32), (i, j)), (m, n))
    return X, float(noise**2 * np.sqrt(rank))


def _race(X, rank, reg):
    def fit(solver, n_sweeps, tol=0):
        model = MaskedGradientMF(
            rank, solver=solver, reg=reg, max_iter=n_sweeps, tol=tol, random_state=0
        )
        with threads(N_THREADS):
            return model.fit(X)

    curves = {name: fit(name, 150, 1e-4).loss_curve_ for name in ("als", "scaled")}
    limit = 1.003 * min(curve[-1] for curve in curves.values())
    counts = {}
    for name, curve in curves.items():
        enough = np.flatnonzero(np.array(curve) <= limit)
        if enough.size:
            counts[name] = enough[0] + 1
    runs = {name: partial(fit, name, int(n)) for name, n in counts.items()}
    taken = dict.fromkeys(curves, np.inf) | take_turns(runs, 3, patience=10)
    cells = [f"{counts.get(name, '>'):>4} {taken[name]:8.3f} s" for name in curves]
    return " ".join(cells), taken["als"] / taken["scaled"]


def compare(what, our_seconds, their_seconds):
    """Note a comparison for the table at the end."""
    ratio = their_seconds / our_seconds
    SUMMARY.append((what, f"{our_seconds:.3f}", f"{their_seconds:.3f}", f"{ratio:.1f}"))


def print_summary():
    """All comparisons once more, as a table for the documentation."""
    head = ("Comparison", "ours, s", "other, s", "other / ours")
    widths = [max(map(len, column)) for column in zip(head, *SUMMARY, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    print(f"\n{rule}")
    for row in (head, *SUMMARY):
        print(*(f"{row[k]:{widths[k]}}" for k in range(4)), sep="  ")
        if row in (head, SUMMARY[-1]):
            print(rule)


PARTS = {
    "matmul": matmul,
    "sweep": sweep,
    "large": large,
    "quality": quality,
    "default": default,
    "scaling": scaling,
    "transform": transform,
    "import": import_,
    "solvers": solvers,
    "search": search,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}")
    default = os.environ.get("SKLEARN_MFGD_SHARED_DATA", SHARED_DATA)
    parser.add_argument("--shared", type=Path, default=default, help="folder of data")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    sklearn_mfgd.show_versions()
    for package in ("cmfrec", "implicit", "scikit-surprise", "libmf"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            print(f"{package:<13}  {importlib.metadata.version(package)}")
    for part in arguments.parts or [part for part in PARTS if part != "search"]:
        PARTS[part](arguments.shared)
    if SUMMARY:
        print_summary()
