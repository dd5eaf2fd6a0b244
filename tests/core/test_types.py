"""The data model: OpenAI form, JSON form, ids and seeds."""

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
    stream_seed,
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


def test_ids_derive_from_content_and_occurrence() -> None:
    first, second = (Sample(conversation=Conversation.of(t)) for t in ("a", "b"))
    samples = list(with_ids([first, second, first]))
    assert samples[0].id == content_id(first)
    assert samples[2].id == f"{content_id(first)}-1"
    assert len({s.id for s in samples}) == 3
    assert content_id(samples[0]) == content_id(first)
    assert content_id(first, 2) == f"{content_id(first)}-2"


def test_an_existing_id_is_kept() -> None:
    sample = Sample(conversation=Conversation.of("a"), id="mine")
    assert next(with_ids([sample])).id == "mine"


@given(st.integers(0, 2**32), texts, st.integers(0, 100))
def test_stream_seeds_fit_in_63_bits_and_depend_on_every_part(
    seed: int, sample_id: str, index: int
) -> None:
    value = stream_seed(seed, sample_id, index)
    assert 0 <= value < 2**63
    assert value == stream_seed(seed, sample_id, index)
    assert value != stream_seed(seed, sample_id, index + 1)
    assert value != stream_seed(seed + 1, sample_id, index)


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
