"""Which instructions of a compiled flow match an event."""

from __future__ import annotations

from truing.rails.colang import compiler as p
from truing.rails.runtime.event_types import ActionFinished, BotIntent, Event, UserIntent


def event_key(event: Event) -> tuple[int, str]:
    """Returns the (operation, name) of the instructions that an event can match."""
    if isinstance(event, UserIntent):
        return p.USER, event.intent
    if isinstance(event, BotIntent):
        return p.BOT, event.intent
    if isinstance(event, ActionFinished):
        return p.ACTION, event.action_name
    return p.EVENT, event.type


def matches(instruction: p.Instruction, event: Event) -> bool:
    """Returns whether an instruction waits for this event."""
    op = instruction.op
    if isinstance(event, UserIntent):
        return op == p.USER and instruction.name in ("...", event.intent)
    if isinstance(event, BotIntent):
        return op == p.BOT and instruction.name in ("...", event.intent)
    if isinstance(event, ActionFinished):
        is_success = event.status == "success"
        return op == p.ACTION and is_success and instruction.name == event.action_name
    if op != p.EVENT or instruction.name != event.type:
        return False
    return all(event.get(name) == value for name, value in instruction.fields)
