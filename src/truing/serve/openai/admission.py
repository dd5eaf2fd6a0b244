"""What stands before every request: keys, size, a limit of requests at once with a bounded queue, a clock, draining."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from truing.serve.openai.model_router import Limits


class Refused(Exception):
    """A request that is not taken: status, message, type and seconds to wait."""

    def __init__(
        self, status: int, message: str, kind: str, retry_after: float | None = None
    ) -> None:
        self.status, self.message, self.kind, self.retry_after = status, message, kind, retry_after
        super().__init__(message)


class Gate:
    """`keys` empty = open to whoever reaches the port."""

    def __init__(self, limits: Limits, keys: Sequence[str] = ()) -> None:
        self.limits = limits
        self._keys = tuple(k.encode() for k in keys)
        self._slots = asyncio.Semaphore(limits.concurrency)
        self._waiting = 0
        self.busy = 0
        self.draining = False
        self._recent: dict[bytes, deque[float]] = {}

    def check_key(self, header: str | None) -> bytes:
        """The key of a request, compared in constant time; `Refused` 401 without a known one."""
        if not self._keys:
            return b""
        given = (header or "").removeprefix("Bearer ").strip().encode("utf-8", "replace")
        match = [k for k in self._keys if hmac.compare_digest(k, given)]
        if not match:
            raise Refused(
                401, "a valid API key is needed: Authorization: Bearer KEY", "authentication_error"
            )
        return match[0]

    def check_rate(self, key: bytes) -> None:
        """At most `per_minute` requests a key; 0 = no limit."""
        most = self.limits.per_minute
        if not most:
            return
        now = time.monotonic()
        seen = self._recent.setdefault(key, deque())
        while seen and now - seen[0] >= 60:
            seen.popleft()
        if len(seen) >= most:
            raise Refused(
                429, f"more than {most} requests a minute", "rate_limit_error", 60 - (now - seen[0])
            )
        seen.append(now)

    def check_room(self) -> None:
        """`Refused` while draining, or when the queue is full."""
        if self.draining:
            raise Refused(503, "the server is shutting down", "server_error", 5)
        if self.busy + self._waiting >= self.limits.concurrency + self.limits.waiting:
            raise Refused(429, "too many requests at once", "rate_limit_error", 1)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """A place among those that are answered at once; the queue before it is bounded."""
        self.check_room()
        self._waiting += 1
        try:
            async with asyncio.timeout(self.limits.seconds):
                await self._slots.acquire()
        except TimeoutError:
            raise Refused(429, "the queue is too long", "rate_limit_error", 2) from None
        finally:
            self._waiting -= 1
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1
            self._slots.release()

    async def drain(self, seconds: float = 30.0) -> None:
        """Takes no new request and waits for those under way."""
        self.draining = True
        end = time.monotonic() + seconds
        while self.busy and time.monotonic() < end:  # noqa: ASYNC110 - a counter, looked at while shutting down
            await asyncio.sleep(0.02)
