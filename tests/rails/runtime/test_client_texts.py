"""The texts of a client: all of them, in order."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.core.types import Tool
from truing.rails.runtime.chat_messages import decode_messages
from truing.rails.runtime.client_texts import (
    collect_client_texts,
    name_results,
    readable_arguments,
    with_text,
)

CALL = {"id": "c", "function": {"name": "look_up", "arguments": '{"q": "tea"}'}}
ROWS = decode_messages(
    [
        {"role": "context", "content": {"note": "n", "deep": {"key": ["a", {"b": "c"}]}, "n": 3}},
        {"role": "developer", "content": "rules", "name": "dev"},
        {"role": "user", "content": [{"type": "text", "text": "part"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "result", "tool_call_id": "c"},
        {"role": "event", "event": {"type": "Custom", "field": "said"}},
        {"role": "user", "content": "live"},
    ]
)


def texts_of(**arguments: Any) -> list[tuple[int, str, str, str, str]]:
    settings = {"has_tool_rails": False, "trusted": (), **arguments}
    tools = settings.pop("tools", ())
    collected = collect_client_texts(ROWS, tools, **settings)
    return [(t.index, t.part, t.role, t.text, t.stage) for t in collected]


def test_every_text_but_the_newest_is_collected() -> None:
    assert texts_of() == [
        (0, "note", "context", "n", "input"),
        (0, "deep", "context", "key", "input"),
        (0, "deep", "context", "a", "input"),
        (0, "deep", "context", "b", "input"),
        (0, "deep", "context", "c", "input"),
        (1, "content", "system", "rules", "input"),
        (1, "name", "system", "dev", "input"),
        (2, "content", "user", "part", "input"),
        (3, "call_name:0", "assistant", "look_up", "input"),
        (3, "call:0", "assistant", '{"q": "tea"}', "input"),
        (4, "content", "tool", "result", "input"),
        (5, "field", "event", "said", "input"),
    ]
    assert texts_of(includes_newest=True)[-1][3] == "live"


def test_tools_trust_and_stages() -> None:
    tools = (Tool("look_up", "Looks up"),)
    texts = texts_of(tools=tools, has_tool_rails=True, trusted={"system", "context"})
    assert texts[0][:3] == (-1, "definition", "tool_definitions")
    assert {role for _, _, role, _, _ in texts}.isdisjoint({"system", "context"})
    assert not any(part.startswith("call_name") for _, part, _, _, _ in texts)
    assert next(t for t in texts if t[2] == "tool")[4] == "tool_input"


def test_a_text_is_replaced_in_its_place() -> None:
    assert with_text(ROWS[1], "content", "x").content == "x"
    assert with_text(ROWS[3], "call:0", "{}").tool_calls[0].arguments == "{}"
    assert with_text(ROWS[0], "note", "x").variables["note"] == "x"
    assert ROWS[0].variables["note"] == "n"


def test_a_variable_may_have_any_name() -> None:
    variables = {"content": "a", "call:0": "b", "name": "c"}
    (message,) = decode_messages([{"role": "context", "content": variables}])
    for name in variables:
        rewritten = with_text(message, name, "x")
        assert rewritten.variables == {**variables, name: "x"}
        assert (rewritten.content, rewritten.tool_calls) == ("", ())


@pytest.mark.parametrize(("row", "part"), [(5, "content"), (5, "field"), (1, "name"), (6, "note")])
def test_a_text_that_cannot_be_rewritten_is_an_error(row: int, part: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be rewritten|is no text of a message"):
        with_text(ROWS[row], part, "x")


def _call(call_id: str, tool: str) -> dict[str, Any]:
    calls = [{"id": call_id, "function": {"name": tool, "arguments": "{}"}}]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def _result(call_id: str) -> dict[str, Any]:
    return {"role": "tool", "content": "x", "tool_call_id": call_id}


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        ([_call("c", "a"), _result("c")], ["", "a"]),
        ([_result("c"), _call("c", "a")], ["", ""]),
        ([_call("c", "a"), _result("c"), _call("c", "b")], ["", "a", ""]),
        ([_call("c", "a"), _call("c", "b"), _result("c")], ["", "", ""]),
        ([_call("c", "a"), _call("c", "a"), _result("c")], ["", "", "a"]),
        ([_call("", "a"), _result("")], ["", ""]),
    ],
)
def test_a_result_belongs_to_an_earlier_call(rows: list[Any], names: list[str]) -> None:
    assert name_results(decode_messages(rows)) == names


def test_arguments_are_read_as_the_tool_reads_them() -> None:
    assert readable_arguments('{"q": "\\u0041\\u0042"}') == '{"q": "AB"}'
    assert readable_arguments('{"q": "\\u00') == '{"q": "\\u00'
    # The first of two equal keys, a text that is cut off, and what JSON needs escaped.
    assert readable_arguments('{"q": "first", "q": "\\u0041"}') == '{"q": "first", "q": "A"}'
    assert readable_arguments('{"q": "\\u0041b') == '{"q": "Ab'
    assert readable_arguments(r'["\ud83d\ude00 \ud83d \u0022 \n \/ \\u0041"]') == (
        r'["😀 \ud83d \u0022 \n / \\u0041"]'
    )
    assert readable_arguments({"q": "ä"}) == '{"q": "ä"}'


@given(st.text())
def test_readable_arguments_mean_the_same_json(text: str) -> None:
    arguments = json.dumps({"key": text})
    assert json.loads(readable_arguments(arguments)) == {"key": text}
