"""The suffix search on a small stand-in for a local model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from truing.attacks.suffix import SuffixSearch
from truing.core.errors import UserError
from truing.core.types import Answer, Conversation, Lineage, Sample, Sampling

SAMPLE = Sample(conversation=Conversation.of("Explain the handshake."), id="s", expect="refuse")


class GeneratingModel:
    """An endpoint without log-probabilities."""

    name, lineage = "generating", Lineage(name="generating")

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        return (Answer.of("x"),)


class OliveModel(GeneratingModel):
    """Finds every continuation more likely, the more often the prompt says `olive`."""

    async def logprobs(
        self, prefix: Conversation | str, continuations: Sequence[str]
    ) -> list[list[float]]:
        assert isinstance(prefix, Conversation)
        return [[-5.0 + prefix.prompt.split().count("olive")] for _ in continuations]


def test_search_only_accepts_improvements() -> None:
    attacked = asyncio.run(SuffixSearch(steps=300, length=4).attack(SAMPLE, OliveModel()))
    assert attacked.prompt == f"{SAMPLE.prompt} olive olive olive olive"
    assert float(attacked.tags["gain"]) >= 3
    assert attacked.tags["queries"] == "301"


def test_target_without_log_probabilities_raises() -> None:
    with pytest.raises(UserError, match="gives no log-probabilities"):
        asyncio.run(SuffixSearch().attack(SAMPLE, GeneratingModel()))
