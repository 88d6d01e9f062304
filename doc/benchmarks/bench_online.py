"""Batches of rows against a fit to all rows: held-out error, and time.

Run ``python doc/benchmarks/bench_online.py`` for all parts, or name ``movielens`` or
``planted``. Rows come in random order, in ten batches, or as many as ``--batches``
says. A tenth of the entries is held out, and predicted by folding in what is left of
their rows. MovieLens 1M is ``ml-1m/ratings.npz`` in the folder of ``--shared``.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from scipy import sparse

from sklearn_mfgd import MaskedGradientMF

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

# Rows, columns, factors.
PLANTED = [(2000, 200, 5), (20000, 300, 8)]


def movielens(shared, rng):
    """Return rows, columns and values of the ratings, users in random order."""
    with np.load(shared / "ml-1m" / "ratings.npz") as file:
        users, films, ratings = (file[name] for name in ("user", "item", "rating"))
    order = rng.permutation(users.max())
    return order[users.astype(int) - 1], films.astype(int) - 1, ratings.astype(float)


def planted(m, n, rank, rng):
    """Return a fifth of the entries of a matrix of this rank, with noise."""
    X = rng.normal(size=(m, rank)) @ rng.normal(size=(rank, n)) + rng.normal(size=n)
    X += 0.5 * rng.normal(size=X.shape)
    rows, columns = np.nonzero(rng.random(X.shape) < 0.2)
    return rows, columns, X[rows, columns]


def compare(name, entries, rng, n_batches):
    """Print the errors of a fit and of batches."""
    rows, columns, values = entries
    hidden = rng.random(len(values)) < 0.1
    seen = values[~hidden], (rows[~hidden], columns[~hidden])
    X = sparse.csr_array(seen, shape=(rows.max() + 1, columns.max() + 1))

    def error(model):
        x = model.predict_entries(model.transform(X), rows[hidden], columns[hidden])
        return np.sqrt(np.mean((x - values[hidden]) ** 2))

    start = time.perf_counter()
    full = MaskedGradientMF().fit(X)
    fit_time, full_error = time.perf_counter() - start, error(full)
    start, model = time.perf_counter(), MaskedGradientMF()
    for batch in np.array_split(np.arange(X.shape[0]), n_batches):
        model.partial_fit(X[batch])
    batches_time, batches_error = time.perf_counter() - start, error(model)
    print(
        f"{name}: fit {full_error:.4f} (rank {full.rank_}, {fit_time:.1f} s), "
        f"{n_batches} batches {batches_error:.4f} (rank {model.rank_}, "
        f"{batches_time:.1f} s), {batches_error / full_error - 1:+.2%}"
    )


def main():
    """Run the parts that were named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help="some of movielens, planted")
    parser.add_argument("--shared", type=Path, default=SHARED_DATA)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    parts = given.parts or ["movielens", "planted"]
    for seed in range(given.seeds):
        rng = np.random.default_rng(seed)
        if "movielens" in parts:
            entries = movielens(given.shared, rng)
            compare("MovieLens 1M", entries, rng, given.batches)
        for shape in PLANTED if "planted" in parts else []:
            name = "{} x {}, rank {}".format(*shape)
            compare(name, planted(*shape, rng), rng, given.batches)


if __name__ == "__main__":
    main()
