"""One rate limit for the requests of several processes."""

from __future__ import annotations

import time
from collections.abc import Callable


class RateClock:
    """Hands out the times at which requests may be sent, evenly spaced for each endpoint.

    It lives in one process, which the others ask before each request. Seconds to wait are returned,
    not times: the clocks of machines differ.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1.0 / rate
        self._clock = clock
        self._next_send: dict[str, float] = {}

    def reserve(self, scope: str) -> float:
        """Reserves the next request to an endpoint; returns the seconds until it may be sent."""
        now = self._clock()
        # Never earlier than now: a pause saves up no burst.
        send_at = max(now, self._next_send.get(scope, now))
        self._next_send[scope] = send_at + self._interval
        return send_at - now
