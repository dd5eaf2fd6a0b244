"""Which instructions match an event."""

from __future__ import annotations

from typing import Any

from truing.rails.colang.compiler import compile_flow
from truing.rails.colang.parser import parse_colang
from truing.rails.runtime.event_matching import event_key, matches

USER_INTENT: dict[str, Any] = {"type": "UserIntent", "intent": "a"}
BOT_INTENT: dict[str, Any] = {"type": "BotIntent", "intent": "a"}
ACTION_FINISHED: dict[str, Any] = {
    "type": "InternalSystemActionFinished",
    "action_name": "a",
    "status": "success",
}


def matching_events(colang: str, *events: dict[str, Any]) -> list[bool]:
    """Whether the first instruction of a flow matches each event."""
    flow = compile_flow(parse_colang("main.co", f"define flow\n  {colang}\n").flows[0])
    return [matches(flow.instructions[0], event) for event in events]


def test_intents_and_actions_match_by_kind_and_name() -> None:
    events = (USER_INTENT, BOT_INTENT, ACTION_FINISHED)
    assert matching_events("user a", *events) == [True, False, False]
    assert matching_events("bot a", *events) == [False, True, False]
    assert matching_events("execute a", *events) == [False, False, True]
    assert matching_events("user b", *events) == [False, False, False]
    assert matching_events("user ...", *events) == [True, False, False]
    assert matching_events("execute a", {**ACTION_FINISHED, "status": "failed"}) == [False]


def test_matching_compares_the_fields_of_events() -> None:
    flow = compile_flow(parse_colang("main.co", 'define flow\n  event E(a="x")\n').flows[0])
    instruction = flow.instructions[0]
    assert matches(instruction, {"type": "E", "a": "x", "b": "y"})
    assert not matches(instruction, {"type": "E", "a": "z"})
    assert not matches(instruction, {"type": "F", "a": "x"})


def test_the_key_of_an_event_names_what_can_match_it() -> None:
    keys = [event_key(e) for e in (USER_INTENT, BOT_INTENT, ACTION_FINISHED)]
    assert len(set(keys)) == 3
    assert {name for _, name in keys} == {"a"}
    assert event_key({"type": "Custom"})[1] == "Custom"
