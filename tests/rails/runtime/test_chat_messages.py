"""The messages of a conversation: decoded strictly, and written back as they came."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.core.types import Conversation, Message, MessageFormatError, ToolCall
from truing.rails.runtime.chat_messages import (
    ChatMessage,
    content_text,
    decode_messages,
    messages_of_conversation,
    with_flow_content,
)
from truing.rails.runtime.event_types import OtherEvent, Utterance

IMAGE = {"type": "image_url", "image_url": {"url": "x"}}
PARTS = [{"type": "text", "text": "a"}, IMAGE, {"type": "text", "text": "b"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ROWS: list[dict[str, Any]] = [
    {"role": "context", "content": {"name": "Ada", "n": 3}},
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": PARTS, "name": "ada"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "rain", "tool_call_id": "c1"},
    {"role": "event", "event": {"type": "Custom", "field": 1}},
    {"role": "exception", "content": {"type": "MyException", "message": "no"}},
]


def test_messages_are_written_back_as_they_came() -> None:
    messages = decode_messages(ROWS)
    assert [message.to_dict() for message in messages] == ROWS
    assert decode_messages(messages) == messages
    assert messages[5].event == OtherEvent.of("Custom", field=1)


def test_a_model_gets_the_texts_and_the_flows_the_parts() -> None:
    message = decode_messages(ROWS)[2]
    assert message.text == "a b [+ image]"
    assert message.to_message() == Message("user", "a b")
    assert message.flow_content == PARTS


def test_the_roles_of_openai_and_empty_values() -> None:
    developer, empty = decode_messages(
        [{"role": "developer", "content": "x"}, {"role": "assistant", "content": None}]
    )
    assert developer.role == "system"
    assert empty == ChatMessage(role="assistant")
    event = {"type": "UtteranceUserActionFinished", "final_transcript": "hi"}
    (utterance,) = decode_messages([{"role": "event", "event": event}])
    assert (utterance.event, utterance.text) == (Utterance("hi"), "hi")
    assert utterance.is_read_by_flows


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ("text", "messages[0]: expected an object, got str"),
        ({"content": "x"}, "messages[0].role: null is none of system, user, assistant, tool,"),
        ({"role": ["user"]}, "messages[0].role: a list is none of"),
        ({"role": "x" * 90}, "messages[0].role: '" + "x" * 40 + "...' is none of"),
        ({"role": "user", "content": 3}, "messages[0].content: expected text or a list of parts"),
        ({"role": "user", "content": ["x"]}, "messages[0].content[0]: expected an object"),
        ({"role": "user", "content": [{"type": 3}]}, "messages[0].content[0].type: expected text"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0]: a part of the"),
        (
            {"role": "user", "content": [{"text": 3}]},
            "messages[0].content[0]: a part of the type n",
        ),
        ({"role": "user", "name": 3}, "messages[0].name: expected text, got int"),
        ({"role": "tool", "tool_call_id": 3}, "messages[0].tool_call_id: expected text, got int"),
        ({"role": "assistant", "tool_calls": ["x"]}, "messages[0].tool_calls[0]: not in the"),
        ({"role": "context", "content": ["x"]}, "messages[0].content: expected an object of"),
        ({"role": "context", "content": {1: "x"}}, "messages[0].content: expected an object of"),
        ({"role": "event"}, "messages[0].event: an event needs a type"),
        ({"role": "event", "event": {"type": "UserMessage"}}, "messages[0].event: an event User"),
        ({"role": "exception", "content": "x"}, "messages[0].content: an event needs a type"),
    ],
)
def test_what_is_no_message_is_named_with_its_place(row: Any, error: str) -> None:
    with pytest.raises(MessageFormatError) as raised:
        decode_messages([row])
    assert str(raised.value).startswith(error)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5) | st.sampled_from(["user", "event"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["role", "content", "type", "text", "event", "tool_calls", "name"]),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    )
)
def test_no_value_fails_otherwise_than_with_a_format_error(rows: Any) -> None:
    messages = []
    with contextlib.suppress(MessageFormatError):
        messages = decode_messages(rows)
    assert decode_messages([message.to_dict() for message in messages]) == messages


def test_a_typed_conversation_keeps_its_messages() -> None:
    conversation = Conversation(
        (
            Message("user", "hi"),
            Message("assistant", "", (ToolCall("c", "f"),)),
            Message("tool", "x", (), "c"),
        )
    )
    messages = messages_of_conversation(conversation, {"n": 1})
    assert messages[0] == ChatMessage(role="context", variables={"n": 1})
    assert tuple(message.to_message() for message in messages[1:]) == conversation.messages


def test_a_content_that_a_flow_has_set_may_be_anything() -> None:
    message = ChatMessage(role="user")
    assert with_flow_content(message, "x").content == "x"
    assert with_flow_content(message, PARTS).flow_content == PARTS
    assert with_flow_content(message, [{"text": "x"}, 3]).content == "x 3"
    # A flow that clears the message must not make the model read "None".
    assert with_flow_content(message, None).content == ""
    assert with_flow_content(message, 3).content == "3"


def test_the_text_of_content_parts() -> None:
    assert content_text("a") == "a"
    assert content_text([PARTS[0], PARTS[2]]) == "a b"
    assert content_text(PARTS[:2]) == "a [+ image]"
    assert content_text(None) == ""


def test_both_decoders_read_the_same_texts() -> None:
    """What `Conversation.from_openai` reads as text, rails and the model behind them read too."""
    parts = [
        {"text": "a"},
        {"type": "text", "text": "b"},
        {"type": "input_text", "text": "c"},
        {"type": "output_text", "text": "d"},
        {"type": "refusal", "refusal": "e"},
    ]
    row = {"role": "user", "content": parts}
    assert Conversation.from_openai([row]).prompt == "abcde"
    (message,) = decode_messages([row])
    assert message.text == message.to_message().content == "a b c d e"
    assert message.flow_content == parts


def test_parts_that_are_no_text_are_named_to_the_rails() -> None:
    audio = {"type": "input_audio", "input_audio": {"data": "x"}}
    (message,) = decode_messages([{"role": "user", "content": [PARTS[0], audio, audio]}])
    assert message.text == "a [+ input_audio]"
    assert message.to_message().content == "a"
