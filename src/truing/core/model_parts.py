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
        item = pending.pop()
        if id(item) in visited:
            continue
        visited.add(id(item))
        if isinstance(item, list | tuple | dict):
            # Larger collections are caches of answers, not parts of a model.
            if len(item) <= _MAX_SEARCHED_ITEMS:
                pending += item.values() if isinstance(item, dict) else item
        elif isinstance(item, type | Struct | str | bytes | int | float | None):
            continue
        elif type(item).__module__.startswith("truing."):
            yield item
            parts = getattr(item, "parts", ())
            pending += getattr(item, "__dict__", {}).values()
            pending += parts if isinstance(parts, list | tuple) else [parts]
        else:
            yield item
            pending += [getattr(item, name, None) for name in _WRAPPED]
