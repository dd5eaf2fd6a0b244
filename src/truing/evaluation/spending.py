"""What the answers of a run may cost and have cost, and a limit before which the run stops.

Before the requests for a sample their largest cost is reserved: every byte of the prompt that is
sent (after an attack) as one token, once for each answer, since some endpoints give one answer a
request; and answers as long as allowed. If that does not fit, the run waits until the requests in
flight have stated their cost, and stops only when none is left.

That is exact for models that send what is counted here. Beyond it the reservation is an estimate:
what a wrapper adds to prompts is read from the answers so far, the first of which is waited for
alone, and a model that sends several requests for an answer (best-of, an agent) is reserved the
largest cost of its answers so far. A `max_tokens` in the body of a spec, images, and repeated
requests that the provider charges without stating a usage are not seen.
"""

from __future__ import annotations

import asyncio
import random
from array import array
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec
from msgspec import UNSET, Struct, UnsetType

from truing.core.jsonl import read_records
from truing.core.prices import Price, Spending, estimate_tokens
from truing.core.types import Answer, AnswerIndex, Failure, Message, Response, Sample, Usage
from truing.evaluation.failures import RESPONSES
from truing.evaluation.options import EvaluateOptions, RunBudget
from truing.runs.folder import Run
from truing.runs.index import IdIndex, SampleStore

_FEW_ROWS = 50
_ROUNDING = 1e-9  # sums of prices may exceed a limit by the rounding of floats


class _StoredUsage(Struct, frozen=True):
    """The fields of a stored response that say what it cost."""

    sample_id: str
    index: AnswerIndex = 0
    message: Message = Message("assistant")
    usage: Usage = Usage()
    failure: Failure | None = None


class _Cost(Struct, frozen=True):
    read: int = 0
    written: int = 0

    def __add__(self, other: _Cost) -> _Cost:
        return _Cost(self.read + other.read, self.written + other.written)

    def __sub__(self, other: _Cost) -> _Cost:
        return _Cost(self.read - other.read, self.written - other.written)


