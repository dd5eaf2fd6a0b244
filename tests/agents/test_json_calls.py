"""Calls as plain JSON are read only where an answer is nothing else."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from truing.agents.json_calls import JsonCallModel
from truing.core.errors import UserError
from truing.core.types import Answer, Conversation, Sampling, Tool, ToolCall
from truing.models.scripted import ScriptedModel
from truing.specs.resolve import resolve

CALL = '{"name": "read_mail", "arguments": {"id": "m1"}}'
TOOLS = Sampling(tools=(Tool("read_mail"),), max_tokens=100_000)


def _ask(text: str) -> Answer:
    model = JsonCallModel(ScriptedModel(text))
    (answer,) = asyncio.run(model.generate(Conversation.of("Read m1."), TOOLS))
    return answer


@pytest.mark.parametrize(
    "text",
    [
        CALL,
        f"```json\n{CALL}\n```",
        f"\n```\n{CALL}\n```\n",
        # As Qwen2.5-Coder's chat template shows them, with up to two braces too many.
        f"{{{CALL}",
        f"{{{CALL}}}",
        f"{{{CALL}}}}}",
        f"```json\n{{{CALL}}}\n```",
    ],
)
def test_an_answer_that_is_a_call_is_read(text: str) -> None:
    answer = _ask(text)
    assert answer.message.tool_calls == (ToolCall("", "read_mail", '{"id":"m1"}'),)
    assert (answer.text, answer.finish_reason) == ("", "tool_calls")


@pytest.mark.parametrize(
    "text",
    [
        f"I would call {CALL}",
        f"```json\n{CALL}\n```\nThis reads the mail.",
        f"{CALL}{CALL}",
        f"{{{CALL}}}}}}}",
        f"{{{CALL}, {CALL}}}",
        "{{" + "}" * 90_000,
        '{"name": "erase_all", "arguments": {}}',
        '{"name": "read_mail", "arguments": "m1"}',
        '{"name": "read_mail", "arguments": {}, "why": "x"}',
        '{"name": "read_mail"',
        "[" * 100_000,
        '{"name": "read_mail", "arguments": ' + '{"a": ' * 20_000,
        json.dumps({"name": "read_mail", "arguments": {"id": "x" * 100_000}}),
        "",
    ],
)
def test_anything_else_stays_a_text(text: str) -> None:
    answer = _ask(text)
    assert (answer.text, answer.message.tool_calls) == (text, ())


@pytest.mark.parametrize("reason", ["blocked", "length", "content_filter", "abstained"])
def test_an_answer_that_was_ended_from_outside_stays_as_it_is(reason: str) -> None:
    class Ended(ScriptedModel):
        async def generate(self, *_: object) -> tuple[Answer, ...]:
            return (Answer.of(CALL, finish_reason=reason),)

    model = JsonCallModel(Ended(CALL))
    (answer,) = asyncio.run(model.generate(Conversation.of("Read m1."), TOOLS))
    assert answer == Answer.of(CALL, finish_reason=reason)


def test_a_text_that_comes_out_of_rails_is_never_read(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("models: []\n")
    behind_rails = f"guarded:{tmp_path},of=(scripted:echo)"
    for inner in (behind_rails, f"prompted:hhh,of=({behind_rails})"):
        with pytest.raises(UserError, match="rails stand around it"):
            resolve(f"agent,of=(json-calls,of=({inner}))", "model")
    assert resolve(f"guarded:{tmp_path},of=(agent,of=(json-calls,of=(scripted:echo)))", "model")


def test_the_spec() -> None:
    model = resolve("agent,of=(json-calls,of=(scripted:echo))", "model")
    assert model.name == "agent:of=(json-calls,of=(scripted:echo))"
    assert model.lineage.hash != resolve("agent,of=(scripted:echo)", "model").lineage.hash
