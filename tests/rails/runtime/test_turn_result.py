"""The output of a turn, gathered from its events."""

from __future__ import annotations

from typing import Any

from truing.core.types import ToolCall
from truing.rails.runtime.chat_messages import ChatMessage
from truing.rails.runtime.event_types import (
    BotThinking,
    Event,
    OtherEvent,
    StartToolCalls,
    StartUtterance,
)
from truing.rails.runtime.turn_result import TurnResult, collect_output


def says(script: Any) -> Event:
    return StartUtterance(script)


def test_messages_are_joined_and_can_be_removed() -> None:
    events = [says("One."), says("Two."), says("(remove last message)"), says(3)]
    assert collect_output(events).message() == ChatMessage(role="assistant", content="One.\n3")
    assert collect_output([]).message() == ChatMessage(role="assistant")


def test_tool_calls_are_part_of_the_message() -> None:
    call = ToolCall("1", "look_up")
    output = collect_output([StartToolCalls([call.to_openai(), "no call"])])
    assert output.message().tool_calls == (call,)


def test_an_exception_takes_the_place_of_the_texts() -> None:
    output = collect_output([says("One."), OtherEvent.of("MyException", message="no")])
    exception = {"type": "MyException", "message": "no"}
    assert output.message().to_dict() == {"role": "exception", "content": exception}
    assert TurnResult(output.message().to_dict()).text == "MyException: no"


def test_the_first_thinking_is_kept() -> None:
    events = [BotThinking("a"), BotThinking("b")]
    assert collect_output(events).thinking == "a"
