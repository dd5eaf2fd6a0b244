"""Dialog actions: how the replies of the LLM are read; whole dialogs are in the conformance cases."""

from __future__ import annotations

from typing import Any

import pytest

from truing.rails.runtime.dialog_actions import (
    EMPTY_MESSAGE_REPLACEMENT,
    FALLBACK_INTENT,
    _dynamic_flow_event,
    _parse_single_call,
    _parse_value,
)


@pytest.mark.parametrize(
    ("reply", "parsed"),
    [
        ('user greet\nbot say hello\n  "Hi."', ("greet", "say hello", "Hi.")),
        (
            'User intent: greet\nBot intent: say hello\nBot message: "Hi."',
            ("greet", "say hello", 'Bot message: "Hi."'),
        ),
        ("greet", ("greet", FALLBACK_INTENT, EMPTY_MESSAGE_REPLACEMENT)),
        ("user greet\nsomething else", ("greet", FALLBACK_INTENT, EMPTY_MESSAGE_REPLACEMENT)),
        ("# a comment\n\nuser greet\nbot wave", ("greet", "wave", EMPTY_MESSAGE_REPLACEMENT)),
    ],
)
def test_the_reply_of_the_single_call(reply: str, parsed: tuple[str, str, str]) -> None:
    assert _parse_single_call(reply) == parsed


def test_an_empty_single_call_is_an_error() -> None:
    with pytest.raises(ValueError, match="is empty"):
        _parse_single_call("\n# only a comment\n")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"Oslo"', "Oslo"),
        ("'Oslo'", "Oslo"),
        ("Oslo", "Oslo"),
        ("3", "3"),
        ('it\'s "here"', 'it\'s "here"'),
        ("one\\ntwo", "one\ntwo"),
    ],
)
def test_values_are_literals_or_texts(text: str, value: Any) -> None:
    assert _parse_value(text) == value


def test_a_value_that_is_no_text_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        _parse_value("\\")


def test_the_longest_valid_beginning_of_a_flow_is_used() -> None:
    event = _dynamic_flow_event("bot ask name\nuser give name\nif (((", "dynamic-1")
    assert event == {
        "type": "start_flow",
        "flow_id": "dynamic-1",
        "flow_body": "bot ask name\nuser give name",
    }
    assert _dynamic_flow_event("if (((", "dynamic-1") == {
        "type": "BotIntent",
        "intent": FALLBACK_INTENT,
    }
