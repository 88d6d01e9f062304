"""More data than memory: Dask, out of core, and Spark's ALS.

Run ``python doc/benchmarks/bench_scale.py`` with one of these, each of which prints a
table and has options of its own (``--help``):

``sweep``
    Seconds of a sweep over 10 million entries at rank 32: two threads in one process,
    Dask's threads, and a cluster of two processes with one thread each.
``outofcore``
    A fit under a limit of memory, in one process that holds all entries, which has to
    fail, and by Dask from blocks on disk.
``memory``
    Peak memory and time of a fit that holds all entries in one process.
``spark``
    Spark's ALS on MovieLens 1M, and the default fit in the same run.
``plan``
    What a sweep over a thousand million entries would take on 16 workers. This is a
    calculation from rates that it measures on this machine.
``write``
    Only write synthetic ratings into a folder.

The ratings are written into a temporary folder, which takes 8 bytes an entry, and are
removed in the end, unless ``--folder`` names one to keep. Contestants take turns, times
are medians, and ratios are of one run. Run it on two cores that do nothing else.

How memory is limited
---------------------
By ``RLIMIT_DATA``, which counts the private writable memory of a process, whether it
was touched or not: what only swapping could take away from it. So it is stricter than
RssAnon: BLAS and threads reserve some 200 MiB that they never touch. It does not count
pages of blocks that are mapped from disk, since the kernel drops these where memory is
short, as it also does within the limit of a container. ``RLIMIT_AS`` would count the
addresses of whole files as memory, of which most is not there. Printed are both the
largest resident size, pages of mapped files included (VmHWM), and the largest size of
private memory (RssAnon), which a second process reads every 10 milliseconds.
"""

import argparse
import contextlib
import importlib.metadata
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from scale_blocks import (
    NOISE,
    delayed_blocks,
    load_block,
    load_held_out,
    load_together,
    write_ratings,
)
from scale_plan import Cluster, planned_als, planned_auto
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sparse_contestants import N_THREADS, movielens, peer, rmse, threads

import sklearn_mfgd
from sklearn_mfgd import MaskedGradientMF

warnings.simplefilter("ignore", ConvergenceWarning)  # fixed numbers of sweeps

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
MIB = 2**20
GB = 1e9

# Fits, and what is measured of them


class SweepClock(io.TextIOBase):
    """Stands in for the output, and notes when ``verbose=1`` reports each sweep."""

    def __init__(self, clock):
        self.clock, self.times = clock, []

    def write(self, text):
        if text.startswith("Sweep"):
            self.times.append(self.clock())
        return len(text)

    @property
    def seconds(self):
        """Of each sweep but the first, before which the fit makes itself ready."""
        return np.diff(self.times)


def clocked_fit(model, X, clock=time.perf_counter):
    """Fit, and return the seconds of each sweep but the first."""
    clock = SweepClock(clock)
    with contextlib.redirect_stdout(clock):
        model.set_params(verbose=1).fit(X)
    return clock.seconds


def settings(reg, rank, n_sweeps):
    """Parameters of a fit of exactly so many sweeps."""
    return dict(rank=rank, reg=reg, max_iter=n_sweeps, tol=0, random_state=0)


def on_dask(client=None, **parameters):
    """The estimator that takes delayed blocks."""
    from sklearn_mfgd.dask import MaskedGradientMF as DaskMaskedGradientMF

    return DaskMaskedGradientMF(client=client, **parameters)


def held_out_error(model, ratings):
    """Root mean squared error of held-out entries; one block in memory at a time."""
    total, count = 0.0, 0
    for number in range(ratings.n_blocks):
        rows, columns, values = load_held_out(ratings, number)
        X = load_block(ratings.folder, number, ratings.n_columns)
        predicted = model.predict_entries(model.transform(X), rows, columns)
        total += float(np.sum((predicted - values) ** 2, dtype=float))
        count += len(values)
    return np.sqrt(total / count)


