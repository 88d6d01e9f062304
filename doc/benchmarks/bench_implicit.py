"""Implicit feedback: ranking and speed beside the package implicit, on Last.fm.

Run ``python doc/benchmarks/bench_implicit.py`` for all parts, or name some of them:
``python doc/benchmarks/bench_implicit.py ranking speed``. The data, which artists 1,892
users played and how often, are in the folder of ``--shared``; the peer is
``pip install implicit``. What is absent is left out, and the output says so.

Every fit gets the same confidences. Those of implicit are ``alpha * counts`` where ours
are ``1 + alpha * counts``, as in its source and in the article by Hu, Koren & Volinsky.
"""

import argparse
import itertools
import os
import time
import warnings
from pathlib import Path

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sparse_contestants import peer, threads
from threadpoolctl import threadpool_limits

import sklearn_mfgd
from sklearn_mfgd import GradientMF

warnings.simplefilter("ignore", ConvergenceWarning)

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

GRID = {"rank": (32, 64, 128), "reg": (0.01, 0.1, 1.0), "alpha": (1, 10, 40)}
N_SWEEPS = 15
N_BEST = 10

# What the confidences grow with: that an artist was played, or how often.
FEEDBACK = {
    "played": np.sign,
    "log of plays": np.log1p,
}


def lastfm(shared):
    """Counts of plays for training, and for the test 20 % of the artists of each user.

    Returns None after saying that the data are not there.
    """
    path = shared / "lastfm-hetrec2k" / "user_artists.dat"
    try:
        users, artists, plays = np.loadtxt(path, skiprows=1).T
    except OSError as error:
        print(f"  left out, {error}")
        return None
    users, artists = (np.unique(k, return_inverse=True)[1] for k in (users, artists))
    rng, is_test = np.random.RandomState(0), np.zeros(len(users), bool)
    for user in range(users.max() + 1):
        theirs = np.flatnonzero(users == user)
        is_test[rng.permutation(theirs)[: len(theirs) // 5]] = True
    shape = users.max() + 1, artists.max() + 1

    def matrix(chosen):
        places = users[chosen], artists[chosen]
        return sparse.csr_array((plays[chosen].astype(np.float32), places), shape)

    return matrix(~is_test), matrix(is_test)


def quality(columns, test):
    """Precision and NDCG of the first ten recommendations, mean over users."""
    n_relevant = np.diff(test.indptr)
    users = np.flatnonzero(n_relevant)
    hits = np.zeros((len(users), N_BEST))
    for k, user in enumerate(users):
        relevant = test.indices[test.indptr[user] : test.indptr[user + 1]]
        hits[k] = np.isin(columns[user], relevant)
    gains = 1 / np.log2(np.arange(N_BEST) + 2)
    best = np.cumsum(gains)[np.minimum(n_relevant[users], N_BEST) - 1]
    return hits.mean(), np.mean(hits @ gains / best)


def our_fit(counts, *, rank, reg, alpha, n_sweeps=N_SWEEPS, **params):
    """Fit ours; return the model, and the matrix and its weights."""
    P, C = counts.copy(), counts.copy()
    P.data[:] = 1
    C.data = 1 + np.float32(alpha) * counts.data
    params = {"fit_bias": False, "max_iter": n_sweeps, "tol": 0} | params
    return GradientMF(rank, reg=reg, **params).fit(P, entry_weight=C), P, C


def ours(counts, **setting):
    """The best columns for each row, by ours."""
    model, P, C = our_fit(counts, **setting)
    return model.recommend(model.transform(P, entry_weight=C), N_BEST, exclude=P)[0]


def their_fit(counts, *, rank, reg, alpha, n_sweeps=N_SWEEPS):
    """Fit implicit with its conjugate gradients, and one thread as it is fastest so."""
    model = peer("implicit.cpu.als").AlternatingLeastSquares(
        factors=rank,
        regularization=reg,
        alpha=alpha,
        iterations=n_sweeps,
        use_cg=True,
        use_native=True,
        num_threads=1,
        dtype=counts.dtype,
        random_state=0,
    )
    model.fit(sparse.csr_matrix(counts), show_progress=False)
    return model


def theirs(counts, **setting):
    """The best columns for each row, by implicit."""
    model, counts = their_fit(counts, **setting), sparse.csr_matrix(counts)
    return model.recommend(np.arange(counts.shape[0]), counts, N=N_BEST)[0]


def ranking(shared):
    """Precision and NDCG of the best setting of a grid, by the test entries."""
    print(f"\nLast.fm, 80/20 for each user: precision@{N_BEST}, NDCG@{N_BEST}")
    data = lastfm(shared)
    if data is None:
        return
    counts, test = data
    contestants = {
        "ours": ours,
        "ours, column biases": lambda *a, **k: ours(*a, fit_bias="columns", **k),
    }
    if peer("implicit"):
        contestants["implicit"] = theirs
    print(f"  {N_SWEEPS} sweeps, grid: {GRID}")
    settings = [
        dict(zip(GRID, values, strict=True))
        for values in itertools.product(*GRID.values())
    ]
    for feedback, transform in FEEDBACK.items():
        feedback_counts = counts.copy()
        feedback_counts.data = transform(counts.data)
        for name, fit in contestants.items():
            found = []
            for setting in settings:
                with threads(1), threadpool_limits(1, "blas"):
                    found.append(quality(fit(feedback_counts, **setting), test))
            for k, measure in enumerate(("precision", "NDCG")):
                best = max(range(len(found)), key=lambda i: found[i][k])
                print(
                    f"  {feedback:14s}{name:22s} {measure:10s}{found[best][k]:.4f} "
                    f"at {settings[best]}",
                    flush=True,
                )


def speed(shared):
    """Time of a sweep: a fit of 12 sweeps less a fit of 2, medians, in turn."""
    print("\nLast.fm, all entries: milliseconds of a sweep on one thread, median of 7")
    data = lastfm(shared)
    if data is None:
        return
    counts = sparse.csr_array(data[0] + data[1])
    counts.data[:] = 1
    fits = {"ours": lambda *a, **k: our_fit(*a, init="random", random_state=0, **k)}
    if peer("implicit"):
        fits["implicit"] = their_fit
    for dtype, rank in itertools.product((np.float32, np.float64), (32, 64)):
        X, times = counts.astype(dtype), {name: [] for name in fits}
        setting = {"rank": rank, "reg": 0.1, "alpha": 40}
        for _ in range(7):
            for name, fit in fits.items():
                with threads(1), threadpool_limits(1, "blas"):
                    long, short = (_seconds(fit, X, n, setting) for n in (12, 2))
                times[name].append((long - short) / 10)
        line = f"  {np.dtype(dtype).name}, rank {rank}: "
        medians = {name: 1e3 * np.median(found) for name, found in times.items()}
        line += ", ".join(f"{name} {median:.1f}" for name, median in medians.items())
        if len(medians) > 1:
            ratios = np.divide(times["ours"], times["implicit"])
            line += f", ratio {np.median(ratios):.2f}"
        print(line, flush=True)


def _seconds(fit, X, n_sweeps, setting):
    """Processor time, which other processes disturb less, of a fit on one thread."""
    start = time.process_time()
    fit(X, n_sweeps=n_sweeps, **setting)
    return time.process_time() - start


def recommend(shared):
    """Rows for which the ten best of 100,000 columns are found in a second."""
    print("\nRandom factors of rank 32, 100,000 columns: rows a second, one thread")
    rng, (m, n, rank) = np.random.default_rng(0), (1000, 100_000, 32)
    for dtype in (np.float32, np.float64):
        W, H = (rng.normal(size=(k, rank)).astype(dtype) for k in (m, n))
        places = rng.integers(m, size=50 * m), rng.integers(n, size=50 * m)
        seen = sparse.csr_array((np.ones(50 * m, dtype), places), (m, n))
        model = GradientMF(rank, reg=1.0, init=(W, H), max_iter=1).fit(seen)
        times = []
        with threads(1), threadpool_limits(1, "blas"):
            for _ in range(5):
                start = time.process_time()
                model.recommend(W, exclude=seen)
                times.append(time.process_time() - start)
        print(f"  {np.dtype(dtype).name}: {m / np.median(times):.0f}", flush=True)


PARTS = {"ranking": ranking, "speed": speed, "recommend": recommend}

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
