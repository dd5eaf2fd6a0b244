"""What a model or a judge is built of: the models, endpoints and tools inside of it."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

_MAX_SEARCHED_ITEMS = 1000
# Attributes of other packages' wrappers; all attributes of truing's own objects are searched.
_WRAPPED = ("model", "inner")


def iterate_parts(whole: object) -> Iterator[object]:
    """Yields an object and everything inside of it, each once.

    Searches the attributes of truing's own objects, so that a wrapper that stores its model in an
    attribute needs no extra code, and `model` and `inner` of others. An object whose models are
    elsewhere (a pool of processes) lists them as `parts`. What a Python function does inside
    cannot be seen.
    """
    visited: set[int] = set()
    pending: list[object] = [whole]
    while pending:
        part = pending.pop()
        if id(part) in visited:
            continue
        visited.add(id(part))
        if isinstance(part, list | tuple | dict):
            # Larger collections are caches of answers, not parts of a model.
            if len(part) <= _MAX_SEARCHED_ITEMS:
                pending += part.values() if isinstance(part, dict) else part
        elif isinstance(part, type | Struct | str | bytes | int | float | None):
            continue
        elif type(part).__module__.startswith("truing."):
            yield part
            parts = getattr(part, "parts", ())
            pending += getattr(part, "__dict__", {}).values()
            pending += parts if isinstance(parts, list | tuple) else [parts]
        else:
            yield part
            pending += [getattr(part, name, None) for name in _WRAPPED]
