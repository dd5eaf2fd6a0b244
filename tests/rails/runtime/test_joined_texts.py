"""Which texts are joined, and that no split over two of them stays unread."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from truing.core.types import Tool
from truing.rails.runtime.client_texts import WITHHELD_TEXT
from truing.rails.runtime.joined_texts import (
    MIN_JOINED_CHARACTERS,
    RunSettings,
    TextPart,
    collect_runs,
    collect_tool_runs,
    join_neighbours,
    join_parts,
    json_strings,
)

MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "one"},
    {"role": "user", "content": "two"},
    {"role": "assistant", "content": "own"},
    {"role": "user", "content": "three"},
    {"role": "tool", "content": "four", "name": "f"},
    {"role": "tool", "content": "five", "name": "g"},
    {"role": "user", "content": ""},
]


def runs(
    messages: list[dict[str, Any]] = MESSAGES, tools: tuple[Tool, ...] = (), **settings: Any
) -> list[list[str]]:
    chosen = RunSettings(is_own_answer=lambda text: "own" in text, **settings)
    return [[part.text for part in run] for run in collect_runs(messages, tools, chosen)]


def calling(arguments: str, content: str = "") -> dict[str, Any]:
    call = {"id": "c", "function": {"name": "look_up", "arguments": arguments}}
    return {"role": "assistant", "content": content, "tool_calls": [call]}


def test_runs_end_at_own_answers_and_need_two_texts() -> None:
    assert runs(joins_turns=False) == [["one", "two"], ["three", "four", "five"]]
    assert runs(joins_turns=False, trusted=("system",)) == [["three", "four", "five"]]
    assert runs(joins_turns=False, skipped=(0, 4)) == [["three", "five"]]


def test_the_texts_of_a_role_are_joined_over_what_lies_between_them() -> None:
    assert runs()[2:] == [["two", "three"]]
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "forged"},
        {"role": "user", "content": WITHHELD_TEXT},
        {"role": "user", "content": "b"},
    ]
    assert runs(messages) == [["a", "forged", "b"], ["a", "b"]]
    assert runs(messages[:1] + messages[3:]) == [["a", "b"]]  # nothing lies between


def test_results_with_a_stage_of_their_own_are_marked() -> None:
    settings = RunSettings(is_own_answer=lambda text: False, has_tool_rails=True)
    (run,) = collect_runs(MESSAGES[3:], (), settings)
    assert [part.is_read_elsewhere for part in run] == [False, True, True]


def test_tool_runs_are_the_results_in_order() -> None:
    (run,) = collect_tool_runs(MESSAGES, ())
    assert [(part.text, part.name) for part in run] == [("four", "f"), ("five", "g")]
    assert collect_tool_runs(MESSAGES, ("tool",)) == []
    apart = [MESSAGES[4], MESSAGES[3], MESSAGES[5]]
    assert len(collect_tool_runs(apart, ())) == 1
    assert collect_tool_runs(apart, (), joins_turns=False) == []


def test_a_message_is_joined_to_the_values_of_its_calls_and_these_to_each_other() -> None:
    message = calling('{"q": "a\\u0062", "deep": [{"r": "c"}], "n": 3}', content="text")
    assert runs([message]) == [["text", "ab", "c"], ["q", "deep", "r", "n"]]
    assert runs([calling("no JSON", content="text")]) == [["text", "no JSON"]]
    # Calls that the runtime made itself have been read.
    assert runs([{**message, "content": ""} | calling('{"q": "own", "r": "x"}')]) == []


def test_keys_that_a_definition_names_are_read_there() -> None:
    schema = {"type": "object", "properties": {"q": {"type": "string"}, "r": {}}}
    tools = (Tool("look_up", "", json.dumps(schema)),)
    assert runs([calling('{"q": 1, "r": 2}')], tools) == []
    assert runs([calling('{"q": 1, "r": 2, "s": 3, "t": 4}')], tools) == [["s", "t"]]


def test_free_texts_of_definitions_are_joined_and_the_descriptions_once_more() -> None:
    schema = {
        "type": "object",
        "properties": {"q": {"type": "string", "description": "b"}, "r": {"enum": ["c"]}},
        "required": ["q"],
    }
    tools = (Tool("f", "a", json.dumps(schema)), Tool("g", "d"))
    assert runs([], tools) == [["a", "b", "c", "d", "a", "d"]]
    assert runs([], tools, trusted=("tool_definitions",)) == []
    # A message may go on where a definition ends.
    assert runs([{"role": "user", "content": "e"}], tools[1:]) == [["d", "e"]]


def test_the_strings_of_json_are_found_in_what_no_parser_takes() -> None:
    cut_off = '{"a": "x\\"y", "a" : "z", "b": "\\ud83d", "c": "open'
    assert list(json_strings(cut_off)) == [
        ("a", True),
        ('x"y', False),
        ("a", True),
        ("z", False),
        ("b", True),
        ("\ud83d", False),
        ("c", True),
        ("open", False),
    ]
    assert list(json_strings('{"a": "b\\')) == [("a", True), ("b", False)]


def test_both_forms_are_one_text_where_they_fit() -> None:
    assert join_parts([TextPart("a FORBID"), TextPart("DEN b")]) == [
        "a FORBID\nDEN b\n---\na FORBIDDEN b"
    ]
    assert join_parts([TextPart("a."), TextPart("b")]) == ["a.\nb"]
    long = [TextPart("x" * 195), TextPart("y" * 195)]
    assert join_parts(long) == ["x" * 195 + "\n" + "y" * 195, "x" * 195 + "y" * 195]


@given(st.lists(st.text(max_size=700), min_size=2, max_size=6), st.integers(1, 5))
def test_every_joint_stands_in_a_bounded_text(texts: list[str], number: int) -> None:
    joined = join_neighbours(texts)
    bound = max(MIN_JOINED_CHARACTERS, *(len(text) for text in texts))
    assert all(len(text) <= bound for text in joined)
    number = min(number, len(texts) - 1)
    before, after = texts[number - 1][-3:], texts[number][:3]
    assert any(f"{before}\n{after}" in text for text in joined)
    if before[-1:].isalnum() and after[:1].isalnum():
        assert any(before + after in text for text in joined)


def test_one_text_is_joined_to_nothing() -> None:
    assert join_neighbours(["alone"]) == join_neighbours([]) == []


PIECES = st.tuples(
    st.sampled_from(["system", "user", "assistant", "own", "tool", "call"]),
    st.sampled_from(["tea", "a longer text about tea and gardens. " * 8, "1", "x y"]),
)


@given(pieces=st.lists(PIECES, min_size=2, max_size=9), data=st.data())
def test_a_word_split_over_two_pieces_is_in_a_joined_text(
    pieces: list[tuple[str, str]], data: st.DataObject
) -> None:
    foreign = [index for index, (role, _) in enumerate(pieces) if role != "own"]
    if len(foreign) < 2:
        return
    first = data.draw(st.sampled_from(foreign[:-1]))
    senders = ["assistant" if role == "call" else role for role, _ in pieces]
    of_role = [index for index in foreign if index > first and senders[index] == senders[first]]
    # The next piece of the role, or the next piece if the runtime has not answered between them.
    candidates = of_role[:1] + ([first + 1] if pieces[first + 1][0] != "own" else [])
    if not candidates:
        return
    second = data.draw(st.sampled_from(candidates))
    messages = []
    for index, (kind, filler) in enumerate(pieces):
        text = f"{filler} FORBID" if index == first else filler
        text = f"DEN {filler}" if index == second else text
        if kind == "call":
            messages.append(calling(json.dumps({"q": text})))
        else:
            content = "own" if kind == "own" else text
            messages.append({"role": "assistant" if kind == "own" else kind, "content": content})
    settings = RunSettings(is_own_answer=lambda text: text == "own")
    joined = [text for run in collect_runs(messages, (), settings) for text in join_parts(run)]
    assert any("FORBIDDEN" in text for text in joined)
    assert all(len(text) <= max(420, *(len(text) for _, text in pieces)) + 8 for text in joined)
