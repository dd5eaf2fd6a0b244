"""Work that takes longer than a page may: done once, in another thread, and remembered."""

from __future__ import annotations

import logging
import math
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Generic, TypeVar

from msgspec import Struct

from truing.core.errors import TruingError

T = TypeVar("T")
FAULT_SECONDS = 10.0
"""After so long, work that failed for another reason than its input is tried again."""
_log = logging.getLogger(__name__)


class Pending(Struct, frozen=True):
    """The work is not done yet; `share` of it is, if that is known."""

    share: float = 0.0


class Fault(Struct, frozen=True):
    """The work failed; `message` says why, for the user."""

    message: str


def describe_error(error: BaseException) -> str:
    """Returns what to show of an error, and logs one that nobody expected, without its message."""
    if isinstance(error, TruingError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or type(error).__name__}"
    log_error(error, "background work")
    return "This could not be computed because of an error of the program; its log says more."


def log_error(error: BaseException, where: str) -> None:
    """Logs the kind of an error and where it arose; its message may hold texts of rows."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    _log.error("%s: %s\n%s", where, type(error).__name__, frames)


class _Result(Struct, Generic[T]):
    """What some work returned, or why it failed; after `expires` (monotonic), it is tried again."""

    value: T | Fault
    expires: float = math.inf

    def is_over(self) -> bool:
        return time.monotonic() >= self.expires


def _try(work: Callable[[], T]) -> _Result[T]:
    try:
        return _Result(work())
    except TruingError as error:
        # The input is wrong, and the key stands for the input.
        return _Result(Fault(str(error)))
    except Exception as error:
        # A full disk or memory, a fault of the program: it may work later.
        return _Result(Fault(describe_error(error)), time.monotonic() + FAULT_SECONDS)


class BackgroundCache(Generic[T]):
    """The newest results of slow functions by key, computed one at a time."""

    def __init__(self, name: str, *, size: int, wait_seconds: float = 0.25) -> None:
        self._size, self._wait_seconds = size, wait_seconds
        self._futures: OrderedDict[Hashable, Future[_Result[T]]] = OrderedDict()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, name)

    def get(self, key: Hashable, work: Callable[[], T]) -> T | Pending | Fault:
        """Returns the result of a key; starts `work` if it is not known and waits a moment."""
        with self._lock:
            future = self._futures.get(key)
            if future is not None and future.done() and future.result().is_over():
                future = None
            if future is None:
                future = self._futures[key] = self._pool.submit(_try, work)
                self._evict()
            self._futures.move_to_end(key)
        try:
            return future.result(self._wait_seconds).value
        except FutureTimeout:
            return Pending()
        except CancelledError:
            return Fault("The server is stopping.")

    def _evict(self) -> None:
        # Unfinished work stays: it would be started again at once.
        for key, future in list(self._futures.items()):
            if len(self._futures) <= self._size:
                return
            if future.done():
                del self._futures[key]

    def close(self) -> None:
        """Drops what has not begun, and waits for the rest."""
        self._pool.shutdown(wait=True, cancel_futures=True)
