"""Admission of requests: API keys, rates, a limit on concurrent requests with a bounded queue,
draining.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from msgspec import Struct


class ServerLimits(Struct, frozen=True, kw_only=True):
    """What one server accepts: bytes of a body, seconds of a request, concurrent and waiting
    requests, tokens of an answer.

    `per_minute` is the number of requests of one key in 60 seconds; 0 means no limit.
    """

    body: int = 2_000_000
    seconds: float = 120.0
    concurrency: int = 64
    waiting: int = 256
    max_tokens: int = 512
    per_minute: int = 0


class RequestRefused(Exception):
    """A request that is not served: HTTP status, message, OpenAI error type, and seconds to wait
    before a retry.
    """

    def __init__(
        self, status: int, message: str, kind: str, retry_after: float | None = None
    ) -> None:
        self.status, self.message, self.kind, self.retry_after = status, message, kind, retry_after
        super().__init__(message)


class AdmissionControl:
    """Decides which requests are served, and when. With no `keys`, whoever reaches the port is
    served.
    """

    def __init__(self, limits: ServerLimits, keys: Sequence[str] = ()) -> None:
        self.limits = limits
        self._keys = tuple(key.encode() for key in keys)
        self._slots = asyncio.Semaphore(limits.concurrency)
        self._waiting = 0
        self.in_flight = 0
        self.draining = False
        self._recent_requests: dict[bytes, deque[float]] = {}

    def check_key(self, header: str | None) -> bytes:
        """Returns the key of a request. Raises RequestRefused (401) without a known one."""
        if not self._keys:
            return b""
        sent = (header or "").removeprefix("Bearer ").strip().encode("utf-8", "replace")
        # Every known key is compared, in constant time: the time says neither which key nor how
        # much matched.
        matches = [key for key in self._keys if hmac.compare_digest(key, sent)]
        if not matches:
            raise RequestRefused(
                401, "a valid API key is needed: Authorization: Bearer KEY", "authentication_error"
            )
        return matches[0]

    def check_rate(self, key: bytes) -> None:
        """Counts a request of a key. Raises RequestRefused (429) above `per_minute` in a sliding
        minute.
        """
        most = self.limits.per_minute
        if not most:
            return
        now = time.monotonic()
        recent = self._recent_requests.setdefault(key, deque())
        while recent and now - recent[0] >= 60:
            recent.popleft()
        if len(recent) >= most:
            retry_after = 60 - (now - recent[0])
            raise RequestRefused(
                429, f"more than {most} requests a minute", "rate_limit_error", retry_after
            )
        recent.append(now)

    def check_capacity(self) -> None:
        """Raises RequestRefused while the server drains (503) or when the queue is full (429)."""
        if self.draining:
            raise RequestRefused(503, "the server is shutting down", "server_error", 5)
        if self.in_flight + self._waiting >= self.limits.concurrency + self.limits.waiting:
            raise RequestRefused(429, "too many requests at once", "rate_limit_error", 1)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Holds one of the `concurrency` slots; waits in the bounded queue for it, at most
        `seconds`.
        """
        self.check_capacity()
        self._waiting += 1
        try:
            async with asyncio.timeout(self.limits.seconds):
                await self._slots.acquire()
        except TimeoutError:
            raise RequestRefused(
                429, "no slot became free in time", "rate_limit_error", 2
            ) from None
        finally:
            self._waiting -= 1
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
            self._slots.release()

    async def drain(self, seconds: float = 30.0) -> None:
        """Refuses new requests and waits for those in flight."""
        self.draining = True
        deadline = time.monotonic() + seconds
        while self.in_flight and time.monotonic() < deadline:  # noqa: ASYNC110 - polls only at shutdown
            await asyncio.sleep(0.02)
