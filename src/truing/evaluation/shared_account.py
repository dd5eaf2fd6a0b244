"""One budget for the answers that several processes draw.

A `SpendingAccount` lives in one process. A worker opens a part of the run there, reserves the most
that the answers to a sample may cost before it asks for them, and settles what they have cost. The
sum of what is settled, lost and reserved never passes the budget.

It fails closed: what was reserved for answers that never came, or could not be stored, counts as
spent, since the endpoint may have charged them; an account that is gone admits nothing.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Literal

from msgspec import Struct

from truing.core.errors import BudgetExceeded
from truing.core.prices import Price
from truing.core.remote_calls import RemoteCalls
from truing.evaluation.cost_bounds import Cost, CostBounds, fits_budget, larger_cost
from truing.evaluation.options import RunBudget

LEASE_SECONDS = 60.0
"""A worker that is silent for so long is taken for dead; workers call every second."""

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0

Admission = Literal["admitted", "wait", "used up", "replaced"]


class AccountState(Struct, frozen=True, kw_only=True):
    """What an account knows between two waves of requests.

    `spent` holds the stored answers and those that failed, `lost` what counts as spent for requests
    whose answers were not stored. `largest_prompt` is the largest bound of a prompt that was sent.
    """

    spent: Cost
    lost: Cost
    bounds: CostBounds
    largest_prompt: int
    is_used_up: bool


class _CostTable:
    """Costs by key, with their sum."""

    def __init__(self) -> None:
        self.total = Cost()
        self.costs: dict[Any, Cost] = {}

    def set(self, key: Any, cost: Cost) -> None:
        """Replaces the cost of a key."""
        self.total = self.total - self.costs.get(key, Cost()) + cost
        self.costs[key] = cost

    def pop(self, key: Any) -> Cost:
        """Removes a key; returns its cost, none for an unknown one."""
        cost = self.costs.pop(key, Cost())
        self.total = self.total - cost
        return cost


class SpendingAccount:
    """Counts what all workers of a run spend, and admits requests while the budget lasts.

    No method waits: whoever has to wait asks again. `lost` is that of earlier calls.
    """

    def __init__(
        self,
        budget: RunBudget,
        price: Price | None,
        max_written: int,
        lost: Cost,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._budget, self._price = budget, price
        self._bounds = CostBounds(max_written=max_written)
        self._clock = clock
        self._visits: dict[str, str] = {}  # part -> the visit that works on it
        self._last_call: dict[str, float] = {}  # by visit
        self._spent = _CostTable()  # by part
        # By visit and position of the sample in its part:
        self._reserved, self._lost = _CostTable(), _CostTable()
        self._earlier_lost = lost
        self._largest_prompt = 0
        self._is_used_up = False

    def open(
        self,
        part: str,
        visit: str,
        spent: Cost,
        largest: Cost | None,
        answered: Sequence[int],
        overhead: int = 0,
    ) -> None:
        """Begins the visit of a worker to a part, whose stored answers have cost `spent`.

        `largest` and `overhead` are the largest of them, as in `CostBounds`.

        What an earlier visit to the part had reserved is lost, except for the samples that are
        `answered`: their cost is in `spent`.
        """
        earlier = self._visits.get(part, "")
        for key in [key for key in self._reserved.costs if key[0] == earlier]:
            self._lost.set(key, self._reserved.pop(key))
        for position in answered:
            self._lost.pop((earlier, position))
        self._visits[part] = visit
        self._last_call.pop(earlier, None)
        self._last_call[visit] = self._clock()
        self._spent.set(part, spent)
        self._bounds.largest = larger_cost(self._bounds.largest, largest)
        self._bounds.learn(Cost(), overhead)

    def reserve(self, part: str, visit: str, position: int, prompt_tokens: int) -> Admission:
        """Reserves the largest cost of a sample's answers, if that is within the budget."""
        if self._visits.get(part) != visit:
            return "replaced"
        self._last_call[visit] = self._clock()
        if self._is_used_up:
            return "used up"
        self._largest_prompt = max(self._largest_prompt, prompt_tokens)
        cost = self._bounds.bound(prompt_tokens)
        fits = fits_budget(self._committed() + cost, self._budget, self._price)
        # What an answer of this model really costs is not known before the first one.
        if fits and (self._bounds.largest is not None or not self._reserved.costs):
            self._reserved.set((visit, position), cost)
            return "admitted"
        self._give_up_silent_visits()
        if fits or self._reserved.costs:
            return "wait"
        self._is_used_up = True
        return "used up"

    def settle(self, part: str, visit: str, position: int, cost: Cost, overhead: int) -> None:
        """Replaces a reservation by what the answers have cost."""
        self._bounds.learn(cost, overhead)
        self._reserved.pop((visit, position))
        self._lost.pop((visit, position))
        if self._visits.get(part) == visit:
            self._spent.set(part, self._spent.costs.get(part, Cost()) + cost)
            self._last_call[visit] = self._clock()
        else:
            # Of a worker that was thought dead: another one asks for these answers again.
            self._lost.set((visit, position), cost)

    def lose(self, visit: str, position: int) -> None:
        """Counts a reservation as spent: its requests may be charged, but no answer is stored."""
        if (visit, position) in self._reserved.costs:
            self._lost.set((visit, position), self._reserved.pop((visit, position)))

    def renew(self, visit: str) -> None:
        """Notes that a worker is alive."""
        if visit in self._last_call:
            self._last_call[visit] = self._clock()

    def state(self) -> AccountState:
        """Returns what is spent, and what an answer may cost; for times when no worker asks.

        A reservation that is left then is of a worker that died.
        """
        return AccountState(
            spent=self._spent.total,
            lost=self._earlier_lost + self._lost.total + self._reserved.total,
            bounds=self._bounds,
            largest_prompt=self._largest_prompt,
            is_used_up=self._is_used_up,
        )

    def _committed(self) -> Cost:
        """Returns what is spent, lost and reserved."""
        lost = self._earlier_lost + self._lost.total
        return self._spent.total + lost + self._reserved.total

    def _give_up_silent_visits(self) -> None:
        """Counts the reservations of workers that seem to have died as spent."""
        oldest = self._clock() - LEASE_SECONDS
        for key in list(self._reserved.costs):
            if self._last_call.get(key[0], oldest) <= oldest:
                self._lost.set(key, self._reserved.pop(key))