def status(name, process="self"):
    """A size in the status of a process, in bytes; 0 once it has ended. Linux only."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    for line in lines:
        if line.startswith(name + ":"):
            return 1024 * int(line.split()[1])
    return 0


def in_a_process(task, **arguments):
    """Run a function of `TASKS` in a fresh process: its result, and largest RssAnon."""
    command = [sys.executable, __file__, "_task", task, json.dumps(arguments)]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        largest = 0
        while process.poll() is None:
            largest = max(largest, status("RssAnon", process.pid))
            time.sleep(0.01)
        printed = process.stdout.read()
        errors.seek(0)
        last = (errors.read().strip().splitlines() or ["no message"])[-1]
        if "MemoryError" in printed:
            print(last)
    if process.returncode:
        return {"failed": f"exit code {process.returncode}, {last}"}, largest
    return json.loads(printed.splitlines()[-1]), largest


@contextlib.contextmanager
def ratings_on_disk(options, millions):
    """Synthetic ratings, in a temporary folder unless another one is named."""
    with contextlib.ExitStack() as stack:
        folder = options.folder
        if folder is None:
            name = f"bench_scale_{millions}_"
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=name))
        yield write_ratings(folder, millions)


def table(head, rows):
    """Print a simple table of reStructuredText."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    print(f"\n{rule}")
    for number, row in enumerate([head, *rows]):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
        if number in (0, len(rows)):
            print(rule)
    print(flush=True)


# sweep


def sweep(options):
    """Seconds of a sweep in one process, on Dask's threads and on two processes."""
    print(f"\nSeconds of a sweep, rank {options.rank}, reg={options.reg}")
    with ratings_on_disk(options, options.entries) as ratings:
        seconds, components = _sweep_by_turns(options, ratings)
    (local_name, local), *_ = components.items()
    first = np.median(seconds[local_name])
    rows = []
    for name, found in components.items():
        median = np.median(seconds[name])
        share = np.abs(found - local).max() / np.abs(local).max()
        same = "same bits" if np.array_equal(found, local) else f"{share:.1e}"
        rows.append([name, f"{median:.3f}", f"{median / first:.2f}", same])
    table(["", "seconds", "ratio", "difference of H"], rows)


def _sweep_by_turns(options, ratings):
    parameters = settings(options.reg, options.rank, options.sweeps)
    X = load_together(ratings)
    contestants = {"one process, two threads": (MaskedGradientMF(**parameters), X)}
    with contextlib.ExitStack() as stack:
        stack.enter_context(threads(N_THREADS))
        if peer("sklearn_mfgd.dask"):
            dask, distributed = peer("dask"), peer("distributed")
            where = {"temporary-directory": ratings.folder}
            stack.enter_context(dask.config.set(where, num_workers=N_THREADS))
            cluster = distributed.LocalCluster(
                n_workers=2,
                threads_per_worker=1,
                dashboard_address=":0",
                memory_limit="4GiB",
            )
            cluster = stack.enter_context(cluster)
            client = distributed.Client(cluster, set_as_default=False)
            client = stack.enter_context(client)
            blocks = delayed_blocks(ratings)
            for name, where in (
                ("Dask, two threads", None),
                ("Dask, two processes", client),
            ):
                contestants[name] = (on_dask(where, **parameters), blocks)
        seconds = {name: [] for name in contestants}
        for number in range(options.rounds):
            for name, (model, data) in contestants.items():
                found = clocked_fit(model, data)
                seconds[name].extend(found)
                second = f"{np.median(found):.3f}"
                print(f"  round {number + 1}: {name} {second}", flush=True)
        return seconds, {
            name: model.components_ for name, (model, _) in contestants.items()
        }


# outofcore


def outofcore(options):
    """A fit under a limit of memory: in one process, and by Dask from disk."""
    rank = options.rank or (16 if options.entries >= 100 else 32)
    print(
        f"\n{options.entries} million entries, rank {rank}, reg={options.reg}, "
        f"{options.sweeps} sweeps, RLIMIT_DATA {options.limit} MiB"
    )
    contestants = {"one process, in memory": "local", "Dask, out of core": "dask"}
    rows = []
    with ratings_on_disk(options, options.entries) as ratings:
        for name, kind in contestants.items():
            if options.only not in (None, kind):
                continue
            if kind == "dask" and not peer("sklearn_mfgd.dask"):
                continue
            result, private = in_a_process(
                "fit_under_limit",
                kind=kind,
                ratings=ratings._asdict(),
                parameters=settings(options.reg, rank, options.sweeps),
                limit=options.limit,
            )
            rows.append([name, *_outcome(result, private)])
            print("  " + ", ".join(filter(None, rows[-1])), flush=True)
    head = ["", "outcome", "VmHWM, MiB", "RssAnon, MiB"]
    table([*head, "s a sweep", "s in all", "held-out RMSE"], rows)
    print(f"No model predicts these entries better than with an RMSE of {NOISE}.")


