"""A guard model that gives recorded replies and keeps what it was asked."""

from __future__ import annotations

import asyncio

from truing.core.types import (
    Answer,
    Conversation,
    Judgement,
    Lineage,
    Message,
    Response,
    Sample,
    Sampling,
    TokenLogprob,
)
from truing.judges.guard_formats import GuardFormat
from truing.judges.guards import GuardJudge


class GuardStandIn:
    """Replies in turn; `finish_reason` is that of every reply."""

    name = "stand-in"
    lineage = Lineage(name="stand-in", hash="0" * 16)

    def __init__(
        self,
        *replies: str,
        finish_reason: str = "stop",
        logprobs: tuple[TokenLogprob, ...] | None = None,
    ) -> None:
        self.replies, self.finish_reason, self.logprobs = replies, finish_reason, logprobs
        self.asked: list[Conversation] = []
        self.samplings: list[Sampling] = []

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        text = self.replies[len(self.asked) % len(self.replies)]
        self.asked.append(conversation)
        self.samplings.append(sampling)
        message = Message("assistant", text)
        return (Answer(message=message, finish_reason=self.finish_reason, logprobs=self.logprobs),)


def ask_guard(
    guard_format: GuardFormat,
    model: GuardStandIn,
    question: str = "",
    *,
    prompt: str = "a question",
    answer: str = "an answer",
) -> Judgement:
    """Returns the judgement of an exchange by a guard behind `model`."""
    judge = GuardJudge("stand-in", guard_format, model, question=question)
    sample = Sample(id="a", conversation=Conversation.of(prompt))
    return asyncio.run(judge.judge(sample, Response.of("a", 0, "m", Answer.of(answer))))
