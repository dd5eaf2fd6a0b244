"""Responses in the OpenAI chat format, whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from truing.core.types import TokenLogprob, ToolCall, Usage
from truing.models.openai_format import (
    Completion,
    CompletionUsage,
    StreamAssembler,
    answers_from_completion,
)


def read_completion(*choices: dict[str, Any], **fields: Any) -> Completion:
    data = json.dumps({"choices": choices, **fields}).encode()
    return msgspec.json.decode(data, type=Completion)


def make_chunk(delta: dict[str, Any] | None = None, **fields: Any) -> bytes:
    return json.dumps({"choices": [{"delta": delta or {}, **fields}]}).encode()


def test_the_first_answer_carries_the_usage_of_the_request() -> None:
    usage = {
        "prompt_tokens": 11,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    choices = [
        {"message": {"content": text}, "finish_reason": reason}
        for text, reason in (("one", "stop"), ("two", "length"))
    ]
    first, second = answers_from_completion(read_completion(*choices, usage=usage))
    assert (first.text, first.finish_reason, first.usage) == ("one", "stop", Usage(11, 7, 4))
    assert (second.text, second.finish_reason, second.usage) == ("two", "length", Usage())


def test_missing_counts_are_zero() -> None:
    usage = CompletionUsage(completion_tokens=3)
    assert usage.total == 3 and usage.usage() == Usage(0, 3, 0)
    assert answers_from_completion(read_completion({"message": {"content": "x"}}))[0].usage == (
        Usage()
    )


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": [{"type": "text", "text": "a"}, {"type": "image"}, {"text": "b"}]}, "ab"),
        ({"content": None, "refusal": "I won't."}, "I won't."),
        ({"content": None}, ""),
    ],
)
def test_the_text_of_a_message(message: dict[str, Any], text: str) -> None:
    (answer,) = answers_from_completion(read_completion({"message": message}))
    assert answer.text == text


@pytest.mark.parametrize(
    ("reason", "finish_reason"),
    [
        (None, "stop"),
        ("eos", "stop"),
        ("stop_sequence", "stop"),
        ("function_call", "tool_calls"),
        ("content_filter", "content_filter"),
        ("a new one", "a new one"),
    ],
)
def test_finish_reasons_of_other_servers(reason: str | None, finish_reason: str) -> None:
    choice = {"message": {"content": "x"}, "finish_reason": reason}
    assert answers_from_completion(read_completion(choice))[0].finish_reason == finish_reason


def test_tool_calls_and_log_probabilities() -> None:
    calls = [{"id": "c1", "function": {"name": "look", "arguments": '{"at":1}'}}, {"id": None}]
    token = {
        "token": "a",
        "logprob": -0.5,
        "top_logprobs": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1.5}],
    }
    choice = {"message": {"tool_calls": calls}, "logprobs": {"content": [token]}}
    (answer,) = answers_from_completion(read_completion(choice))
    assert answer.message.tool_calls == (
        ToolCall("c1", "look", '{"at":1}'),
        ToolCall("", "", "{}"),
    )
    assert answer.logprobs == (TokenLogprob("a", -0.5, (("a", -0.5), ("b", -1.5))),)


def test_a_stream_is_joined() -> None:
    stream = StreamAssembler()
    assert stream.add(make_chunk({"role": "assistant"})) == ""
    assert stream.add(make_chunk({"content": "Hel"})) == "Hel"
    token = {"token": "lo", "logprob": -0.1}
    assert stream.add(make_chunk({"content": "lo"}, logprobs={"content": [token]})) == "lo"
    assert stream.add(make_chunk(finish_reason="length")) == ""
    assert stream.add(b'{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}') == ""
    answer = stream.answer()
    assert (answer.text, answer.finish_reason, answer.usage) == ("Hello", "length", Usage(5, 2))
    assert answer.logprobs == (TokenLogprob("lo", -0.1),)


def test_tool_calls_arrive_in_fragments_and_may_interleave() -> None:
    stream = StreamAssembler()
    fragments: tuple[dict[str, Any], ...] = (
        {"index": 1, "id": "c2", "function": {"name": "second"}},
        {"index": 0, "id": "c1", "function": {"name": "first", "arguments": '{"a"'}},
        {"index": 0, "function": {"arguments": ":1}"}},
    )
    for fragment in fragments:
        stream.add(make_chunk({"tool_calls": [fragment]}))
    stream.add(make_chunk(finish_reason="tool_calls"))
    assert stream.answer().message.tool_calls == (
        ToolCall("c1", "first", '{"a":1}'),
        ToolCall("c2", "second", "{}"),
    )


def test_a_stream_without_an_end_is_a_failure() -> None:
    stream = StreamAssembler()
    stream.add(make_chunk({"content": "Hel"}))
    failure = stream.answer().failure
    assert failure is not None and failure.kind == "dropped"


def test_an_error_in_the_stream_is_raised() -> None:
    with pytest.raises(ValueError, match="carries an error: .*overloaded"):
        StreamAssembler().add(b'{"error":{"message":"overloaded"}}')
