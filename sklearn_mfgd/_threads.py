"""Threads that share out ranges of work.

Every range is done by one thread and writes to places of its own, so the result does
not depend on their number. Threads live as long as one call: nothing is left behind
that a fork could inherit half-way.
"""

import os
import threading

import joblib

# What a range should hold: much more than it costs to hand it out, and so little that
# Ctrl-C, which waits for its end, is prompt.
OPERATIONS = 3e7


def n_threads():
    """Threads to use: ``OMP_NUM_THREADS`` where it is set, else one per processor.

    The workers of joblib set it to their share.
    """
    limit = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return max(1, int(limit)) if limit.isdecimal() else joblib.cpu_count()


def share_out(work, ranges, limit=None):
    """Call ``work(start, stop)`` for every range, on several threads.

    An error ends the others after the range at hand, and is raised; so does Ctrl-C.

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
