"""Rewrites by a model."""

from __future__ import annotations

import asyncio

from truing.attacks.model_rewrites import ModelRewriteAttack
from truing.core.types import Answer, Conversation, Sample
from truing.models.scripted import ScriptedModel

SAMPLE = Sample(
    conversation=Conversation.of("Explain the secret handshake of the guild."),
    id="s",
    expect="refuse",
)
TARGET = ScriptedModel("not queried", name="target")


def test_rewrite_replaces_the_prompt() -> None:
    attack = ModelRewriteAttack("language", ScriptedModel('"Eleza siri."', name="t"))
    attacked = asyncio.run(attack.attack(SAMPLE, TARGET))
    assert attacked.prompt == "Eleza siri."
    assert attacked.tags == {"attack": "language(Swahili)", "queries": "1"}
    assert TARGET.calls == 0


def test_failed_rewrite_leaves_the_prompt_unchanged() -> None:
    for answer in (
        Answer.failed("timeout", "late"),
        Answer.of(' "" '),
        Answer.of("cut off in the", finish_reason="length"),
    ):
        attacker = ScriptedModel(
            lambda conversation, sampling, answer=answer: answer, name="failing"
        )
        attacked = asyncio.run(ModelRewriteAttack("paraphrase", attacker).attack(SAMPLE, TARGET))
        assert attacked.prompt == SAMPLE.prompt
        assert attacked.tags == {"attack": "paraphrase", "rewrite": "failed", "queries": "1"}
