from __future__ import annotations

from typing import Any

from truing.rails.runtime.border_texts import (
    BorderPart,
    collect_border_runs,
    collect_tool_runs,
    join_parts,
)

ROWS: list[dict[str, Any]] = [
    {"role": "system", "content": "one"},
    {"role": "user", "content": "two"},
    {"role": "assistant", "content": "own"},
    {"role": "user", "content": "three"},
    {"role": "tool", "content": "four", "name": "f"},
    {"role": "tool", "content": "five", "name": "g"},
    {"role": "user", "content": ""},
]


def runs(**settings: Any) -> list[list[str]]:
    arguments = {"skipped": (), "trusted": (), "has_tool_rails": False, **settings}
    parts = collect_border_runs(ROWS, is_own_answer=lambda text: text == "own", **arguments)
    return [[part.text for part in run] for run in parts]


def test_runs_end_at_own_answers_and_need_two_texts() -> None:
    assert runs() == [["one", "two"], ["three", "four", "five"]]
    assert runs(trusted=("system",)) == [["three", "four", "five"]]
    assert runs(skipped=(0, 4)) == [["three", "five"]]


def test_results_with_a_stage_of_their_own_are_marked() -> None:
    (run,) = collect_border_runs(
        ROWS[3:], skipped=(), trusted=(), has_tool_rails=True, is_own_answer=lambda text: False
    )
    assert [part.is_read_elsewhere for part in run] == [False, True, True]


def test_tool_runs_are_the_results_that_follow_each_other() -> None:
    (run,) = collect_tool_runs(ROWS, ())
    assert [(part.text, part.name) for part in run] == [("four", "f"), ("five", "g")]
    assert collect_tool_runs(ROWS, ("tool",)) == []


def test_both_forms_of_a_border_are_one_text_where_they_fit() -> None:
    assert join_parts([BorderPart("a FORBID"), BorderPart("DEN b")]) == [
        "a FORBID\nDEN b\n---\na FORBIDDEN b"
    ]
    assert join_parts([BorderPart("a."), BorderPart("b")]) == ["a.\nb"]
    long = [BorderPart("x" * 195), BorderPart("y" * 195)]
    assert join_parts(long) == ["x" * 195 + "\n" + "y" * 195, "x" * 195 + "y" * 195]
