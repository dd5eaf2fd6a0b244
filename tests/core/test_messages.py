"""Messages: the OpenAI form round-trips, and what is not in it raises one error with its field."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.message_strategies import calls, conversations

from truing.core.messages import Conversation, Message, MessageFormatError, ToolCall


@given(conversations)
def test_openai_form_round_trips(conversation: Conversation) -> None:
    assert Conversation.from_openai(conversation.to_openai()) == conversation


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


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
message_keys = st.sampled_from(
    ("role", "content", "tool_calls", "tool_call_id", "name", "type", "text", "function", "id")
)
roles = st.sampled_from(("system", "developer", "user", "assistant", "tool"))
wrong_messages = st.dictionaries(message_keys, json_values | roles, max_size=5)
# Well-formed but for one value, so that each parser is reached.
nearly_messages = st.builds(
    lambda role, key, value: {"role": role, "content": "x", key: value},
    roles,
    message_keys,
    json_values
    | st.lists(
        st.fixed_dictionaries(
            {"type": json_values | st.just("text")},
            optional={
                "text": json_values,
                "refusal": json_values,
                "id": json_values,
                "function": json_values
                | st.fixed_dictionaries({"name": json_values}, optional={"arguments": json_values}),
            },
        ),
        max_size=2,
    ),
)


@given(json_values | st.lists(json_values | wrong_messages | nearly_messages, max_size=3))
def test_whatever_is_no_conversation_raises_one_error_with_its_field(rows: object) -> None:
    try:
        conversation = Conversation.from_openai(rows)  # type: ignore[arg-type]
    except MessageFormatError as raised:
        error = raised
    else:
        # What is accepted is a value of the data model, which round-trips.
        assert Conversation.from_openai(conversation.to_openai()) == conversation
        assert msgspec.convert(msgspec.to_builtins(conversation), Conversation) == conversation
        return
    assert re.fullmatch(
        r"messages(\[\d+\](\.(role|content|tool_calls|tool_call_id)(\[\d+\])?)?)?", error.field
    )
    assert str(error).startswith(f"{error.field}: ")
    assert len(str(error)) < 200


def test_an_error_does_not_repeat_a_long_input() -> None:
    with pytest.raises(MessageFormatError) as error:
        Conversation.from_openai([{"role": "x" * 100_000, "content": ""}])
    assert len(str(error.value)) < 200


def test_a_part_of_another_kind_is_refused_even_with_a_text_and_a_refusal_is_read() -> None:
    with pytest.raises(ValueError, match=r"messages\[0\]\.content\[1\]: only text parts"):
        Conversation.from_openai(
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "a"},
                        {"type": "image_url", "image_url": {"url": "data:"}, "text": "b"},
                    ],
                }
            ]
        )
    parts = [{"type": "refusal", "refusal": "No, sorry."}]
    assert Conversation.from_openai([{"role": "assistant", "content": parts}]).last.content == (
        "No, sorry."
    )


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


@given(calls)
def test_tool_call_round_trips_through_the_openai_form(call: ToolCall) -> None:
    assert ToolCall.from_openai(call.to_openai()) == call


def test_missing_and_null_parts_of_a_tool_call() -> None:
    assert ToolCall.from_openai({"function": {"name": "f"}}) == ToolCall("", "f", "{}")
    assert ToolCall.from_openai(
        {"id": None, "function": {"name": "f", "arguments": None}}
    ) == ToolCall("", "f", "{}")
    as_object = ToolCall.from_openai({"function": {"name": "f", "arguments": {"city": "Zürich"}}})
    assert as_object.arguments == '{"city": "Zürich"}'
    for malformed in ({"function": {"name": ["f"]}}, {"function": {"name": "f", "arguments": 3}}):
        with pytest.raises(TypeError):
            ToolCall.from_openai(malformed)
    for malformed in ({}, {"function": {}}, {"function": "f"}, "f", None):
        with pytest.raises((KeyError, TypeError, AttributeError)):
            ToolCall.from_openai(malformed)
