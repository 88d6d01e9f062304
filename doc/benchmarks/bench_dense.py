"""Dense data: time, recovery and memory, as ratios within one run.

Run ``python doc/benchmarks/bench_dense.py`` (about five minutes on two cores). The
contestants of a comparison take turns, times are medians, and quality is fixed first:
a time counts only for a result that is good enough.
"""

import os
import platform
import time
import tracemalloc
import warnings

import numpy as np
import scipy
import sklearn
from sklearn.decomposition import TruncatedSVD
from sklearn.exceptions import ConvergenceWarning

import sklearn_mfgd
from sklearn_mfgd import GradientMF

warnings.simplefilter("ignore", ConvergenceWarning)  # fixed numbers of sweeps


def interleaved(contestants, n_rounds=5):
    """Median seconds of each contestant; they take turns, after one warm-up round."""
    seconds = {name: [] for name in contestants}
    for round_ in range(n_rounds + 1):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            if round_:
                seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(taken)) for name, taken in seconds.items()}


def traffic(seed=0):
    """Speeds of 323 sensors over 61 days of five minutes: 323 x 17,568 in 0..80."""
    rng = np.random.default_rng(seed)
    hours = np.arange(17_568) / 12
    clock = hours % 24
    rush = np.exp(-((clock - 8) ** 2) / 2) + np.exp(-((clock - 17) ** 2) / 4)
    local = rng.standard_normal((323, 59)) * 0.95 ** np.arange(59)
    X = 60 + 5 * rng.standard_normal((323, 1))
    X = X - 20 * rng.random((323, 1)) * rush + local @ rng.standard_normal((59, 17_568))
    return np.clip(X + 2 * rng.standard_normal(X.shape), 0, 80)


def complete():
    """Time to within 0.1 % of the optimum, against a randomized truncated SVD."""
    X, rank = traffic(), 60
    singular = np.linalg.svd(X, compute_uv=False)
    optimum = np.sum(singular[rank:] ** 2)

    def svd_excess(n_iter):
        svd = TruncatedSVD(rank, n_iter=n_iter, random_state=0)
        error = X - svd.inverse_transform(svd.fit_transform(X))
        return np.sum(error**2) / optimum - 1

    excess = {n_iter: svd_excess(n_iter) for n_iter in range(1, 21)}
    enough = next(n_iter for n_iter, share in excess.items() if share < 1e-3)
    ours = GradientMF(rank, random_state=0).fit(X)
    print("\nComplete 323 x 17,568, rank 60: time to within 0.1 % of the optimum")
    excess[0] = ours.reconstruction_err_**2 / optimum - 1
    print(f"  GradientMF()          excess {excess[0]:8.1e}")
    print(
        f"  TruncatedSVD(n_iter={enough:2d}) excess {excess[enough]:8.1e}, the fewest"
    )
    print(f"  TruncatedSVD()        excess {excess[5]:8.1e}  (default n_iter=5)")
    seconds = interleaved(
        {
            "ours": lambda: GradientMF(rank, random_state=0).fit_transform(X),
            "same error": lambda: TruncatedSVD(
                rank, n_iter=enough, random_state=0
            ).fit_transform(X),
            "default": lambda: TruncatedSVD(rank, random_state=0).fit_transform(X),
        }
    )
    for peer in ("same error", "default"):
        ratio = seconds["ours"] / seconds[peer]
        print(
            f"  ours {seconds['ours']:.2f} s / TruncatedSVD, {peer}, "
            f"{seconds[peer]:.2f} s = {ratio:.2f}"
        )


