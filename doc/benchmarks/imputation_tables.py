"""Tables with missing values, and patterns by which entries of them are hidden."""

from pathlib import Path

import numpy as np
from sklearn import datasets

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SHARE = 0.2  # of hidden entries


# Tables, each of a folder of data


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


def _metro(shared):
    from scipy.io import loadmat

    tensor = loadmat(shared / "hangzhou-metro" / "tensor.mat")["tensor"].astype(float)
    return tensor.reshape(80, 25 * 108).T[:1200]


def _planted(shared):
    rng = np.random.RandomState(0)
    X = rng.standard_normal((300, 3)) @ rng.standard_normal((3, 12))
    X += 0.1 * rng.standard_normal(X.shape)
    X[rng.uniform(size=X.shape) < 0.1] = np.nan
    return X


def _lognormal(shared):
    """Skewed columns, as concentrations are: exponentials of what factors explain."""
    return np.exp(0.7 * _planted(shared))


def _loop(shared):
    path = shared / "los-loop" / "los_speed.csv"
    return np.loadtxt(path, delimiter=",", skiprows=1)


TABLES = {  # in the order in which they are run: the quick ones first
    "iris": _bundled("iris"),
    "wine": _bundled("wine"),
    "diabetes": _bundled("diabetes"),
    "breast cancer": _bundled("breast_cancer"),
    "digits": _bundled("digits", 300),
    "ozone": lambda shared: np.genfromtxt(
        shared / "missmda" / "ozone.csv", delimiter=",", skip_header=1
    ),
    "beijing station": _station,
    "metabolite": _metabolite,
    "planted": _planted,
    "planted, lognormal": _lognormal,
    "birmingham-parking": _parking,
    "gdsc-ic50": lambda shared: np.genfromtxt(
        shared / "gdsc-ic50" / "ic50.txt", delimiter="\t"
    ),
    "hangzhou-metro": _metro,
    "ngsim": lambda shared: np.load(shared / "ngsim-speed" / "NGSIM_full.npy").T,
    "communities-crime": _communities,
    "beijing-air, 3000 hours": lambda shared: _beijing(shared)[:3000],
    "msqr-mood": _mood,
    "spellman-yeast": _yeast,
    "los-loop": _loop,
    "electricity-321": lambda shared: (
        np.load(shared / "electricity-321" / "electricity35.npy").T
    ),
    "beijing-air": _beijing,
}
# Tables that are shown, but are not counted as pairs, and why.
UNCOUNTED = {
    "planted, lognormal": "made for one property, skewed columns",
    "beijing-air": "too large for the peers",
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


def hide_by(pattern, X, seed):
    """X with entries hidden by a pattern, and which."""
    hidden = ~np.isnan(X) & PATTERNS[pattern](X, np.random.RandomState(seed))
    return np.where(hidden, np.nan, X), hidden


def hide(X, share, seed=0):
    """X with a share of its entries hidden completely at random, and which."""
    rng = np.random.RandomState(seed)
    hidden = ~np.isnan(X) & (rng.uniform(size=X.shape) < share)
    return np.where(hidden, np.nan, X), hidden


def scaled_errors(filled, complete, hidden):
    """Errors of hidden entries in column deviations, without constant columns."""
    deviations = np.nanstd(complete, axis=0)
    rows, columns = np.nonzero(hidden & (deviations > 0))
    return (filled - complete)[rows, columns] / deviations[columns]
