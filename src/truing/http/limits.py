"""How fast and how much: the window of requests in flight, the budget of a model, and what closes with a run.

The window (`Limiter`) is one per endpoint and key, shared by target, judge and attacker. It starts at the run's
concurrency. A single 429 delays that request alone; the window shrinks at most once a round trip, and only when more
than one in twenty answers of it were 429 (and at least two), or the endpoint's headers say that the quota is spent.
It grows back by one a round trip (additive increase, multiplicative decrease: Chiu & Jain 1989). A rate, where a run
sets one, keeps requests a fixed time apart.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from weakref import WeakKeyDictionary

from truing.core.errors import BudgetExceeded

INITIAL_CONCURRENCY: ContextVar[int] = ContextVar("truing_concurrency", default=64)
"""The window with which an endpoint's limiter starts; a run sets it to its own concurrency."""

RATE_LIMITS: ContextVar[Mapping[str, float]] = ContextVar("truing_rates", default={})  # noqa: B039 read only
"""Endpoint (its scope) -> the most requests a second; a run sets it for the endpoints that it caps."""

BACKOFF_CALLBACK: ContextVar[Callable[[bool], None]] = ContextVar(
    "truing_parked", default=lambda waits: None
)
"""Hears True when a request begins to wait before it is sent again, and False when it goes on: meanwhile another may be sent."""

_SHARE = 0.05
_SHRINK = 0.7


class AdaptiveLimiter:
    """A window of requests in flight that gives way when the endpoint says so."""

    def __init__(
        self, window: int, *, rate: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.ceiling = max(1, window)
        self.window = float(self.ceiling)
        self.in_flight = 0
        self.shrinks = 0
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._round_trip = 0.1
        self._epoch = clock()
        self._seen = 0
        self._throttled = 0
        self._paused_until = 0.0
        self._gap = 1.0 / rate if rate else 0.0
        self._next = 0.0

    async def acquire(self) -> None:
        """Waits for a place in the window, and with a rate for the next moment at which a request may leave."""
        await self._place()
        if self._gap:
            now = self._clock()
            at = max(now, self._next)
            self._next = at + self._gap
            if at > now:
                try:
                    await asyncio.sleep(at - now)
                except asyncio.CancelledError:
                    self.release()
                    raise

    async def _place(self) -> None:
        if self._paused_until:
            await asyncio.sleep(max(0.0, self._paused_until - self._clock()))
        if self.in_flight < int(self.window) and not self._waiting:
            self.in_flight += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()
            raise

    def release(self) -> None:
        """Gives the place to the next."""
        self.in_flight -= 1
        while self._waiting and self.in_flight < int(self.window):
            turn = self._waiting.popleft()
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)

    def record_response(self, seconds: float, *, throttled: bool = False) -> None:
        """Takes note of an answer and its round trip; shrinks or grows the window when a round trip is over."""
        if not throttled:
            self._round_trip += 0.1 * (seconds - self._round_trip)
        self._seen += 1
        self._throttled += throttled
        now = self._clock()
        over = now - self._epoch >= max(self._round_trip, 0.05)
        if (
            self._throttled >= 2
            and over
            and self._throttled > _SHARE * max(self._seen, int(self.window))
        ):
            self._shrink(now)
        elif over and self._seen >= int(self.window):
            if self._throttled == 0:
                self.window = min(float(self.ceiling), self.window + 1)
            self._new_epoch(now)

    def pause_for_quota(self, seconds: float) -> None:
        """The headers say that nothing is left for so many seconds: nobody sends until then, and the window shrinks."""
        now = self._clock()
        self._paused_until = max(self._paused_until, now + min(max(seconds, 0.0), 300.0))
        if now - self._epoch >= self._round_trip:
            self._shrink(now)

    def _shrink(self, now: float) -> None:
        self.window = max(1.0, self.window * _SHRINK)
        self.shrinks += 1
        self._new_epoch(now)

    def _new_epoch(self, now: float) -> None:
        self._epoch = now
        self._seen = self._throttled = 0


class RequestBudget:
    """The most requests and tokens that a model may use; raises BudgetExceeded instead of going over."""

    def __init__(self, requests: int | None = None, tokens: int | None = None) -> None:
        self.requests = requests
        self.tokens = tokens
        self.used_requests = 0
        self.used_tokens = 0

    def spend_request(self) -> None:
        """Before each request, retries included."""
        if self.requests is not None and self.used_requests >= self.requests:
            raise BudgetExceeded(f"the budget of {self.requests} requests is spent")
        if self.tokens is not None and self.used_tokens >= self.tokens:
            raise BudgetExceeded(
                f"the budget of {self.tokens} tokens is spent ({self.used_tokens} used)"
            )
        self.used_requests += 1

    def spend_tokens(self, tokens: int) -> None:
        """After each answer."""
        self.used_tokens += tokens


_CLOSERS: WeakKeyDictionary[asyncio.AbstractEventLoop, list[Callable[[], Awaitable[None]]]] = (
    WeakKeyDictionary()
)


def register_close_callback(closer: Callable[[], Awaitable[None]]) -> None:
    """Has `closer` called by `close_all` in the running event loop (connections belong to one loop)."""
    _CLOSERS.setdefault(asyncio.get_running_loop(), []).append(closer)


async def close_connections() -> None:
    """Closes what was opened in the running event loop; models open it again when they are used in another."""
    for closer in _CLOSERS.pop(asyncio.get_running_loop(), []):
        await closer()
