"""Unreachable steps, endless loops and recursion."""

from __future__ import annotations

import pytest

from truing.rails.colang.parser import parse_colang
from truing.rails.static.findings import Finding
from truing.rails.static.reachability import check_reachability, ends_block, evaluate_constant


def _check(content: str) -> list[Finding]:
    return list(check_reachability(parse_colang("rails.co", content).flows))


def _check_steps(*steps: str) -> list[Finding]:
    """Checks one flow; its first step is in line 2."""
    return _check("define flow x\n" + "".join(f"  {step}\n" for step in steps))


@pytest.mark.parametrize(
    ("steps", "line", "message"),
    [
        (["stop", "bot a"], 3, "unreachable: line 2 ends the block"),
        (["return", "bot a"], 3, "unreachable: line 2 ends the block"),
        (["if False", "  bot a"], 2, "the condition 'False' never holds"),
        (["if True", "  bot a", "else", "  stop"], 5, "'True' always holds"),
        (
            ["if $a", "  bot a", "else if $a", "  bot b"],
            4,
            "an earlier branch has the same condition",
        ),
        (["if $a", "  stop", "else", "  return", "bot a"], 6, "line 2 ends the block"),
        (["while 1 > 2", "  bot a"], 2, "never holds"),
        (["while True", "  $a = 1"], 2, "never ends"),
        (["while True", "  bot a", "bot b"], 4, "line 2 ends the block"),
        (
            ["when user a", "  bot a", "else when user ...", "  stop"],
            2,
            "line 4 waits for the same",
        ),
        (["user a or user b"], 2, "never match"),
    ],
)
def test_findings_have_their_line(steps: list[str], line: int, message: str) -> None:
    findings = {finding.place: finding.what for finding in _check_steps(*steps)}
    assert message in findings[f"rails.co:{line}"]


@pytest.mark.parametrize(
    "steps",
    [
        ["goto end", "label end", "bot a"],
        ["while True", "  user a", "  bot a"],
        ["while True", "  break", "bot a"],
        ["if $a", "  stop", "bot a"],
        ["while True", "  while True", "    break", "  stop"],
        ["when user a", "  stop", "else when user b", "  stop", "bot a"],
    ],
)
def test_reachable_steps_have_no_finding(steps: list[str]) -> None:
    assert _check_steps(*steps) == []


def test_a_break_of_an_inner_loop_does_not_leave_the_outer_one() -> None:
    (flow,) = parse_colang(
        "rails.co", "define flow x\n  while True\n    while $a\n      break\n"
    ).flows
    assert ends_block(flow.steps[0])


@pytest.mark.parametrize(
    ("condition", "value"),
    [("True", True), ("1 > 2", False), ("$a", None), ("unknown", None)],
)
def test_evaluate_constant(condition: str, value: bool | None) -> None:
    assert evaluate_constant(condition) is value


def test_recursion_is_an_error_if_it_is_certain() -> None:
    content = (
        "define subflow a\n  do b\n\n"
        "define subflow b\n  bot x\n  do a\n\n"
        "define subflow c\n  if $x\n    do c\n"
    )
    findings = [(finding.place, finding.level) for finding in _check(content)]
    assert findings == [
        ("rails.co:2", "error"),
        ("rails.co:6", "error"),
        ("rails.co:10", "warning"),
    ]


def test_two_flows_with_equal_steps_are_a_warning() -> None:
    (finding,) = _check("define flow a\n  user x\n  bot y\n\ndefine flow b\n  user x\n  bot y\n")
    assert (finding.place, finding.level) == ("rails.co:5", "warning")
    assert "does the same as 'a' (rails.co:1)" in finding.what
