"""Adaptive concurrency, rate limits and budgets of requests, and the clean-up at the end of a run.

One `AdaptiveLimiter` for each endpoint and key bounds the requests in flight; a target model, a
judge and an attacker that use the same account share it. It starts at the run's concurrency. The
window shrinks multiplicatively, at most once a round trip, if more than one in twenty responses of
that round trip (and at least two) are 429s, or if the response headers say that the quota is used
up. It grows by one a round trip (additive increase, multiplicative decrease: Chiu & Jain 1989). A
rate limit, if set, spaces requests evenly.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from weakref import WeakKeyDictionary

from truing.core.errors import BudgetExceeded
from truing.core.remote_calls import RemoteCalls

INITIAL_CONCURRENCY: ContextVar[int] = ContextVar("truing_concurrency", default=64)
"""The window size with which a limiter starts; a run sets it to its own concurrency."""

RATE_LIMITS: ContextVar[Mapping[str, float]] = ContextVar(
    "truing_rates",
    default={},  # noqa: B039 read only
)
"""Endpoint scope -> maximum requests per second; a run sets it for the endpoints that it limits."""

RESERVE_REQUEST: ContextVar[Callable[[str], Awaitable[float]] | None] = ContextVar(
    "truing_reserve_request", default=None
)
"""Takes the scope of an endpoint, reserves the time of one request, and returns the seconds to wait
until then: one rate limit for several processes, which takes the place of `RATE_LIMITS`.
"""

BACKOFF_CALLBACK: ContextVar[Callable[[bool], None]] = ContextVar(
    "truing_backoff_callback", default=lambda started: None
)
"""Called with True when a request starts to wait for its retry, with False when the wait ends."""

_THROTTLED_SHARE = 0.05
_SHRINK_FACTOR = 0.7
_MIN_ROUND_TRIP_SECONDS = 0.05
_MAX_QUOTA_PAUSE_SECONDS = 300.0


class AdaptiveLimiter:
    """Bounds the requests in flight; the bound adapts to the endpoint's 429 responses."""

    def __init__(
        self,
        window: int,
        *,
        rate: float | None = None,
        reserve: Callable[[], Awaitable[float]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_window = max(1, window)
        self.window = float(self.max_window)
        self.in_flight = 0
        self.shrinks = 0
        self._clock = clock
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._round_trip = 0.1  # seconds, moving average
        # Responses are counted for one round trip at a time, so that a burst counts once.
        self._epoch_start = clock()
        self._epoch_responses = 0
        self._epoch_throttled = 0
        self._paused_until = 0.0
        self._interval = 1.0 / rate if rate else 0.0
        self._next_send = 0.0
        self._reserve = reserve

    async def acquire(self) -> None:
        """Waits for a slot in the window, then for the rate limit."""
        await self._acquire_slot()
        try:
            if (seconds := await self._reserve_time()) > 0:
                await asyncio.sleep(seconds)
        except BaseException:
            self.release()
            raise

    async def _reserve_time(self) -> float:
        """Returns the seconds until the rate limit allows the next request."""
        if self._reserve is not None:
            return await self._reserve()
        if not self._interval:
            return 0.0
        now = self._clock()
        send_at = max(now, self._next_send)
        self._next_send = send_at + self._interval
        return send_at - now

    async def _acquire_slot(self) -> None:
        if self._paused_until:
            await asyncio.sleep(max(0.0, self._paused_until - self._clock()))
        if self.in_flight < int(self.window) and not self._waiters:
            self.in_flight += 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            # `release` may have given the slot to this waiter before it was cancelled.
            if waiter.done() and not waiter.cancelled():
                self.release()
            raise

    def release(self) -> None:
        """Frees the slot and wakes the next waiters, first come first served."""
        self.in_flight -= 1
        while self._waiters and self.in_flight < int(self.window):
            waiter = self._waiters.popleft()
            if not waiter.done():
                # The slot is taken here and not in the waiter, so that no newcomer gets it first.
                self.in_flight += 1
                waiter.set_result(None)

    def record_response(self, seconds: float, *, throttled: bool = False) -> None:
        """Counts a response; resizes the window when a round trip is over."""
        if not throttled:
            # A 429 comes back faster than an answer and says nothing about the round trip.
            self._round_trip += 0.1 * (seconds - self._round_trip)
        self._epoch_responses += 1
        self._epoch_throttled += throttled
        now = self._clock()
        if now - self._epoch_start < max(self._round_trip, _MIN_ROUND_TRIP_SECONDS):
            return
        responses = max(self._epoch_responses, int(self.window))
        if self._epoch_throttled >= 2 and self._epoch_throttled > _THROTTLED_SHARE * responses:
            self._shrink(now)
        elif self._epoch_responses >= int(self.window):
            if self._epoch_throttled == 0:
                self.window = min(float(self.max_window), self.window + 1)
            self._start_epoch(now)

    def pause_for_quota(self, seconds: float) -> None:
        """Pauses all requests until the quota resets (at most five minutes); shrinks the window."""
        now = self._clock()
        pause = min(max(seconds, 0.0), _MAX_QUOTA_PAUSE_SECONDS)
        self._paused_until = max(self._paused_until, now + pause)
        if now - self._epoch_start >= self._round_trip:
            self._shrink(now)

    def _shrink(self, now: float) -> None:
        self.window = max(1.0, self.window * _SHRINK_FACTOR)
        self.shrinks += 1
        self._start_epoch(now)

    def _start_epoch(self, now: float) -> None:
        self._epoch_start = now
        self._epoch_responses = self._epoch_throttled = 0


class RequestBudget:
    """The maximum number of requests and tokens of a model; raises BudgetExceeded beyond it."""

    def __init__(self, requests: int | None = None, tokens: int | None = None) -> None:
        self.requests = requests
        self.tokens = tokens
        self.used_requests = 0
        self.used_tokens = 0
        self._name = ""
        self._calls: RemoteCalls | None = None

    @property
    def is_limited(self) -> bool:
        """Whether there is any limit."""
        return self.requests is not None or self.tokens is not None

    def share(self, name: str, calls: RemoteCalls) -> None:
        """Counts from now on at the `SharedBudgets` of several processes, under a name."""
        self._name, self._calls = name, calls

    async def spend_request(self) -> None:
        """Counts a request; called before each one, retries included."""
        if self._calls is None:
            fault = self.count_request()
        else:
            limits = self.requests, self.tokens
            fault = await self._calls.ask("spend_request", self._name, *limits)
        if fault:
            raise BudgetExceeded(fault)

    def count_request(self) -> str:
        """Counts a request; returns why there is no room for it, else ""."""
        if self.requests is not None and self.used_requests >= self.requests:
            return f"the budget of {self.requests} requests is spent"
        if self.tokens is not None and self.used_tokens >= self.tokens:
            return f"the budget of {self.tokens} tokens is spent ({self.used_tokens} used)"
        self.used_requests += 1
        return ""

    def spend_tokens(self, tokens: int) -> None:
        """Counts the tokens of a response."""
        if self._calls is not None:
            self._calls.tell("spend_tokens", self._name, tokens)
        self.used_tokens += tokens


class SharedBudgets:
    """The budgets of several processes, by name; lives in one of them."""

    def __init__(self) -> None:
        self._budgets: dict[str, RequestBudget] = {}

    def spend_request(self, name: str, requests: int | None, tokens: int | None) -> str:
        """Counts a request of a budget; returns why there is no room for it, else ""."""
        budget = self._budgets.setdefault(name, RequestBudget(requests, tokens))
        return budget.count_request()

    def spend_tokens(self, name: str, tokens: int) -> None:
        """Counts the tokens of a response to a counted request."""
        self._budgets[name].spend_tokens(tokens)


_CLOSE_CALLBACKS: WeakKeyDictionary[
    asyncio.AbstractEventLoop, list[Callable[[], Awaitable[None]]]
] = WeakKeyDictionary()


def register_close_callback(callback: Callable[[], Awaitable[None]]) -> None:
    """Registers a callback for `close_connections` in the running event loop."""
    _CLOSE_CALLBACKS.setdefault(asyncio.get_running_loop(), []).append(callback)


async def close_connections() -> None:
    """Closes the connections of the running event loop.

    Connections belong to one event loop; a model opens new ones when it is used in another.
    """
    for callback in _CLOSE_CALLBACKS.pop(asyncio.get_running_loop(), []):
        await callback()
