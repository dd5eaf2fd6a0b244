"""The result of a turn: the message, gathered from the turn's events, and the rulings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from truing.core.types import Failure, Ruling, ToolCall, Usage
from truing.rails.runtime.chat_messages import ChatMessage
from truing.rails.runtime.event_types import (
    BotThinking,
    BotToolCalls,
    Event,
    StartToolCalls,
    StartUtterance,
)
from truing.rails.runtime.llm_client import LlmCallRecord
from truing.rails.runtime.prompt_filters import render_colang
from truing.rails.runtime.turn_context import TurnContext

REMOVE_LAST_MESSAGE = "(remove last message)"  # NeMo's script by which a flow takes a message back


@dataclass(slots=True)
class TurnResult:
    """The message of a turn (role assistant or exception), its rulings, events and costs.

    `new_events` are those that the turn has added. `error_detail` is what the error of a failed
    action says; `blocked_calls` are the tool calls of the LLM in a turn that was blocked.
    """

    message: dict[str, Any]
    rulings: tuple[Ruling, ...] = ()
    new_events: Sequence[Event] = ()
    llm_calls: int = 0
    usage: Usage = field(default_factory=Usage)
    tool_calls: tuple[ToolCall, ...] = ()
    blocked_calls: tuple[ToolCall, ...] = ()
    context: dict[str, Any] = field(default_factory=dict)
    blocked: bool = False
    failure: Failure | None = None
    error_detail: str = ""
    finish_reason: str = "stop"
    llm_records: tuple[LlmCallRecord, ...] = ()  # where the option log.llm_calls asks for them
    colang_history: str | None = None  # where the option log.colang_history asks for it

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events that the turn has added, in NeMo's format."""
        return [event.to_nemo() for event in self.new_events]

    @property
    def text(self) -> str:
        """The text of the message; of an exception its type and message."""
        content = self.message["content"]
        if isinstance(content, str):
            return content
        return f"{content.get('type')}: {content.get('message', '')}"


@dataclass(slots=True)
class TurnOutput:
    """The output in a turn's events: texts, exception event, OpenAI tool calls, thinking."""

    texts: list[str] = field(default_factory=list)
    exception: Event | None = None
    tool_calls: list[Any] | None = None
    thinking: str | None = None

    def message(self) -> ChatMessage:
        """Returns the message of the conversation (with tool calls, without thinking)."""
        calls = self.typed_tool_calls()
        if self.exception is not None:
            return ChatMessage(role="exception", event=self.exception, tool_calls=calls)
        return ChatMessage(role="assistant", content="\n".join(self.texts), tool_calls=calls)

    def typed_tool_calls(self) -> tuple[ToolCall, ...]:
        """Returns the tool calls, without what a flow has put among them in another form."""
        return tuple(
            ToolCall.from_openai(call)
            for call in self.tool_calls or ()
            if isinstance(call, dict) and isinstance(call.get("function"), dict)
        )


def collect_output(events: Sequence[Event]) -> TurnOutput:
    """Gathers the output of a turn from its events."""
    output = TurnOutput()
    for event in events:
        match event:
            case StartUtterance(script=script):
                if script == REMOVE_LAST_MESSAGE:
                    output.texts = output.texts[:-1]
                else:
                    output.texts.append(str(script))
            case StartToolCalls() if event.tool_calls is not None:
                output.tool_calls = event.tool_calls
            case BotThinking():
                output.thinking = output.thinking or event.content
            case _ if event.is_exception:
                output.exception = event
    return output


def build_result(turn: TurnContext, output: TurnOutput, events: Sequence[Event]) -> TurnResult:
    """Returns the result of a finished turn."""
    message = replace(output.message(), tool_calls=())
    # As in NeMo: thinking is part of the text only where the caller sets no options.
    hides_thinking = turn.services.config.hides_thinking
    if output.thinking and turn.options is None and output.exception is None and not hides_thinking:
        content = f"<think>{output.thinking}</think>\n{message.content}"
        message = replace(message, content=content)
    is_blocked = output.exception is not None or any(r.ruling == "block" for r in turn.rulings)
    return TurnResult(
        message=message.to_dict(),
        rulings=tuple(turn.rulings),
        new_events=events,
        llm_calls=turn.counter.calls,
        usage=turn.counter.usage(),
        tool_calls=output.typed_tool_calls(),
        blocked_calls=_find_tool_calls(events) if is_blocked else (),
        context=turn.state.context,
        blocked=is_blocked,
        failure=turn.failure,
        error_detail=turn.error_detail,
        finish_reason=turn.finish_reason,
        llm_records=tuple(turn.counter.records or ()),
        colang_history=_render_history(turn),
    )


def _find_tool_calls(events: Sequence[Event]) -> tuple[ToolCall, ...]:
    """Returns the newest tool calls of the LLM among the events of a turn."""
    calls = [event.tool_calls for event in events if isinstance(event, BotToolCalls)]
    return TurnOutput(tool_calls=calls[-1]).typed_tool_calls() if calls else ()


def _render_history(turn: TurnContext) -> str | None:
    log = (turn.options or {}).get("log") or {}
    return render_colang(turn.state.history.to_nemo()) if log.get("colang_history") else None
