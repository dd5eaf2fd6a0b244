"""The model of fixed answers."""

from __future__ import annotations

import asyncio

import pytest

from truing.core.errors import SpecError
from truing.core.protocols import LogprobModel, Model, StreamingModel
from truing.core.types import Answer, Conversation, Sampling
from truing.models.scripted import ANSWER, REFUSAL, ScriptedModel
from truing.specs.resolve import resolve

ASK = Conversation.of("what is tea")


def said(model: ScriptedModel, sampling: Sampling | None = None) -> list[str]:
    return [a.text for a in asyncio.run(model.generate(ASK, sampling or Sampling()))]


def test_scripts_by_text_mapping_and_function() -> None:
    assert said(ScriptedModel("a leaf")) == ["a leaf"]
    assert said(ScriptedModel({"what is tea": "a drink"})) == ["a drink"]
    assert asyncio.run(ScriptedModel({}).generate(ASK, Sampling()))[0].failure is not None
    assert len(set(said(ScriptedModel(lambda c, s: str(s.seed)), Sampling(n=3)))) == 3
    assert said(ScriptedModel(lambda c, s: Answer.failed("x", "y"))) == [""]


def test_specs_and_their_shares() -> None:
    assert said(resolve("scripted:refuse", "model")) == [REFUSAL]
    assert said(resolve("scripted:comply", "model")) == [ANSWER]
    assert said(resolve("scripted:echo", "model")) == ["what is tea"]
    assert said(resolve("scripted:empty", "model")) == [""]
    assert said(resolve('scripted:say,text="two words"', "model"), Sampling(max_tokens=1)) == [
        "two"
    ]
    mixed = resolve("scripted:mixed,refuse_share=0.3", "model")
    answers = [
        asyncio.run(mixed.generate(Conversation.of(f"p{i}"), Sampling()))[0].text
        for i in range(600)
    ]
    refused = answers.count(REFUSAL)
    assert 0.24 < refused / 600 < 0.36
    with pytest.raises(SpecError, match="did you mean 'refuse'"):
        resolve("scripted:refuses", "model")
    with pytest.raises(SpecError, match="unknown argument 'dealy'"):
        resolve("scripted:mixed,dealy=1", "model")


def test_it_streams_scores_and_is_a_model() -> None:
    model = ScriptedModel("one two three")

    async def pieces() -> list[str]:
        return [p async for p in model.stream(ASK, Sampling())]

    assert (
        isinstance(model, Model)
        and isinstance(model, StreamingModel)
        and isinstance(model, LogprobModel)
    )
    assert "".join(asyncio.run(pieces())) == "one two three"
    scores = asyncio.run(model.logprobs(ASK, ["a b", "c"]))
    assert [len(s) for s in scores] == [2, 1]
    assert all(-5 <= p <= -0.01 for s in scores for p in s)
    assert ScriptedModel("a").lineage.hash != ScriptedModel("b").lineage.hash
