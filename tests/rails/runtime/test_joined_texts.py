"""Which texts are joined, and that no split over two of them stays unread."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from truing.core.types import Tool
from truing.rails.runtime.chat_messages import decode_messages
from truing.rails.runtime.client_texts import WITHHELD_TEXT
from truing.rails.runtime.joined_texts import (
    JOINED_CHARACTERS,
    TOGETHER_CHARACTERS,
    RunSettings,
    TextPart,
    collect_runs,
    collect_tool_runs,
    group_texts,
    join_group,
    join_neighbours,
    join_parts,
    json_strings,
)

UTTERANCE = "UtteranceUserActionFinished"
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
    collected = collect_runs(decode_messages(messages), tools, chosen)
    return [[part.text for part in run] for run in collected]


def calling(arguments: str, content: str = "") -> dict[str, Any]:
    call = {"id": "c", "function": {"name": "look_up", "arguments": arguments}}
    return {"role": "assistant", "content": content, "tool_calls": [call]}


def test_runs_end_at_own_answers_only_if_turns_are_not_joined() -> None:
    assert runs() == [["one", "two", "own", "three", "four", "five"], ["two", "three"]]
    assert runs(joins_turns=False) == [["one", "two"], ["three", "four", "five"]]
    assert runs(joins_turns=False, trusted=("system",)) == [["three", "four", "five"]]
    assert runs(joins_turns=False, skipped=(0, 4)) == [["three", "five"]]


def test_an_own_answer_is_marked_as_read() -> None:
    settings = RunSettings(is_own_answer=lambda text: text == "own")
    run, _ = collect_runs(decode_messages(MESSAGES), (), settings)
    assert [part.text for part in run if part.is_read_elsewhere] == ["own"]


def test_the_texts_of_a_role_are_joined_over_what_lies_between_them() -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "forged"},
        {"role": "user", "content": WITHHELD_TEXT},
        {"role": "user", "content": "b"},
    ]
    assert runs(messages) == [["a", "forged", "b"], ["a", "b"]]
    assert runs(messages[:1] + messages[3:]) == [["a", "b"]]  # nothing lies between


def test_variables_and_events_are_joined_to_the_messages() -> None:
    messages = [
        {
            "role": "context",
            "content": {"generation_options": {"x": "y"}, "chunk": "a", "n": ["b"]},
        },
        {"role": "event", "event": {"type": "Custom", "field": "c"}},
        {"role": "event", "event": {"type": UTTERANCE, "final_transcript": "d"}},
    ]
    assert runs(messages) == [["a", "b", "c", "d"]]
    assert runs(messages, trusted=("context",)) == [["c", "d"]]


def test_results_with_a_stage_of_their_own_are_marked() -> None:
    settings = RunSettings(is_own_answer=lambda text: False, has_tool_rails=True)
    (run,) = collect_runs(decode_messages(MESSAGES[3:]), (), settings)
    assert [part.is_read_elsewhere for part in run] == [False, True, True]


def test_tool_runs_are_the_results_in_order() -> None:
    (run,) = collect_tool_runs(decode_messages(MESSAGES), ())
    assert [(part.text, part.name) for part in run] == [("four", "f"), ("five", "g")]
    assert collect_tool_runs(decode_messages(MESSAGES), ("tool",)) == []
    apart = decode_messages([MESSAGES[4], MESSAGES[3], MESSAGES[5]])
    assert len(collect_tool_runs(apart, ())) == 1
    assert collect_tool_runs(apart, (), joins_turns=False) == []


OFFERED = (Tool("look_up"),)


def test_a_message_is_joined_to_the_values_of_its_calls_and_these_to_each_other() -> None:
    message = calling('{"q": "a\\u0062", "deep": [{"r": "c"}], "n": 3}', content="text")
    assert runs([message], OFFERED) == [
        ["text", "ab", "c"],
        ["text", "q", "ab", "deep", "r", "c", "n"],
        ["q", "deep", "r", "n"],
    ]
    assert runs([calling("no JSON", content="text")], OFFERED) == [["text", "no JSON"]]


def test_calls_of_the_runtime_itself_are_marked_as_read() -> None:
    settings = RunSettings(is_own_answer=lambda text: "own" in text)
    messages = decode_messages([calling('{"q": "own"}'), {"role": "tool", "content": "x"}])
    (run,) = collect_runs(messages, (), settings)
    assert [(part.text, part.is_read_elsewhere) for part in run] == [("own", True), ("x", False)]


def test_names_and_keys_that_a_definition_has_are_read_there() -> None:
    schema = {"type": "object", "properties": {"q": {"type": "string"}, "r": {}}}
    tools = (Tool("look_up", "", json.dumps(schema)),)
    definition = [["q", "r"], ["look_up", "q", "r"]]
    assert runs([calling('{"q": 1, "r": 2}')], tools) == definition
    found = runs([calling('{"q": 1, "r": 2, "s": "x", "t": 4}')], tools)
    assert found == [*definition, ["s", "x", "t"], ["s", "t"]]
    # A name that is not offered, beside what follows it and beside the next such name.
    other = runs(
        [calling('{"q": "x"}'), calling('{"q": "y"}')], (Tool("f", "", json.dumps(schema)),)
    )
    assert other[-3:] == [["look_up", "x"], ["look_up", "y"], ["look_up", "look_up"]]


def test_all_of_the_definitions_is_joined_but_the_words_of_json_schema() -> None:
    schema = {
        "type": "object",
        "properties": {"q": {"type": "odd", "format": "date", "description": "b"}},
        "required": ["q"],
    }
    tools = (Tool("f", "a", json.dumps(schema)), Tool("g", "d"))
    assert runs([], tools) == [
        ["f", "g"],
        ["a", "d"],
        ["f", "a", "odd", "b", "q", "g", "d"],
        ["f", "a", "q", "odd", "b", "q", "g", "d"],
        ["a", "odd", "b", "q", "d"],
    ]
    assert runs([], tools, trusted=("tool_definitions",)) == []
    # A message may go on where a definition ends.
    assert runs([{"role": "user", "content": "e"}], tools[1:]) == [["g", "d"], ["d", "e"]]


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
    assert all(len(text) <= JOINED_CHARACTERS for text in joined)
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
    first = data.draw(st.integers(0, len(pieces) - 2))
    senders = ["assistant" if role == "call" else role for role, _ in pieces]
    of_role = [n for n in range(first + 1, len(pieces)) if senders[n] == senders[first] != "own"]
    # The next piece of the role, or the next piece, an answer of the runtime too.
    second = data.draw(st.sampled_from([*of_role[:1], first + 1]))
    messages, own_texts = [], set[str]()
    for index, (kind, filler) in enumerate(pieces):
        text = f"{filler} FORBID" if index == first else filler
        text = f"DEN {filler}" if index == second else text
        if kind == "call":
            messages.append(calling(json.dumps({"q": text})))
        else:
            own_texts.add(text if kind == "own" else "")
            messages.append({"role": "assistant" if kind == "own" else kind, "content": text})
    settings = RunSettings(is_own_answer=lambda text: text in own_texts)
    collected = collect_runs(decode_messages(messages), (), settings)
    joined = [text for run in collected for text in join_parts(run)]
    assert any("FORBIDDEN" in text for text in joined)


@given(st.lists(st.text(max_size=JOINED_CHARACTERS), max_size=20))
def test_texts_that_are_read_together_are_all_of_them_in_order(texts: list[str]) -> None:
    groups = group_texts(texts)
    assert [text for group in groups for text in group] == texts
    assert all(len(join_group(group)) <= TOGETHER_CHARACTERS for group in groups)
