"""Error of imputers on tables with categories, defaults everywhere.

Run ``python doc/benchmarks/bench_mixed.py``, and name contestants with ``--only``. A
fifth of the observed entries is hidden, each with the same probability. The tables:

planted
    500 rows of four numeric, three binary and two ordered columns and one unordered
    column of five categories, which all depend on three normal factors, and on noise;
rollcall
    the votes of the 109th Senate of the United States, yea or nay, of 102 people.

Printed are the share of hidden categories that are not found, by the kind of column,
the root mean square of the errors of numeric columns, in their standard deviations, and
the seconds of processor time, averaged over the seeds. Columns with a single value are
left out of errors. Some peers take numbers only: they see the code of a category, and
what they impute is rounded to the nearest code. Contestants run and are stopped as in
``bench_imputation.py``. The figures are on the page :doc:`/choosing_an_imputer`.
"""

import argparse
import json
import pickle
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from bench_imputation import PATIENCE, ROUNDS, run, stop_after
from imputation_contestants import (
    Copula,
    factors,
    iterative,
    iterative_trees,
    simple,
    stack,
)
from imputation_tables import SHARE, SHARED_DATA

SEEDS = 0, 1
LEVELS = ["never", "rarely", "sometimes", "often", "always"]
KINDS = "binary", "ordered", "unordered"


# Tables: data frames with pandas categories


def planted(shared, seed):
    """Columns of several kinds that depend on the same three factors."""
    m, r = 500, 3
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((m, r))

    def scores(n, noise):
        return latent @ rng.standard_normal((r, n)) + noise

    numeric = scores(4, 0.5 * rng.standard_normal((m, 4)))
    columns = {f"amount {j}": numeric[:, j] for j in range(4)}
    yes = scores(3, 0.5 * rng.standard_normal((m, 3))) > rng.uniform(-0.5, 0.5, 3)
    for j in range(3):
        columns[f"answer {j}"] = pd.Categorical.from_codes(yes[:, j] * 1, ["no", "yes"])
    level = scores(2, 0.5 * rng.standard_normal((m, 2)))
    limits = np.quantile(level, [0.1, 0.35, 0.6, 0.85], axis=0)
    for j in range(2):
        codes = np.searchsorted(limits[:, j], level[:, j])
        columns[f"how often {j}"] = pd.Categorical.from_codes(codes, LEVELS, True)
    # The most useful of five kinds, whose utilities have Gumbel noise: a logit model.
    kind = scores(5, 0.5 * rng.gumbel(size=(m, 5))).argmax(axis=1)
    columns["kind"] = pd.Categorical.from_codes(kind, [*"abcde"])
    return pd.DataFrame(columns)


def rollcall(shared, seed):
    """Votes; who was absent, or was not a member then, has a missing value."""
    with np.load(shared / "rollcall-s109" / "s109.npz") as file:
        codes = file["codes"]
    vote = np.select(
        [(codes >= 1) & (codes <= 3), (codes >= 4) & (codes <= 6)], [1, 0], -1
    )
    return pd.DataFrame(
        {
            f"vote {j}": pd.Categorical.from_codes(vote[:, j], ["nay", "yea"])
            for j in range(vote.shape[1])
        }
    )


TABLES = {"planted": planted, "rollcall": rollcall}


def kind_of(column):
    """Return what kind of column it is; None for one that has a single value."""
    if column.nunique() < 2:
        return None
    if not isinstance(column.dtype, pd.CategoricalDtype):
        return "numeric"
    if len(column.cat.categories) == 2:
        return "binary"
    return "ordered" if column.cat.ordered else "unordered"


# Contestants: objects with a fit_transform of data frames


class Codes:
    """An imputer of numbers, for categories: by their codes, rounded to the nearest."""

    def __init__(self, imputer):
        self.imputer = imputer

    def fit_transform(self, frame):
        codes = pd.DataFrame(index=frame.index, columns=frame.columns, dtype=float)
        for name, column in frame.items():
            categorical = isinstance(column.dtype, pd.CategoricalDtype)
            codes[name] = column.cat.codes if categorical else column
        codes = codes.mask(frame.isna())
        filled = self.imputer.fit_transform(codes.to_numpy())
        return decode(filled, frame)


def decode(filled, frame):
    """Return a frame like another, with the categories whose codes are nearest."""
    columns = {}
    for values, (name, column) in zip(filled.T, frame.items(), strict=True):
        if isinstance(column.dtype, pd.CategoricalDtype):
            last = len(column.cat.categories) - 1
            nearest = np.rint(values).clip(0, last).astype(int)
            values = pd.Categorical.from_codes(nearest, dtype=column.dtype)
        columns[name] = values
    return pd.DataFrame(columns, index=frame.index)


class MostFrequent:
    """The most frequent category, and the mean of a numeric column."""

    def fit_transform(self, frame):
        common = {
            name: column.mean() if kind_of(column) == "numeric" else column.mode()[0]
            for name, column in frame.items()
        }
        return frame.fillna(common)


