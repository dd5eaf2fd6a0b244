"""Prompted models: built-in prefixes, files, and how a prefix joins a conversation."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from truing.align.prompted import load_prefix, prompted
from truing.core.errors import PlanError
from truing.core.protocols import LogprobModel, StreamingModel
from truing.core.types import Answer, Conversation, Lineage, Message, Sampling
from truing.models.scripted import ScriptedModel

HELLO = Conversation.of("Hello?")


class PlainModel:
    """A model that neither streams nor computes log-probabilities."""

    name = "plain"
    lineage = Lineage(name="plain", hash="p1")

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        return (Answer.of("yes"),)


def test_built_in_prefixes_have_fourteen_conversations() -> None:
    for name, low, high in (("hhh", 500, 650), ("hhh-long", 4400, 4800)):
        messages = load_prefix(name)
        assert low <= sum(len(m.content.split()) for m in messages) <= high
        assert {m.role for m in messages} == {"user", "assistant"}
        assert messages[0].role == "user"
        assert messages[-1].role == "assistant"
        path = Path(__file__).parents[2] / "src/truing/resources/prompts" / f"{name}.json"
        assert len(json.loads(path.read_text())) == 14


def test_prefix_comes_first_and_system_messages_are_joined() -> None:
    seen: list[Conversation] = []

    def script(conversation: Conversation, sampling: Sampling) -> str:
        seen.append(conversation)
        return "yes"

    base = ScriptedModel(script, name="base")
    model = prompted(base, "hhh", system="Be brief.")
    conversation = Conversation.of("Hi", system="You are a cook.")
    assert asyncio.run(model.generate(conversation, Sampling()))[0].text == "yes"
    messages = seen[0].messages
    assert messages[0] == Message("system", "Be brief.\n\nYou are a cook.")
    assert messages[1:-1] == load_prefix("hhh")
    assert messages[-1] == Message("user", "Hi")
    assert model.name == "prompted:hhh,of=(base)"
    assert model.lineage.hash != base.lineage.hash
    assert isinstance(model, StreamingModel)
    assert isinstance(model, LogprobModel)
    assert asyncio.run(model.logprobs(HELLO, ["a b"])) == asyncio.run(base.logprobs(HELLO, ["a b"]))
    assert not isinstance(prompted(PlainModel(), "hhh"), StreamingModel)


def test_prefix_files_and_their_faults(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("Answer in rhyme.\n")
    assert load_prefix(str(tmp_path / "p.txt")) == (Message("system", "Answer in rhyme."),)
    rows = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (tmp_path / "p.json").write_text(json.dumps([rows, rows]))
    assert len(load_prefix(str(tmp_path / "p.json"))) == 4
    faults = {
        "empty.txt": (" ", "is empty"),
        "a.json": ("{", "a.json"),
        "b.json": ("[]", "expected a list"),
        "c.json": ('[{"role": "user", "content": "a"}]', "ends with an answer"),
        "d.json": ('[{"role": "boss", "content": "a"}]', "none of system"),
        "e.json": (
            json.dumps([*rows, {"role": "system", "content": "x"}, *rows]),
            "must be the first",
        ),
    }
    for name, (text, message) in faults.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(PlanError, match=message):
            load_prefix(str(tmp_path / name))
    with pytest.raises(PlanError, match="did you mean 'hhh'"):
        load_prefix("hh")
    with pytest.raises(PlanError, match="neither a prefix"):
        prompted(PlainModel(), None)
