"""How many threads BLAS runs on."""

import os
from functools import cache
from threading import Lock

import threadpoolctl
from threadpoolctl import ThreadpoolController


class one_blas_thread:
    """Context in which BLAS runs on one thread.

    Products of the size of this package gain little from a second thread, wait long for
    it where another process holds its core, and on one thread have the same bits
    whatever the number of processors. The number of threads belongs to the process: of
    the contexts that are open at once, in whatever thread, the first sets it and the
    last sets it back.
    """

    _lock, _n_open, _limit = Lock(), 0, None

    def __enter__(self):
        cls = one_blas_thread
        with cls._lock:
            if cls._n_open == 0:
                _let_any_thread_set_limits()
                cls._limit = _blas().limit(limits=1)
            cls._n_open += 1

    def __exit__(self, *error):
        cls = one_blas_thread
        with cls._lock:
            cls._n_open = max(cls._n_open - 1, 0)
            if cls._n_open == 0 and cls._limit is not None:
                _let_any_thread_set_limits()
                cls._limit.restore_original_limits()
                cls._limit = None
                _let_any_thread_set_limits()

    @classmethod
    def _reset(cls):
        """Start anew in a forked child: the threads that were inside are gone there."""
        cls._lock, cls._n_open, cls._limit = Lock(), 0, None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=one_blas_thread._reset)


@cache
def _blas():
    return ThreadpoolController().select(user_api="blas")


def _let_any_thread_set_limits():
    """Undo that threadpoolctl 3.8 heeds only the first thread that sets a limit."""
    clear = getattr(threadpoolctl.OpenBLASController, "clear_controlling_thread", None)
    if clear is not None:
        clear(force=True)
