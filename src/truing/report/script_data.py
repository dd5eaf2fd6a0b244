"""Data for the scripts of a page."""

from __future__ import annotations

import msgspec


def encode_for_script(content: object) -> str:
    """Returns the data as JSON that cannot end the script element around it."""
    text = msgspec.json.encode(content).decode()
    return (
        # "</script>" in an answer would end the element, and U+2028 and U+2029 end a line in
        # older JavaScript; the escapes are plain JSON.
        text.replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )
