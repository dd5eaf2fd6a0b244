from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.core.types import (
    Conversation,
    Message,
    Response,
    Sample,
    ToolCall,
    content_id,
    with_ids,
)

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
def test_the_openai_form_reads_back(conversation: Conversation) -> None:
    assert Conversation.from_openai(conversation.to_openai()) == conversation


@given(conversations)
def test_json_reads_back(conversation: Conversation) -> None:
    assert msgspec.json.decode(msgspec.json.encode(conversation), type=Conversation) == conversation


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        (["x"], r"messages\[0\]: expected an object"),
        ([{"role": "wizard", "content": "x"}], "wizard"),
        ([{"role": "user", "content": 3}], "expected text"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "only text parts"),
        ([{"role": "assistant", "tool_calls": [{"id": 1}]}], "tool_calls"),
        ([{"role": "tool", "content": "x", "tool_call_id": 3}], "tool_call_id"),
    ],
)
def test_wrong_messages_say_where(rows: list[object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Conversation.from_openai(rows)  # type: ignore[arg-type]


def test_parts_are_joined_and_developer_is_system() -> None:
    read = Conversation.from_openai(
        [
            {"role": "developer", "content": "s"},
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            },
        ]
    )
    assert read == Conversation((Message("system", "s"), Message("user", "ab")))
    assert (read.system, read.prompt, read.last.content) == ("s", "ab", "ab")


def test_ids_are_the_content_and_the_occurrence() -> None:
    one, other = (Sample(conversation=Conversation.of(t)) for t in ("a", "b"))
    made = list(with_ids([one, other, one]))
    assert made[0].id == content_id(one) and made[2].id == f"{content_id(one)}-1"
    assert len({s.id for s in made}) == 3
    assert content_id(made[0]) == content_id(one)
    kept = Sample(conversation=Conversation.of("a"), id="mine")
    assert next(with_ids([kept])).id == "mine"


def test_the_fields_that_outsiders_rely_on_are_always_written() -> None:
    row = msgspec.json.decode(
        msgspec.json.encode(Response(sample_id="s", message=Message("assistant", "x")))
    )
    assert {"sample_id", "index", "model", "message", "finish_reason", "usage", "failure"} <= set(
        row
    )
    assert {"role", "content", "tool_calls"} <= set(row["message"])


@given(calls)
def test_a_tool_call_survives_its_openai_form(call):
    assert ToolCall.from_openai(call.to_openai()) == call


def test_absent_and_null_parts_of_a_tool_call():
    assert ToolCall.from_openai({"function": {"name": "f"}}) == ToolCall("", "f", "{}")
    assert ToolCall.from_openai(
        {"id": None, "function": {"name": "f", "arguments": None}}
    ) == ToolCall("", "f", "{}")
    for bad in ({}, {"function": {}}, {"function": "f"}, "f", None):
        with pytest.raises((KeyError, TypeError, AttributeError)):
            ToolCall.from_openai(bad)
