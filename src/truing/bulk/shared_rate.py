"""One rate limit for the requests of several processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


class RateClock:
    """Hands out the times at which requests may be sent, evenly spaced for each endpoint.

    `rates` has those of some endpoints by scope, in requests a second; `rate` is that of all others
    (None: no limit). It lives in one process, which the others ask before each request. Seconds to
    wait are returned, not times: the clocks of machines differ.
    """

    def __init__(
        self,
        rate: float | None,
        rates: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = rate
        self._rates = dict(rates or {})
        self._clock = clock
        self._next_send: dict[str, float] = {}

    def reserve(self, scope: str) -> float:
        """Reserves the next request to an endpoint; returns the seconds until it may be sent."""
        rate = self._rates.get(scope, self._rate)
        if rate is None:
            return 0.0
        now = self._clock()
        # Never earlier than now: a pause saves up no burst.
        send_at = max(now, self._next_send.get(scope, now))
        self._next_send[scope] = send_at + 1.0 / rate
        return send_at - now
