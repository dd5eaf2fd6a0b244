"""Rails on tools: which may be called, with which arguments, how many at once; and what their results may hold.

truing:
  tools:
    allow: [search, get_order]
    max_calls: 3
    arguments:
      get_order: {order_id: {pattern: "[0-9]{6}"}, limit: {minimum: 1, maximum: 50}}
    results: {max_characters: 20000, injection: true}
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from truing.rails.actions import RailOutcome
from truing.rails.library.safety import orders_in
from truing.rails.library.texts import block
from truing.rails.runtime.turn_context import Turn

_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "array": list,
    "object": dict,
}


def argument_fault(value: Any, rule: Mapping[str, Any]) -> str | None:
    """Why a value breaks its rule, or none."""
    kind = rule.get("type")
    if kind is not None and (
        not isinstance(value, _TYPES[str(kind)]) or (kind != "boolean" and isinstance(value, bool))
    ):
        return f"is no {kind}"
    if "enum" in rule and value not in rule["enum"]:
        return "is not one of the allowed values"
    if "pattern" in rule and not re.fullmatch(str(rule["pattern"]), str(value)):
        return "is not of the allowed form"
    if "max_length" in rule and len(str(value)) > int(rule["max_length"]):
        return f"is longer than {rule['max_length']} characters"
    return _range_fault(value, rule.get("minimum"), rule.get("maximum"))


def _range_fault(value: Any, low: Any, high: Any) -> str | None:
    if low is None and high is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return "is no number"
    if low is not None and value < low:
        return f"is below {low}"
    return f"is above {high}" if high is not None and value > high else None


def call_fault(name: str, arguments: str, settings: Mapping[str, Any]) -> str | None:
    """Why a call is not allowed, or none. Arguments that are no JSON object are not allowed where rules stand for them."""
    allow, deny = settings.get("allow"), settings.get("deny") or ()
    if (allow is not None and name not in allow) or name in deny:
        return f"the tool {name} is not allowed here"
    rules = (settings.get("arguments") or {}).get(name) or {}
    if not rules:
        return None
    try:
        given = json.loads(arguments or "{}")
    except (json.JSONDecodeError, RecursionError):
        given = None
    if not isinstance(given, dict):
        return f"the arguments of {name} are no JSON object"
    for key, rule in rules.items():
        if key not in given:
            if rule.get("required"):
                return f"{name} needs {key}"
            continue
        fault = argument_fault(given[key], rule)
        if fault:
            return f"{key} of {name} {fault}"
    return None


async def check_tool_calls(turn: Turn, calls: Any, **params: Any) -> RailOutcome:
    """Every call must be allowed; one that is not blocks them all."""
    settings = block(turn, "tools")
    listed = [c for c in calls or () if isinstance(c, Mapping)]
    most = settings.get("max_calls")
    if most is not None and len(listed) > int(most):
        turn.because(f"{len(listed)} calls at once, at most {most} are allowed")
        return RailOutcome.block(reason=f"more than {most} tools at once are not allowed")
    for call in listed:
        function = call.get("function") or {}
        fault = call_fault(
            str(function.get("name")), str(function.get("arguments") or "{}"), settings
        )
        if fault:
            turn.because(fault, score=1.0)
            return RailOutcome.block(reason=fault)
    return RailOutcome.allow()


async def check_tool_result(turn: Turn, name: str, text: Any, **params: Any) -> RailOutcome:
    """A result that is too long, or gives orders to the assistant, is not read on."""
    settings = block(turn, "tools")
    rules = settings.get("results") or {}
    said = text if isinstance(text, str) else json.dumps(text, default=str)
    most = rules.get("max_characters")
    if most is not None and len(said) > int(most):
        turn.because(f"the result of {name} is longer than {most} characters")
        return RailOutcome.block(reason=f"the result of {name} is too long")
    if rules.get("injection") and (order := orders_in(said)) is not None:
        turn.because(f"the result of {name} gives orders to the assistant: {order!r}", score=1.0)
        return RailOutcome.block(reason=f"the result of {name} cannot be trusted")
    return RailOutcome.allow()


ACTIONS = (check_tool_calls, check_tool_result)
