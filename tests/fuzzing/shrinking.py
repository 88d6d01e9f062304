"""Make a failing case small, and write it down as a few lines of Python."""

import time

import numpy as np


def size_of(case):
    """How much there is to read."""
    extras = (
        len(case.params) + (case.container != "ndarray") + (case.weight is not None)
    )
    given = isinstance(case.params.get("init"), tuple)
    single = case.X.dtype == np.float32
    return case.X.size + 3 * extras + 20 * given + single


def shrink(case, message, still, seconds):
    """Take away what a failure does not need.

    Parameters
    ----------
    case : Case
    message : str
    still : callable (Case) -> str or None
        The message of a failure of the same kind.
    seconds : float
        How long to try.

    Returns
    -------
    case, message
    """
    end = time.perf_counter() + seconds
    smaller = True
    while smaller:
        smaller = False
        for candidate in _simpler(case):
            if time.perf_counter() > end:
                return case, message
            found = _tried(still, candidate)
            if found is not None:
                case, message, smaller = candidate, found, True
                break
    return case, message


def _tried(still, candidate):
    try:
        return still(candidate)
    except Exception:  # not a case any more
        return None


def _simpler(case):
    """Yield simpler cases, those first that take away most."""
    m, n = case.X.shape
    for share in (2, 4, 8):
        for start in range(0, m, max(1, m // share)):
            yield from _without(case, rows=(start, start + max(1, m // share)))
        for start in range(0, n, max(1, n // share)):
            yield from _without(case, columns=(start, start + max(1, n // share)))
    if max(m, n) <= 12:
        for i in range(m):
            yield from _without(case, rows=(i, i + 1))
        for j in range(n):
            yield from _without(case, columns=(j, j + 1))
    for name, value in case.params.items():
        rest = {key: given for key, given in case.params.items() if key != name}
        if name == "reg" or (name == "max_iter" and value <= 3):
            continue
        yield case._replace(params=rest)
        if isinstance(value, int) and value > 1 and not isinstance(value, bool):
            yield case.set(**{name: 1})
            yield case.set(**{name: value // 2})
    if case.weight is not None:
        yield case._replace(weight=None)
    if case.container != "ndarray":
        yield case._replace(container="ndarray")
    yield from _rounder(case)


def _without(case, rows=(0, 0), columns=(0, 0)):
    m, n = case.X.shape
    keep = [
        np.r_[0 : part[0], min(part[1], size) : size]
        for part, size in ((rows, m), (columns, n))
    ]
    if all(part.size for part in keep):
        yield case.take(*keep)


def _rounder(case):
    """Yield tables of shorter numbers."""
    X = case.X
    for digits in (0, 1, 2):
        size = np.nanmax(np.abs(X), initial=0)
        if size == 0:
            return
        unit = 10.0 ** (np.floor(np.log10(float(size))) - digits)
        with np.errstate(all="ignore"):
            shorter = (np.round(X.astype(np.float64) / unit) * unit).astype(X.dtype)
            shorter = np.array([[float(f"{x:.3g}") for x in row] for row in shorter])
        shorter = shorter.astype(X.dtype)
        if not np.array_equal(shorter, X, equal_nan=True):
            yield case._replace(X=shorter)
            return


def written(case, rule):
    """Return lines of Python, to be run in the folder of the tests."""
    parts = [f'"{case.estimator}"', _literal(case.params), "X"]
    if case.container != "ndarray":
        parts.append(f'container="{case.container}"')
    if case.weight is not None:
        parts.append(f"weight={_literal(case.weight)}")
    parts.append(f"seed={case.seed}")
    return "\n".join(
        "    " + line
        for line in (
            "from numpy import array, nan, float32, float64",
            "from fuzzing.invariants import Case, check",
            f"X = {_literal(case.X)}",
            f'check(Case({", ".join(parts)}), "{rule}")',
        )
    )


def _literal(value):
    if isinstance(value, np.ndarray):
        return f"array({value.tolist()}, {value.dtype})"
    if isinstance(value, tuple):
        return f"({', '.join(_literal(part) for part in value)})"
    if isinstance(value, dict):
        inner = ", ".join(f'"{name}": {_literal(part)}' for name, part in value.items())
        return "{" + inner + "}"
    return repr(value.item() if isinstance(value, np.generic) else value)