def _outcome(result, private):
    peaks = [f"{result.get('peak', 0) / MIB:,.0f}", f"{private / MIB:,.0f}"]
    if "failed" in result:
        return [result["failed"], *peaks, "", "", ""]
    times = [f"{np.median(result['seconds']):.2f}", f"{result['total']:.1f}"]
    return [f"{result['n_iter']} sweeps", *peaks, *times, f"{result['error']:.4f}"]


def fit_under_limit(kind, ratings, parameters, limit):
    """Fit in this process, which may have so many MiB of private memory."""
    if limit:
        resource.setrlimit(resource.RLIMIT_DATA, (limit * MIB, limit * MIB))
    result = {}
    start = time.perf_counter()
    try:
        if kind == "local":
            model = MaskedGradientMF(**parameters)
            seconds = clocked_fit(model, load_together(ratings))
        else:
            import dask

            model = on_dask(**parameters)
            where = {"temporary-directory": ratings.folder}
            with dask.config.set(where, num_workers=N_THREADS):
                seconds = clocked_fit(model, delayed_blocks(ratings))
        result["total"] = time.perf_counter() - start
        result["peak"] = status("VmHWM")  # of the fit
        local = model if kind == "local" else model.to_local()
        result["error"] = held_out_error(local, ratings)
        result |= {"seconds": seconds.tolist(), "n_iter": model.n_iter_}
    except MemoryError as error:
        result["failed"] = type(error).__name__
        result["peak"] = status("VmHWM")
        frames = traceback.extract_tb(error.__traceback__)
        places = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames[-4:]]
        print(f"  {error}; {' > '.join(places)}", file=sys.stderr)
    return result


# memory


def memory(options):
    """Peak memory and time of a fit in one process that holds all entries."""
    print(f"\nOne process with {N_THREADS} threads, rank {options.rank}")
    print(
        "  peak: resident memory beyond that before the fit, when X is already there,"
    )
    print("  and the same over the bytes of X as CSR")
    rows = []
    with ratings_on_disk(options, options.entries) as ratings:
        print(f"  {ratings}")
        for reg in (5.0, "auto"):
            result, _ = in_a_process(
                "fit_in_memory",
                ratings=ratings._asdict(),
                parameters=settings(reg, options.rank, options.sweeps),
            )
            if "failed" in result:
                raise SystemExit(result["failed"])
            units = result["grown"] / ratings.csr_bytes
            grown = [f"{result['grown'] / MIB:,.0f}", f"{units:.2f}"]
            second = f"{np.median(result['seconds']):.2f}"
            rows.append([f"reg={reg}", *grown, second, f"{result['total']:.1f}"])
    table(["", "peak, MiB", "peak over X", "s a sweep", "s in all"], rows)


def fit_in_memory(ratings, parameters):
    """Fit in this process; how far its largest size grows beyond that with X."""
    X = load_together(ratings)
    MaskedGradientMF(**parameters).fit(X[:200, :200])  # loads what is loaded once
    Path("/proc/self/clear_refs").write_text("5")  # the largest size starts anew
    before, start = status("VmRSS"), time.perf_counter()
    seconds = clocked_fit(MaskedGradientMF(**parameters), X)
    return {
        "total": time.perf_counter() - start,
        "grown": status("VmHWM") - before,
        "seconds": seconds.tolist(),
    }


# spark


def spark(options):
    """Spark's ALS on MovieLens 1M and the default fit, by turns."""
    print("\nMovieLens 1M 90/10: Spark's ALS, local[2], by a grid")
    data = movielens(options.shared)
    if data is None:
        return
    theirs = peer("scale_spark")
    if theirs is None:
        print("  pip install 'pyspark<4', and a JVM: Debian's openjdk-17-jre-headless")
        return
    with tempfile.TemporaryDirectory() as folder:
        session = theirs.spark_session(folder)
        try:
            rows = _spark_rows(options, theirs, session, data)
        finally:
            session.stop()
    table(["", "test RMSE", "seconds", "ratio"], rows)


