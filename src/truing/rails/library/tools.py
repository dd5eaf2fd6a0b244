"""Rails on tools: which may be called, with which arguments, and what their results may contain.

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
from collections.abc import Mapping
from typing import Any

from truing.rails.actions import RailOutcome
from truing.rails.library.jailbreak_patterns import find_injected_instruction
from truing.rails.library.texts import rail_settings
from truing.rails.runtime.turn_context import TurnContext
from truing.rails.runtime.user_patterns import load_user_pattern

# JSON Schema's names of types.
_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "array": list,
    "object": dict,
}


async def find_argument_fault(value: Any, rule: Mapping[str, Any]) -> str | None:
    """Returns how a value breaks its rule, or None."""
    kind = rule.get("type")
    if kind is not None:
        # In Python, but not in JSON, a bool is an int.
        is_bool_as_number = kind != "boolean" and isinstance(value, bool)
        if is_bool_as_number or not isinstance(value, _TYPES[str(kind)]):
            return f"is no {kind}"
    if "enum" in rule and value not in rule["enum"]:
        return "is not one of the allowed values"
    if "pattern" in rule:
        matches = await load_user_pattern(str(rule["pattern"]), "fullmatch").matches(str(value))
        if matches is None:
            return "took too long to check"
        if not matches:
            return "is not of the allowed form"
    if "max_length" in rule and len(str(value)) > int(rule["max_length"]):
        return f"is longer than {rule['max_length']} characters"
    return _find_range_fault(value, rule.get("minimum"), rule.get("maximum"))


def _find_range_fault(argument: Any, minimum: Any, maximum: Any) -> str | None:
    if minimum is None and maximum is None:
        return None
    if not isinstance(argument, (int, float)) or isinstance(argument, bool):
        return "is no number"
    if minimum is not None and argument < minimum:
        return f"is below {minimum}"
    if maximum is not None and argument > maximum:
        return f"is above {maximum}"
    return None


def read_arguments(arguments: str) -> dict[str, Any] | None:
    """Returns the arguments of a call by folded key; None if they cannot be read.

    Two keys that are equal but for case and spaces cannot be read, at any depth: parsers differ in
    which of them they keep. Nor can NaN, which is neither below a minimum nor above a maximum.
    """
    try:
        values = json.loads(arguments, object_pairs_hook=_read_pairs, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    return {fold_key(key): value for key, value in values.items()}


def fold_key(key: str) -> str:
    """Returns the name of an argument as rails compare it: without case and outer spaces."""
    return key.strip().casefold()


def _read_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({fold_key(key) for key, _ in pairs}) < len(pairs):
        raise ValueError("two keys are the same")
    return dict(pairs)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


async def find_call_fault(name: str, arguments: str, settings: Mapping[str, Any]) -> str | None:
    """Returns why a call is not allowed, or None.

    Where a tool has rules, its arguments must be a JSON object that `read_arguments` can read.
    """
    allow, deny = settings.get("allow"), settings.get("deny") or ()
    if (allow is not None and name not in allow) or name in deny:
        return f"the tool {name} is not allowed here"
    rules = (settings.get("arguments") or {}).get(name) or {}
    if not rules:
        return None
    values = read_arguments(arguments or "{}")
    if values is None:
        return f"the arguments of {name} are no JSON object that can be read"
    for key, rule in rules.items():
        folded_key = fold_key(str(key))
        if folded_key in values:
            fault = await find_argument_fault(values[folded_key], rule)
            if fault:
                return f"{key} of {name} {fault}"
        elif rule.get("required"):
            return f"{name} needs {key}"
    return None


async def check_tool_calls(turn: TurnContext, calls: Any, **params: Any) -> RailOutcome:
    """Blocks all calls if one of them is not allowed, or if there are too many."""
    settings = rail_settings(turn, "tools")
    tool_calls = [call for call in calls or () if isinstance(call, Mapping)]
    max_calls = settings.get("max_calls")
    if max_calls is not None and len(tool_calls) > int(max_calls):
        turn.set_reason(f"{len(tool_calls)} calls at once, at most {max_calls} are allowed")
        return RailOutcome.block(reason=f"more than {max_calls} tools at once are not allowed")
    # A client reads the reason: a name that only the model knows could say anything.
    known = {tool.name for tool in turn.tools}.union(
        settings.get("allow") or (), settings.get("deny") or (), settings.get("arguments") or ()
    )
    for call in tool_calls:
        function = call.get("function") or {}
        arguments = str(function.get("arguments") or "{}")
        name = str(function.get("name"))
        fault = await find_call_fault(name if name in known else "(unknown)", arguments, settings)
        if fault:
            turn.set_reason(fault, score=1.0, call_id=str(call.get("id") or ""))
            return RailOutcome.block(reason=fault)
    return RailOutcome.allow()


async def check_tool_result(turn: TurnContext, name: str, text: Any, **params: Any) -> RailOutcome:
    """Blocks a result that is too long or gives orders to the assistant (prompt injection)."""
    settings = rail_settings(turn, "tools").get("results") or {}
    result_text = text if isinstance(text, str) else json.dumps(text, default=str)
    max_characters = settings.get("max_characters")
    if max_characters is not None and len(result_text) > int(max_characters):
        turn.set_reason(f"the result of {name} is longer than {max_characters} characters")
        return RailOutcome.block(reason=f"the result of {name} is too long")
    instruction = find_injected_instruction(result_text) if settings.get("injection") else None
    if instruction is not None:
        reason = f"the result of {name} gives orders to the assistant: {instruction!r}"
        turn.set_reason(reason, score=1.0)
        return RailOutcome.block(reason=f"the result of {name} cannot be trusted")
    return RailOutcome.allow()


ACTIONS = (check_tool_calls, check_tool_result)
