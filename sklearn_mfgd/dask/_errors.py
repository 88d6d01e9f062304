"""Errors that name the block they come from, also if a worker raised them."""

import pickle
from contextlib import contextmanager

from distributed import Reschedule


class BlockError(ValueError):
    """A block of a collection that cannot be read or used.

    Pickle drops the cause of an exception, so the state of this one has it.
    """

    def __reduce__(self):
        return _rebuild, (type(self), self.args, _picklable(self.__cause__))


def _rebuild(kind: type, args: tuple, cause: BaseException | None) -> BlockError:
    """Make a block error again, with its cause."""
    error = kind(*args)
    error.__cause__ = cause
    return error


def _picklable(cause: BaseException | None) -> BaseException | None:
    """Return the cause, or None where it would not survive; the message tells of it."""
    try:
        pickle.loads(pickle.dumps(cause))
    except Exception:
        return None
    return cause


def block_name(number: int, source: str, key=None) -> str:
    """Name a block of X in an error, or of what lies beside it, with its key if any."""
    return f"Block {number} of {source}" + ("" if key is None else f" (key {key!r})")


@contextmanager
def naming(block: str, *, reading: bool = False):
    """Put the name of the block before the message of any error."""
    try:
        yield
    except (BlockError, Reschedule):
        raise
    except Exception as error:
        told = f"{block}: {error}"
        if reading:
            told = f"{block} cannot be read: {type(error).__name__}: {error}"
        raise BlockError(told) from error