class SpendingMeter:
    """Counts what the answers of one run cost, and admits requests while the budget lasts."""

    def __init__(self, options: EvaluateOptions, answers_per_sample: int = 1) -> None:
        self.budget, self.price = options.budget, options.price
        self.is_needed = self.budget.is_limited or self.price is not None
        self.is_used_up = False
        self._max_written = answers_per_sample * options.sampling.max_tokens
        self._spent = _Cost()
        self._answers = self._estimated = 0
        self._reserved: dict[int, _Cost] = {}
        self._largest: _Cost | None = None
        self._largest_overhead = 0
        self._answers_per_sample = answers_per_sample
        self._tools_bytes = len(msgspec.json.encode(options.sampling.tools))
        # Part of what is spent, of answers that failed and were asked again: in no file any more.
        self._repeated = _Cost()
        # Requests are admitted in the order of the rows: a large one is not passed by small ones,
        # which would leave a choice of rows instead of a sample.
        self._waiting: list[int] = []
        self._settled = asyncio.Event()

    def spending(self) -> Spending:
        """Returns what the answers have cost."""
        money = None
        if self.price is not None:
            money = self.price.money(self._spent.read, self._spent.written)
        return Spending(
            answers=self._answers,
            estimated=self._estimated,
            tokens_read=self._spent.read,
            tokens_written=self._spent.written,
            money=money,
            price=self.price,
            repeated_read=self._repeated.read or UNSET,
            repeated_written=self._repeated.written or UNSET,
        )

    def enter(self, position: int) -> None:
        """Takes the next place in the order of admission; `release` must be called."""
        if self.budget.is_limited:
            self._waiting.append(position)

    async def admit(self, position: int, sample: Sample) -> bool:
        """Reserves the largest cost of a sample's answers, after those of all samples that entered
        before it; returns False if it passes the budget.
        """
        if not self.budget.is_limited:
            return True
        while not self.is_used_up:
            if self._waiting[0] == position:
                cost = self._largest_cost(sample)
                if self._fits(cost):
                    self._reserved[position] = cost
                    self._leave(position)
                    return True
                self.is_used_up = not self._reserved
            if not self.is_used_up:
                self._settled.clear()
                await self._settled.wait()
        self._leave(position)
        return False

    def _leave(self, position: int) -> None:
        if position in self._waiting:
            self._waiting.remove(position)
        self._settled.set()

    def _largest_cost(self, sample: Sample) -> _Cost:
        largest = self._largest or _Cost()
        read = self._prompt_bound(sample) + self._largest_overhead
        return _Cost(max(read, largest.read), max(self._max_written, largest.written))

    def _prompt_bound(self, sample: Sample) -> int:
        """Returns the most tokens that are read for a sample's answers."""
        texts = [message.content for message in sample.conversation.messages]
        # No tokenizer of current models makes more tokens than there are bytes; the roles and
        # marks around a message take a few more.
        prompt = sum(len(text.encode("utf-8", "replace")) + 8 for text in texts)
        return (prompt + self._tools_bytes) * self._answers_per_sample

    def _fits(self, cost: _Cost) -> bool:
        # What an answer of this model really costs is not known before the first one.
        if self._largest is None and self._reserved:
            return False
        total = sum(self._reserved.values(), self._spent + cost)
        budget = self.budget
        if budget.tokens is not None and total.read + total.written > budget.tokens:
            return False
        if budget.money is None:
            return True
        assert self.price is not None, "check_arguments refuses money without a price"
        return self.price.money(total.read, total.written) <= budget.money * (1 + _ROUNDING)

    def count(self, sample: Sample, answers: Sequence[Answer | Response]) -> None:
        """Counts what the answers to a sample cost."""
        cost, n_estimated = _cost_of(sample, answers)
        self._count(cost, len(answers), n_estimated)
        # What a wrapper adds to the prompts: a system prompt, images.
        overhead = cost.read - self._prompt_bound(sample)
        self._largest_overhead = max(self._largest_overhead, overhead)

    def release(self, position: int) -> None:
        """Ends the place and the reservation of a sample, whether it was answered or not."""
        self._reserved.pop(position, None)
        self._leave(position)

    def _count(self, cost: _Cost, n_answers: int, n_estimated: int) -> None:
        self._spent += cost
        self._answers += n_answers
        self._estimated += n_estimated
        if cost != _Cost():
            largest = self._largest or _Cost()
            self._largest = _Cost(max(largest.read, cost.read), max(largest.written, cost.written))

    def count_repeated(self, spending: Spending | UnsetType) -> None:
        """Counts what earlier calls spent on answers that failed and were asked again."""
        if spending is not UNSET:
            cost = _Cost(spending.repeated_read or 0, spending.repeated_written or 0)
            self._repeated, self._spent = cost, self._spent + cost

    def count_earlier(
        self, spending: Spending | UnsetType, path: Path, ids: IdIndex, samples: SampleStore
    ) -> None:
        """Counts what earlier calls spent: by their account, and the answers in a file."""
        self.count_repeated(spending)
        self.count_stored(path, ids, samples)

    def recount_stored(self, path: Path, ids: IdIndex, samples: SampleStore) -> None:
        """Counts the answers anew after failures were dropped, whose cost stays spent."""
        before, self._spent = self._spent, _Cost()
        self._answers = self._estimated = 0
        self.count_stored(path, ids, samples)
        self._repeated, self._spent = before - self._spent, before

    def count_stored(self, path: Path, ids: IdIndex, samples: SampleStore) -> None:
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
        estimates: dict[int, tuple[_Cost, int]] = {}
        for record in read_records(path, _StoredUsage) if without_usage else ():
            position = ids.get(record.sample_id)
            if position is None or position not in without_usage:
                continue
            cost, n_estimated = _cost_of(samples.read(position), [record])
            if position in estimates:  # the prompt was read once for all answers to it
                earlier, n_earlier = estimates[position]
                cost = _Cost(max(earlier.read, cost.read), earlier.written + cost.written)
                n_estimated += n_earlier
            estimates[position] = cost, n_estimated
        for position, count in enumerate(n_stored):
            stated = _Cost(read[position], written[position])
            cost, n_estimated = estimates.get(position, (stated, 0))
            if count:
                self._count(cost, count, n_estimated)


def read_spending(run: Run, price: Price | None) -> Spending:
    """Returns what the stored answers of a run cost at a price."""
    if not run.file(RESPONSES).exists() or not run.file("samples.jsonl").exists():
        return Spending(price=price)
    meter = SpendingMeter(EvaluateOptions(price=price))
    meter.count_repeated(run.manifest.spending)
    with closing(SampleStore(run.file("samples.jsonl"))) as samples:
        meter.count_stored(run.file(RESPONSES), samples.ids, samples)
    return meter.spending()


def _cost_of(
    sample: Sample, answers: Sequence[Answer | Response | _StoredUsage]
) -> tuple[_Cost, int]:
    """Returns what the answers to a sample cost, and how many of them are estimated.

    The usage of several answers of one request stands on the first of them. Without any, tokens are
    counted from characters; an answer that failed without a usage counts as not charged.
    """
    usages = [answer.usage for answer in answers]
    stated = _Cost(
        sum(usage.prompt_tokens for usage in usages),
        sum(usage.completion_tokens for usage in usages),
    )
    charged = [answer for answer in answers if answer.failure is None]
    if stated != _Cost() or not charged:
        return stated, 0
    prompt = sum(len(message.content) for message in sample.conversation.messages)
    written = sum(estimate_tokens(len(answer.message.content)) for answer in charged)
    return _Cost(estimate_tokens(prompt), written), len(charged)


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
