"""The grammar of spec strings."""

from __future__ import annotations

import json
from typing import Any

from msgspec import Struct, field

from truing.core.errors import SpecError


class Spec(Struct, frozen=True):
    """A parsed spec string. `str(spec)` gives the canonical text, which parses back to an equal value."""

    kind: str
    name: str = ""
    args: dict[str, Any] = field(default_factory=dict)  # str -> str | Spec

    def __str__(self) -> str:
        head = f"{self.kind}:{_quote(self.name)}" if self.name else self.kind
        return ",".join([head, *(f"{k}={_show(v)}" for k, v in self.args.items())])


def _quote(text: str) -> str:
    bare = bool(text) and not any(c in text for c in ',"()=\n') and text == text.strip()
    return text if bare else json.dumps(text, ensure_ascii=False)


def _show(value: str | Spec) -> str:
    return f"({value})" if isinstance(value, Spec) else _quote(value)


def parse_spec(text: str) -> Spec:
    """Reads a spec string; raises SpecError with the position of the fault."""
    spec, at = _spec(text, 0)
    if at != len(text):
        raise SpecError(f"spec {text!r}, at {at}: unexpected {text[at]!r}")
    return spec


def _spec(text: str, at: int) -> tuple[Spec, int]:
    start = at
    while at < len(text) and (text[at].isalnum() or text[at] in "-_."):
        at += 1
    kind = text[start:at]
    if not kind:
        raise SpecError(f"spec {text!r}, at {at}: expected a kind such as local: or openai:")
    name = ""
    if at < len(text) and text[at] == ":":
        given, at = _value(text, at + 1)
        if isinstance(given, Spec):
            raise SpecError(
                f"spec {text!r}, at {at}: a name is text; give nested specs as key=(...)"
            )
        name = given
    args: dict[str, str | Spec] = {}
    while at < len(text) and text[at] == ",":
        key, at = _key(text, at + 1)
        if key in args:
            raise SpecError(f"spec {text!r}, at {at}: {key!r} stands twice")
        args[key], at = _value(text, at)
    return Spec(kind, name, args), at


def _key(text: str, at: int) -> tuple[str, int]:
    end = text.find("=", at)
    key = text[at:end].strip() if end >= 0 else ""
    if not key or not key.replace("_", "").replace("-", "").isalnum():
        raise SpecError(f"spec {text!r}, at {at}: expected key=value")
    return key.replace("-", "_"), end + 1


def _value(text: str, at: int) -> tuple[str | Spec, int]:
    if at < len(text) and text[at] == "(":
        spec, end = _spec(text, at + 1)
        if end >= len(text) or text[end] != ")":
            raise SpecError(
                f"spec {text!r}, at {end}: the parenthesis opened at {at} is not closed"
            )
        return spec, end + 1
    if at < len(text) and text[at] == '"':
        try:
            value, end = json.JSONDecoder().raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise SpecError(f"spec {text!r}, at {at}: the quoted text is not closed") from error
        return str(value), end
    end = at
    depth = 0
    while end < len(text) and not (text[end] == "," and depth == 0):
        if text[end] == "(":
            depth += 1
        elif text[end] == ")":
            if depth == 0:
                break
            depth -= 1
        end += 1
    return text[at:end].strip(), end
