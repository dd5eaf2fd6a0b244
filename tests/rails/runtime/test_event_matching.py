"""Which instructions match an event."""

from __future__ import annotations

from msgspec.structs import replace

from truing.rails.colang.compiler import compile_flow
from truing.rails.colang.parser import parse_colang
from truing.rails.runtime.event_matching import event_key, matches
from truing.rails.runtime.event_types import (
    BotIntent,
    Event,
    OtherEvent,
    UserIntent,
    event_from_nemo,
)

USER_INTENT = UserIntent("a")
BOT_INTENT = BotIntent("a")
ACTION_FINISHED = event_from_nemo({"type": "InternalSystemActionFinished", "action_name": "a"})


def matching_events(colang: str, *events: Event) -> list[bool]:
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
    assert matching_events("execute a", replace(ACTION_FINISHED, status="failed")) == [False]


def test_matching_compares_the_fields_of_events() -> None:
    flow = compile_flow(parse_colang("main.co", 'define flow\n  event E(a="x")\n').flows[0])
    instruction = flow.instructions[0]
    assert matches(instruction, OtherEvent.of("E", a="x", b="y"))
    assert not matches(instruction, OtherEvent.of("E", a="z"))
    assert not matches(instruction, OtherEvent.of("F", a="x"))


def test_the_key_of_an_event_names_what_can_match_it() -> None:
    keys = [event_key(e) for e in (USER_INTENT, BOT_INTENT, ACTION_FINISHED)]
    assert len(set(keys)) == 3
    assert {name for _, name in keys} == {"a"}
    assert event_key(OtherEvent.of("Custom"))[1] == "Custom"
