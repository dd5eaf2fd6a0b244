"""How much of a reply is read: the one place for the bounds on what an endpoint may send.

`max_bytes` (an argument of the spec) sets the size of a body; the bounds on streams, lines and
error bodies follow from it. `timeout` (of the spec, too) bounds the seconds of a whole exchange,
body and stream included. Headers are bounded by aiohttp (8 KiB a line). What exceeds a bound is a
`Failure` of kind ``too_large`` that names the bound.
"""

from __future__ import annotations

from msgspec import Struct

from truing.core.bounds import MAX_JSON_DEPTH
from truing.core.json_text import is_nested_deeper

MIB = 1 << 20
DEFAULT_MAX_BYTES = 8 * MIB


class ReplyBounds(Struct, frozen=True, kw_only=True):
    """The bounds on one reply; bytes are counted after decompression.

    - `body_bytes`: of a body with status 200
    - `error_bytes`: of a body with another status; what follows is not read
    - `stream_bytes`, `stream_events`: of a whole stream of server-sent events; of lines, blank ones
      and comments included, four times as many
    - `line_bytes`: of one line of such a stream
    - `json_depth`: nested arrays and objects
    - `json_items`: commas and opening brackets, which bound the objects that a decoder creates
    """

    body_bytes: int = DEFAULT_MAX_BYTES
    error_bytes: int = 32 << 10
    stream_bytes: int = 8 * DEFAULT_MAX_BYTES
    stream_events: int = 1 << 17
    line_bytes: int = DEFAULT_MAX_BYTES // 8
    json_depth: int = MAX_JSON_DEPTH
    json_items: int = 1_000_000

    @classmethod
    def of(cls, max_bytes: int) -> ReplyBounds:
        """Returns the bounds for bodies of at most `max_bytes`."""
        return cls(
            body_bytes=max_bytes,
            error_bytes=min(max_bytes, 32 << 10),
            stream_bytes=8 * max_bytes,
            line_bytes=max(max_bytes // 8, 1 << 10),
        )


class BoundExceeded(ValueError):
    """A reply exceeds a bound; the message names the bound and how to change it."""


def check_json(data: bytes, bounds: ReplyBounds) -> None:
    """Raises BoundExceeded for a JSON text with too much nesting or too many items."""
    if len(data) > bounds.json_items:
        items = data.count(b",") + data.count(b"[") + data.count(b"{")
        if items > bounds.json_items:
            raise BoundExceeded(f"JSON of more than {bounds.json_items} items (json_items)")
    if is_nested_deeper(data, bounds.json_depth):
        raise BoundExceeded(f"JSON nested deeper than {bounds.json_depth} levels (json_depth)")
