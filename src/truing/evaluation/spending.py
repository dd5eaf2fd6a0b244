"""What the answers of a run may cost and have cost, and a limit before which the run stops.

Before the requests for a sample their largest cost (`truing.evaluation.cost_bounds`) is reserved.
If that does not fit, the run waits until the requests in flight have stated their cost, and stops
only when none is left. What an answer of the model really costs is not known before the first one,
so that is waited for alone. Several processes reserve at one `SpendingAccount`.
"""

from __future__ import annotations

import asyncio
import random
from array import array
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

from msgspec import UNSET, Struct, UnsetType

from truing.core.jsonl import read_records
from truing.core.prices import Price, Spending
from truing.core.types import Answer, AnswerIndex, Failure, Message, Response, Sample, Usage
from truing.evaluation.cost_bounds import (
    Cost,
    CostBounds,
    PromptBounds,
    cost_of_answers,
    fits_budget,
)
from truing.evaluation.failures import RESPONSES
from truing.evaluation.options import EvaluateOptions, RunBudget
from truing.evaluation.shared_account import PartPass
from truing.runs.folder import Manifest, Run
from truing.runs.index import IdIndex, SampleStore
from truing.runs.parts import list_run_parts

_FEW_ROWS = 50


class _StoredUsage(Struct, frozen=True):
    """The fields of a stored response that say what it cost."""

    sample_id: str
    index: AnswerIndex = 0
    message: Message = Message("assistant")
    usage: Usage = Usage()
    failure: Failure | None = None


class StoredSamples(Protocol):
    """The samples that were sent, by their position in the data set."""

    def __len__(self) -> int:
        """Returns the number of positions."""
        ...

    def read(self, position: int) -> Sample:
        """Reads a sample that has an answer."""
        ...


