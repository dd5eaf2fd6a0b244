"""The data model: its JSON form, and the fields that files always hold."""

from __future__ import annotations

import msgspec
from hypothesis import given
from tests.core.message_strategies import conversations

from truing.core.types import Conversation, Message, Response


@given(conversations)
def test_json_round_trips(conversation: Conversation) -> None:
    assert msgspec.json.decode(msgspec.json.encode(conversation), type=Conversation) == conversation


def test_public_fields_are_always_written() -> None:
    row = msgspec.json.decode(
        msgspec.json.encode(Response(sample_id="s", message=Message("assistant", "x")))
    )
    assert {"sample_id", "index", "model", "message", "finish_reason", "usage", "failure"} <= set(
        row
    )
    assert {"role", "content", "tool_calls"} <= set(row["message"])
