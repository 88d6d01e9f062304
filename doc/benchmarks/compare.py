"""Compare the time of two commands, or of one command with two versions of the package.

The commands take turns, in random order within each round, so that whatever else the
machine does affects both. After one round of warm-up the script prints the median of
each, and the ratio of the medians with an interval of 95 %, from a bootstrap over
rounds. Where that interval contains 1, no difference was found.

Two commands, each quoted as one argument::

    python doc/benchmarks/compare.py "python -c 'import sklearn_mfgd'" \\
        "python -c 'import sklearn'"

One command with two versions, each installed, kernels included, into a folder of its
own that comes first on ``PYTHONPATH``::

    git worktree add ../main main
    pip install --no-deps --target ../before ../main
    pip install --no-deps --target ../after .
    python doc/benchmarks/compare.py --pythonpath ../before ../after \\
        "python -c 'import sklearn_mfgd'"

The time is that of the whole process, imports included. With ``--printed`` it is the
last number that the command prints, so that the command decides what is timed::

    python doc/benchmarks/compare.py --printed --pythonpath ../before ../after \\
        "python -c '
    import time
    from sklearn_mfgd import MFImputer
    from sklearn_mfgd.datasets import load_beijing_air
    X = load_beijing_air().data[:1000]
    start = time.perf_counter()
    MFImputer().fit(X)
    print(time.perf_counter() - start)'"
"""

import argparse
import os
import shlex
import subprocess
import sys
import time

import numpy as np


def seconds_of(command, environment, printed):
    """Run a command once and return its time in seconds."""
    start = time.perf_counter()
    run = subprocess.run(
        shlex.split(command), env=environment, stdout=subprocess.PIPE, text=True
    )
    elapsed = time.perf_counter() - start
    if run.returncode:
        sys.exit(f"{command!r} failed with exit code {run.returncode}")
    return float(run.stdout.split()[-1]) if printed else elapsed


def interleaved_seconds(contestants, n_rounds, printed, rng):
    """Time all contestants in each round; an array of shape (n_rounds, 2)."""
    seconds = np.empty((n_rounds + 1, len(contestants)))
    for times in seconds:
        for k in rng.permutation(len(contestants)):
            times[k] = seconds_of(*contestants[k], printed)
    return seconds[1:]  # the first round warms up caches


def ratio_interval(seconds, rng, level=0.95, n_resamples=10_000):
    """Interval of the ratio of medians, second to first, by a bootstrap over rounds."""
    n_rounds = len(seconds)
    resampled = seconds[rng.integers(n_rounds, size=(n_resamples, n_rounds))]
    first, second = np.median(resampled, axis=1).T
    return np.quantile(second / first, [(1 - level) / 2, (1 + level) / 2])


def contestants_of(arguments):
    """Pairs of a command and its environment."""
    if arguments.pythonpath is None:
        if len(arguments.commands) != 2:
            sys.exit("Pass two commands, or one command and --pythonpath BEFORE AFTER.")
        return [(command, dict(os.environ)) for command in arguments.commands]
    if len(arguments.commands) != 1:
        sys.exit("With --pythonpath pass one command.")
    return [
        (arguments.commands[0], os.environ | {"PYTHONPATH": os.path.abspath(folder)})
        for folder in arguments.pythonpath
    ]


def main():
    """Parse the command line, run the commands and print what they took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commands", nargs="+", metavar="COMMAND")
    parser.add_argument("--pythonpath", nargs=2, metavar=("BEFORE", "AFTER"))
    parser.add_argument("--printed", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    contestants = contestants_of(arguments)
    rng = np.random.default_rng(0)
    seconds = interleaved_seconds(contestants, arguments.rounds, arguments.printed, rng)
    medians = np.median(seconds, axis=0)
    for name, taken, median in zip(
        arguments.pythonpath or arguments.commands, seconds.T, medians, strict=True
    ):
        print(f"{median:8.3f} s  (from {taken.min():.3f} to {taken.max():.3f})  {name}")
    low, high = ratio_interval(seconds, rng)
    print(
        f"ratio, second to first: {medians[1] / medians[0]:.3f} ({low:.3f}-{high:.3f})"
    )


if __name__ == "__main__":
    main()