class MiceForest:
    """Five rounds of miceforest, which has classifiers for categories."""

    def fit_transform(self, frame):
        from miceforest import ImputationKernel

        kernel = ImputationKernel(frame, random_state=0)
        kernel.mice(5)
        return kernel.complete_data()


def _forest(**options):
    from sklearn.ensemble import RandomForestRegressor

    return iterative(estimator=RandomForestRegressor(random_state=0), **options)


CONTESTANTS = {
    "most frequent": MostFrequent,
    "mean of codes": lambda: Codes(simple()),
    "Iterative": lambda: Codes(iterative()),
    "Iterative, trees": lambda: Codes(iterative_trees()),
    "Iterative, forest": lambda: Codes(_forest()),
    "miceforest": MiceForest,
    "gcimpute": lambda: Codes(Copula()),
    # It has no default rank. The copula above fails with more columns than rows.
    "gcimpute, rank 5": lambda: Codes(Copula(5)),
    "MFImputer": factors,
    "MFImputer, shared noise": lambda: factors(noise="shared"),
    "MFImputer, marginals": lambda: factors(marginal="auto", random_state=0),
    "StackingImputer": stack,
}
IN_ROUNDS = {
    "Iterative": iterative,
    "Iterative, trees": iterative_trees,
    "Iterative, forest": _forest,
}


# One contestant, in a process of its own


def score(filled, complete, hidden):
    """Share of categories that are not found, by kind, and error of numeric columns."""
    wrong, squares = {}, []
    for name, column in complete.items():
        rows, kind = hidden[name], kind_of(column)
        if kind == "numeric":
            errors = (filled[name] - column)[rows] / column.std(ddof=0)
            squares.append(errors**2)
        elif kind is not None:
            missed = filled[name][rows].astype(object) != column[rows].astype(object)
            wrong.setdefault(kind, []).append(missed)
    record = {kind: float(np.concatenate(w).mean()) for kind, w in wrong.items()}
    every = [w for ws in wrong.values() for w in ws]
    record["categories"] = float(np.concatenate(every).mean())
    if squares:
        record["numeric"] = float(np.sqrt(np.concatenate(squares).mean()))
    return record


def contest(name, folder, rounds=None):
    """Fill the table in a folder and write a record of how well that went."""
    warnings.simplefilter("ignore")
    complete, hidden = pickle.loads((folder / "table.pickle").read_bytes())
    if rounds is None:
        imputer = CONTESTANTS[name]()
    else:
        imputer = Codes(IN_ROUNDS[name](max_iter=rounds))
    stop_after(PATIENCE if rounds is None else PATIENCE * rounds / ROUNDS)
    start = time.process_time()
    filled = imputer.fit_transform(complete.mask(hidden))
    seconds = time.process_time() - start
    if filled.isna().any(axis=None):
        raise ValueError("values are missing still")
    record = {**score(filled, complete, hidden), "seconds": seconds}
    (folder / "record.json").write_text(json.dumps(record))


def describe(records):
    """One line: means over seeds, or the mark of what was stopped or failed."""
    marks = [record["mark"] for record in records if "mark" in record]
    if marks:
        return marks[0]
    cells = []
    for field in (*KINDS, "categories", "numeric", "seconds"):
        values = [record[field] for record in records if field in record]
        form = ".1f" if field == "seconds" else ".3f"
        cells.append(f"{np.mean(values):{form}}" if values else "-")
    return "".join(f"{cell:>12s}" for cell in cells)


def measure(name, folder):
    """Run one contestant; the first of ten rounds tells what takes too long."""
    if name in IN_ROUNDS:
        first = run(name, folder, rounds=1, script=__file__)
        if "mark" in first:
            return first
    return run(name, folder, script=__file__)


def compare(table, shared, names):
    """Print how well contestants fill one table."""
    with tempfile.TemporaryDirectory() as folder:
        folders = [Path(folder) / str(seed) for seed in SEEDS]
        for seed, place in zip(SEEDS, folders, strict=True):
            place.mkdir()
            complete = TABLES[table](shared, seed)
            rng = np.random.default_rng([seed, 1])
            hidden = complete.notna() & (rng.uniform(size=complete.shape) < SHARE)
            place.joinpath("table.pickle").write_bytes(pickle.dumps((complete, hidden)))
        heads = (*KINDS, "categories", "numeric", "seconds")
        m, n = complete.shape
        label = f"{table}, {m} x {n}"
        print(f"\n{label:25s}" + "".join(f"{h:>12s}" for h in heads), flush=True)
        for name in names:
            records = [measure(name, place) for place in folders]
            print(f"{name:25s}{describe(records)}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=[*TABLES])
    parser.add_argument(
        "--only", nargs="+", choices=CONTESTANTS, default=[*CONTESTANTS]
    )
    parser.add_argument("--shared", type=Path, default=SHARED_DATA)
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant:
        contest(arguments.contestant, arguments.folder, arguments.rounds)
        return
    for table in arguments.tables:
        try:
            compare(table, arguments.shared, arguments.only)
        except FileNotFoundError as error:
            print(f"\n{table}: left out, {error}", flush=True)


if __name__ == "__main__":
    main()
