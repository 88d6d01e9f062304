"""Held-out error of the defaults against peers that were tuned.

Run ``python doc/benchmarks/bench_quality.py`` for all parts, or name some of them:
``python doc/benchmarks/bench_quality.py ml100k planted``. Ours is
``MaskedGradientMF()`` in every row but those that say otherwise; the peers get the best
settings of a grid, by their error on a tenth of the training entries. Data are in the
folder of ``--shared``, peers as for ``bench_sparse.py``; what is absent is left out,
and the output says so.
"""

import argparse
import itertools
import os
import time
import warnings
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sparse_contestants import N_THREADS, cmfrec_fit, movielens, peer, threads

import sklearn_mfgd
from sklearn_mfgd import MaskedGradientMF

warnings.simplefilter("ignore", ConvergenceWarning)

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

CMFREC_GRID = {
    "k": (10, 40),
    "lambda_": (2, 4, 8, 15, 25),
    "add_implicit_features": (False, True),
}
SURPRISE_GRID = {
    "n_factors": (20, 100),
    "reg_all": (0.05, 0.1),
    "n_epochs": (20, 50),
    "lr_all": (0.005, 0.01),
}
GRIDS = {"cmfrec": CMFREC_GRID, "Surprise": SURPRISE_GRID}
# Half as many settings, as fits of these take long; its defaults are among them.
SURPRISE_GRID_OF_LARGE = {
    "n_factors": (20, 100),
    "reg_all": (0.02, 0.05),
    "n_epochs": (20, 50),
}
GRIDS_OF_LARGE = GRIDS | {"Surprise": SURPRISE_GRID_OF_LARGE}
GRIDS_OF_ML1M = {
    "cmfrec": {
        "k": (14, 40, 64),
        "lambda_": (8, 12, 16, 20, 25),
        "niter": (10, 30),
        "add_implicit_features": (False, True),
    },
    "Surprise": SURPRISE_GRID_OF_LARGE,
}

# Root mean squared errors as published: of GLocal-K by S. C. Han et al. (CIKM 2021), in
# the paper rounded up to .890 on u1; of GC-MC by R. van den Berg et al.
# (arXiv:1706.02263, 2017). On MovieLens 1M the splits are other random ones.
PUBLISHED = {
    "MovieLens 100K, split u1": {"GLocal-K": 0.8889, "GC-MC": 0.905},
    "MovieLens 1M": {"GLocal-K": 0.8227, "GC-MC": 0.832},
    "Douban (Monti)": {"GLocal-K": 0.7208, "GC-MC": 0.734},
}


