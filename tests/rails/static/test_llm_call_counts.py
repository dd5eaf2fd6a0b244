"""The bound on the LLM calls of a turn, counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from static_helpers import PRICE_FLOW, check_folder

from truing.rails.static.llm_call_counts import LlmCallCount, PathCosts

NO_SETTINGS = "models: []\n"
EMBEDDED_INTENTS = "rails: {dialog: {user_messages: {embeddings_only: true}}}\n"
SELF_CHECKS = """
prompts:
  - {task: self_check_input, content: "?"}
  - {task: self_check_output, content: "?"}
rails:
  input: {flows: [self check input]}
  output: {flows: [self check output]}
"""
HELLO = "  bot say hello\n"


def _count(folder: Path, flow: str, config: str = NO_SETTINGS) -> LlmCallCount:
    calls = check_folder(folder, flow, config).calls
    assert calls is not None
    return calls.total


@pytest.mark.parametrize(
    ("config", "flow", "most"),
    [
        # the answer
        (NO_SETTINGS, "", 1),
        # check, one of joined turns, answer, check
        (SELF_CHECKS, "", 4),
        (SELF_CHECKS + "truing: {join_turns: false}\n", "", 3),
        # intent, next step, message
        (NO_SETTINGS, PRICE_FLOW + HELLO, 3),
        # the same with both checks
        (SELF_CHECKS, PRICE_FLOW + HELLO, 6),
        # next step, message
        (EMBEDDED_INTENTS, PRICE_FLOW + HELLO, 2),
        ("rails: {dialog: {single_call: {enabled: true}}}\n", PRICE_FLOW + HELLO, 1),
        # intent, three messages
        (NO_SETTINGS, PRICE_FLOW + "  bot tell a\n  bot tell b\n  bot tell c\n", 4),
        # intent, two messages after the second wait
        (
            NO_SETTINGS,
            PRICE_FLOW + "  bot tell a\n  user ask price\n  bot tell b\n  bot tell c\n",
            3,
        ),
        # intent, message, value, message
        (
            NO_SETTINGS,
            PRICE_FLOW
            + "  if $a\n    bot tell a\n  else\n    bot tell b\n    $x = ...\n    bot tell c\n",
            4,
        ),
    ],
)
def test_the_bound_of_a_turn(tmp_path: Path, config: str, flow: str, most: int) -> None:
    assert _count(tmp_path, flow, config) == LlmCallCount(most)


def test_calls_in_a_loop_have_no_bound(tmp_path: Path) -> None:
    flow = "\ndefine flow x\n  user ask price\n  while $a < 3\n    bot tell a\n    $a = $a + 1\n"
    total = _count(tmp_path, flow)
    assert total.open == frozenset({"a loop in x, line 13"})
    assert str(total).endswith("or more")


def test_an_action_with_the_llm_has_no_bound(tmp_path: Path) -> None:
    actions = "from truing.rails.actions import action\n@action()\nasync def ask(llm): ...\n"
    calls = check_folder(tmp_path, PRICE_FLOW + "  execute ask\n", actions=actions).calls
    assert calls is not None
    assert calls.total.open == frozenset({"the action ask is given the LLM"})


def test_a_rail_that_stops_the_turn_does_not_add_to_the_dialog(tmp_path: Path) -> None:
    rail = "\ndefine flow block\n  if $a\n    bot tell a\n    bot tell b\n    stop\n"
    config = "rails: {input: {flows: [block]}, dialog: {user_messages: {embeddings_only: true}}}\n"
    config += "truing: {join_turns: false}\n"
    assert _count(tmp_path, rail, config).most == 2


def test_an_output_rail_that_says_a_generated_message_runs_again(tmp_path: Path) -> None:
    rail = "\ndefine subflow own\n  bot tell a\n"
    assert _count(tmp_path, rail, "rails: {output: {flows: [own]}}\n").open


def test_costs_of_a_sequence_and_of_a_choice() -> None:
    one, two = LlmCallCount(1), LlmCallCount(2)
    may_stop = PathCosts(completed=one, stopped=LlmCallCount())
    assert may_stop.then(PathCosts(two)) == PathCosts(LlmCallCount(3), LlmCallCount())
    always_stops = PathCosts(None, one)
    assert always_stops.then(PathCosts(two)) == always_stops
    assert PathCosts(one).then(always_stops) == PathCosts(None, two)
    assert PathCosts(one).max_with(always_stops) == PathCosts(one, one)
    assert may_stop.worst == one