def masked():
    """Time to the plateau, in units of one naive masked residual."""
    m, n, rank = 323, 4392, 20
    rng = np.random.default_rng(0)
    W = rng.standard_normal((m, 40)) * 10 * 0.9 ** np.arange(40)
    truth = W @ rng.standard_normal((n, 40)).T
    M = rng.random((m, n)) < 0.6
    noisy = truth + 2 * rng.standard_normal((m, n))
    X = np.where(M, noisy, np.nan)
    filled = np.where(M, noisy, 0)
    W, H = rng.standard_normal((m, rank)), rng.standard_normal((n, rank))

    def fit(max_iter, solver="auto", eta="auto"):
        model = GradientMF(
            rank, reg=1.0, solver=solver, eta=eta, max_iter=max_iter, tol=0
        )
        Z = model.fit_transform(X)
        error = (model.inverse_transform(Z) - noisy)[~M]
        return model, float(np.sqrt(np.mean(error**2)))

    print("\n323 x 4392, 40 % missing, rank 20, reg 1: sweeps to the plateau, and time")
    print("  plateau: F within 3e-3, held-out RMSE within 0.2 % of those of 200 sweeps")
    # Plain gradient descent with the step 1/L that the divergence error names.
    try:
        fit(20, "gd", eta=1.0)
    except sklearn_mfgd.DivergenceError as error:
        stable = error.stable_eta
    contestants = {"residual": lambda: M * (W @ H.T) - filled}
    lines = {}
    for name, solver, eta in (
        ("auto", "auto", "auto"),
        ("scaled", "scaled", "auto"),
        ("als", "als", "auto"),
        ("gd, exact steps", "gd", "auto"),
        ("gd, stable eta", "gd", stable),
    ):
        model, final = fit(200, solver, eta)
        limit, n_sweeps = model.loss_curve_[-1], 200
        for count in (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 40, 60, 80, 120):
            early, error = fit(count, solver, eta)
            if early.loss_curve_[-1] < limit * 1.003 and error < final * 1.002:
                n_sweeps = count
                break
        lines[name] = (n_sweeps, limit, final)

        def run(solver=solver, eta=eta, n_sweeps=n_sweeps):
            GradientMF(
                rank, reg=1.0, solver=solver, eta=eta, max_iter=n_sweeps, tol=0
            ).fit(X)

        contestants[name] = run
    seconds = interleaved(contestants)
    unit = seconds.pop("residual")
    print(f"  unit: M * (W @ H.T) - X takes {1e3 * unit:.1f} ms")
    for name, taken in seconds.items():
        n_sweeps, limit, final = lines[name]
        print(
            f"  {name:16s} {n_sweeps:4d} sweeps {taken / unit:7.1f} units   "
            f"F after 200: {limit:.4e}, held-out RMSE {final:.4f}"
        )


def recovery():
    """Sweeps to a relative error of 1e-8, by condition number."""
    m, n, rank = 500, 400, 5
    print("\n500 x 400, rank 5, 30 % observed, no noise: sweeps to relative error 1e-8")
    print("  condition       als   scaled       gd")
    for condition in (1, 10, 100, 1000):
        rng = np.random.default_rng(0)
        U = np.linalg.qr(rng.standard_normal((m, rank))).Q
        V = np.linalg.qr(rng.standard_normal((n, rank))).Q
        truth = (U * np.geomspace(1, 1 / condition, rank)) @ V.T
        X = np.where(rng.random((m, n)) < 0.3, truth, np.nan)
        cells = []
        for solver in ("als", "scaled", "gd"):
            low, high = 0, 1  # doubling, then bisection: one fit per question
            while high <= 256 and not _recovered(X, truth, solver, high):
                low, high = high, 2 * high
            while high <= 256 and high - low > 1:
                middle = (low + high) // 2
                if _recovered(X, truth, solver, middle):
                    high = middle
                else:
                    low = middle
            cells.append("> 256" if high > 256 else str(high))
        print(f"  {condition:9d} " + " ".join(f"{cell:>8s}" for cell in cells))


def _recovered(X, truth, solver, n_sweeps):
    model = GradientMF(5, solver=solver, max_iter=n_sweeps, tol=0)
    found = model.inverse_transform(model.fit_transform(X))
    return np.linalg.norm(found - truth) < 1e-8 * np.linalg.norm(truth)


def memory():
    """Peak of all allocations during a fit, X included, over the size of X."""
    print("\nPeak memory of fit_transform over the size of X, X included")
    X = traffic()
    incomplete = X.copy()
    incomplete[np.random.default_rng(0).random(X.shape) < 0.4] = np.nan
    for dtype in (np.float64, np.float32):
        for name, data in (("complete", X), ("40 % missing", incomplete)):
            for solver in ("auto", "als"):
                given = data.astype(dtype)
                tracemalloc.start()
                GradientMF(20, solver=solver, max_iter=2, tol=0).fit_transform(given)
                peak = tracemalloc.get_traced_memory()[1] / given.nbytes + 1
                tracemalloc.stop()
                print(f"  {dtype.__name__} {name:13s} solver={solver:5s} {peak:.2f}")


if __name__ == "__main__":
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, NumPy {np.__version__}, "
        f"SciPy {scipy.__version__}, scikit-learn {sklearn.__version__}, "
        f"sklearn_mfgd {sklearn_mfgd.__version__}"
    )
    complete()
    masked()
    recovery()
    memory()
