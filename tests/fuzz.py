"""Fit random small, odd and dirty tables, and see whether what must hold does.

Run ``python tests/fuzz.py --cases 100000 --seed 0``. Each kind of failure is printed
once, with how often it was seen and a few lines of Python that show it, as small as
they came; then how every rule fared. The rules are in ``fuzzing/invariants.py``.
``tests/test_fuzz.py`` runs a slice of it.
"""

import argparse
import re
import sys
import textwrap
import time
from collections import Counter
from typing import NamedTuple

import numpy as np
from fuzzing.cases import DENSE, ESTIMATORS, Case, Study
from fuzzing.invariants import INVARIANTS, chosen, verdict
from fuzzing.strategies import cases
from hypothesis import HealthCheck, Phase, given, seed, settings

CHUNK = 1000  # hypothesis remembers all cases of a run
QUICKLY = settings(database=None, deadline=None, phases=[Phase.generate])
QUICKLY = settings(QUICKLY, suppress_health_check=list(HealthCheck))


class Finding(NamedTuple):
    """A kind of failure: the smallest case of it, and how often it was seen."""

    rule: str
    case: Case
    message: str
    count: int = 0


def kind_of(rule, case, message):
    """Failures of one kind are printed once: the rule, who broke it, roughly how."""
    words = re.sub(r"\[?[-+\d][\w.+\-]*\]?|array\(.*|:.*| inf| nan", "#", message)
    numbers = [value for value in case.params.values() if isinstance(value, float)]
    if case.given_factors:
        numbers += [np.abs(case.given_factors[0]).max(initial=0)]
    with np.errstate(all="ignore"):
        numbers = np.append(case.X[np.isfinite(case.X)].astype(np.float64), numbers)
        limit = 1e15 if case.X.dtype == np.float32 else 1e60
        extreme = np.abs(np.log(np.abs(numbers[numbers != 0]))) > np.log(limit)
    dense = case.container in DENSE and case.container != "masked array"
    kind = "dense" if dense else case.container.split("_")[-1]
    reg = "auto" if case.learns else "number"
    size = "extreme" if extreme.any() else "everyday"
    return rule, case.estimator, words[:60], reg, case.X.dtype.name, kind, size


def run(n_cases, number=0, names=tuple(ESTIMATORS)):
    """Return findings by kind, and how often each rule had each verdict."""
    findings, verdicts, begin = {}, Counter(), time.perf_counter()
    for start in range(0, n_cases, CHUNK):
        n = min(CHUNK, n_cases - start)

        @seed(1000 * number + start // CHUNK)
        @settings(QUICKLY, max_examples=n)
        @given(case=cases(names))
        def put(case):
            study = Study(case)
            for rule in chosen(case):
                found, message = verdict(rule, study)
                verdicts[rule, found] += 1
                if found == "broken":
                    new = Finding(rule, case, message)
                    kind = kind_of(rule, case, message)
                    known = findings.get(kind, new)
                    smaller = new if size_of(case) < size_of(known.case) else known
                    findings[kind] = smaller._replace(count=known.count + 1)

        put()
        seconds, kinds = time.perf_counter() - begin, len(findings)
        progress = f"{start + n} cases, {seconds:.0f} s, {kinds} kinds of failures"
        print(progress, file=sys.stderr, flush=True)
    return findings, verdicts


def size_of(case):
    """Return how much there is to read."""
    extras = len(case.params) + (case.container != "ndarray")
    extras += case.weight is not None
    given = 20 * bool(case.given_factors)
    return case.X.size + 3 * extras + given + (case.X.dtype == np.float32)


def shrink(case, message, fails, seconds):
    """Take away what a failure does not need, for so many seconds at most.

    ``fails(case)`` returns the message of a failure of the same kind, or None.
    """
    end, candidates = time.perf_counter() + seconds, _simpler(case)
    while time.perf_counter() < end and (candidate := next(candidates, None)):
        try:
            found = fails(candidate)
        except Exception:  # not a case any more
            continue
        if found is not None:
            case, message, candidates = candidate, found, _simpler(candidate)
    return case, message


def _simpler(case):
    """Yield simpler cases, those first that take away most."""
    m, n = case.X.shape
    for share in (2, 4, 8, max(m, n)):
        for axis, size in enumerate((m, n)):
            step = max(1, size // share)
            for start in range(0, size, step) if size > 1 else ():
                kept = np.r_[0:start, min(start + step, size) : size]
                yield case.take(kept) if axis == 0 else case.take(columns=kept)
    for name, value in case.params.items():
        if name == "reg" or (name == "max_iter" and value <= 3):
            continue
        rest = {key: given for key, given in case.params.items() if key != name}
        yield case._replace(params=rest)
        if type(value) is int and value > 1:
            yield case.set(**{name: 1})
            yield case.set(**{name: value // 2})
    if case.weight is not None:
        yield case._replace(weight=None)
    if case.container != "ndarray":
        yield case._replace(container="ndarray")
    for digits in (1, 2, 3):
        shorter = [[float(f"{x:.{digits}g}") for x in row] for row in case.X.tolist()]
        shorter = np.array(shorter, case.X.dtype)
        if not np.array_equal(shorter, case.X, equal_nan=True):
            yield case._replace(X=shorter)


def written(case, rule):
    """Return lines of Python, to be run in the folder of the tests."""
    with np.printoptions(threshold=sys.maxsize, floatmode="unique"):
        lines = f"""import numpy as np
from numpy import array, nan, float32, float64
from fuzzing.cases import Case
from fuzzing.invariants import check
check({case!r}, "{rule}")"""
    return textwrap.indent(lines, "    ")


def described(kind, finding, seconds):
    """Return the lines to print of a kind of failure."""

    def fails(case):
        found, message = verdict(finding.rule, Study(case))
        same = found == "broken" and kind_of(finding.rule, case, message) == kind
        return message if same else None

    case, message = shrink(finding.case, finding.message, fails, seconds)
    title = f"{finding.count} x {finding.rule}: {' | '.join(kind[1:])}"
    return f"{title}\n    {message[:300]}\n\n{written(case, finding.rule)}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--estimators", nargs="+", choices=ESTIMATORS, default=ESTIMATORS
    )
    parser.add_argument("--patience", type=float, default=10, help="to shrink, seconds")
    arguments = parser.parse_args()
    names = tuple(arguments.estimators)
    findings, verdicts = run(arguments.cases, arguments.seed, names)
    for kind, finding in sorted(findings.items()):
        print(described(kind, finding, arguments.patience), flush=True)
    heads = "held", "broken", "excused", "idle"
    print(" " * 34 + "".join(f"{head:>9s}" for head in heads))
    for rule in INVARIANTS:
        print(f"{rule:34s}" + "".join(f"{verdicts[rule, head]:9d}" for head in heads))
    print(f"\n{arguments.cases} cases, {len(findings)} kinds of failures.")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
