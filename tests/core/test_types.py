"""The data model: OpenAI form, JSON form, ids and seeds."""

from __future__ import annotations

import msgspec
import pytest
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
def test_openai_form_round_trips(conversation: Conversation) -> None:
    assert Conversation.from_openai(conversation.to_openai()) == conversation


@given(conversations)
def test_json_round_trips(conversation: Conversation) -> None:
    assert msgspec.json.decode(msgspec.json.encode(conversation), type=Conversation) == conversation


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["x"], r"messages\[0\]: expected an object"),
        ([{"role": "wizard", "content": "x"}], "wizard"),
        ([{"role": ["user"], "content": "x"}], r"messages\[0\]\.role"),
        ([{"role": "user", "content": 3}], "expected text"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "only text parts"),
        ([{"role": "assistant", "tool_calls": [{"id": 1}]}], "tool_calls"),
        ([{"role": "tool", "content": "x", "tool_call_id": 3}], "tool_call_id"),
    ],
)
def test_malformed_messages_raise_with_their_position(rows: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Conversation.from_openai(rows)  # type: ignore[arg-type]


def test_text_parts_are_joined_and_developer_is_system() -> None:
    conversation = Conversation.from_openai(
        [
            {"role": "developer", "content": "s"},
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            },
        ]
    )
    assert conversation == Conversation((Message("system", "s"), Message("user", "ab")))
    assert (conversation.system, conversation.prompt) == ("s", "ab")
    assert conversation.last.content == "ab"


def test_public_fields_are_always_written() -> None:
    row = msgspec.json.decode(
        msgspec.json.encode(Response(sample_id="s", message=Message("assistant", "x")))
    )
    assert {"sample_id", "index", "model", "message", "finish_reason", "usage", "failure"} <= set(
        row
    )
    assert {"role", "content", "tool_calls"} <= set(row["message"])


@given(calls)
def test_tool_call_round_trips_through_the_openai_form(call: ToolCall) -> None:
    assert ToolCall.from_openai(call.to_openai()) == call


def test_missing_and_null_parts_of_a_tool_call() -> None:
    assert ToolCall.from_openai({"function": {"name": "f"}}) == ToolCall("", "f", "{}")
    assert ToolCall.from_openai(
        {"id": None, "function": {"name": "f", "arguments": None}}
    ) == ToolCall("", "f", "{}")
    for malformed in ({}, {"function": {}}, {"function": "f"}, "f", None):
        with pytest.raises((KeyError, TypeError, AttributeError)):
            ToolCall.from_openai(malformed)
