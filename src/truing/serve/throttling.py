"""What bounds the requests to the pages: token buckets, and a queue for hashing passwords."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from truing.core.errors import RequestRejected

T = TypeVar("T")
_THROTTLE_SECONDS = 3.0  # after which a throttled client may go on; the page's script waits for it


class Throttle:
    """A token bucket for each key: `per_minute` events a minute, in bursts of as many.

    Memory is bounded: of more than `max_keys` keys, the least recently seen are forgotten.
    """

    def __init__(
        self,
        per_minute: int,
        *,
        max_keys: int = 20_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_minute, self._max_keys, self._clock = per_minute, max_keys, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # (tokens, time)

    def check(self, key: str) -> None:
        """Takes a token from the key's bucket; raises RequestRejected if it is empty."""
        now = self._clock()
        capacity = float(self._per_minute)
        tokens, updated = self._buckets.pop(key, (capacity, now))
        tokens = min(capacity, tokens + (now - updated) * capacity / 60)
        self._buckets[key] = (max(0.0, tokens - 1), now)  # as the newest key
        if len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)
        if tokens < 1:
            message = "Too many requests. Wait a few seconds, then go on."
            raise RequestRejected("slow", message, retry_after=_THROTTLE_SECONDS)


class HashingQueue:
    """Runs argon2, which takes 19 MiB and much CPU time, in one thread with a bounded queue."""

    def __init__(self, max_waiting: int) -> None:
        self._pool = ThreadPoolExecutor(1, "argon2")
        self._free = max_waiting

    @contextmanager
    def place(self) -> Iterator[None]:
        """Holds a place in the queue; raises RequestRejected if none is free."""
        if self._free < 1:
            message = "Many people are signing in at present. Wait a few seconds, then try again."
            raise RequestRejected("slow", message, retry_after=_THROTTLE_SECONDS)
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """Runs `work` in the thread; call it inside `place`."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)

    def close(self) -> None:
        """Waits for the thread."""
        self._pool.shutdown(wait=True)
