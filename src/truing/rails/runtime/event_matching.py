"""Which instructions of a compiled flow match an event."""

from __future__ import annotations

from typing import Any

from truing.rails.colang import compiler as p

Event = dict[str, Any]


def event_key(event: Event) -> tuple[int, str]:
    """Returns the (operation, name) of the instructions that an event can match."""
    kind = event["type"]
    if kind == "UserIntent":
        return p.USER, event["intent"]
    if kind == "BotIntent":
        return p.BOT, event["intent"]
    if kind == "InternalSystemActionFinished":
        return p.ACTION, event["action_name"]
    return p.EVENT, kind


def matches(instruction: p.Instruction, event: Event) -> bool:
    """Returns whether an instruction waits for this event."""
    kind = event["type"]
    op = instruction.op
    if kind == "UserIntent":
        return op == p.USER and (instruction.name == "..." or instruction.name == event["intent"])
    if kind == "BotIntent":
        return op == p.BOT and (instruction.name == "..." or instruction.name == event["intent"])
    if kind == "InternalSystemActionFinished":
        if event["status"] != "success" or op != p.ACTION:
            return False
        return bool(instruction.name == event["action_name"])
    if op != p.EVENT or instruction.name != kind:
        return False
    return all(event.get(name) == value for name, value in instruction.fields)
