"""Threads that share out ranges of work.

Every range is done by one thread and writes to places of its own, so the result does
not depend on the number of threads. Threads live as long as one call: none is left
behind that a fork could inherit half-way.
"""

import os
import re
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache

import joblib

# Operations of a range: much more than it costs to start it, and so few that Ctrl-C,
# which waits for its end, is prompt.
OPERATIONS = 3e7

# Numbers of threads as OpenMP reads them: of this level and of those within it.
THREAD_NUMBERS = re.compile(r"\s*[0-9]+\s*(,\s*[0-9]+\s*)*")


# Set where several calls run at the same time, each in a thread of its own.
_limit_here: ContextVar[int | None] = ContextVar("limit", default=None)


@contextmanager
def at_most_threads(limit: int | None):
    """Let the calls within use at most this many threads; None: as many as usual."""
    token = _limit_here.set(limit)
    try:
        yield
    finally:
        _limit_here.reset(token)


def n_threads() -> int:
    """Number of threads: ``OMP_NUM_THREADS`` if it is set, else one per processor.

    The workers of joblib set the variable to their share of the processors.
    """
    usual = _limit(os.environ.get("OMP_NUM_THREADS", "")) or joblib.cpu_count()
    return min(usual, _limit_here.get() or usual)


@cache  # so that each value is warned of once
def _limit(value: str) -> int | None:
    """The number that OpenMP reads: the first of a list, None if it is empty."""
    if not value.strip():
        return None
    if THREAD_NUMBERS.fullmatch(value):
        numbers = [int(number) for number in value.split(",")]
        if min(numbers) > 0:
            return numbers[0]
    warnings.warn(
        f"OMP_NUM_THREADS={value!r} is ignored: it must be a positive whole number, or "
        "such numbers with commas between them. As many threads are used as there are "
        "processors.",
        stacklevel=2,
    )
    return None


def share_out(work: Callable, ranges: Sequence, limit: int | None = None):
    """Call ``work(start, stop)`` for every range, on `limit` threads, or `n_threads`.

    After an error or Ctrl-C no thread begins another range, and the error is raised.
    Where the system starts no more threads, those that run do all of the work.
    """
    count = len(ranges)
    if count > 1:  # to ask for processors takes longer than a small range
        count = min(limit or n_threads(), count)
    if count <= 1:
        for bounds in ranges:
            work(*bounds)
        return
    remaining, errors = iter(ranges), []
    lock, done = threading.Lock(), threading.Semaphore(0)

    def run():
        try:
            while not errors:
                with lock:
                    bounds = next(remaining, None)
                if bounds is None:
                    return
                work(*bounds)
        except BaseException as error:
            errors.append(error)

    def run_in_thread():
        try:
            run()
        finally:
            done.release()

    options = {"target": run_in_thread, "daemon": True}
    threads = [threading.Thread(**options) for _ in range(count - 1)]
    try:
        with suppress(RuntimeError):  # no thread can be started
            for thread in threads:
                thread.start()
        run()
    except BaseException as error:  # Ctrl-C between two lines
        errors.append(error)
    # Not by join: after an interruption it may return before the thread has ended.
    unfinished = sum(thread.ident is not None for thread in threads)
    while unfinished:
        try:
            done.acquire()
            unfinished -= 1
        except BaseException as error:  # Ctrl-C while waiting
            errors.append(error)
    if errors:
        raise errors[0]
