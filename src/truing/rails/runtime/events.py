"""Events: chat messages as the events of a conversation, and the events that follow when an action is over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from truing.rails.actions import ActionResult

Event = dict[str, Any]


def events_of(rows: Sequence[dict[str, Any]], start: int, tool_rails: bool) -> Iterator[Event]:
    """The events of the messages from `start` on."""
    last = len(rows) - 1
    for at in range(start, len(rows)):
        row = rows[at]
        role, content = row.get("role"), row.get("content")
        if role == "user":
            yield {"type": "UtteranceUserActionFinished", "final_transcript": content}
            if at != last:
                yield {"type": "UserMessage", "text": content}
        elif role == "assistant":
            if row.get("tool_calls"):
                yield {"type": "BotToolCalls", "tool_calls": row["tool_calls"]}
            else:
                yield {"type": "StartUtteranceBotAction", "script": content}
                yield {
                    "type": "UtteranceBotActionFinished",
                    "final_script": content,
                    "is_success": True,
                }
        elif role == "context":
            yield {"type": "ContextUpdate", "data": dict(content or {})}
        elif role == "event":
            yield row["event"]
        elif role in ("system", "developer"):
            yield {"type": "SystemMessage", "content": content}
        elif role == "tool" and at == last:
            yield from _tool(rows, tool_rails)


def _tool(rows: Sequence[dict[str, Any]], tool_rails: bool) -> Iterator[Event]:
    """Tool results that ask for an answer: through the tool rails where there are any."""
    asked = next((r.get("content") for r in reversed(rows[:-1]) if r.get("role") == "user"), None)
    if not asked:
        return
    if not tool_rails:
        yield {"type": "UserMessage", "text": asked}
        return
    names = {
        c.get("id"): (c.get("function") or {}).get("name")
        for r in rows
        for c in r.get("tool_calls") or ()
        if isinstance(c, dict)
    }
    found = [
        {
            "content": r.get("content"),
            "tool_call_id": r.get("tool_call_id", ""),
            "name": r.get("name") or names.get(r.get("tool_call_id")) or "unknown",
        }
        for r in rows
        if r.get("role") == "tool"
    ]
    yield {"type": "UserToolMessages", "tool_messages": found, "user_message": asked}


def give_up(message: str) -> ActionResult:
    """The turn ends with a message and is forgotten by the flows."""
    return ActionResult(
        events=[
            {"type": "BotIntent", "intent": "inform internal error occurred"},
            {"type": "StartUtteranceBotAction", "script": message},
            {"type": "hide_prev_turn"},
            {"type": "BotIntent", "intent": "stop"},
        ]
    )


def finish(event: Event, result: Any, status: str, system: bool) -> list[Event]:
    """The events at the end of an action: what it changes, that it is done, and those that it adds."""
    value, extra, updates = result, list[Event](), dict[str, Any]()
    if isinstance(result, ActionResult) or type(result).__name__ == "ActionResult":
        value, extra = result.return_value, list(result.events or ())
        updates.update(result.context_updates or {})
    if event["action_result_key"]:
        updates[event["action_result_key"]] = value
    steps: list[Event] = [{"type": "ContextUpdate", "data": updates}] if updates else []
    steps.append(
        {
            "type": "InternalSystemActionFinished",
            "action_name": event["action_name"],
            "action_params": event["action_params"],
            "action_result_key": event["action_result_key"],
            "status": status,
            "is_success": status != "failed",
            "return_value": value,
            "is_system_action": system,
        }
    )
    return steps + extra


def created(event: Event, spec: dict[str, Any], context: dict[str, Any]) -> list[Event]:
    """The event that ``create event`` makes, its variables filled in."""
    made: Event = {"type": spec["_type"]}
    for name, value in spec.items():
        if name != "_type":
            refers = isinstance(value, str) and value.startswith("$")
            made[name] = context.get(value[1:]) if refers else value
    done: Event = {
        "type": "InternalSystemActionFinished",
        "action_name": "create_event",
        "status": "success",
        "action_params": event["action_params"],
        "action_result_key": None,
        "is_success": True,
        "return_value": None,
        "is_system_action": True,
    }
    return [done, made]
