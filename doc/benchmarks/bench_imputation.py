"""Error and time of imputers, defaults everywhere: tables times patterns times seeds.

Run ``python doc/benchmarks/bench_imputation.py``, or name what to run with
``--tables``, ``--patterns``, ``--seeds`` and ``--only``; ``--report`` prints the tables
of the page :doc:`/choosing_an_imputer` from what there is. A fifth of the observed
entries is hidden by each of three patterns:

MCAR
    every entry with the same probability;
MAR
    none of one column, and of the others more, the larger that column is in the row;
block
    half of the columns together, in two fifths of the rows.

Measured are the root mean square and the mean absolute value of the errors of the
hidden entries, in standard deviations of the columns, where constant columns are left
out; the seconds of processor time that ``fit_transform`` takes, for which other work on
the machine does not count; and of the imputers of this package the share of hidden
values inside their 95 % intervals. Contestants run one after the other, each in a
process of its own with one thread (``OMP_NUM_THREADS=1``), and are stopped after ten
minutes of processor time, or when they ask for more than 12 GB. Two rules save time:

* ``IterativeImputer`` first runs one of its ten rounds; if that takes more than a
  minute, it is marked as stopped, as all ten would take more than ten minutes;
* what was stopped once is not run on the other patterns and seeds of the same table.

Results are kept in the file of ``--results``, and what is there is not run again unless
``--again`` names the contestant. Data are in the folder of ``--shared``; what is absent
is left out, and the output says so. The peers are those of the extra ``bench``.
"""

import argparse
import inspect
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from itertools import product
from pathlib import Path

import numpy as np
from imputation_contestants import CONTESTANTS, FURTHER, IN_ROUNDS, OURS
from imputation_report import report
from imputation_tables import PATTERNS, SHARED_DATA, TABLES, hide_by, scaled_errors

PATIENCE = 600  # seconds
MEMORY = 12 * 2**30  # bytes: IterativeImputer keeps every model of every round
ROUNDS = 10  # of IterativeImputer, at most
SEEDS = 0, 1
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
STOPPED = f"over {PATIENCE} s"
# Of 4.6 million entries: the others take hours, or more memory than there is.
TOO_LARGE = {"beijing-air": ("mean", "MFImputer")}


# One contestant, in a process of its own


def interval(imputer, X):
    """Lower and upper limits within which 95 % of the missing values should be."""
    if "return_quantiles" in inspect.signature(imputer.impute).parameters:
        return imputer.impute(X, return_quantiles=(0.025, 0.975))[-1]
    filled, std = imputer.impute(X, return_std=True)
    return filled - 1.96 * std, filled + 1.96 * std


def stop_after(seconds):
    """Limit the processor time that this process takes from now on, and its memory."""
    limit = int(np.ceil(time.process_time() + seconds))
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def contest(name, folder, rounds=None):
    """Fill the table in a folder and write a record of how well that went."""
    warnings.simplefilter("ignore")
    X, complete, hidden = (
        np.load(folder / f"{kind}.npy") for kind in ("X", "complete", "hidden")
    )
    if rounds is None:
        imputer = CONTESTANTS[name]()
    else:
        imputer = IN_ROUNDS[name](max_iter=rounds)
    stop_after(PATIENCE if rounds is None else PATIENCE * rounds / ROUNDS)
    start = time.process_time()
    filled = imputer.fit_transform(X)
    record = {"seconds": time.process_time() - start}
    errors = scaled_errors(filled, complete, hidden)
    record["rmse"] = float(np.sqrt(np.mean(errors**2)))
    record["mae"] = float(np.abs(errors).mean())
    if not np.isfinite(record["rmse"]):
        raise ValueError("values are missing still, or not finite")
    if name in OURS:
        low, high = interval(imputer, X)
        within = (low <= complete) & (complete <= high)
        varies = np.nanstd(complete, axis=0) > 0
        record["coverage"] = float(within[hidden & varies].mean())
    (folder / "record.json").write_text(json.dumps(record))


