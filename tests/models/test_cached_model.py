"""A remembered answer: asked once, also for fewer answers; failures and other settings are asked again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from truing.core.types import Answer, Conversation, Sampling
from truing.models.cached_model import CachedModel
from truing.models.scripted import ScriptedModel

ASKED = Conversation.of("What is a kettle for?")


def ask(model: Any, **how: Any) -> tuple[Answer, ...]:
    return asyncio.run(model.generate(how.pop("conversation", ASKED), Sampling(**how)))


def test_the_same_question_is_asked_once_and_fewer_answers_are_the_first() -> None:
    inner = ScriptedModel(lambda conversation, sampling: f"{conversation.prompt} {sampling.seed}")
    memo = CachedModel(inner)
    four = ask(memo, n=4, seed=3)
    assert ask(memo, n=1, seed=3) == four[:1]
    assert ask(memo, n=4, seed=3) == four
    assert inner.calls == 1
    assert len(ask(memo, n=5, seed=3)) == 5  # more than are known
    assert inner.calls == 2
    assert (memo.name, memo.lineage) == (inner.name, inner.lineage)


@pytest.mark.parametrize(
    "how",
    [
        {"seed": 4},
        {"temperature": 1.0},
        {"max_tokens": 5},
        {"stop": ("x",)},
        {"top_p": 0.5},
        {"conversation": ASKED.then(ASKED.last)},
    ],
)
def test_another_question_is_asked(how: dict[str, Any]) -> None:
    inner = ScriptedModel("yes")
    memo = CachedModel(inner)
    ask(memo, seed=3)
    ask(memo, **{"seed": 3, **how})
    assert inner.calls == 2


def test_failures_are_not_remembered_and_the_oldest_go_first() -> None:
    failing = ScriptedModel(lambda conversation, sampling: Answer.failed("timeout", "no answer"))
    memo = CachedModel(failing)
    ask(memo)
    ask(memo)
    assert failing.calls == 2
    inner = ScriptedModel("yes")
    small = CachedModel(inner, size=2)
    for text in ("a", "b", "a", "c", "a", "b"):  # a was used, so b had to go
        ask(small, conversation=Conversation.of(text))
    assert inner.calls == 4


def test_what_else_the_model_can_do() -> None:
    async def all_of(model: Any) -> tuple[list[str], list[list[float]]]:
        pieces = [p async for p in model.stream(ASKED, Sampling())]
        return pieces, await model.logprobs("a", ["b c"])

    inner = ScriptedModel("one two three")
    assert asyncio.run(all_of(CachedModel(inner))) == asyncio.run(all_of(inner))

    class Plain:
        name, lineage = inner.name, inner.lineage
        generate = inner.generate

    async def whole() -> list[str]:
        return [p async for p in CachedModel(Plain()).stream(ASKED, Sampling())]

    assert asyncio.run(whole()) == ["one two three"]
