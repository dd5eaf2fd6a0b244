"""Typed events and their dictionaries in NeMo's format."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.rails.runtime import event_types
from truing.rails.runtime.event_types import (
    BotIntent,
    BotMessage,
    ContextUpdate,
    Event,
    EventError,
    Listen,
    OtherEvent,
    StartFlow,
    UserIntent,
    UserMessage,
    event_from_nemo,
)

KNOWN = [
    value
    for value in vars(event_types).values()
    if isinstance(value, type) and issubclass(value, Event) and value.kind
]
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.just({"a": 1}))


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.kind)
@given(data=st.data())
def test_an_event_means_the_same_in_both_forms(known: type[Event], data: st.DataObject) -> None:
    names = [field.name for field in msgspec.structs.fields(known) if field.name != "extra"]
    values = {"type": known.kind, "uid": "7", **{name: data.draw(VALUES) for name in names}}
    event = event_from_nemo(values)
    assert type(event) is known
    written = event.to_nemo()
    assert event_from_nemo(written) == event
    # What is left out has the value of an event that does not say it.
    assert {name: event.get(name) for name in (*names, "uid")} == {
        name: values[name] for name in (*names, "uid")
    }
    assert written.items() <= values.items()


def test_events_of_a_configuration_keep_all_their_fields() -> None:
    event = event_from_nemo({"type": "Alarm", "level": 2, "name": "n", "extra": 3})
    assert event == OtherEvent.of("Alarm", level=2, name="n", extra=3)
    assert (event.type, event.get("level"), event.get("name"), event.get("else")) == (
        "Alarm",
        2,
        "n",
        None,
    )
    assert event.to_nemo() == {"type": "Alarm", "level": 2, "name": "n", "extra": 3}


def test_optional_fields_stand_in_the_dictionary_where_they_are_set() -> None:
    assert UserMessage("hi").to_nemo() == {"type": "UserMessage", "text": "hi"}
    assert BotIntent("greet", "be warm").to_nemo() == {
        "type": "BotIntent",
        "intent": "greet",
        "instructions": "be warm",
    }
    assert StartFlow("f").to_nemo() == {"type": "start_flow", "flow_id": "f"}
    planned = UserIntent("ask", additional_info={"next": BotMessage("hi")})
    assert planned.to_nemo()["additional_info"] == {"next": {"type": "BotMessage", "text": "hi"}}


def test_which_events_stop_a_turn() -> None:
    stopping = (BotIntent("stop"), OtherEvent.of("InputRailException", message="no"))
    going_on = (BotIntent("stop it"), ContextUpdate({}), Listen(), OtherEvent.of("Exceptional"))
    assert [event.stops_turn for event in (*stopping, *going_on)] == [True] * 2 + [False] * 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "needs a type"),
        ({"type": ""}, "needs a type"),
        ({"type": 3}, "needs a type"),
        ("Alarm", "needs a type"),
        ({"type": "BotIntent"}, "an event BotIntent needs intent"),
        ({"type": "StartInternalSystemAction"}, "needs action_name, action_params, action_re"),
    ],
)
def test_a_dictionary_that_is_no_event_is_an_error(values: Any, message: str) -> None:
    with pytest.raises(EventError, match=message):
        event_from_nemo(values)
