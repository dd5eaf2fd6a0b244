"""The window of requests and the budget."""

from __future__ import annotations

import asyncio
import time

import pytest

from truing.core.errors import BudgetExceeded
from truing.http.limits import AdaptiveLimiter, RequestBudget


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def made(window: int) -> tuple[AdaptiveLimiter, Clock]:
    clock = Clock()
    return AdaptiveLimiter(window, clock=clock), clock


def round_trip(limiter: AdaptiveLimiter, clock: Clock, answers: int, throttled: int) -> None:
    for i in range(answers):
        clock.now += 0.2 / answers
        limiter.record_response(0.1, throttled=i < throttled)


def test_a_single_429_changes_no_window() -> None:
    for window in (1, 4, 64):
        limiter, clock = made(window)
        round_trip(limiter, clock, window, 1)
        assert limiter.window == window
        assert limiter.shrinks == 0


def test_five_percent_is_the_line() -> None:
    limiter, clock = made(100)
    round_trip(limiter, clock, 100, 5)
    assert limiter.shrinks == 0
    limiter, clock = made(100)
    limiter.in_flight = 100
    for i in range(100):
        clock.now += 0.002
        limiter.record_response(0.1, throttled=i >= 94)
    assert limiter.shrinks == 1
    assert limiter.window == 70.0


def test_at_most_one_shrink_a_round_trip() -> None:
    limiter, clock = made(64)
    for _ in range(64):  # all at once: one round trip
        clock.now += 0.0001
        limiter.record_response(0.1, throttled=True)
    assert limiter.shrinks == 0
    clock.now += 0.2
    limiter.record_response(0.1, throttled=True)
    assert limiter.shrinks == 1
    for _ in range(40):
        limiter.record_response(0.1, throttled=True)
    assert limiter.shrinks == 1


def test_the_window_grows_back_by_one_a_round_trip_up_to_its_start() -> None:
    limiter, clock = made(10)
    limiter.window = 7.0
    for expected in (8, 9, 10, 10):
        round_trip(limiter, clock, 10, 0)
        assert limiter.window == expected


def test_a_spent_quota_shrinks_and_makes_everybody_wait() -> None:
    limiter, clock = made(10)
    clock.now += 1
    limiter.pause_for_quota(5.0)
    limiter.pause_for_quota(5.0)
    assert (limiter.window, limiter.shrinks) == (7.0, 1)


def test_no_more_in_flight_than_the_window_and_first_come_first_served() -> None:
    async def run() -> tuple[int, list[int]]:
        limiter = AdaptiveLimiter(3)
        most, order = 0, []

        async def one(i: int) -> None:
            nonlocal most
            await limiter.acquire()
            most = max(most, limiter.in_flight)
            order.append(i)
            await asyncio.sleep(0.001)
            limiter.release()

        tasks = [asyncio.create_task(one(i)) for i in range(12)]
        await asyncio.sleep(0)
        tasks[5].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert limiter.in_flight == 0
        return most, order

    most, order = asyncio.run(run())
    assert most == 3
    assert order == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]


def test_the_budget_stops_before_it_is_passed() -> None:
    budget = RequestBudget(requests=2)
    budget.spend_request()
    budget.spend_request()
    with pytest.raises(BudgetExceeded, match="2 requests"):
        budget.spend_request()
    budget = RequestBudget(tokens=10)
    budget.spend_request()
    budget.spend_tokens(11)
    with pytest.raises(BudgetExceeded, match="10 tokens is spent"):
        budget.spend_request()


def test_a_rate_keeps_requests_apart_and_a_cancelled_one_gives_its_place_back() -> None:
    async def run() -> tuple[float, int]:
        limiter = AdaptiveLimiter(10, rate=200.0)
        started = time.monotonic()

        async def one() -> None:
            await limiter.acquire()
            limiter.release()

        tasks = [asyncio.create_task(one()) for _ in range(11)]
        await asyncio.sleep(0.01)
        tasks[-1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return time.monotonic() - started, limiter.in_flight

    took, left = asyncio.run(run())
    assert took >= 9 / 200
    assert left == 0