def _spark_rows(options, theirs, session, data):
    triples = data[1]
    entries = (*(c.tolist() for c in triples.coords), triples.data.tolist())
    frame = session.createDataFrame(
        list(zip(*entries, strict=True)), "user int, item int, rating float"
    )
    frame = frame.repartition(2).cache()
    frame.count()  # it is lazy: now the data are with Spark
    fit = partial(theirs.spark_fit, frame, data)
    fit(4, 0.1, 2)  # the virtual machine compiles what it runs often
    found = []
    for rank, reg, n_sweeps in theirs.SPARK_GRID:
        error, seconds = fit(rank, reg, n_sweeps)
        found.append((error, seconds, (rank, reg, n_sweeps)))
        setting = f"rank {rank}, regParam {reg}, {n_sweeps:2d} sweeps"
        print(f"  {setting}: {error:.4f} in {seconds:.1f} s", flush=True)
    best, _, setting = min(found)
    few = min((s, e, how) for e, s, how in found if e <= best * 1.002)[2]
    target = fit(*setting)[0]
    n_enough = next(n for n in range(1, 200) if _our_fit(data, max_iter=n)[0] <= target)
    name = "Spark, rank {}, regParam {}, {} sweeps"
    contestants = {
        "ours, default": partial(_our_fit, data),
        f"ours, {n_enough} sweeps": partial(_our_fit, data, max_iter=n_enough),
        name.format(*setting): partial(fit, *setting),
        name.format(*few): partial(fit, *few),
    }
    results = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name, run in contestants.items():
            results[name].append(run())
    rows, first = [], None
    for name, runs in results.items():
        error, seconds = np.median(runs, axis=0)
        first = first or seconds
        rows.append([name, f"{error:.4f}", f"{seconds:.2f}", f"{seconds / first:.1f}"])
    return rows


def _our_fit(data, **parameters):
    """Test RMSE of our default fit, and its seconds."""
    X, _, (rows, columns, ratings) = data
    model = MaskedGradientMF(**parameters)
    with threads(N_THREADS):
        start = time.perf_counter()
        Z = model.fit_transform(X)
        seconds = time.perf_counter() - start
    return rmse(model.predict_entries(Z, rows, columns), ratings), seconds


# plan


def plan(options):
    """A sweep on a cluster that is not here, calculated from measured rates."""
    cluster = _measured(options)
    size = f"{cluster.n_rows:.0e} x {cluster.n_columns:.0e}, rank {cluster.rank}"
    print(f"\nA calculation: {cluster.n_entries:.0e} entries, {size},")
    print(
        f"{cluster.workers} workers. Each, and the client, has {cluster.cores} core(s),"
    )
    print(f"and {cluster.wire / GB:.2f} GB/s reach it over the network.")
    head = ["", "GB moved", "GB a worker", "GB client"]
    head += ["s rows", "s columns", "s network", "s a sweep"]
    rows = []
    for name, (moved, worker, client, *times) in {
        "reg=5": planned_als(cluster),
        'reg="auto"': planned_auto(cluster),
    }.items():
        sizes = (f"{n_bytes / GB:.1f}" for n_bytes in (moved, worker, client))
        rows.append([name, *sizes, *(f"{t:.1f}" for t in (*times, sum(times)))])
    table(head, rows)
    print("GB moved: over the network in one sweep. GB a worker, GB client: what each")
    print("holds, blocks included. Nothing overlaps here, and no worker is slower than")
    print("another.")


def _measured(options):
    """Rates of this machine, with as many entries a row and column as is planned."""
    rank, entry, column = options.rank, {}, {}
    with ratings_on_disk(options, options.entries) as ratings:
        X = load_together(ratings)
    with threads(1):
        for name, reg in (("als", 5.0), ("auto", "auto")):
            model = MaskedGradientMF(**settings(reg, rank, 4))
            seconds = np.median(clocked_fit(model, X, time.process_time))
            column[name] = _seconds_of_a_system(model)
            seconds -= ratings.n_columns * column[name]
            entry[name] = seconds / ratings.n_entries
            print(
                f"  measured, on one core: {name}, {1e9 * entry[name]:.0f} ns an entry,"
            )
            print(f"    {1e6 * column[name]:.1f} us a system of rank {model.rank_}")
    adding, wire = _rate_of_addition(), _rate_of_the_wire()
    print(f"  measured: sums are added at {adding / GB:.1f} GB/s")
    link = options.link / 8 * GB
    if wire is not None:
        print(f"  measured: from one process to another {wire / GB:.2f} GB/s")
        link = min(link, wire)
    given = options.planned_entries, options.rows, options.columns
    cluster = options.workers, options.cores, entry, column, adding, link
    return Cluster(*given, rank, *cluster)


