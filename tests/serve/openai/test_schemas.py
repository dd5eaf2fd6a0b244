"""Requests and responses in the OpenAI form."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest

from truing.core.types import Answer, Failure, Judgement, Message, Ruling, ToolCall, Usage
from truing.serve.openai import schemas

ASK = {"messages": [{"role": "user", "content": "hello"}]}


def read(**fields: object) -> schemas.ChatRequest:
    return msgspec.convert({**ASK, **fields}, schemas.ChatRequest)


def test_sampling_of_a_request() -> None:
    sampling = read(max_completion_tokens=7, max_tokens=9, stop="END", seed=3).sampling(512)
    assert (sampling.max_tokens, sampling.stop, sampling.seed) == (7, ("END",), 3)
    assert (sampling.temperature, sampling.top_p, sampling.n) == (0.0, 1.0, 1)
    assert read().sampling(512).max_tokens == 512


def test_explicit_fields_are_those_of_the_request() -> None:
    assert read().explicit_fields == frozenset()
    assert read(temperature=0, max_tokens=5).explicit_fields == {"temperature", "max_tokens"}


def test_tools_become_tools() -> None:
    function = {"name": "find", "parameters": {"type": "object"}}
    (tool,) = read(tools=[{"type": "function", "function": function}]).sampling(1).tools
    assert (tool.name, json.loads(tool.parameters)) == ("find", {"type": "object"})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"n": 0}, "`int` >= 1"),
        ({"n": 33}, "`int` <= 32"),
        ({"temperature": -1}, "`float` >= 0.0"),
        ({"temperature": 3}, "`float` <= 2.0"),
        ({"top_p": 0}, "`float` > 0.0"),
        ({"seed": -1}, "`int` >= 0"),
        ({"max_tokens": 0}, "`int` >= 1"),
        ({"messages": "hello"}, "`array`, got `str`"),
        ({"stop": 3}, "`str | array | null`, got `int`"),
    ],
)
def test_wrong_values_are_refused(fields: dict[str, object], expected: str) -> None:
    (name,) = fields
    with pytest.raises(msgspec.ValidationError, match=re.escape(f"{expected} - at `$.{name}`")):
        read(**fields)


def test_no_message_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        read(messages=[]).conversation()


def test_a_completion() -> None:
    answer = Answer(
        message=Message("assistant", "", (ToolCall("", "find", "{}"),)),
        finish_reason="tool_calls",
        usage=Usage(5, 2),
        rulings=(Ruling(name="own", stage="input", ruling="allow", reason="fine"),),
    )
    request = read(guardrails={"config_id": "mild", "options": {"log": {"activated_rails": True}}})
    body = json.loads(schemas.completion(request, "talker", (answer, answer)))
    assert body["usage"] == {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}
    message = body["choices"][0]["message"]
    assert message["content"] is None and message["tool_calls"][0]["id"] == "call_0"
    assert body["guardrails"]["config_id"] == "mild"
    assert body["guardrails"]["rails"][0]["name"] == "own"


def test_blocked_is_a_content_filter() -> None:
    assert schemas.finish_reason(
        Answer(message=Message("assistant", "no"), finish_reason="blocked")
    ) == ("content_filter")


def test_the_last_chunk_has_no_usage_where_none_was_counted() -> None:
    answer = Answer(message=Message("assistant", "fine"))
    event = schemas.last_chunk("id", "talker", read(), answer, include_usage=True)
    body = json.loads(event.removeprefix(b"data: "))
    assert body["usage"] is None and body["choices"][0]["finish_reason"] == "stop"


def test_an_error_event() -> None:
    event = schemas.error_event("no answer in time", "timeout_error")
    assert event.startswith(b"data: ") and event.endswith(b"\n\n")
    assert json.loads(event[6:])["error"]["type"] == "timeout_error"


class Thresholds:
    """A judge whose categories have thresholds of their own."""

    name = "moderation:x"

    category_thresholds = {"x": 0.3, "y": 0.3}  # noqa: RUF012


def test_a_flagged_text_has_a_category_by_the_judges_thresholds_or_none() -> None:
    judgements = [
        Judgement(sample_id="a", judge="j", question="harmful", verdict=verdict, harms=harms)
        for verdict, harms in [
            (True, {"x": 0.4, "y": 0.1}),
            (True, {"x": 0.2}),
            (False, {"x": 0.4}),
        ]
    ]
    too_long = Failure("judge", "too-long", "too much text")
    judgements.append(Judgement(sample_id="a", judge="j", question="harmful", failure=too_long))
    judge: Any = Thresholds()
    results = json.loads(schemas.moderation(judge, judgements))["results"]
    assert [(r["flagged"], r["uncategorised"], r["failure"]) for r in results] == [
        (True, False, None),
        (True, True, None),
        (False, False, None),
        (True, True, "too much text"),
    ]
    assert results[0]["categories"] == {"x": True, "y": False}
    assert results[2]["categories"] == {"x": False}


def test_lone_surrogates_of_a_model_are_no_fault_of_the_server() -> None:
    answer = Answer.of("half a bird \ud83e")
    request = schemas.ChatRequest([{"role": "user", "content": "x"}])
    body = json.loads(schemas.completion(request, "m", (answer,)))
    assert body["choices"][0]["message"]["content"] == "half a bird ?"
    assert b"half a bird ?" in schemas.chunk("id", "m", {"content": answer.text})
    assert json.loads(schemas.error_body("\ud800"))["error"]["message"] == "?"


def test_an_error_is_short() -> None:
    body = schemas.error_body("x" * 100_000, param="y" * 100_000)
    assert len(body) < 900
