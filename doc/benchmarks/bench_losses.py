"""Losses other than squared error, on the data that they are made for.

Run ``python doc/benchmarks/bench_losses.py`` for all parts, or name some of them:
``python doc/benchmarks/bench_losses.py outliers counts``. The parts are

outliers
    a planted table as it is, with two gross values, and with one value in a hundred
    multiplied by 30;
clean
    the tables of ``bench_imputation.py``, which show what a robust loss costs where
    there is nothing to be robust against; ``--tables`` names some of them;
ratings
    five folds of MovieLens 100K;
counts
    planted counts, and the pixels of scikit-learn's digits;
plays
    how often users of Last.fm played the 300 artists with most listeners;
yes_no
    planted answers, and the votes of the 109th Senate of the United States.

Every estimator has its default settings except for those that a line names. Seconds are
processor time of one thread (``OMP_NUM_THREADS=1`` unless it is set), so other work on
the machine does not count. Data are in the folder of ``--shared``; what is absent is
left out, and the output says so. The figures are on the page :doc:`/which_loss`.
"""

import argparse
import os
import time
import warnings
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from bench_imputation import TOO_LARGE
from bench_mixed import rollcall
from bench_quality import _ml100k
from imputation_contestants import factors
from imputation_tables import SHARED_DATA, TABLES, hide_by, scaled_errors
from scipy.special import expit
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss, mean_poisson_deviance, roc_auc_score
from sparse_contestants import peer

import sklearn_mfgd
from sklearn_mfgd import MaskedGradientMF, MFImputer

SEEDS = 0, 1
N_PLANTED = 10  # planted tables with outliers
LEAST_COUNT = 1e-2  # of a predicted count: the deviance of zero is infinite
LEAST_PROBABILITY = 1e-3  # of either answer, for the same reason


def timed(function, *arguments):
    """What a function returns, and the seconds of processor time that it took."""
    start = time.process_time()
    result = function(*arguments)
    return result, time.process_time() - start


def root_mean_square(errors):
    return float(np.sqrt(np.mean(np.square(errors))))


def impute(X, **params):
    """Fill a table."""
    return MFImputer(keep_empty_features=True, **params).fit_transform(X)


def factorize(X, **params):
    """Fill a matrix with what its factors and biases predict."""
    model = MaskedGradientMF(**params)
    return model.inverse_transform(model.fit_transform(X))


# Outliers


def planted_outliers(kind, seed):
    """A table with outliers of a kind, its values without, and which are outliers."""
    rng = np.random.default_rng(seed)
    complete = rng.standard_normal((300, 3)) @ rng.standard_normal((3, 12))
    complete += 0.3 * rng.standard_normal(complete.shape)
    hidden = rng.uniform(size=complete.shape) < 0.2
    spoiled = np.zeros(complete.shape, bool)
    X = complete.copy()
    if kind == "two gross values":
        rows = np.flatnonzero(~hidden[:, 3])[:2]
        X[rows, 3], spoiled[rows, 3] = (1e4, -1e5), True
    elif kind == "1 % of values times 30":
        spoiled = rng.uniform(size=complete.shape) < 0.01
        X[spoiled] *= 30
    return np.where(hidden, np.nan, X), complete, hidden & ~spoiled


def outliers(shared):
    """Error of hidden values that are no outliers."""
    print(f"\nOutliers, 300 x 12 of rank 3: RMSE, mean of {N_PLANTED} seeds")
    fits = {
        "squared": {},
        "student_t": {"loss": "student_t"},
        "squared, rank 3, reg 1": {"rank": 3, "reg": 1.0},
        "huber, rank 3, reg 1": {"rank": 3, "reg": 1.0, "loss": "huber"},
    }
    kinds = "none", "two gross values", "1 % of values times 30"
    print(f"  {'':24s}" + "".join(f"{kind:>24s}" for kind in kinds) + f"{'s':>8s}")
    for name, params in fits.items():
        cells, spent = "", 0.0
        for kind in kinds:
            errors = []
            for seed in range(N_PLANTED):
                X, complete, scored = planted_outliers(kind, seed)
                filled, seconds = timed(partial(impute, **params), X)
                spent += seconds
                errors.append(root_mean_square((filled - complete)[scored]))
            cells += f"{np.mean(errors):24.4f}"
        print(f"  {name:24s}{cells}{spent / len(kinds) / N_PLANTED:8.2f}", flush=True)


# Tables without outliers, or with those that tables have


