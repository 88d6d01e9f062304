"""Accuracy of classifiers after imputation of real tables.

Run ``python doc/benchmarks/bench_downstream.py`` for all tables, or name some of them:
``python doc/benchmarks/bench_downstream.py msqr-mood``. Besides the holes that the
tables come with, 30 % of the observed entries are hidden, in training and test rows
alike. Five-fold stratified cross-validation; imputers see the training rows only and
no labels. Accuracy and area under the ROC curve are means over the folds and, after
+-, standard deviations over them; "fill" is the seconds of imputing all five folds,
"total" adds scaling and the classifier. Data are in the folder of ``--shared``; what
is absent is left out, and the output says so.

All have their defaults, save that IterativeImputer sweeps twice (``max_iter=2``) over
the 10 nearest features (to save time; its defaults
were not run) and that LogisticRegression may take 1000 steps.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_mfgd import MFImputer

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
HIDDEN = 0.3


def _communities(shared):
    """Is the rate of violent crimes (the last column) above its median?"""
    path = shared / "communities-crime" / "communities.data"
    table = np.genfromtxt(
        path, delimiter=",", missing_values="?", usecols=range(5, 128)
    )
    rate = table[:, -1]
    return table[:, :-1], (rate > np.median(rate)).astype(int)


def _mood(shared):
    """Is "active" above its median, given the others? 1,500 random answers."""
    with np.load(shared / "msqr-mood" / "msqR.npz") as file:
        table = file["X"].astype(float)
    table[table < 0] = np.nan
    table = table[~np.isnan(table[:, 0])]
    table = table[np.random.RandomState(0).permutation(len(table))[:1500]]
    return table[:, 1:], (table[:, 0] > np.median(table[:, 0])).astype(int)


TABLES = {"communities-crime": _communities, "msqr-mood": _mood}

IMPUTERS = {
    "MFImputer": lambda: MFImputer(keep_empty_features=True),
    "KNNImputer": lambda: KNNImputer(keep_empty_features=True),
    "IterativeImputer": lambda: IterativeImputer(
        max_iter=2, n_nearest_features=10, keep_empty_features=True, random_state=0
    ),
    "SimpleImputer": lambda: SimpleImputer(keep_empty_features=True),
    "none (native NaN)": None,
}

CLASSIFIERS = {
    "logistic": lambda: make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=1000)
    ),
    "boosting": lambda: make_pipeline(
        StandardScaler(), HistGradientBoostingClassifier(random_state=0)
    ),
}


def fill(imputer, train, test):
    """Both parts without holes, and the seconds it took."""
    start = time.perf_counter()
    if imputer is not None:
        train = imputer.fit_transform(train)
        test = imputer.transform(test)
    return train, test, time.perf_counter() - start


def compare(X, y, make_imputer):
    """Of each classifier, accuracy, area and seconds; a row for each fold."""
    names = ["boosting"] if make_imputer is None else list(CLASSIFIERS)
    rows = {name: [] for name in names}
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    for train, test in folds.split(X, y):
        imputer = make_imputer and make_imputer()
        X_train, X_test, filling = fill(imputer, X[train], X[test])
        for name in names:
            start = time.perf_counter()
            model = CLASSIFIERS[name]().fit(X_train, y[train])
            chance = model.predict_proba(X_test)[:, 1]
            seconds = filling + time.perf_counter() - start
            accuracy = np.mean((chance > 0.5) == y[test])
            area = roc_auc_score(y[test], chance)
            rows[name].append((accuracy, area, filling, seconds))
    return {name: np.array(row) for name, row in rows.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tables", nargs="*", help=", ".join(TABLES))
    parser.add_argument("--shared", type=Path, default=SHARED_DATA)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    for table in arguments.tables or TABLES:
        try:
            X, y = TABLES[table](arguments.shared)
        except FileNotFoundError as error:
            print(f"\n{table}: left out, {error}", flush=True)
            continue
        own = np.isnan(X).mean()
        X[np.random.RandomState(0).uniform(size=X.shape) < HIDDEN] = np.nan
        print(
            f"\n{table}: {X.shape[0]:,} x {X.shape[1]}, {own:.1%} missing, "
            f"{np.isnan(X).mean():.1%} after hiding; {y.mean():.1%} positive\n"
            f"  {'imputer':18s} {'classifier':10s} {'accuracy':>15s} "
            f"{'ROC AUC':>15s} {'fill':>8s} {'total':>8s}",
            flush=True,
        )
        for imputer, make_imputer in IMPUTERS.items():
            for classifier, rows in compare(X, y, make_imputer).items():
                mean, std, total = rows.mean(axis=0), rows.std(axis=0), rows.sum(axis=0)
                print(
                    f"  {imputer:18s} {classifier:10s} "
                    f"{mean[0]:.3f} +- {std[0]:.3f}  {mean[1]:.3f} +- {std[1]:.3f}"
                    f"  {total[2]:6.1f} s {total[3]:6.1f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
