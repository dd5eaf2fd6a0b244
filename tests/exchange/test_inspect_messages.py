"""What an agent did, as messages of Inspect: what it has read, whatever its arguments are."""

from __future__ import annotations

import json

import pytest

from truing.core.episodes import AgentTurn, CallRecord, Episode
from truing.core.types import Message, Response, ToolCall
from truing.exchange.inspect_messages import encode_episode, encode_message


def test_a_withheld_result_is_not_exported_as_read() -> None:
    calls = (
        CallRecord(id="c1", name="read_mail", result="a stranger's words", withheld=True),
        CallRecord(id="c2", name="read_mail", result="a friend's words"),
    )
    response = Response(
        sample_id="s",
        index=0,
        model="m",
        message=Message("assistant", "Done."),
        episode=Episode(turns=(AgentTurn(calls=calls),)),
    )
    _, withheld, read = encode_episode(response, "s")
    assert withheld["content"] == "the result was withheld"
    assert withheld["metadata"] == {"withheld_result": "a stranger's words"}
    assert (read["content"], "metadata" in read) == ("a friend's words", False)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"id": "m1"}', {"id": "m1"}),
        ("[1]", {"value": [1]}),
        ("no JSON", {"text": "no JSON"}),
        ('{"a": NaN}', {"text": '{"a": NaN}'}),
        ("[" * 50_000, {"text": "[" * 50_000}),
        ('{"a": "\ud800"}', {"text": '{"a": "\ud800"}'}),
    ],
)
def test_any_arguments_are_exported_as_json(arguments: str, expected: object) -> None:
    row = encode_message(Message("assistant", "", (ToolCall("c", "f", arguments),)), "id")
    (call,) = row["tool_calls"]
    assert call["arguments"] == expected
    json.dumps(row, allow_nan=False)