def clean(shared, tables=TABLES):
    """Errors of student_t by those of squared error."""
    print("\nTables of bench_imputation.py, MCAR, seed 0, in column deviations")
    heads = "".join(f"{head:>9s}" for head in ("RMSE", "MAE", "s") * 2)
    print(f"  {'':26s}{'squared':>27s}{'student_t':>27s}{'ratios of':>18s}")
    print(f"  {'':26s}{heads}{'RMSE':>9s}{'MAE':>9s}")
    for name in tables:
        if name in TOO_LARGE:
            continue
        try:
            complete = TABLES[name](shared)
        except OSError as error:
            print(f"  {name}: left out, {error}")
            continue
        X, hidden = hide_by("MCAR", complete, 0)
        found, cells = [], ""
        for loss in ("squared", "student_t"):
            filled, seconds = timed(factors(loss=loss).fit_transform, X)
            errors = scaled_errors(filled, complete, hidden)
            found.append([root_mean_square(errors), np.abs(errors).mean()])
            cells += f"{found[-1][0]:9.4f}{found[-1][1]:9.4f}{seconds:9.1f}"
        ratios = "".join(f"{ratio:9.3f}" for ratio in np.divide(found[1], found[0]))
        print(f"  {name:26s}{cells}{ratios}", flush=True)


# Ratings


def ratings(shared):
    """Error of ratings that were not shown."""
    print("\nMovieLens 100K, 5 folds: RMSE of each and their mean, seconds of a fit")
    try:
        folds = _ml100k(shared)
    except OSError as error:
        print(f"  left out, {error}")
        return
    for loss in ("squared", "student_t"):
        errors, spent = [], []
        for data in folds:
            model = MaskedGradientMF(loss=loss)
            Z, seconds = timed(model.fit_transform, data.X)
            errors.append(data.rmse(partial(model.predict_entries, Z)))
            spent.append(seconds)
        cells = " ".join(f"{error:.4f}" for error in errors)
        print(f"  {loss:12s}{cells}   {np.mean(errors):.4f}", end="")
        print(f" {np.mean(spent):8.1f} s", flush=True)


# Counts


def planted_counts(shared, seed):
    rng = np.random.default_rng([seed, 2])
    logs = 0.6 * rng.standard_normal((400, 3)) @ (
        0.6 * rng.standard_normal((3, 30))
    ) + 0.5 * rng.standard_normal(30)
    return rng.poisson(np.exp(logs)).astype(float)


def digits(shared, seed):
    return load_digits().data


def of_plays(shared, seed):
    """Users by the 300 artists with most listeners; not listened to is missing."""
    path = shared / "lastfm-hetrec2k" / "user_artists.dat"
    users, artists, counts = np.loadtxt(path, skiprows=1, dtype=np.int64).T
    listeners = np.bincount(artists)
    popular = np.argsort(-listeners, kind="stable")[:300]
    place = np.full(len(listeners), -1)
    place[popular] = np.arange(300)
    chosen = place[artists] >= 0
    table = np.full((users.max() + 1, 300), np.nan)
    table[users[chosen], place[artists[chosen]]] = counts[chosen]
    return table[(~np.isnan(table)).sum(axis=1) >= 10]


COUNTS = {"planted": planted_counts, "digits": digits}
PLAYS = {"Last.fm": of_plays}


def of_logarithms(fill, X):
    """Predict counts by the logarithms of one more."""
    return np.expm1(fill(np.log1p(X)))


def counts(shared, data=COUNTS):
    """Poisson deviance of hidden counts."""
    for name, read in data.items():
        print(
            f"\nCounts, {name}, 30 % hidden: mean Poisson deviance, two seeds", end=""
        )
        try:
            tables = [read(shared, seed) for seed in SEEDS]
        except OSError as error:
            print(f": left out, {error}")
            continue
        m, n = tables[0].shape
        print(f", {m} x {n}, {np.isnan(tables[0]).mean():.0%} missing")
        for kind, fill in (("MaskedGradientMF", factorize), ("MFImputer", impute)):
            if data is PLAYS and fill is impute:
                continue  # columns are artists: rows need a bias, too
            _compare_counts(
                tables,
                {
                    f"{kind}, squared": fill,
                    f"{kind}, squared of log1p": partial(of_logarithms, fill),
                    f"{kind}, poisson": partial(fill, loss="poisson"),
                },
            )


def _compare_counts(tables, fits):
    for name, fill in fits.items():
        found, spent = [], []
        for seed, complete in zip(SEEDS, tables, strict=True):
            X, hidden = hide(complete, 0.3, seed)
            filled, seconds = timed(fill, X)
            predicted = np.maximum(filled[hidden], LEAST_COUNT)
            found.append(mean_poisson_deviance(complete[hidden], predicted))
            spent.append(seconds)
        cells = " ".join(f"{deviance:10.4f}" for deviance in found)
        print(f"  {name:36s}{cells} {np.mean(spent):8.1f} s", flush=True)


