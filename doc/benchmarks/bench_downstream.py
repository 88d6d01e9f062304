"""Classification after imputation, on real tables with labels.

Run ``python doc/benchmarks/bench_downstream.py`` for both tables, or name one; choose
``--contestants`` to leave out the slow ones. Five stratified folds: an imputer is
fitted to the training rows, without labels, and fills both parts; then a logistic
regression and gradient-boosted trees are fitted, with default settings. "no imputer"
are trees that handle missing values themselves. Each table is taken as it is, and with
a further 30 % of its entries hidden, in training and test rows, or with the shares of
``--shares``. Printed are areas under the ROC curve, and how they differ from that of
the first contestant, with standard errors over the folds; as folds share training rows,
these are rather too small. Data are in the folder of ``--shared``; what is absent is
left out, and the output says so.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from imputation_contestants import factors, iterative, neighbours, simple
from imputation_tables import SHARED_DATA, TABLES, hide
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

NATIVE = "no imputer"
IMPUTERS = {
    "MFImputer": factors,
    "SimpleImputer": simple,
    "KNNImputer": neighbours,
    "IterativeImputer": iterative,
    "IterativeImputer, 10 nearest": lambda: iterative(n_nearest_features=10),
}
HAPPY = 32  # the item "happy" of the mood questionnaire, 0 to 3


def _violent(shared):
    """Whether a community has more violent crime than half of them."""
    table = TABLES["communities-crime"](shared)
    crime = table[:, -1]
    return table[:, :-1], crime > np.median(crime)


def _happy(shared):
    """Whether someone feels at least moderately happy, from the other moods."""
    table = TABLES["msqr-mood"](shared)
    table = table[~np.isnan(table[:, HAPPY])]
    return np.delete(table, HAPPY, axis=1), table[:, HAPPY] >= 2


LABELLED = {"communities-crime": _violent, "msqr-mood": _happy}


def classifiers():
    """The classifiers that follow, by the heading of their column."""
    return {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        "trees": HistGradientBoostingClassifier(random_state=0),
    }


def contest(name, X, y):
    """Areas under the curve, fold by fold, of each classifier; seconds for a fold."""
    areas, seconds = {}, 0.0
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    for train, test in folds.split(X, y):
        parts = X[train], X[test]
        models = classifiers()
        if name == NATIVE:
            del models["logistic"]
        else:
            imputer = IMPUTERS[name]()
            start = time.perf_counter()
            parts = imputer.fit_transform(parts[0]), imputer.transform(parts[1])
            seconds += (time.perf_counter() - start) / folds.n_splits
        for heading, model in models.items():
            model.fit(parts[0], y[train])
            area = roc_auc_score(y[test], model.predict_proba(parts[1])[:, 1])
            areas.setdefault(heading, []).append(area)
    return areas, seconds


def describe(areas, reference):
    """The mean over folds, and how it differs from that of the reference."""
    if areas is None:
        return f"{'-':>24s}"
    text = f"{np.mean(areas):.4f}"
    if reference is None or reference is areas:
        return f"{text:24s}"
    differences = np.subtract(areas, reference)
    error = np.std(differences, ddof=1) / np.sqrt(len(differences))
    return f"{text} ({differences.mean():+.4f} ± {error:.4f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tables", nargs="*", help=", ".join(LABELLED))
    parser.add_argument("--shared", type=Path, default=SHARED_DATA)
    names = [*IMPUTERS, NATIVE]
    parser.add_argument("--contestants", nargs="+", choices=names, default=names)
    parser.add_argument("--shares", nargs="+", type=float, default=[0.0, 0.3])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    for table in arguments.tables or LABELLED:
        try:
            X, y = LABELLED[table](arguments.shared)
        except FileNotFoundError as error:
            print(f"\n{table}: left out, {error}", flush=True)
            continue
        for share in arguments.shares:
            seen, _ = hide(X, share)
            print(
                f"\n{table}: {len(X):,} x {X.shape[1]}, {np.isnan(seen).mean():.0%} "
                f"missing ({share:.0%} hidden), {y.mean():.0%} positive\n"
                f"  {'':30s} {'s / fold':>8s}  {'logistic':24s}  trees",
                flush=True,
            )
            ours = {}
            for name in arguments.contestants:
                areas, seconds = contest(name, seen, y)
                ours = ours or areas
                texts = (
                    describe(areas.get(heading), ours.get(heading))
                    for heading in classifiers()
                )
                print(f"  {name:30s} {seconds:8.2f}  {'  '.join(texts)}", flush=True)


if __name__ == "__main__":
    main()
