"""Make a failing case small, and write it down as a few lines of Python."""

import sys
import textwrap
import time

import numpy as np


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
    end, smaller = time.perf_counter() + seconds, True
    while smaller:
        smaller = False
        for candidate in _simpler(case):
            if time.perf_counter() > end:
                break
            try:
                found = fails(candidate)
            except Exception:  # not a case any more
                continue
            if found is not None:
                case, message, smaller = candidate, found, True
                break
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
from fuzzing.invariants import Case, check
check({case!r}, "{rule}")"""
    return textwrap.indent(lines, "    ")
