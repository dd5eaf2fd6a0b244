"""One rate for all workers: requests are spaced evenly, and pauses save up no burst."""

from __future__ import annotations

import asyncio
import time

from hypothesis import given
from hypothesis import strategies as st

from truing.bulk.shared_rate import RateClock
from truing.http.limits import AdaptiveLimiter


@given(
    rate=st.floats(0.1, 1000),
    pauses=st.lists(st.floats(0, 10), min_size=1, max_size=30),
)
def test_no_second_holds_more_requests_than_the_rate(rate: float, pauses: list[float]) -> None:
    now = 0.0
    clock = RateClock(rate, {"free": 1e9}, lambda: now)
    sent = []
    for pause in pauses:
        now += pause
        sent.append(now + clock.reserve("endpoint"))
    gaps = [b - a for a, b in zip(sent, sent[1:])]
    assert all(gap >= 1 / rate - 1e-9 for gap in gaps)
    assert clock.reserve("another endpoint") == 0
    assert RateClock(None, {"limited": 1.0}).reserve("another endpoint") == 0


def test_a_limiter_waits_for_the_reserved_time() -> None:
    async def send() -> float:
        clock = RateClock(50)

        async def reserve() -> float:
            return clock.reserve("endpoint")

        limiters = [AdaptiveLimiter(8, reserve=reserve) for _ in range(3)]
        start = time.monotonic()
        await asyncio.gather(*(limiter.acquire() for limiter in limiters for _ in range(4)))
        return time.monotonic() - start

    assert asyncio.run(send()) >= 11 / 50 - 0.01
