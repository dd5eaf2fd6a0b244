"""What the answers to a sample have cost, what they may cost at most, and whether that fits.

The largest cost is every byte of the prompt that is sent (after an attack) as one token, once for
each answer, since some endpoints give one answer a request; and answers as long as allowed.

That is exact for models that send what is counted here. Beyond it the bound is an estimate: what a
wrapper adds to prompts is read from the answers so far, and a model that sends several requests for
an answer (best-of, an agent) is given the largest cost of its answers so far. A `max_tokens` in the
body of a spec, images, and repeated requests that the provider charges without stating a usage are
not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
from msgspec import Struct

from truing.core.prices import Price, estimate_tokens
from truing.core.types import Failure, Message, Sample, Sampling, Usage
from truing.evaluation.options import RunBudget

_ROUNDING = 1e-9  # sums of prices may exceed a limit by the rounding of floats


class Cost(Struct, frozen=True):
    """Tokens read and written."""

    read: int = 0
    written: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.read + other.read, self.written + other.written)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.read - other.read, self.written - other.written)


def larger_cost(first: Cost | None, second: Cost | None) -> Cost | None:
    """Returns the larger number of tokens of each kind; None where there are no costs."""
    if first is None or second is None:
        return first or second
    return Cost(max(first.read, second.read), max(first.written, second.written))


class CostBounds(Struct, kw_only=True):
    """The most that the answers to a sample may cost, as the answers so far show.

    - `max_written`: tokens of all answers to a sample, if they are as long as allowed
    - `largest`: the largest cost of a sample so far; None before the first answer
    - `largest_overhead`: tokens that a wrapper added to the prompt
    """

    max_written: int
    largest: Cost | None = None
    largest_overhead: int = 0

    def learn(self, cost: Cost, overhead: int = 0) -> None:
        """Takes what the answers to a sample have cost."""
        if cost != Cost():
            self.largest = larger_cost(self.largest, cost)
        self.largest_overhead = max(self.largest_overhead, overhead)

    def bound(self, prompt_tokens: int) -> Cost:
        """Returns the most that the answers to a prompt of at most so many tokens may cost."""
        largest = self.largest or Cost()
        return Cost(
            max(prompt_tokens + self.largest_overhead, largest.read),
            max(self.max_written, largest.written),
        )


def fits_budget(total: Cost, budget: RunBudget, price: Price | None) -> bool:
    """Whether a cost is within the limits of a budget."""
    if budget.tokens is not None and total.read + total.written > budget.tokens:
        return False
    if budget.money is None:
        return True
    assert price is not None, "check_arguments refuses money without a price"
    return price.money(total.read, total.written) <= budget.money * (1 + _ROUNDING)


class PromptBounds:
    """The most tokens that are read for the answers to samples."""

    def __init__(self, sampling: Sampling, answers_per_sample: int) -> None:
        self._answers_per_sample = answers_per_sample
        self._tools_bytes = len(msgspec.json.encode(sampling.tools))

    def of(self, sample: Sample) -> int:
        """Returns the bound of a sample."""
        texts = [message.content for message in sample.conversation.messages]
        # No tokenizer of current models makes more tokens than there are bytes; the roles and
        # marks around a message take a few more.
        prompt = sum(len(text.encode("utf-8", "replace")) + 8 for text in texts)
        return (prompt + self._tools_bytes) * self._answers_per_sample


class PaidAnswer(Protocol):
    """The fields of an answer that say what it cost."""

    @property
    def message(self) -> Message:
        """Its text."""
        ...

    @property
    def usage(self) -> Usage:
        """The tokens that the endpoint states."""
        ...

    @property
    def failure(self) -> Failure | None:
        """Why there is no answer, if there is none."""
        ...


def cost_of_answers(sample: Sample, answers: Sequence[PaidAnswer]) -> tuple[Cost, int]:
    """Returns what the answers to a sample cost, and how many of them are estimated.

    The usage of several answers of one request stands on the first of them. Without any, tokens are
    counted from characters; an answer that failed without a usage counts as not charged.
    """
    usages = [answer.usage for answer in answers]
    stated = Cost(
        sum(usage.prompt_tokens for usage in usages),
        sum(usage.completion_tokens for usage in usages),
    )
    charged = [answer for answer in answers if answer.failure is None]
    if stated != Cost() or not charged:
        return stated, 0
    prompt = sum(len(message.content) for message in sample.conversation.messages)
    written = sum(estimate_tokens(len(answer.message.content)) for answer in charged)
    return Cost(estimate_tokens(prompt), written), len(charged)
