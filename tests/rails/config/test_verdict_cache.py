"""Replies of a guard model are cached by prompt, and failures are not."""

from __future__ import annotations

import asyncio

from truing.core.types import Answer, Conversation, Lineage, Sampling
from truing.rails.config.verdict_cache import VerdictCache


class CountingModel:
    """Answers with the number of the call; every call whose prompt is `broken` fails."""

    name = "counting"
    lineage = Lineage(name="counting")

    def __init__(self) -> None:
        self.calls = 0

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        self.calls += 1
        if conversation.messages[-1].content == "broken":
            return (Answer.failed("timeout", "no reply"),)
        return (Answer.of(str(self.calls)),)


def _ask(cache: VerdictCache, text: str, sampling: Sampling) -> Answer:
    (answer,) = asyncio.run(cache.generate(Conversation.of(text), sampling))
    return answer


def test_equal_prompts_are_asked_once_whatever_the_seed() -> None:
    cache = VerdictCache(CountingModel(), 10)
    assert _ask(cache, "a", Sampling(seed=1)).text == "1"
    assert _ask(cache, "a", Sampling(seed=2)).text == "1"
    assert _ask(cache, "a", Sampling(seed=1, max_tokens=3)).text == "2"
    assert _ask(cache, "b", Sampling(seed=1)).text == "3"


def test_the_least_recently_used_reply_goes_first() -> None:
    cache = VerdictCache(CountingModel(), 2)
    for text in ("a", "b", "a", "c"):
        _ask(cache, text, Sampling())
    assert _ask(cache, "a", Sampling()).text == "1"
    assert _ask(cache, "b", Sampling()).text == "4"


def test_failures_are_asked_again() -> None:
    model = CountingModel()
    cache = VerdictCache(model, 2)
    for _ in range(2):
        assert _ask(cache, "broken", Sampling()).failure is not None
    assert model.calls == 2
