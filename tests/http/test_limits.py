"""The adaptive limiter, the rate limit and the request budget."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from truing.core.errors import BudgetExceeded
from truing.http.limits import AdaptiveLimiter, RequestBudget, SharedBudgets


class Clock:
    """A clock that only moves when the test moves it."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def make_limiter(window: int) -> tuple[AdaptiveLimiter, Clock]:
    clock = Clock()
    return AdaptiveLimiter(window, clock=clock), clock


def run_round_trip(limiter: AdaptiveLimiter, clock: Clock, responses: int, throttled: int) -> None:
    """Records one round trip of responses, the first `throttled` of which are 429s."""
    for i in range(responses):
        clock.now += 0.2 / responses
        limiter.record_response(0.1, throttled=i < throttled)


def test_a_single_429_does_not_shrink_the_window() -> None:
    for window in (1, 4, 64):
        limiter, clock = make_limiter(window)
        run_round_trip(limiter, clock, window, 1)
        assert limiter.window == window
        assert limiter.shrinks == 0


def test_window_shrinks_above_five_percent_of_429s() -> None:
    limiter, clock = make_limiter(100)
    run_round_trip(limiter, clock, 100, 5)
    assert limiter.shrinks == 0
    limiter, clock = make_limiter(100)
    limiter.in_flight = 100
    for i in range(100):
        clock.now += 0.002
        limiter.record_response(0.1, throttled=i >= 94)
    assert limiter.shrinks == 1
    assert limiter.window == 70.0


def test_window_shrinks_at_most_once_a_round_trip() -> None:
    limiter, clock = make_limiter(64)
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


def test_window_grows_by_one_a_round_trip_up_to_its_start() -> None:
    limiter, clock = make_limiter(10)
    limiter.window = 7.0
    for expected in (8, 9, 10, 10):
        run_round_trip(limiter, clock, 10, 0)
        assert limiter.window == expected


def test_used_up_quota_shrinks_once_and_pauses() -> None:
    limiter, clock = make_limiter(10)
    clock.now += 1
    limiter.pause_for_quota(5.0)
    limiter.pause_for_quota(5.0)
    assert (limiter.window, limiter.shrinks) == (7.0, 1)
    assert limiter._paused_until == clock.now + 5.0
    limiter.pause_for_quota(10_000.0)
    assert limiter._paused_until == clock.now + 300.0


def test_in_flight_stays_within_the_window_in_order_of_arrival() -> None:
    async def run() -> tuple[int, list[int]]:
        limiter = AdaptiveLimiter(3)
        max_in_flight = 0
        order: list[int] = []

        async def send(i: int) -> None:
            nonlocal max_in_flight
            await limiter.acquire()
            max_in_flight = max(max_in_flight, limiter.in_flight)
            order.append(i)
            await asyncio.sleep(0.001)
            limiter.release()

        tasks = [asyncio.create_task(send(i)) for i in range(12)]
        await asyncio.sleep(0)
        tasks[5].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert limiter.in_flight == 0
        return max_in_flight, order

    max_in_flight, order = asyncio.run(run())
    assert max_in_flight == 3
    assert order == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]


async def spend_requests(budget: RequestBudget, count: int) -> None:
    for _ in range(count):
        await budget.spend_request()


def test_budget_raises_before_it_is_exceeded() -> None:
    budget = RequestBudget(requests=2)
    asyncio.run(spend_requests(budget, 2))
    with pytest.raises(BudgetExceeded, match="2 requests"):
        asyncio.run(spend_requests(budget, 1))
    budget = RequestBudget(tokens=10)
    asyncio.run(spend_requests(budget, 1))
    budget.spend_tokens(11)
    with pytest.raises(BudgetExceeded, match="10 tokens is spent"):
        asyncio.run(spend_requests(budget, 1))


class DirectCalls:
    """Calls the budgets of several processes, all of which are this one."""

    def __init__(self) -> None:
        self.budgets = SharedBudgets()

    async def ask(self, method: str, *arguments: Any) -> Any:
        return getattr(self.budgets, method)(*arguments)

    def tell(self, method: str, *arguments: Any) -> None:
        getattr(self.budgets, method)(*arguments)


def test_shared_budgets_hold_for_all_processes_together() -> None:
    calls = DirectCalls()
    of_processes = [RequestBudget(requests=5) for _ in range(3)]
    for budget in of_processes:
        budget.share("target", calls)
    for budget in of_processes[:2]:
        asyncio.run(spend_requests(budget, 2))
    with pytest.raises(BudgetExceeded, match="the budget of 5 requests is spent"):
        asyncio.run(spend_requests(of_processes[2], 2))
    assert [budget.used_requests for budget in of_processes] == [0, 0, 0]

    judges = [RequestBudget(tokens=10) for _ in range(2)]
    for budget in judges:
        budget.share("judge", calls)  # another budget, with a limit of its own
        asyncio.run(spend_requests(budget, 1))
    judges[0].spend_tokens(10)
    with pytest.raises(BudgetExceeded, match=r"10 tokens is spent \(10 used\)"):
        asyncio.run(spend_requests(judges[1], 1))


def test_rate_limit_spaces_requests_and_a_cancelled_one_frees_its_slot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a clock that stands still, the n-th request sleeps for n intervals."""
    sleeps: list[float] = []

    async def run() -> int:
        limiter = AdaptiveLimiter(10, rate=200.0, clock=Clock())
        real_sleep = asyncio.sleep

        async def sleep(seconds: float) -> None:
            sleeps.append(round(seconds * 200.0, 6))
            if len(sleeps) == 4:
                raise asyncio.CancelledError
            await real_sleep(0)

        monkeypatch.setattr("truing.http.limits.asyncio.sleep", sleep)
        for _ in range(4):
            await limiter.acquire()
            limiter.release()
        with pytest.raises(asyncio.CancelledError):
            await limiter.acquire()
        return limiter.in_flight

    assert asyncio.run(run()) == 0
    assert sleeps == [1.0, 2.0, 3.0, 4.0]
