"""Error and time of imputers on real tables, defaults everywhere.

Run ``python doc/benchmarks/bench_imputation.py`` for all tables, or name some of them:
``python doc/benchmarks/bench_imputation.py ozone planted``. Of each, 20 % of the
observed entries are hidden (40 % of los-loop, 80 % of ngsim); rows are times, genes or
people. Errors are root mean squares over the hidden entries, in standard deviations of
the columns. Every contestant runs in a process of its own, one after the other, and is
stopped after ten minutes. Data are in the folder of ``--shared``; what is absent is
left out, and the output says so.
"""

import argparse
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
PATIENCE = 600  # seconds


# Tables


def _beijing(shared):
    with np.load(shared / "beijing-air" / "prsa.npz") as file:
        return file["data"].astype(float).reshape(35064, 132)


def _communities(shared):
    path = shared / "communities-crime" / "communities.data"
    columns = [c for c in range(128) if c != 3]
    table = np.genfromtxt(path, delimiter=",", missing_values="?", usecols=columns)
    return table[:, 4:]


def _metabolite(shared):
    with np.load(shared / "metabolite-arabidopsis" / "metabolite.npz") as file:
        return file["incomplete"]


def _mood(shared):
    with np.load(shared / "msqr-mood" / "msqR.npz") as file:
        table = file["X"].astype(float)
    return np.where(table < 0, np.nan, table)


def _yeast(shared):
    path = shared / "spellman-yeast" / "yeast_cell_cycle.txt"
    table = np.genfromtxt(path, delimiter="\t", skip_header=1)[:, 1:]
    return table[:, ~np.isnan(table).all(axis=0)]


def _parking(shared):
    from scipy.io import loadmat

    path = shared / "birmingham-parking" / "tensor.mat"
    tensor = loadmat(path)["tensor"].astype(float)
    return np.where(tensor == 0, np.nan, tensor).reshape(30, 77 * 18).T


def _planted(shared):
    rng = np.random.RandomState(0)
    X = rng.standard_normal((300, 3)) @ rng.standard_normal((3, 12))
    X += 0.1 * rng.standard_normal(X.shape)
    X[rng.uniform(size=X.shape) < 0.1] = np.nan
    return X


def _loop(shared):
    path = shared / "los-loop" / "los_speed.csv"
    return np.loadtxt(path, delimiter=",", skiprows=1)


TABLES = {
    "beijing-air, 3000 hours": lambda shared: _beijing(shared)[:3000],
    "communities-crime": _communities,
    "metabolite": _metabolite,
    "msqr-mood": _mood,
    "spellman-yeast": _yeast,
    "gdsc-ic50": lambda shared: np.genfromtxt(
        shared / "gdsc-ic50" / "ic50.txt", delimiter="\t"
    ),
    "los-loop": _loop,
    "ngsim": lambda shared: np.load(shared / "ngsim-speed" / "NGSIM_full.npy").T,
    "birmingham-parking": _parking,
    "electricity-321": lambda shared: (
        np.load(shared / "electricity-321" / "electricity35.npy").T
    ),
    "ozone": lambda shared: np.genfromtxt(
        shared / "missmda" / "ozone.csv", delimiter=",", skip_header=1
    ),
    "planted": _planted,
    "beijing-air": _beijing,
}
HIDDEN = {"los-loop": 0.4, "ngsim": 0.8}


def hide(X, share, seed=0):
    """X with a share of its entries hidden, and which."""
    rng = np.random.RandomState(seed)
    hidden = ~np.isnan(X) & (rng.uniform(size=X.shape) < share)
    return np.where(hidden, np.nan, X), hidden


def scaled_errors(filled, complete, hidden):
    """Errors of hidden entries in column deviations, without constant columns."""
    deviations = np.nanstd(complete, axis=0)
    rows, columns = np.nonzero(hidden & (deviations > 0))
    return (filled - complete)[rows, columns] / deviations[columns]


# Contestants


def _simple():
    from sklearn.impute import SimpleImputer

    return SimpleImputer(keep_empty_features=True)


def _neighbours():
    from sklearn.impute import KNNImputer

    return KNNImputer(keep_empty_features=True)


class _StandardizedNeighbours:
    """KNNImputer measures distances: this gives every column the same weight."""

    def __init__(self):
        from sklearn.preprocessing import StandardScaler

        self.scaler, self.imputer = StandardScaler(), _neighbours()

    def fit_transform(self, X):
        filled = self.imputer.fit_transform(self.scaler.fit_transform(X))
        return self.scaler.inverse_transform(filled)


def iterative(**options):
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    return IterativeImputer(keep_empty_features=True, random_state=0, **options)


def _cmfrec():
    from cmfrec import CMF_imputer

    return CMF_imputer(verbose=False)


def _ours(rank="auto"):
    from sklearn_mfgd import MFImputer

    return MFImputer(rank, keep_empty_features=True)


CONTESTANTS = {
    "MFImputer": _ours,
    "MFImputer, rank 80": lambda: _ours(80),
    "SimpleImputer": _simple,
    "KNNImputer": _neighbours,
    "KNNImputer, standardized": _StandardizedNeighbours,
    "IterativeImputer": iterative,
    "IterativeImputer, 10 nearest": lambda: iterative(n_nearest_features=10),
    "cmfrec": _cmfrec,
}


def contest(name, folder):
    """Fill one table; called in a process of its own."""
    warnings.simplefilter("ignore")
    imputer = CONTESTANTS[name]()
    X = np.load(folder / "X.npy")
    start = time.perf_counter()
    filled = imputer.fit_transform(X)
    seconds = time.perf_counter() - start
    np.savez(folder / "result.npz", filled=filled, seconds=seconds)


def run(name, folder):
    """Error in column deviations and seconds, or why there are none."""
    (folder / "result.npz").unlink(missing_ok=True)
    command = [sys.executable, __file__, "--contestant", name, "--folder", folder]
    try:
        done = subprocess.run(command, timeout=PATIENCE, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        return f"stopped after {PATIENCE} s"
    if done.returncode:
        return "failed: " + done.stderr.strip().splitlines()[-1][:60]
    with np.load(folder / "result.npz") as file:
        filled, seconds = file["filled"], float(file["seconds"])
    complete, hidden = (
        np.load(folder / f"{name}.npy") for name in ("complete", "hidden")
    )
    return float(
        np.sqrt(np.mean(scaled_errors(filled, complete, hidden) ** 2))
    ), seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tables", nargs="*", help=", ".join(TABLES))
    parser.add_argument("--shared", type=Path, default=SHARED_DATA)
    parser.add_argument("--only", help="one contestant")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant:
        contest(arguments.contestant, arguments.folder)
        return
    for table in arguments.tables or TABLES:
        try:
            X = TABLES[table](arguments.shared)
        except FileNotFoundError as error:
            print(f"\n{table}: left out, {error}", flush=True)
            continue
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            seen, hidden = hide(X, HIDDEN.get(table, 0.2))
            for name, array in (("X", seen), ("complete", X), ("hidden", hidden)):
                np.save(folder / f"{name}.npy", array)
            m, n = X.shape
            print(f"\n{table}: {m:,} x {n}, {hidden.sum():,} hidden", flush=True)
            for name in CONTESTANTS:
                if arguments.only in (None, name):
                    found = run(name, folder)
                    if not isinstance(found, str):
                        found = f"{found[0]:.4f}  {found[1]:8.2f} s"
                    print(f"  {name:30s} {found}", flush=True)


if __name__ == "__main__":
    main()
