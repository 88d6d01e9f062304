"""Threads that share out ranges of work.

Every range is done by one thread and writes to places of its own, so the result does
not depend on their number. Threads live as long as one call: nothing is left behind
that a fork could inherit half-way.
"""

import os
import re
import threading
import warnings
from contextlib import suppress
from functools import cache

import joblib

# What a range should hold: much more than it costs to hand it out, and so little that
# Ctrl-C, which waits for its end, is prompt.
OPERATIONS = 3e7

# What OpenMP takes for a number of threads, of this level and of those within it.
LIST = re.compile(r"\s*[0-9]+\s*(,\s*[0-9]+\s*)*")


def n_threads():
    """Threads to use: ``OMP_NUM_THREADS`` where it is set, else one per processor.

    The workers of joblib set it to their share.
    """
    return _limit(os.environ.get("OMP_NUM_THREADS", "")) or joblib.cpu_count()


@cache  # so that each value is warned of once
def _limit(value):
    """The number that OpenMP reads there, the first of a list; None without.

    It allows for blanks around numbers, and for none that is not positive.
    """
    if not value.strip():
        return None
    if LIST.fullmatch(value):
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


def share_out(work, ranges, limit=None):
    """Call ``work(start, stop)`` for every range, on several threads.

    An error ends the others after the range at hand, and is raised; so does Ctrl-C.
    Where the system lets no more threads start, those that there are do the work.

    Parameters
    ----------
    work : callable
    ranges : list of pairs
    limit : int, optional
        The largest number of threads, `n_threads` when not given.
    """
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

    def run_aside():
        try:
            run()
        finally:
            done.release()

    count = len(ranges)
    if count > 1:  # to ask for processors takes longer than a small range
        count = min(limit or n_threads(), count)
    threads = [
        threading.Thread(target=run_aside, daemon=True) for _ in range(count - 1)
    ]
    try:
        with suppress(RuntimeError):  # no thread can be started
            for thread in threads:
                thread.start()
        run()
    except BaseException as error:  # Ctrl-C between two lines
        errors.append(error)
    # Not by join: interrupted once, it takes a thread for ended that is not.
    unfinished = sum(thread.ident is not None for thread in threads)
    while unfinished:
        try:
            done.acquire()
            unfinished -= 1
        except BaseException as error:  # Ctrl-C while waiting
            errors.append(error)
    if errors:
        raise errors[0]
