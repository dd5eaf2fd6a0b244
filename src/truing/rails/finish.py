"""The events that follow when an action is over, has failed, or is the creation of an event."""

from __future__ import annotations

from typing import Any

from truing.rails.actions import ActionResult

Event = dict[str, Any]


def give_up(message: str) -> ActionResult:
    """The turn ends with a message and is forgotten by the flows."""
    return ActionResult(events=[
        {"type": "BotIntent", "intent": "inform internal error occurred"},
        {"type": "StartUtteranceBotAction", "script": message},
        {"type": "hide_prev_turn"},
        {"type": "BotIntent", "intent": "stop"},
    ])  # fmt: skip


def finish(event: Event, result: Any, status: str, system: bool) -> list[Event]:
    """The events at the end of an action: what it changes, that it is done, and those that it adds."""
    value, extra, updates = result, list[Event](), dict[str, Any]()
    if isinstance(result, ActionResult) or type(result).__name__ == "ActionResult":
        value, extra = result.return_value, list(result.events or ())
        updates.update(result.context_updates or {})
    if event["action_result_key"]:
        updates[event["action_result_key"]] = value
    steps: list[Event] = [{"type": "ContextUpdate", "data": updates}] if updates else []
    steps.append({
        "type": "InternalSystemActionFinished", "action_name": event["action_name"],
        "action_params": event["action_params"], "action_result_key": event["action_result_key"], "status": status,
        "is_success": status != "failed", "return_value": value, "is_system_action": system,
    })  # fmt: skip
    return steps + extra


def created(event: Event, spec: dict[str, Any], context: dict[str, Any]) -> list[Event]:
    """The event that ``create event`` makes, its variables filled in."""
    made: Event = {"type": spec["_type"]}
    for name, value in spec.items():
        if name != "_type":
            refers = isinstance(value, str) and value.startswith("$")
            made[name] = context.get(value[1:]) if refers else value
    done: Event = {
        "type": "InternalSystemActionFinished", "action_name": "create_event", "status": "success",
        "action_params": event["action_params"], "action_result_key": None, "is_success": True, "return_value": None,
        "is_system_action": True,
    }  # fmt: skip
    return [done, made]