def run(name, folder, rounds=None, script=__file__):
    """Return the record of one contestant, or a mark that says why there is none."""
    command = [sys.executable, script, "--contestant", name, "--folder", folder]
    if rounds is not None:
        command += ["--rounds", str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, env=ONE_THREAD)
    if done.returncode == -signal.SIGXCPU:
        return {"mark": STOPPED}
    if done.returncode:
        # A message may have lines of its own after the one that names the error.
        errors = re.findall(r"^\S*(?:Error|Warning)\b.*", done.stderr, re.MULTILINE)
        reason = errors[-1] if errors else f"exit code {done.returncode}"
        return {"mark": f"failed: {reason[:80]}"}
    return json.loads((folder / "record.json").read_text())


# Results: a record for each table, pattern, seed and contestant


class Results(dict):
    """Records by "table/pattern/seed/contestant", kept in a file."""

    def __init__(self, path):
        self.path = path
        super().__init__(self._read())

    def _read(self):
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    def keep(self, key, record):
        """Write one record."""
        self._replace(self._read() | {key: record})

    def forget(self, keys):
        """Leave out the records with these keys."""
        self._replace({k: v for k, v in self._read().items() if k not in keys})

    def _replace(self, records):
        """Write all records. They were just read, as another run may write to it."""
        self.clear()
        self.update(records)
        draft = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        draft.write_text(json.dumps(self, indent=1))
        draft.replace(self.path)

    def of_table(self, table, name):
        """Return the records of one contestant on one table."""
        return [
            record
            for key, record in self.items()
            if key.startswith(f"{table}/") and key.endswith(f"/{name}")
        ]


def measure(name, table, folder, results):
    """Run a contestant, unless it is known to take too long on this table."""
    if name not in TOO_LARGE.get(table, CONTESTANTS):
        return {"mark": "not run"}
    known = results.of_table(table, name)
    if any(record.get("mark") == STOPPED for record in known):
        return {"mark": STOPPED}
    if name in IN_ROUNDS and not known:
        first = run(name, folder, rounds=1)
        if "mark" in first:
            return first
    return run(name, folder)


def describe(record):
    """One line for the screen."""
    if "mark" in record:
        return record["mark"]
    text = f"{record['rmse']:.4f}  {record['mae']:.4f}  {record['seconds']:8.2f} s"
    if "coverage" in record:
        text += f"  {record['coverage']:.2f} covered"
    return text


def key_of(table, pattern, seed, name):
    return f"{table}/{pattern}/{seed}/{name}"


def run_pair(table, X, pattern, seed, names, results):
    """Run the contestants on a table whose entries are hidden by one pattern."""
    seen, hidden = hide_by(pattern, X, seed)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for kind, array in (("X", seen), ("complete", X), ("hidden", hidden)):
            np.save(folder / f"{kind}.npy", array)
        print(f"\n{table}, {pattern}, seed {seed}: {hidden.sum():,} hidden", flush=True)
        for name in names:
            key = key_of(table, pattern, seed, name)
            if key in results:
                continue
            record = measure(name, table, folder, results)
            results.keep(key, {**record, "shape": X.shape})
            print(f"  {name:25s} {describe(record)}", flush=True)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=[*TABLES])
    parser.add_argument("--patterns", nargs="+", choices=PATTERNS, default=[*PATTERNS])
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    names = [name for name in CONTESTANTS if name not in FURTHER]
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=names)
    parser.add_argument("--again", nargs="+", choices=CONTESTANTS, default=[])
    parser.add_argument("--results", type=Path, default=Path("imputation.json"))
    parser.add_argument("--report", action="store_true", help="print it, run nothing")
    parser.add_argument("--shared", type=Path, default=SHARED_DATA)
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    arguments = parse()
    if arguments.contestant:
        contest(arguments.contestant, arguments.folder, arguments.rounds)
        return
    results = Results(arguments.results)
    if arguments.report:
        print(report(results))
        return
    chosen = arguments.tables, arguments.patterns, arguments.seeds, arguments.again
    results.forget({key_of(*parts) for parts in product(*chosen)})
    for table in arguments.tables:
        try:
            X = TABLES[table](arguments.shared)
        except FileNotFoundError as error:
            print(f"\n{table}: left out, {error}", flush=True)
            continue
        for seed in arguments.seeds:
            for pattern in arguments.patterns:
                run_pair(table, X, pattern, seed, arguments.only, results)


if __name__ == "__main__":
    main()