class SpendingMeter:
    """Counts what the answers of one run cost, and admits requests while the budget lasts.

    In a pass over a part of a larger run, the shared account of that run admits.
    """

    def __init__(
        self,
        options: EvaluateOptions,
        answers_per_sample: int = 1,
        part_pass: PartPass | None = None,
    ) -> None:
        self.budget, self.price = options.budget, options.price
        self._account = part_pass.account if part_pass is not None else None
        self.is_needed = (
            self.budget.is_limited or self.price is not None or self._account is not None
        )
        self.is_used_up = False
        self._spent = Cost()
        self._answers = self._estimated = 0
        self._reserved: dict[int, Cost] = {}
        # What was reserved for answers that were not stored, in this call and in earlier ones: they
        # may have been charged. With a shared account, that one counts them.
        self._lost = Cost()
        self._bounds = CostBounds(max_written=answers_per_sample * options.sampling.max_tokens)
        self._prompts = PromptBounds(options.sampling, answers_per_sample)
        # Part of what is spent, of answers that failed and were asked again: in no file any more.
        self._repeated = Cost()
        # Requests are admitted in the order of the rows: a large one is not passed by small ones,
        # which would leave a choice of rows instead of a sample.
        self._waiting: list[int] = []
        self._settled = asyncio.Event()

    def spending(self) -> Spending:
        """Returns what the answers have cost, with what is reserved for those that were lost."""
        money = None
        total = self._spent + self._lost
        if self.price is not None:
            money = self.price.money(total.read, total.written)
        return Spending(
            answers=self._answers,
            estimated=self._estimated,
            tokens_read=total.read,
            tokens_written=total.written,
            money=money,
            price=self.price,
            repeated_read=self._repeated.read or UNSET,
            repeated_written=self._repeated.written or UNSET,
            lost_read=self._lost.read or UNSET,
            lost_written=self._lost.written or UNSET,
        )

    @property
    def has_lost(self) -> bool:
        """Whether something counts as spent for requests whose answers were not stored."""
        return self._lost != Cost()

    async def open(self, find_unanswered: Callable[[], list[int]], total: int) -> None:
        """Tells a shared account what the stored answers have cost, and which samples have them."""
        if self._account is not None:
            answered = sorted(set(range(total)) - set(find_unanswered()))
            bounds = self._bounds
            await self._account.open(self._spent, bounds.largest, answered, bounds.largest_overhead)

    def renew(self) -> None:
        """Tells a shared account that this process is alive."""
        if self._account is not None:
            self._account.renew()

    async def close(self) -> None:
        """Waits until a shared account knows all costs."""
        if self._account is not None:
            await self._account.close()

    def write_notes(
        self, manifest: Manifest, order: Sequence[int], is_answered: Iterable[bool]
    ) -> None:
        """Writes into a manifest, which is not saved, what the answers cost and whether a budget
        ended the run. `is_answered` is by position.
        """
        manifest.notes.pop("budget", None)
        if self.is_needed:
            manifest.spending = self.spending()
        # Of a part with a shared account, the run as a whole has the note.
        if self.is_used_up and self._account is None:
            manifest.notes["budget"] = describe_stop(self.budget, order, list(is_answered))

    def enter(self, position: int) -> None:
        """Takes the next place in the order of admission; `leave` must be called."""
        if self.budget.is_limited:
            self._waiting.append(position)

    async def admit(self, position: int, sample: Sample) -> bool:
        """Reserves the largest cost of a sample's answers, after those of all samples that entered
        before it; returns False if it passes the budget.
        """
        if self._account is not None:
            is_admitted = await self._account.reserve(position, self._prompts.of(sample))
            self.is_used_up = self.is_used_up or not is_admitted
            return is_admitted
        if not self.budget.is_limited:
            return True
        while not self.is_used_up:
            if self._waiting[0] == position:
                cost = self._bounds.bound(self._prompts.of(sample))
                if self._fits(cost):
                    self._reserved[position] = cost
                    self._give_up_place(position)
                    return True
                self.is_used_up = not self._reserved
            if not self.is_used_up:
                self._settled.clear()
                await self._settled.wait()
        self._give_up_place(position)
        return False

    def _give_up_place(self, position: int) -> None:
        if position in self._waiting:
            self._waiting.remove(position)
        self._settled.set()

    def _fits(self, cost: Cost) -> bool:
        # What an answer of this model really costs is not known before the first one.
        if self._bounds.largest is None and self._reserved:
            return False
        total = sum(self._reserved.values(), self._spent + self._lost + cost)
        return fits_budget(total, self.budget, self.price)

    def count(self, position: int, sample: Sample, answers: Sequence[Answer | Response]) -> None:
        """Counts what the answers to a sample cost, once they are stored."""
        cost, n_estimated = cost_of_answers(sample, answers)
        self._reserved.pop(position, None)
        self._count(cost, len(answers), n_estimated)
        overhead = self._learn_overhead(cost, sample)
        if self._account is not None:
            self._account.settle(position, cost, overhead)

    def _learn_overhead(self, cost: Cost, sample: Sample) -> int:
        """Learns and returns what a wrapper adds to prompts: a system prompt, images."""
        overhead = cost.read - self._prompts.of(sample)
        self._bounds.learn(cost, overhead)
        return overhead

    def leave(self, position: int) -> None:
        """Ends the place of a sample; what is reserved for it and was not counted stays spent."""
        self._lost += self._reserved.pop(position, Cost())
        if self._account is not None:
            self._account.end(position)
        self._give_up_place(position)

    def _count(self, cost: Cost, n_answers: int, n_estimated: int) -> None:
        self._spent += cost
        self._answers += n_answers
        self._estimated += n_estimated
        self._bounds.learn(cost)

    def count_noted(self, spending: Spending | UnsetType) -> None:
        """Counts what earlier calls spent on answers that no file holds: those that failed and were
        asked again, and those that were lost.
        """
        if spending is not UNSET:
            cost = Cost(spending.repeated_read or 0, spending.repeated_written or 0)
            self._repeated, self._spent = cost, self._spent + cost
            self._lost += Cost(spending.lost_read or 0, spending.lost_written or 0)

    def count_earlier(
        self, spending: Spending | UnsetType, path: Path, ids: IdIndex, samples: StoredSamples
    ) -> None:
        """Counts what earlier calls spent: by their account, and the answers in a file."""
        self.count_noted(spending)
        self.count_stored(path, ids, samples)

    def recount_stored(self, path: Path, ids: IdIndex, samples: StoredSamples) -> None:
        """Counts the answers anew after failures were dropped, whose cost stays spent."""
        before, self._spent = self._spent, Cost()
        self._answers = self._estimated = 0
        self.count_stored(path, ids, samples)
        self._repeated, self._spent = before - self._spent, before

    def count_stored(self, path: Path, ids: IdIndex, samples: StoredSamples) -> None:
        """Counts the answers in a file of responses; `ids` are those of the answers' samples."""
        read, written = array("Q", bytes(8 * len(samples))), array("Q", bytes(8 * len(samples)))
        n_stored = array("I", bytes(4 * len(samples)))
        for record in read_records(path, _StoredUsage):
            position = ids.get(record.sample_id)
            if position is not None:
                read[position] += record.usage.prompt_tokens
                written[position] += record.usage.completion_tokens
                n_stored[position] += 1
        without_usage = {
            position
            for position, count in enumerate(n_stored)
            if count and not read[position] and not written[position]
        }
        estimates: dict[int, tuple[Cost, int]] = {}
        for record in read_records(path, _StoredUsage) if without_usage else ():
            position = ids.get(record.sample_id)
            if position is None or position not in without_usage:
                continue
            cost, n_estimated = cost_of_answers(samples.read(position), [record])
            if position in estimates:  # the prompt was read once for all answers to it
                earlier, n_earlier = estimates[position]
                cost = Cost(max(earlier.read, cost.read), earlier.written + cost.written)
                n_estimated += n_earlier
            estimates[position] = cost, n_estimated
        for position, count in enumerate(n_stored):
            stated = Cost(read[position], written[position])
            cost, n_estimated = estimates.get(position, (stated, 0))
            if count:
                self._count(cost, count, n_estimated)
                if self.budget.is_limited or self._account is not None:
                    self._learn_overhead(cost, samples.read(position))


