"""The likelihood of a text under a model, in several units, and the form of the prompt."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol, TypeVar, runtime_checkable

from msgspec import Struct

from truing.core.batches import split_batches
from truing.core.errors import UserError
from truing.core.protocols import LogprobModel
from truing.core.types import ContinuationScores, Conversation, Failure, Message

T = TypeVar("T")
R = TypeVar("R")
ProgressCallback = Callable[[int, int, int], None]

LIKELIHOOD_UNITS = ("total", "token", "byte", "char", "word")


class TextLikelihood(Struct, frozen=True, kw_only=True):
    """The log-probability of a text (natural logarithm), and the lengths to normalise it by."""

    total: float
    tokens: int
    bytes: int
    chars: int
    words: int

    def per(self, unit: str) -> float:
        """Log-probability per `unit` (one of `UNITS`)."""
        sizes = {
            "total": 1,
            "token": self.tokens,
            "byte": self.bytes,
            "char": self.chars,
            "word": self.words,
        }
        return self.total / max(1, sizes[unit])


@runtime_checkable
class _ScoresContinuations(Protocol):
    async def score(
        self, prefix: Conversation | str, continuations: Sequence[str]
    ) -> list[ContinuationScores]: ...


class PromptForm(Struct, frozen=True, kw_only=True):
    """How a conversation is formatted before the scored text.

    With the model's chat template, or `plain`: `primer` (worked examples, as they stand) and
    `question` with ``{prompt}`` filled in; what is scored follows after one space.
    """

    plain: bool = False
    primer: str = ""
    question: str = "Question: {prompt}\nAnswer:"

    def prefix(self, conversation: Conversation) -> Conversation | str:
        """Returns the prefix of the scored text."""
        if not self.plain:
            return conversation
        return self.primer + self.question.replace("{prompt}", _format_transcript(conversation))

    def without(self, conversation: Conversation) -> Conversation | str:
        """Returns the prefix without the question, to measure the likelihood of the text alone."""
        head = tuple(m for m in conversation.messages[:1] if m.role == "system")
        return self.prefix(Conversation((*head, Message("user", ""))))

    def after(self, text: str) -> str:
        """Returns the scored text as a continuation of the prefix."""
        # A chat template ends with the assistant header and its own white space.
        return f" {text.strip()}" if self.plain else text.strip()


def _format_transcript(conversation: Conversation) -> str:
    turns = conversation.messages
    if len(turns) == 1:
        return turns[0].content
    names = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}
    return "\n\n".join(f"{names[m.role]}: {m.content}" for m in turns)


class LikelihoodResult(Struct, frozen=True, kw_only=True):
    """The likelihoods of texts after one prefix, or the failure."""

    measures: tuple[TextLikelihood, ...] = ()
    cut: int = 0
    merged: bool = False
    failure: Failure | None = None


async def measure_likelihood(
    model: LogprobModel, prefix: Conversation | str, texts: Sequence[str], form: PromptForm
) -> LikelihoodResult:
    """Measures texts after a prefix; NaN or an unscored text is a failure of all of them."""
    try:
        if isinstance(model, _ScoresContinuations):
            scores = list(await model.score(prefix, [form.after(t) for t in texts]))
        else:
            rows = await model.logprobs(prefix, [form.after(t) for t in texts])
            scores = [ContinuationScores(tuple(r)) for r in rows]
    except UserError as error:
        return LikelihoodResult(failure=Failure("ranker", "unscored", str(error)))
    failure = next((s.failure for s in scores if s.failure is not None), None)
    if failure is None and any(math.isnan(x) for s in scores for x in s.logprobs):
        # NaN is an error of all texts: a choice without a score would lose or win every
        # comparison.
        failure = Failure("ranker", "nan", "the model returned NaN log-probabilities")
    if failure is None and not all(s.logprobs for s in scores):
        failure = Failure("ranker", "empty", "no log-probability for a text")
    if failure is not None:
        return LikelihoodResult(failure=failure)
    likelihoods = [
        TextLikelihood(
            total=math.fsum(s.logprobs),
            tokens=len(s.logprobs),
            bytes=len(t.strip().encode("utf-8", "replace")),
            chars=len(t.strip()),
            words=len(t.split()),
        )
        for s, t in zip(scores, texts)
    ]
    return LikelihoodResult(
        measures=tuple(likelihoods),
        cut=max(s.cut for s in scores),
        merged=any(s.merged for s in scores),
    )


async def map_in_batches(
    items: Iterable[T],
    ask: Callable[[T], Awaitable[R]],
    *,
    together: int = 512,
    on_progress: ProgressCallback | None = None,
    total: int = 0,
) -> list[R]:
    """Calls `ask` for each item, `together` at a time, and returns the results in order.

    Calls `on_progress(done, total, failed=0)` after each batch.
    """
    results: list[R] = []
    for batch in split_batches(items, together):
        results += await asyncio.gather(*(ask(item) for item in batch))
        if on_progress is not None:
            on_progress(len(results), max(total, len(results)), 0)
    return results
