"""Where the blocks of a fit are kept, and who works on them.

With a client of `distributed`, blocks stay in the memory of the workers. Without one
they are written to a temporary folder, from where Dask's threads map them into memory
as they need them: out of core.
"""

import pickle
import shutil
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4
from weakref import WeakSet

import dask
import numpy as np
from dask import delayed
from dask.delayed import Delayed
from distributed.client import default_client

from .._kernels.blas import one_blas_thread
from .._kernels.threads import at_most_threads, n_threads

# Buffers begin at multiples of this many bytes in a file.
ALIGNMENT = 64


class Engine:
    """Compute delayed values on a client, or on threads that read blocks from disk."""

    def __init__(self, client=None):
        if client is None:
            with suppress(ValueError):  # there is none
                client = default_client()
        self.client, self.folder = client, None
        self._paths: dict[str, Path] = {}  # of what is stored, by its key
        self._futures: WeakSet = WeakSet()  # of what workers keep

    def __enter__(self):
        if self.client is None:
            folder = dask.config.get("temporary-directory", None)
            self.folder = Path(tempfile.mkdtemp(prefix="sklearn-mfgd-", dir=folder))
            self._default = dask.config.set(scheduler="threads")
        else:
            self._default = self.client.as_current()
        self._default.__enter__()
        return self

    def __exit__(self, *error):
        self._default.__exit__(*error)
        for future in self._futures:  # a traceback would hold them
            future.release()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, function, *args, n_parts: int = 1) -> Delayed:
        """Call a function once its delayed arguments are there.

        `n_parts` is the number of calls that may run at the same time.
        """
        limit = None
        if self.client is None:
            limit = max(1, n_threads() // min(n_parts, n_threads()))
        return delayed(_work, pure=False, traverse=False)(function, limit, *args)

    def shared(self, value) -> Delayed:
        """A value that many calls need, sent once."""
        if isinstance(value, Delayed):
            return value
        return delayed(value, pure=False, traverse=False)

    def compute(self, *values: Delayed) -> tuple:
        """Compute values; an interruption cancels what is in flight."""
        if self.client is None:
            return dask.compute(*values, scheduler="threads", optimize_graph=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sending large graph")
            futures = self.client.compute(values, optimize_graph=False)
        try:
            return tuple(self.client.gather(futures))
        except BaseException:
            self.client.cancel(futures)
            raise

    def keep(self, values: list[Delayed], **where) -> list[Delayed]:
        """Compute values and keep them where they are computed."""
        if not values:
            return []
        if self.client is None:
            return list(
                dask.persist(*values, scheduler="threads", optimize_graph=False)
            )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sending large graph")
            kept = self.client.persist(values, optimize_graph=False, **where)
        for value in kept:
            self._futures.update(dict(value.dask).values())
        return list(kept)

    def store(self, values: list[Delayed]) -> list[Delayed]:
        """Compute values and keep them in the memory of workers, or on disk."""
        if self.folder is None:
            return self._spread(values)
        paths = [self.folder / f"{uuid4().hex}.block" for _ in values]
        pairs = zip(values, paths, strict=True)
        writing = [self.call(_write, *pair, n_parts=len(values)) for pair in pairs]
        readers = [
            delayed(_read, pure=False)(self.shared(stored))
            for stored in self.compute(*writing)
        ]
        self._paths |= {r.key: path for r, path in zip(readers, paths, strict=True)}
        return readers

    def _spread(self, values: list[Delayed]) -> list[Delayed]:
        """Keep values on all workers alike, as they work on what they have."""
        threads = sorted(self.client.nthreads().items())
        workers = [worker for worker, n in threads for _ in range(n)]
        kept, n_values = [], len(values)
        for k, worker in enumerate(workers):
            cuts = (-(-n_values * i // len(workers)) for i in (k, k + 1))
            where = {"workers": [worker], "allow_other_workers": True}
            kept += self.keep(values[slice(*cuts)], **where)
        return kept if workers else self.keep(values)

    def drop(self, values: list[Delayed]) -> None:
        """Remove values that were stored from disk; workers drop them by themselves."""
        for value in values:
            if value.key in self._paths:
                self._paths.pop(value.key).unlink()


def _work(function, limit, *args):
    with one_blas_thread(), at_most_threads(limit):
        return function(*args)


class Stored(NamedTuple):
    """An object in a file: its arrays one after the other, and what holds them."""

    path: Path
    pickled: bytes
    places: list[tuple[int, int]]  # of the buffers: first byte, number of bytes


def _write(value: Any, path: Path) -> Stored:
    """Write an object to a file, its arrays as they are in memory."""
    buffers, places, end = [], [], 0
    pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    with path.open("wb") as file:
        for buffer in buffers:
            view = buffer.raw()
            start = -(-end // ALIGNMENT) * ALIGNMENT
            file.seek(start)
            file.write(view)
            places.append((start, view.nbytes))
            end = start + view.nbytes
        file.truncate(max(end, 1))
    return Stored(path, pickled, places)


def _read(stored: Stored) -> Any:
    """Map an object from its file into memory; its arrays cannot be written to."""
    data = np.memmap(stored.path, mode="r")
    buffers = [data[start : start + size] for start, size in stored.places]
    return pickle.loads(stored.pickled, buffers=buffers)
