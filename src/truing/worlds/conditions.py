"""Checks what an agent did: conditions on executed calls, on the end state, on the final answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from truing.core.episodes import CallRecord, Condition, Scalar
from truing.worlds.world import State


def holds(condition: Condition, calls: Sequence[CallRecord], state: State, answer: str) -> bool:
    """Returns whether a condition holds at the end of an episode."""
    if condition.call:
        return find_call(condition, calls) is not None
    if condition.says:
        return _matches_text(answer, f"~{condition.says}")
    table = condition.row or condition.no_row
    has_row = any(_matches(record, condition.where) for record in state.get(table, {}).values())
    return has_row == bool(condition.row)


def find_call(condition: Condition, calls: Sequence[CallRecord]) -> int | None:
    """Returns the number of the first executed call that matches a condition, or None."""
    for number, call in enumerate(calls):
        if call.name != condition.call or call.status != "ok":
            continue
        arguments = read_arguments(call.arguments)
        if arguments is not None and _matches(arguments, condition.where):
            return number
    return None


def read_arguments(text: str) -> dict[str, Any] | None:
    """Returns the arguments of a call; None if they are no JSON object."""
    try:
        value = msgspec.json.decode(text or "{}")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _matches(record: Mapping[str, Any], where: tuple[tuple[str, Scalar], ...]) -> bool:
    return all(field in record and _matches_value(record[field], wanted) for field, wanted in where)


def _matches_value(value: Any, wanted: Scalar) -> bool:
    if isinstance(value, list):
        return any(_matches_value(item, wanted) for item in value)
    if isinstance(wanted, str):
        return value is not None and _matches_text(str(value), wanted)
    if isinstance(wanted, bool) or isinstance(value, bool):
        return str(value).casefold() == str(wanted).casefold()
    try:
        # A model may write a number as a text.
        return abs(float(value) - wanted) < 1e-6
    except (TypeError, ValueError):
        return False


def _matches_text(text: str, wanted: str) -> bool:
    folded = " ".join(text.casefold().split())
    if wanted.startswith("~"):
        return any(" ".join(part.split()) in folded for part in wanted[1:].casefold().split("|"))
    return folded == " ".join(wanted.casefold().split())
