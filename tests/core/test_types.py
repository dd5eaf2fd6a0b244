"""The data model: its JSON form, and the fields that files always hold."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from truing.core.types import Conversation, Message, Response, ToolCall

texts = st.text(st.characters(codec="utf-8"), max_size=30)
calls = st.builds(ToolCall, texts, texts, texts.map(lambda t: t or "{}"))
messages = st.builds(
    Message,
    st.sampled_from(["system", "user", "assistant", "tool"]),
    texts,
    st.lists(calls, max_size=2).map(tuple),
    st.none() | texts,
)
conversations = st.builds(Conversation, st.lists(messages, max_size=4).map(tuple))


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