def _seconds_of_a_system(model, n_rows=20_000):
    """Time in which one core solves a row that has a single entry."""
    rng = np.random.default_rng(0)
    columns = rng.integers(model.n_features_in_, size=n_rows).astype(np.int32)
    entries = np.full(n_rows, 4, np.float32), columns, np.arange(n_rows + 1)
    X = sparse.csr_array(entries, (n_rows, model.n_features_in_))
    learned = model.reg == "auto"
    times = []
    for _ in range(5):
        start = time.process_time()
        model.transform(X, return_cov=learned)
        times.append(time.process_time() - start)
    return np.median(times) / n_rows


def _rate_of_addition(n_numbers=16_000_000):
    """Bytes of float32 that are added to others in a second."""
    total, part = np.zeros(n_numbers, np.float32), np.ones(n_numbers, np.float32)
    times = []
    for _ in range(7):
        start = time.perf_counter()
        total += part
        times.append(time.perf_counter() - start)
    return part.nbytes / np.median(times)


def _rate_of_the_wire(n_numbers=16_000_000):
    """Bytes in a second from one worker process to another, or None without Dask."""
    distributed = peer("distributed")
    if distributed is None:
        return None
    times = []
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        one, other = client.scheduler_info(n_workers=-1)["workers"]
        for number in range(7):
            made = client.submit(
                np.full, n_numbers, np.float32(number), workers=one, pure=False
            )
            client.submit(len, made, workers=one, pure=False).result()
            start = time.perf_counter()
            client.submit(len, made, workers=other, pure=False).result()
            times.append(time.perf_counter() - start)
            del made
    return 4 * n_numbers / np.median(times)


def write(options):
    """Only write the ratings."""
    if options.folder is None:
        raise SystemExit("Name the folder to write to: --folder")
    with ratings_on_disk(options, options.entries) as ratings:
        print(f"  {ratings.folder}: {ratings}")


TASKS = {"fit_under_limit": fit_under_limit, "fit_in_memory": fit_in_memory}


def run_task(name, arguments):
    """What a process that `in_a_process` started does."""
    from scale_blocks import Ratings

    arguments = json.loads(arguments)
    arguments["ratings"] = Ratings(**arguments["ratings"])
    with threads(N_THREADS):
        print(json.dumps(TASKS[name](**arguments)))


def regularization(text):
    """Parse ``auto`` or a number."""
    return text if text == "auto" else float(text)


def parser():
    """The commands and their options."""
    top = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = top.add_subparsers(dest="command", required=True)
    for function in (sweep, outofcore, memory, spark, plan, write):
        command = commands.add_parser(
            function.__name__,
            help=function.__doc__,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        command.set_defaults(run=function)
        add = command.add_argument
        if function is not spark:
            many = 10 if function is sweep else 30
            text = "million synthetic entries"
            add("--entries", type=int, default=many, help=text)
            add("--folder", help="folder of the ratings, which is kept")
        if function in (sweep, outofcore):
            default = 5.0 if function is sweep else "auto"
            add("--reg", type=regularization, default=default, help="auto or a number")
        if function in (sweep, memory, plan):
            add("--rank", type=int, default=32, help="number of factors")
        if function in (sweep, outofcore, memory):
            add("--sweeps", type=int, default=5, help="sweeps of a fit")
        if function in (sweep, spark):
            add("--rounds", type=int, default=3, help="turns of all contestants")
    add = commands.choices["outofcore"].add_argument
    add("--limit", type=int, default=1200, help="of memory in MiB; 0 for none")
    text = "number of factors; 32, and 16 from 100 million entries on"
    add("--rank", type=int, help=text)
    add("--only", choices=("local", "dask"), help="only this contestant")
    add = commands.choices["spark"].add_argument
    default = os.environ.get("SKLEARN_MFGD_SHARED_DATA", SHARED_DATA)
    add("--shared", type=Path, default=default, help="folder of data")
    add = commands.choices["plan"].add_argument
    for name, kind, value in (
        ("planned-entries", float, 1e9),
        ("rows", float, 1e7),
        ("columns", float, 1e6),
        ("workers", int, 16),
        ("cores", int, 1),
        ("link", float, 10.0),
    ):
        add(f"--{name}", type=kind, default=value, help="of what is planned")
    return top


def main():
    if sys.argv[1:2] == ["_task"]:
        return run_task(*sys.argv[2:])
    options = parser().parse_args()
    sklearn_mfgd.show_versions()
    for package in ("dask", "distributed", "pyspark"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            print(f"{package:<13}  {importlib.metadata.version(package)}")
    options.run(options)


if __name__ == "__main__":
    main()
