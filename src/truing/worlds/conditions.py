"""Checks what an agent did: conditions on executed calls, on the end state, on the final answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from truing.core.episodes import CallRecord, Condition, Scalar
from truing.core.language_id import detect_language
from truing.worlds.arguments import ArgumentError, read_arguments
from truing.worlds.world import State

# Models set words off by these: "**3 pm**" says 3 pm.
_NO_MARKS = str.maketrans("", "", "*`_")


def holds(condition: Condition, calls: Sequence[CallRecord], state: State, answer: str) -> bool:
    """Returns whether a condition holds at the end of an episode."""
    if condition.call:
        return find_call(condition, calls) is not None
    if condition.calls:
        return set(condition.calls) <= {call.name for call in calls if call.status == "ok"}
    if condition.says:
        return _says(answer, condition.says)
    if condition.language:
        return detect_language(answer) == condition.language
    table = condition.row or condition.no_row
    has_row = any(_matches(record, condition.where) for record in state.get(table, {}).values())
    return has_row == bool(condition.row)


def find_call(condition: Condition, calls: Sequence[CallRecord]) -> int | None:
    """Returns the number of the first executed call that matches a condition, or None."""
    return next(find_calls(condition, calls), None)


def find_calls(condition: Condition, calls: Sequence[CallRecord]) -> Iterator[int]:
    """Yields the numbers of the executed calls that match a condition."""
    for number, call in enumerate(calls):
        if call.name != condition.call or call.status != "ok":
            continue
        try:
            arguments = read_arguments(call.arguments)
        except ArgumentError:
            continue
        if _matches(arguments, condition.where):
            yield number


def _matches(record: Mapping[str, Any], where: tuple[tuple[str, Scalar], ...]) -> bool:
    return all(f in record and _matches_value(record[f], expected) for f, expected in where)


def _matches_value(state_value: Any, expected: Scalar) -> bool:
    if isinstance(state_value, list):
        return any(_matches_value(item, expected) for item in state_value)
    if isinstance(expected, str):
        return state_value is not None and _matches_text(str(state_value), expected)
    if isinstance(expected, bool) or isinstance(state_value, bool):
        return str(state_value).casefold() == str(expected).casefold()
    try:
        # A model may write a number as a text.
        return abs(float(state_value) - expected) < 1e-6
    except (TypeError, ValueError, OverflowError):
        return False


def _says(answer: str, expected: str) -> bool:
    """Returns whether an answer contains one of ``a|b`` as whole words and numbers: 3 is neither in
    13 nor in 3.5, but in 3.00.
    """
    # Without the marks by which models set words off.
    folded = " ".join(answer.casefold().translate(_NO_MARKS).split())
    for part in expected.casefold().translate(_NO_MARKS).split("|"):
        text = re.escape(" ".join(part.split()))
        if re.search(
            rf"(?<![^\W_])(?<!\d[.,:]){text}(?:[.,]0{{1,2}})?(?![^\W_])(?![.,:]\d)", folded
        ):
            return True
    return False


def _matches_text(text: str, expected: str) -> bool:
    folded = " ".join(text.casefold().split())
    if expected.startswith("~"):
        return any(" ".join(part.split()) in folded for part in expected[1:].casefold().split("|"))
    return folded == " ".join(expected.casefold().split())