class Ratings:
    """Training and test entries of one split."""

    def __init__(self, users, items, ratings, is_test, limits):
        self.limits = limits
        self.shape = int(users.max()) + 1, int(items.max()) + 1
        self.train = tuple(part[~is_test] for part in (users, items, ratings))
        self.test = tuple(part[is_test] for part in (users, items, ratings))

    @property
    def X(self):
        users, items, ratings = self.train
        return sparse.coo_array((ratings, (users, items)), self.shape)

    def validation(self):
        """The same with a tenth of the training entries as test entries."""
        is_test = np.zeros(len(self.train[0]), bool)
        order = np.random.RandomState(1).permutation(len(is_test))
        is_test[order[: len(is_test) // 10]] = True
        part = Ratings(*self.train, is_test, self.limits)
        part.shape = self.shape
        return part

    def rmse(self, predict):
        users, items, ratings = self.test
        found = np.clip(predict(users, items), *self.limits)
        return float(np.sqrt(np.mean((found - ratings) ** 2)))


def ours(data, **params):
    """Test error and seconds."""
    X = data.X
    start = time.perf_counter()
    with threads(N_THREADS):
        model = MaskedGradientMF(**params)
        Z = model.fit_transform(X)
    seconds = time.perf_counter() - start
    return data.rmse(partial(model.predict_entries, Z)), seconds


def cmfrec(data, **setting):
    """Test error and seconds."""
    X = data.X
    start = time.perf_counter()
    model = cmfrec_fit(X, setting.pop("niter", 10), **setting)
    seconds = time.perf_counter() - start
    return data.rmse(model.predict), seconds


def surprise(data, **setting):
    """Test error and seconds."""
    users, items, ratings = data.train
    table = peer("pandas").DataFrame({"u": users, "i": items, "r": ratings})
    package = peer("surprise")
    reader = package.Reader(rating_scale=data.limits)
    triples = package.Dataset.load_from_df(table, reader).build_full_trainset()
    start = time.perf_counter()
    model = package.SVD(random_state=0, **setting).fit(triples)
    seconds = time.perf_counter() - start

    def predict(users, items):
        pairs = zip(users.tolist(), items.tolist(), strict=True)
        return np.array([model.predict(*pair).est for pair in pairs])

    return data.rmse(predict), seconds


def tuned(fit, grid, data):
    """The setting of least error on the validation entries."""
    part = data.validation()
    settings = [
        dict(zip(grid, values, strict=True))
        for values in itertools.product(*grid.values())
    ]
    return min(settings, key=lambda setting: fit(part, **setting)[0])


def contestants(data, grids=GRIDS):
    """Ours and the peers that are installed, tuned on these data."""
    print("  grids:", grids)
    found = {"ours": ours, "ours, pattern=False": partial(ours, pattern=False)}
    for name, fit, module in (
        ("cmfrec", cmfrec, "cmfrec"),
        ("Surprise", surprise, "surprise"),
    ):
        if peer(module):
            setting = tuned(fit, grids[name], data)
            print(f"  {name}: {setting}", flush=True)
            found[name] = partial(fit, **setting)
    return found


def ml100k(shared):
    """Five folds."""
    print("\nMovieLens 100K, 5 folds: mean RMSE, median seconds of a fit")
    folds = _ml100k(shared)
    fits = contestants(folds[0])
    fits["ours, noise='shared'"] = partial(ours, noise="shared")
    fits["ours, 100 draws"] = partial(ours, n_draws=100, random_state=0)
    results = {name: [] for name in fits}
    for data in folds:  # in turn
        for name, fit in fits.items():
            results[name].append(fit(data))
    report(results)


def _ml100k(shared):
    table = np.loadtxt(shared / "ml-100k" / "u.data", dtype=np.int64)
    table = table[np.lexsort((table[:, 0], table[:, 1]))]
    users, items, ratings = table[:, 0] - 1, table[:, 1] - 1, table[:, 2].astype(float)
    folds = []
    for chosen in np.array_split(np.random.RandomState(0).permutation(100_000), 5):
        is_test = np.zeros(len(users), bool)
        is_test[chosen] = True
        folds.append(Ratings(users, items, ratings, is_test, (1, 5)))
    return folds


def u1(shared):
    """The split that papers report, without peers: ours and what was published."""
    name = "MovieLens 100K, split u1"
    print(f"\n{name}: RMSE, seconds")
    try:
        data = _u1(shared)
    except OSError as error:
        print(f"  left out, {error}")
        return
    report({"ours": [ours(data)], "ours, pattern=False": [ours(data, pattern=False)]})
    report({"ours, 100 draws": [ours(data, n_draws=100, random_state=0)]})
    published(name)


def _u1(shared):
    parts = [np.loadtxt(shared / "ml-100k" / f"u1.{end}") for end in ("base", "test")]
    users, items, ratings = np.vstack(parts).T[:3]
    is_test = np.arange(len(users)) >= len(parts[0])
    return Ratings(
        *(ids.astype(int) - 1 for ids in (users, items)), ratings, is_test, (1, 5)
    )


def published(name):
    """Print what others have published of a set, if anything."""
    for model, error in PUBLISHED.get(name, {}).items():
        print(f"  {model + ', published':32s} {error:.4f}", flush=True)


def ml1m(shared):
    """One split."""
    name = "MovieLens 1M"
    print(f"\n{name}, 90/10: RMSE, seconds of a fit")
    data = movielens(shared)
    if data is None:
        return
    _, X, test = data
    everything = [
        np.concatenate([a, b]) for a, b in zip((*X.coords, X.data), test, strict=True)
    ]
    is_test = np.arange(len(everything[0])) >= X.nnz
    data = Ratings(*everything, is_test, (1, 5))
    fits = contestants(data, GRIDS_OF_ML1M)
    fits["ours, noise='shared'"] = partial(ours, noise="shared")
    fits["ours, 60 draws"] = partial(ours, n_draws=60, random_state=0)
    report({name: [fit(data)] for name, fit in fits.items()})
    published(name)


def report(results):
    for name, found in results.items():
        errors, seconds = np.array(found).T
        print(
            f"  {name:32s} {errors.mean():.4f} {np.median(seconds):7.2f} s", flush=True
        )


def others(shared):
    """Smaller sets of ratings, each with a peer's own best settings."""
    for name, load in SETS.items():
        try:
            data = load(shared)
        except OSError as error:
            print(f"\n{name}: left out, {error}")
            continue
        m, n = data.shape
        print(f"\n{name}, {m} x {n}, {len(data.train[0])} training entries: RMSE")
        large = len(data.train[0]) > 500_000
        fits = contestants(data, GRIDS_OF_LARGE if large else GRIDS)
        fits["ours, 100 draws"] = partial(ours, n_draws=100, random_state=0)
        report({name: [fit(data)] for name, fit in fits.items()})
        published(name)


def _split(users, items, ratings, limits):
    """A tenth of the entries, at random, is for the test."""
    users, items = (np.unique(ids, return_inverse=True)[1] for ids in (users, items))
    is_test = np.zeros(len(users), bool)
    order = np.random.RandomState(0).permutation(len(users))
    is_test[order[: len(users) // 10]] = True
    return Ratings(users, items, ratings.astype(float), is_test, limits)


def _latest(shared):
    path = shared / "ml-latest-small" / "ratings.csv"
    users, items, ratings, _ = np.loadtxt(path, delimiter=",", skiprows=1).T
    return _split(users, items, ratings, (0.5, 5))


def _filmtrust(shared):
    table = np.loadtxt(shared / "filmtrust" / "ratings.txt")
    _, once = np.unique(table[:, :2], axis=0, return_index=True)
    return _split(*table[np.sort(once)].T, (0.5, 4))


def _douban(shared):
    table = np.load(shared / "douban-monti" / "douban.npz")
    entries = table["user"].astype(int), table["item"].astype(int)
    return Ratings(*entries, table["rating"].astype(float), table["is_test"], (1, 5))


def _jester(shared):
    with zipfile.ZipFile(shared / "jester-1" / "jester-data-1.zip") as archive:
        table = np.loadtxt(archive.open("jester-data-1.csv"), delimiter=",")[:, 1:]
    users, items = np.nonzero(table != 99)
    return _split(users, items, table[users, items], (-10, 10))


SETS = {
    "MovieLens latest-small": _latest,
    "FilmTrust": _filmtrust,
    "Douban (Monti)": _douban,
    "Jester-1": _jester,
}


def planted(shared):
    """Effective rank, error against IterativeImputer, and coverage, over 20 seeds."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    print("\nPlanted rank, 20 seeds")
    for m, n, rank, noise, missing in (
        (300, 12, 3, 0.1, 0.3),
        (1000, 800, 10, 0.5, 0.8),
    ):
        ranks, errors, theirs, covered = [], [], [], []
        for seed in range(20):
            rng = np.random.default_rng(seed)
            truth = rng.normal(size=(m, rank)) @ rng.normal(size=(rank, n))
            X = truth + noise * rng.normal(size=truth.shape)
            hidden = rng.random(X.shape) < missing
            places = np.nonzero(hidden)
            Y = np.where(hidden, np.nan, X)
            model = MaskedGradientMF().fit(Y)
            Z, covariance = model.transform(Y, return_cov=True)
            found, deviations = model.predict_entries(
                Z, *places, covariance=covariance, return_std=True
            )
            error = found - X[hidden]
            ranks.append(model.rank_)
            errors.append(np.sqrt(np.mean(error**2)))
            covered.append(np.mean(np.abs(error) < 1.96 * deviations))
            if n < 100:
                filled = IterativeImputer(random_state=0).fit_transform(Y)
                theirs.append(np.sqrt(np.mean((filled - X)[hidden] ** 2)))
        print(f"  rank {rank} in {m} x {n}, noise {noise}, {missing:.0%} missing:")
        print(f"    rank found in {np.mean(np.equal(ranks, rank)):.0%} of the seeds")
        print(f"    RMSE {np.mean(errors):.4f}", end="")
        if theirs:
            ratio = np.mean(errors) / np.mean(theirs)
            print(
                f", IterativeImputer {np.mean(theirs):.4f}: ratio {ratio:.2f}", end=""
            )
        print(f"\n    95 % intervals cover {np.mean(covered):.1%}", flush=True)


def seeds(shared):
    """How much the held-out error depends on the start: ten random ones."""
    print("\nMovieLens latest-small: RMSE by start")
    try:
        data = _latest(shared)
    except OSError as error:
        print(f"  left out, {error}")
        return
    found = [ours(data, init="random", random_state=seed)[0] for seed in range(10)]
    spread = (max(found) - min(found)) / np.mean(found)
    print(f"  init='svd' {ours(data)[0]:.4f}; random {np.mean(found):.4f},", end=" ")
    print(f"spread {spread:.2%}", flush=True)


def coverage(shared):
    """How many hidden entries lie within 1.96 standard deviations."""
    print("\nCoverage of 95 % intervals, hidden entries")
    fold = _ml100k(shared)[0]
    _covered("MovieLens 100K, a fold", fold.X, *fold.test)
    for name, load in TABLES.items():
        X = load(shared)
        X = (X - np.nanmean(X, axis=0)) / np.nanstd(X, axis=0)
        rows, columns = np.nonzero(~np.isnan(X))
        order = np.random.RandomState(0).permutation(len(rows))
        chosen = order[: len(rows) // 5]
        places = rows[chosen], columns[chosen]
        values = X[places]
        X[places] = np.nan
        _covered(name, X, *places, values)


def _covered(name, X, rows, columns, values):
    model = MaskedGradientMF().fit(X)
    Z, covariance = model.transform(X, return_cov=True)
    found, deviations = model.predict_entries(
        Z, rows, columns, covariance=covariance, return_std=True
    )
    share = np.mean(np.abs(found - values) < 1.96 * deviations)
    print(f"  {name:28s} {share:.1%}", flush=True)


def _beijing(shared):
    with np.load(shared / "beijing-air" / "prsa.npz") as file:
        return file["data"][:3000].astype(float).reshape(3000, -1)


def _communities(shared):
    path = shared / "communities-crime" / "communities.data"
    wanted = [k for k in range(4, 128)]
    table = np.genfromtxt(path, delimiter=",", missing_values="?", usecols=wanted)
    return table[:, np.nanstd(table, axis=0) > 0]


TABLES = {"beijing-air, 3000 hours": _beijing, "communities-crime": _communities}

PARTS = {
    "ml100k": ml100k,
    "u1": u1,
    "ml1m": ml1m,
    "others": others,
    "planted": planted,
    "seeds": seeds,
    "coverage": coverage,
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
    for part in arguments.parts or PARTS:
        PARTS[part](arguments.shared)