def read_spending(run: Run, price: Price | None) -> Spending:
    """Returns what the stored answers of a run cost at a price; of a run in parts, of all parts."""
    parts = list_run_parts(run.path)
    if parts is not None:
        of_parts = (read_spending(Run(run.path / "parts" / part), price) for part in parts)
        return add_spending(of_parts, price, read_lost(run.manifest))
    if not run.file(RESPONSES).exists() or not run.file("samples.jsonl").exists():
        return Spending(price=price)
    meter = SpendingMeter(EvaluateOptions(price=price))
    meter.count_noted(run.manifest.spending)
    with closing(SampleStore(run.file("samples.jsonl"))) as samples:
        meter.count_stored(run.file(RESPONSES), samples.ids, samples)
    return meter.spending()


def read_lost(manifest: Manifest) -> Cost:
    """Returns what a run counts as spent for requests whose answers were lost."""
    spending = manifest.spending
    if spending is UNSET:
        return Cost()
    return Cost(spending.lost_read or 0, spending.lost_written or 0)


def add_spending(parts: Iterable[Spending], price: Price | None, lost: Cost) -> Spending:
    """Returns what the answers of all parts of a run cost, with what was lost."""
    total, repeated = lost, Cost()
    answers = estimated = 0
    for spending in parts:
        total += Cost(spending.tokens_read, spending.tokens_written)
        repeated += Cost(spending.repeated_read or 0, spending.repeated_written or 0)
        answers += spending.answers
        estimated += spending.estimated
    return Spending(
        answers=answers,
        estimated=estimated,
        tokens_read=total.read,
        tokens_written=total.written,
        money=price.money(total.read, total.written) if price is not None else None,
        price=price,
        repeated_read=repeated.read or UNSET,
        repeated_written=repeated.written or UNSET,
        lost_read=lost.read or UNSET,
        lost_written=lost.written or UNSET,
    )


def order_positions(
    total: int, options: EvaluateOptions, part_pass: PartPass | None
) -> Sequence[int]:
    """Returns the positions of the samples in the order in which a run asks for answers."""
    if part_pass is not None:
        return part_pass.positions
    may_stop_early = options.until is not None or options.budget.is_limited
    return shuffle_positions(total, options.seed) if may_stop_early else range(total)


def shuffle_positions(total: int, seed: int) -> array[int]:
    """Returns the positions of a data set in the random order in which a run that may stop early
    takes them: what it holds when it stops is a random sample.
    """
    order = array("I", range(total))
    random.Random(seed).shuffle(order)
    return order


def describe_stop(budget: RunBudget, order: Sequence[int], is_answered: Sequence[bool]) -> str:
    """Returns the note of a run that was stopped by its budget; `is_answered` is by position."""
    n_answered = sum(is_answered)
    text = (
        f"stopped by its budget of {budget.describe()} after {n_answered:,} of {len(order):,} rows"
    )
    if all(is_answered[position] for position in order[:n_answered]):
        small_sample_note = (
            " (so few that the lengths of answers decide how many: short ones, such as refusals, "
            "may be too many or too few)"
        )
        small = small_sample_note if n_answered < _FEW_ROWS else ""
        return f"{text}, drawn at random{small}; a higher budget continues it"
    # An earlier call without a budget took the rows in their order.
    return f"{text}, which are no random sample; a higher budget continues it"
