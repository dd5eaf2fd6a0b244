"""Chat messages as conversation events, and the events that follow when an action has finished."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from truing.rails.actions import ActionResult
from truing.rails.runtime.chat_messages import ChatMessage
from truing.rails.runtime.event_types import (
    STOP_INTENT,
    ActionFinished,
    BotIntent,
    BotToolCalls,
    ContextUpdate,
    Event,
    HidePreviousTurn,
    StartAction,
    StartToolCalls,
    StartUtterance,
    SystemMessage,
    UserMessage,
    Utterance,
    UtteranceFinished,
    event_from_nemo,
    events_from_nemo,
)


def messages_with_options(
    chat: Sequence[ChatMessage], options: dict[str, Any] | None
) -> list[ChatMessage]:
    """Returns the messages with the generation options as context variables.

    Without dialog rails, a last message of the assistant is what the output rails check: its text,
    or its tool calls.
    """
    messages = list(chat)
    if options is None:
        return messages
    variables: dict[str, Any] = {"generation_options": options}
    last = messages[-1] if messages else None
    if last is not None and last.role == "assistant" and options["rails"]["dialog"] is False:
        messages.pop()
        if last.tool_calls:
            calls = BotToolCalls([call.to_openai() for call in last.tool_calls])
            messages.append(ChatMessage(role="event", event=calls))
        else:
            variables["bot_message"] = last.flow_content
            if not messages or messages[-1].role != "user":
                # The flow that shows a checked text starts at a message of the user.
                placeholder = UserMessage(_last_user_content(messages) or "", is_placeholder=True)
                messages.append(ChatMessage(role="event", event=placeholder))
    return [ChatMessage(role="context", variables=variables), *messages]


def _last_user_content(messages: Sequence[ChatMessage]) -> Any:
    """Returns the content of the user's last message; None if there is none."""
    return next((m.flow_content for m in reversed(messages) if m.role == "user"), None)


def events_from_messages(messages: Sequence[ChatMessage], start: int = 0) -> Iterator[Event]:
    """Yields the events of the messages from index `start` on.

    Only the last message asks for an answer. The input stage has read all others, so that earlier
    messages of the user become `UserMessage` events; tool results, which prompts take from the
    messages, only ask for an answer to the user's last message again.
    """
    last = len(messages) - 1
    for index in range(start, len(messages)):
        yield from events_of_message(messages[index], is_last=index == last)
        if index == last:
            yield from _request_for_answer(messages)


def count_reusable(messages: Sequence[ChatMessage]) -> int:
    """Returns after how many messages, at most, a turn can continue from a cached state.

    A last message that asks for nothing is answered as the user's message before it, which then
    must be new to the flows.
    """
    if messages and messages[-1].role in ("assistant", "system", "exception"):
        asking = [index for index, message in enumerate(messages) if message.role == "user"]
        return asking[-1] if asking else len(messages) - 1
    return max(len(messages) - 1, 0)


def events_of_message(message: ChatMessage, *, is_last: bool) -> Iterator[Event]:
    """Yields the events of one message; the flows run the input rails on a user's last one."""
    content = message.flow_content
    match message.role:
        case "user":
            yield Utterance(content)
            if not is_last:
                yield UserMessage(content)
        case "assistant" if message.tool_calls:
            # Not `BotToolCalls`, which would start the tool rails: the calls have been made.
            yield StartToolCalls([call.to_openai() for call in message.tool_calls])
        case "assistant":
            yield StartUtterance(content)
            yield UtteranceFinished(content, is_success=True)
        case "context":
            yield ContextUpdate(dict(message.variables))
        case "event" if message.event is not None:
            yield message.event
        case "system":
            yield SystemMessage(content)


def _request_for_answer(messages: Sequence[ChatMessage]) -> Iterator[Event]:
    """Yields the event that asks for an answer where the last message is not the user's.

    After tool results that is the user's last message again; in a conversation without any message
    of the user it has no text.
    """
    role = messages[-1].role
    if role in ("user", "event", "context"):
        return
    user_content = _last_user_content(messages)
    if user_content is None:
        yield UserMessage("", is_placeholder=True)
    elif role == "tool":
        yield UserMessage(user_content)


def aborted_turn_result(message: str) -> ActionResult:
    """Returns the result of a failed action: the bot says `message` and the turn ends.

    `hide_prev_turn` restores the flows to their state before the turn, so that none stays half
    done.
    """
    return ActionResult(
        events=[
            BotIntent("inform internal error occurred"),
            StartUtterance(message),
            HidePreviousTurn(),
            BotIntent(STOP_INTENT),
        ]
    )


def action_finished_events(event: StartAction, result: Any, status: str) -> list[Event]:
    """Returns the events after the action that `event` started.

    They are, in this order: the changes to the context, the end of the action, and the events that
    its ActionResult adds.
    """
    return_value, added_events, updates = result, list[Event](), dict[str, Any]()
    # By name too: an actions.py may bring NeMo's own ActionResult class.
    if isinstance(result, ActionResult) or type(result).__name__ == "ActionResult":
        return_value = result.return_value
        added_events = events_from_nemo(result.events or ())
        updates.update(result.context_updates or {})
    if event.action_result_key:
        updates[event.action_result_key] = return_value
    finished = ActionFinished(
        event.action_name,
        event.action_params,
        event.action_result_key,
        status,
        is_success=status != "failed",
        return_value=return_value,
        is_system_action=event.is_system_action,
    )
    context_update = [ContextUpdate(updates)] if updates else []
    return [*context_update, finished, *added_events]


def events_for_create_event(
    event: StartAction, spec: dict[str, Any], context: dict[str, Any]
) -> list[Event]:
    """Returns the events of ``create event``: the end of the step, and the event that it creates.

    A field whose value is ``$name`` gets the value of that variable.
    """
    created = {"type": spec["_type"]}
    for name, value in spec.items():
        if name != "_type":
            is_variable = isinstance(value, str) and value.startswith("$")
            created[name] = context.get(value[1:]) if is_variable else value
    finished = ActionFinished(
        "create_event",
        event.action_params,
        action_result_key=None,
        status="success",
        is_success=True,
        return_value=None,
        is_system_action=True,
    )
    return [finished, event_from_nemo(created)]
