"""JSON that somebody else wrote: parsed within bounds, with errors that say what is wrong."""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any

from truing.core.bounds import MAX_JSON_DEPTH

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_ALL_BUT_BRACKETS = bytes(c for c in range(256) if c not in b"[]{}")
_DEPTH_CHANGE = [1 if c in b"[{" else -1 for c in range(256)]


def is_nested_deeper(data: bytes, depth: int) -> bool:
    """Whether a JSON text nests arrays and objects deeper than `depth`; takes linear time."""
    # Most texts have so few brackets that they cannot.
    if data.count(b"[") + data.count(b"{") <= depth:
        return False
    brackets = _STRING.sub(b"", data).translate(None, _ALL_BUT_BRACKETS)
    depths = accumulate(map(_DEPTH_CHANGE.__getitem__, brackets))
    return any(reached > depth for reached in depths)


def parse_json(text: str) -> Any:
    """Returns the value of a JSON text.

    Raises ValueError, with what is wrong, also for nesting that is too deep, numbers that are too
    long, and text with half of a surrogate pair (which cannot be written again).
    """
    if is_nested_deeper(text.encode(), MAX_JSON_DEPTH):
        raise ValueError(f"nested too deep (more than {MAX_JSON_DEPTH} levels)")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise error
    except ValueError as error:
        # Python refuses to convert thousands of digits.
        raise ValueError("a number of too many digits") from error
    if _SURROGATE.search(text) and _has_lone_surrogate(value):
        raise ValueError("text with half of a surrogate pair (\\ud800 to \\udfff)")
    return value


def _has_lone_surrogate(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def describe_json_error(error: ValueError) -> str:
    """Returns what is wrong with a JSON text, without the text itself."""
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)
