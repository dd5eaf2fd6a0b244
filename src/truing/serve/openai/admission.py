"""Admission of requests: API keys, rates, a limit on concurrent requests with a bounded queue,
draining.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol

from truing.serve.openai.limits import ServerLimits as ServerLimits


class RequestRefused(Exception):
    """A request that is not served: HTTP status, message, OpenAI error type, seconds to wait before
    a retry, and the field of the body that is at fault, where one is.
    """

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = "invalid_request_error",
        retry_after: float | None = None,
        param: str | None = None,
    ) -> None:
        self.status, self.message, self.kind, self.retry_after = status, message, kind, retry_after
        self.param = param
        super().__init__(message)


class RequestRates(Protocol):
    """Counts the requests of the last minute of each API key."""

    async def count_request(self, key: str, limit: int, count: int = 1) -> float:
        """Counts a request for as many as `count`; returns 0, or the seconds until one is below
        the limit again.
        """
        ...


class LocalRates:
    """The requests that this process has counted, in a sliding minute."""

    def __init__(self) -> None:
        self._recent_requests: dict[str, deque[float]] = {}

    async def count_request(self, key: str, limit: int, count: int = 1) -> float:
        """Counts a request for as many as `count`; returns 0, or the seconds until one is below
        the limit again.
        """
        now = time.monotonic()
        recent = self._recent_requests.setdefault(key, deque())
        while recent and now - recent[0] >= 60:
            recent.popleft()
        if len(recent) + count > limit:
            return 60 - (now - recent[0]) if recent else 60.0
        recent.extend([now] * count)
        return 0.0


class AdmissionControl:
    """Decides which requests are served, and when. With no `keys`, whoever reaches the port is
    served. `rates` counts the requests of each key: in this process, or in all that share it.
    """

    def __init__(self, limits: ServerLimits, keys: Sequence[str] = ()) -> None:
        self.limits = limits
        self.rates: RequestRates = LocalRates()
        self._keys = tuple(key.encode() for key in keys)
        self._slots = asyncio.Semaphore(limits.concurrency)
        self.admitted = 0
        self.in_flight = 0
        self.leaving = False  # requests are admitted, and /ready says that no more should come
        self.draining = False

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

    async def check_rate(self, tenant: str, count: int = 1) -> None:
        """Counts a request of a key, by its hash, for as many as `count`. Raises RequestRefused
        (429) above `per_minute` in a sliding minute.
        """
        limit = self.limits.per_minute
        if not limit or count < 1:
            return
        retry_after = await self.rates.count_request(tenant, limit, count)
        if retry_after > 0:
            raise RequestRefused(
                429, f"more than {limit} requests a minute", "rate_limit_error", retry_after
            )

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Counts a request from before its body is read until its response is sent.

        Raises RequestRefused while the server drains (503), and where `concurrency` requests are
        being answered and `waiting` more are read or wait for a slot (429).
        """
        if self.draining:
            raise RequestRefused(503, "the server is shutting down", "server_error", 5)
        if self.admitted >= self.limits.concurrency + self.limits.waiting:
            raise RequestRefused(429, "too many requests at once", "rate_limit_error", 1)
        self.admitted += 1
        try:
            yield
        finally:
            self.admitted -= 1

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Holds one of the `concurrency` slots; waits for it at most `seconds`."""
        try:
            if self._slots.locked():
                async with asyncio.timeout(self.limits.seconds):
                    await self._slots.acquire()
            else:
                await self._slots.acquire()  # at once
        except TimeoutError:
            raise RequestRefused(
                429, "no slot became free in time", "rate_limit_error", 2
            ) from None
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
            self._slots.release()

    async def drain(self, seconds: float = 30.0) -> None:
        """Refuses new requests and waits for those that were admitted."""
        self.draining = True
        deadline = time.monotonic() + seconds
        while self.admitted and time.monotonic() < deadline:  # noqa: ASYNC110 - polls only at shutdown
            await asyncio.sleep(0.02)