def hide(complete, share, seed):
    """The table with a share of its observed entries hidden, and which."""
    rng = np.random.default_rng([seed, 1])
    hidden = ~np.isnan(complete) & (rng.uniform(size=complete.shape) < share)
    return np.where(hidden, np.nan, complete), hidden


# Yes or no


class PlantedAnswers:
    """Answers whose logits have about a given standard deviation."""

    def __init__(self, deviation):
        self.deviation = deviation

    def probabilities(self, seed):
        rng = np.random.default_rng([seed, 3])
        logits = rng.standard_normal((500, 3)) @ rng.standard_normal((3, 40))
        return expit(self.deviation / np.sqrt(3) * logits)

    def __call__(self, shared, seed):
        known = self.probabilities(seed)
        rng = np.random.default_rng([seed, 4])
        return (rng.uniform(size=known.shape) < known).astype(float)


def votes(shared, seed):
    """Yea is 1, nay 0; votes on which all agreed have nothing to predict."""
    frame = rollcall(shared, seed).apply(lambda column: column.cat.codes)
    table = np.where(frame < 0, np.nan, frame)
    return table[:, np.nanmin(table, axis=0) < np.nanmax(table, axis=0)]


ANSWERS = {
    "planted, logits of deviation 2": PlantedAnswers(2),
    "planted, logits of deviation 4": PlantedAnswers(4),
    "votes": votes,
}


def copula(X, n_draws=50):
    """Probabilities by gcimpute: means over samples of the posterior."""
    # Its version 0.0.4 calls this function by the name it had before NumPy 2.
    setattr(np, "round_", np.round)  # noqa: B010
    from gcimpute.gaussian_copula import GaussianCopula

    varies = np.nanmin(X, axis=0) < np.nanmax(X, axis=0)
    model = GaussianCopula()
    model.fit(X[:, varies])
    samples = model.sample_imputation(X[:, varies], num=n_draws)
    filled = np.where(np.isnan(X), np.nanmean(X, axis=0), X)
    filled[:, varies] = samples.mean(axis=2)
    return filled


def yes_no(shared):
    """Log loss and area under the ROC curve of hidden answers."""
    fits = {}
    for name, fill in (("MFImputer", impute), ("MaskedGradientMF", factorize)):
        fits[f"{name}, squared"] = fill
        fits[f"{name}, squared, shared noise"] = partial(fill, noise="shared")
        fits[f"{name}, logistic"] = partial(fill, loss="logistic")
    if peer("gcimpute"):
        fits["gcimpute"] = copula
    for name, read in ANSWERS.items():
        print(f"\nYes or no, {name}, 20 % hidden", end="")
        try:
            tables = [read(shared, seed) for seed in SEEDS]
        except OSError as error:
            print(f": left out, {error}")
            continue
        m, n = tables[0].shape
        print(f", {m} x {n}, means of two seeds")
        print(f"  {'':36s}{'log loss':>10s}{'AUC':>10s}{'s':>8s}")
        if isinstance(read, PlantedAnswers):
            known = _describe_answers(tables, read.probabilities, by_seed=True)
            print(f"  {'the true probabilities':36s}{known}")
        for label, fill in fits.items():
            print(f"  {label:36s}{_describe_answers(tables, fill)}", flush=True)


def _describe_answers(tables, fill, *, by_seed=False):
    """One line: means over seeds, or why there are none."""
    found = []
    for seed, complete in zip(SEEDS, tables, strict=True):
        X, hidden = hide(complete, 0.2, seed)
        try:
            # gcimpute turns the warnings of all packages into errors.
            with warnings.catch_warnings(action="ignore"):
                filled, seconds = timed(fill, seed if by_seed else X)
        except Exception as error:  # peers fail in many ways
            return f"failed: {str(error)[:60]}"
        p = np.clip(filled[hidden], LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
        x = complete[hidden]
        found.append((log_loss(x, p), roc_auc_score(x, filled[hidden]), seconds))
    loss, area, seconds = np.mean(found, axis=0)
    return f"{loss:10.4f}{area:10.4f}{seconds:8.1f}"


PARTS = {
    "outliers": outliers,
    "clean": clean,
    "ratings": ratings,
    "counts": counts,
    "plays": partial(counts, data=PLAYS),
    "yes_no": yes_no,
}

if __name__ == "__main__":
    warnings.simplefilter("ignore", ConvergenceWarning)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=[*TABLES])
    parser.add_argument("--shared", type=Path, default=SHARED_DATA)
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    sklearn_mfgd.show_versions()
    PARTS["clean"] = partial(clean, tables=arguments.tables)
    for part in arguments.parts or PARTS:
        PARTS[part](arguments.shared)
