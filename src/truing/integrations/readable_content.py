"""What rails can read of a content in the form of another framework: one allow list for all hooks.

A part passes only if its type is a text's, its text is a string, and it holds nothing else that a
model or a user could read. Whatever is not named is refused, never guessed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from truing.integrations.hook_rails import UncheckedContent

_TEXT_FIELDS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
}
_SETTINGS = frozenset({"type", "id", "index", "cache_control"})  # of a part: no text for a model
# What a provider adds to a text of its model, such as citations. No rail reads it: who passes such
# a part on rebuilds it from its text.
_ADDED_BY_PROVIDERS = frozenset({"annotations", "citations", "logprobs", "extras"})


def read_parts(content: Any, *, ignored: Collection[str] = ()) -> list[str]:
    """Returns the texts of a content: a text, none, or a list of parts.

    Parts of the types `ignored` are left out. Raises UncheckedContent for what no rail reads.
    """
    if content is None or isinstance(content, str):
        return [content] if content else []
    if not isinstance(content, Iterable) or isinstance(content, Mapping | bytes):
        raise UncheckedContent(f"content of the type {type(content).__name__} is read by no rail")
    texts = []
    for part in content:
        row = _as_fields(part)
        if row.get("type") not in ignored or row.get("type") is None:
            texts.append(_read_part(row))
    return texts


def is_plain(content: Any) -> bool:
    """Returns whether a content holds texts alone, without anything that a provider adds."""
    if content is None or isinstance(content, str):
        return True
    return isinstance(content, list) and all(
        isinstance(part, str)
        or not any(value for key, value in _as_fields(part).items() if key in _ADDED_BY_PROVIDERS)
        for part in content
    )


def _as_fields(part: Any) -> Mapping[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if isinstance(part, Mapping):
        return part
    dump = getattr(part, "model_dump", None)
    if dump is None:
        raise UncheckedContent(f"content of the type {type(part).__name__} is read by no rail")
    fields: Mapping[str, Any] = dump(exclude_unset=True)
    return fields


def _read_part(row: Mapping[str, Any]) -> str:
    kind = row.get("type")
    field = "text" if kind is None else _TEXT_FIELDS.get(kind) if isinstance(kind, str) else None
    if field is None:
        raise UncheckedContent(f"content of the type {str(kind)[:40]!r} is read by no rail")
    if kind == "refusal" and "refusal" not in row:
        field = "text"
    text = row.get(field)
    if not isinstance(text, str):
        raise UncheckedContent(f"a part of the type {str(kind)[:40]!r} has no text")
    known = {field, *_SETTINGS, *_ADDED_BY_PROVIDERS}
    unread = sorted(
        str(key) for key, value in row.items() if value is not None and key not in known
    )
    if unread:
        raise UncheckedContent(f"{unread[0][:40]!r} of a part is read by no rail")
    return text
