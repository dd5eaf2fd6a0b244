"""Chat messages as events, and the events that follow an action."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from truing.rails.actions import ActionResult
from truing.rails.runtime.chat_messages import decode_messages
from truing.rails.runtime.event_types import (
    ContextUpdate,
    OtherEvent,
    StartAction,
    StartToolCalls,
    StartUtterance,
    SystemMessage,
    UserMessage,
)
from truing.rails.runtime.events import (
    aborted_turn_result,
    action_finished_events,
    events_for_create_event,
    events_from_messages,
)

START_EVENT = StartAction("look_up", {"item": 1}, action_result_key="price")


def types_of(messages: list[dict[str, Any]], start: int = 0) -> list[str]:
    return [event.type for event in events_from_messages(decode_messages(messages), start)]


def test_only_the_last_user_message_asks_for_an_answer() -> None:
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "bye"},
    ]
    assert types_of(messages) == [
        "UtteranceUserActionFinished",
        "UserMessage",
        "StartUtteranceBotAction",
        "UtteranceBotActionFinished",
        "UtteranceUserActionFinished",
    ]
    assert types_of(messages, start=2) == ["UtteranceUserActionFinished"]


def test_context_event_and_system_messages() -> None:
    messages = [
        {"role": "context", "content": {"name": "Ada"}},
        {"role": "system", "content": "Be brief."},
        {"role": "event", "event": {"type": "Custom"}},
    ]
    assert list(events_from_messages(decode_messages(messages), 0)) == [
        ContextUpdate({"name": "Ada"}),
        SystemMessage("Be brief."),
        OtherEvent.of("Custom"),
    ]


def test_tool_results_ask_for_an_answer_to_the_users_last_message() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "yes"},
    ]
    assert list(events_from_messages(decode_messages(messages), 1)) == [
        StartToolCalls([call]),
        UserMessage("Rain?"),
    ]


@pytest.mark.parametrize("role", ["system", "assistant", "tool"])
def test_without_a_message_of_the_user_the_turn_asks_without_a_text(role: str) -> None:
    *_, event = events_from_messages(decode_messages([{"role": role, "content": "x"}]))
    assert event == UserMessage("", is_placeholder=True)


def test_a_plain_value_becomes_the_result_variable() -> None:
    events = action_finished_events(START_EVENT, 3, "success")
    assert events[0] == ContextUpdate({"price": 3})
    assert events[1].get("return_value") == 3
    assert events[1].get("is_success") is True


def test_an_action_result_adds_updates_and_events() -> None:
    result = ActionResult(3, events=[{"type": "E"}], context_updates={"currency": "EUR"})
    start = replace(START_EVENT, is_system_action=True)
    update, finished, added = action_finished_events(start, result, "success")
    assert update.get("data") == {"currency": "EUR", "price": 3}
    assert finished.get("is_system_action") is True
    assert added == OtherEvent.of("E")


def test_without_updates_there_is_no_context_event() -> None:
    start = replace(START_EVENT, action_result_key=None)
    (finished,) = action_finished_events(start, None, "failed")
    assert finished.get("is_success") is False


def test_create_event_fills_in_variables() -> None:
    event = StartAction("create_event", {}, action_result_key=None)
    spec = {"_type": "Alarm", "level": 2, "text": "$message", "missing": "$nothing"}
    finished, created = events_for_create_event(event, spec, {"message": "fire"})
    assert finished.get("action_name") == "create_event"
    assert created == OtherEvent.of("Alarm", level=2, text="fire", missing=None)


def test_an_aborted_turn_speaks_and_then_stops() -> None:
    events = aborted_turn_result("Sorry.").events or []
    assert events[1] == StartUtterance("Sorry.")
    assert [event.type for event in events[-2:]] == ["hide_prev_turn", "BotIntent"]
    assert events[-1].intent == "stop"