class AccountVisit:
    """The visit of a worker to one part, as the account of the run knows it."""

    def __init__(self, calls: RemoteCalls, part: str) -> None:
        self._calls, self._part = calls, part
        self._visit = uuid.uuid4().hex
        self._outstanding: set[int] = set()

    async def open(
        self, spent: Cost, largest: Cost | None, answered: Sequence[int], overhead: int = 0
    ) -> None:
        """Begins the visit; see `SpendingAccount.open`."""
        learned = spent, largest, list(answered), overhead
        await self._calls.ask("open", self._part, self._visit, *learned)

    async def reserve(self, position: int, prompt_tokens: int) -> bool:
        """Waits until the largest cost of a sample's answers is reserved; returns False if the
        budget is used up.

        Raises BudgetExceeded if the account is gone, or if another worker has the part now.
        """
        pause = _FIRST_PAUSE_SECONDS
        while True:
            arguments = self._part, self._visit, position, prompt_tokens
            admission: Admission = await self._calls.ask("reserve", *arguments)
            if admission == "admitted":
                self._outstanding.add(position)
                return True
            if admission == "used up":
                return False
            if admission == "replaced":
                raise BudgetExceeded(f"{self._part}: another worker has taken it over")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def settle(self, position: int, cost: Cost, overhead: int) -> None:
        """Replaces a reservation by what the answers have cost."""
        self._outstanding.discard(position)
        self._calls.tell("settle", self._part, self._visit, position, cost, overhead)

    def end(self, position: int) -> None:
        """Says that nobody waits for a sample any more: a reservation not settled is lost."""
        if position in self._outstanding:
            self._outstanding.discard(position)
            self._calls.tell("lose", self._visit, position)

    def renew(self) -> None:
        """Says that this worker is alive."""
        self._calls.tell("renew", self._visit)

    async def close(self) -> None:
        """Waits until the account has heard all that this visit told it."""
        await self._calls.ask("renew", self._visit)


class PartPass(Struct, frozen=True):
    """A worker's pass over one part of a run: the samples that it asks, in this order.

    Positions are those of the samples in the part.
    """

    positions: Sequence[int]
    account: AccountVisit
