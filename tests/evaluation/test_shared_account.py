"""One budget for several workers: never passed, and what dead workers reserved stays spent."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evaluation.local_account import LocalAccount

from truing.core.errors import BudgetExceeded
from truing.core.prices import Price
from truing.evaluation.cost_bounds import Cost
from truing.evaluation.options import RunBudget
from truing.evaluation.shared_account import LEASE_SECONDS, AccountVisit, SpendingAccount

PRICE = Price(input=1_000_000, output=1_000_000)  # one unit of money a token
PROMPT, MAX_WRITTEN = 10, 8
BOUND = PROMPT + MAX_WRITTEN


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def account_of(tokens: int, clock: Clock | None = None, lost: int = 0) -> SpendingAccount:
    limits, clock = RunBudget(tokens=tokens), clock or Clock()
    return SpendingAccount(limits, None, MAX_WRITTEN, Cost(lost, 0), clock)


def opened(account: SpendingAccount, *parts: str) -> SpendingAccount:
    """Opens parts, with the visit of the same name, of which one sample has cost one token."""
    for part in parts:
        account.open(part, part, Cost(1, 0), Cost(1, 0), [])
    return account


def total(account: SpendingAccount) -> int:
    state = account.state()
    return sum(cost.read + cost.written for cost in (state.spent, state.lost))


@settings(max_examples=40, deadline=None)
@given(
    budget=st.integers(0, 600),
    n_workers=st.integers(1, 6),
    seed=st.integers(0, 1000),
    in_money=st.booleans(),
)
def test_the_invoice_of_all_workers_is_within_the_budget(
    budget: int, n_workers: int, seed: int, in_money: bool
) -> None:
    draw = random.Random(seed)
    limits = RunBudget(money=float(budget)) if in_money else RunBudget(tokens=budget)
    account = SpendingAccount(limits, PRICE if in_money else None, MAX_WRITTEN, Cost())
    invoice = answered = refused = 0

    async def work(number: int) -> None:
        nonlocal invoice, answered, refused
        part = f"part-{number}"
        visit = AccountVisit(LocalAccount(account), part)
        await visit.open(Cost(), None, [])
        for position in range(20):
            if not await visit.reserve(position, PROMPT):
                refused += 1
                return
            await asyncio.sleep(0)
            cost = Cost(draw.randint(1, PROMPT), draw.randint(0, MAX_WRITTEN))
            if draw.random() < 0.1:
                visit.settle(position, Cost(), 0)  # the request failed without a cost
                continue
            invoice += cost.read + cost.written
            answered += 1
            visit.settle(position, cost, 0)
            visit.end(position)  # nothing is lost: the sample is settled

    async def work_all() -> None:
        await asyncio.gather(*(work(number) for number in range(n_workers)))

    asyncio.run(work_all())
    assert invoice <= budget
    assert total(account) == invoice
    # A worker is refused only where the next answer could have passed the budget.
    if refused:
        assert refused == n_workers or answered
        assert invoice + BOUND > budget
    assert account.state().is_used_up == (refused > 0)


def test_the_first_answer_is_waited_for_alone() -> None:
    account = account_of(1000)
    for part in ("a", "b"):
        account.open(part, part, Cost(), None, [])
    assert account.reserve("a", "a", 0, PROMPT) == "admitted"
    assert account.reserve("b", "b", 0, PROMPT) == "wait"
    # Each answer of this model asks four times: the bounds of the next ones are as large.
    account.settle("a", "a", 0, Cost(40, 32), 30)
    assert account.reserve("b", "b", 0, PROMPT) == "admitted"
    assert total(account) == 72 + 72


def test_a_request_waits_for_those_in_flight_and_then_ends_the_run() -> None:
    account = opened(account_of(2 * BOUND), "a", "b")
    assert account.reserve("a", "a", 0, PROMPT) == "admitted"
    assert account.reserve("b", "b", 0, PROMPT) == "wait"
    account.settle("a", "a", 0, Cost(PROMPT, MAX_WRITTEN), 0)
    assert account.reserve("b", "b", 0, PROMPT) == "used up"
    # Used up once, it admits no smaller one either: the rows would be a choice.
    assert account.reserve("a", "a", 1, 1) == "used up"
    assert account.state().is_used_up


def test_what_a_dead_worker_reserved_is_lost_except_for_stored_answers() -> None:
    account = opened(account_of(1000), "a")
    for position in range(3):
        assert account.reserve("a", "a", position, PROMPT) == "admitted"
    # Another worker has the part: the answer to sample 1 is stored, but was never settled.
    account.open("a", "second", Cost(9, 4), Cost(9, 4), [1])
    state = account.state()
    assert (state.spent, state.lost) == (Cost(9, 4), Cost(2 * PROMPT, 2 * MAX_WRITTEN))
    assert account.reserve("a", "a", 5, PROMPT) == "replaced"
    # The worker was not dead: its answer has cost less, and is still none of the part.
    account.settle("a", "a", 0, Cost(3, 3), 0)
    state = account.state()
    assert (state.spent, state.lost) == (Cost(9, 4), Cost(PROMPT + 3, MAX_WRITTEN + 3))
    account.settle("a", "second", 2, Cost(5, 5), 0)
    assert account.state().spent == Cost(14, 9)


def test_a_silent_worker_stands_in_nobodys_way() -> None:
    clock = Clock()
    account = opened(account_of(3 * BOUND, clock), "dead", "alive")
    assert account.reserve("dead", "dead", 0, PROMPT) == "admitted"
    assert account.reserve("alive", "alive", 0, PROMPT) == "admitted"
    assert account.reserve("alive", "alive", 1, PROMPT) == "wait"
    clock.seconds += LEASE_SECONDS / 2
    account.renew("alive")
    clock.seconds += LEASE_SECONDS / 2
    account.settle("alive", "alive", 0, Cost(1, 1), 0)
    assert account.reserve("alive", "alive", 1, PROMPT) == "admitted"
    account.settle("alive", "alive", 1, Cost(PROMPT, MAX_WRITTEN), 0)
    # Nothing but the reservation of the dead one is left, and it stays spent.
    assert account.reserve("alive", "alive", 2, PROMPT) == "used up"
    assert account.state().lost == Cost(PROMPT, MAX_WRITTEN)


def test_a_reservation_that_is_not_settled_is_lost_at_once_and_until_it_is_answered() -> None:
    account = opened(account_of(2 * BOUND), "a")

    async def work() -> None:
        visit = AccountVisit(LocalAccount(account), "a")
        await visit.open(Cost(), None, [])
        assert await visit.reserve(0, PROMPT)
        visit.end(0)
        visit.end(0)
        # Nothing is in flight, so that nobody waits for what does not fit.
        assert not await visit.reserve(1, PROMPT + 1)

    asyncio.run(work())
    assert account.state().lost == Cost(PROMPT, MAX_WRITTEN)
    account.open("a", "again", Cost(2, 2), None, [0])
    assert (account.state().spent, account.state().lost) == (Cost(2, 2), Cost())


def test_what_earlier_calls_lost_counts() -> None:
    account = opened(account_of(2 * BOUND, lost=BOUND), "a")
    assert account.reserve("a", "a", 0, PROMPT) == "used up"
    assert account.state().lost == Cost(BOUND, 0)


def test_an_account_that_is_gone_admits_nothing() -> None:
    calls = LocalAccount(account_of(1000), calls_left=2)

    async def work() -> None:
        visit = AccountVisit(calls, "a")
        await visit.open(Cost(), None, [])
        assert await visit.reserve(0, PROMPT)
        visit.settle(0, Cost(1, 1), 0)
        await visit.reserve(1, PROMPT)

    with pytest.raises(BudgetExceeded, match="gone"):
        asyncio.run(work())


def test_a_worker_whose_part_was_taken_over_asks_no_more() -> None:
    account = account_of(1000)

    async def work() -> None:
        visit = AccountVisit(LocalAccount(account), "a")
        await visit.open(Cost(), None, [])
        account.open("a", "another", Cost(), None, [])
        await visit.reserve(0, PROMPT)

    with pytest.raises(BudgetExceeded, match="a: another worker has taken it over"):
        asyncio.run(work())
