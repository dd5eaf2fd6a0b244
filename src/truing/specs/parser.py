"""The grammar of spec strings.

spec  = kind [":" name] {"," key "=" value}
value = bare text | "quoted text" (JSON escapes) | "(" spec ")"

local:smollm2        best-of:4,by=(cost:DIR),of=(prompted:hhh,of=(local:smollm2))
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
from msgspec import Struct, field

from truing.core.errors import SpecError
from truing.core.redaction import redact_headers, redact_json, redact_url
from truing.core.secret import REDACTED, Secret

# Arguments that hold a secret as a whole, whatever their value; a spec should name a variable.
_SECRET_ARGUMENTS = frozenset(
    {"api_key", "apikey", "password", "passwd", "secret", "access_token", "auth_token"}
)
_HIDDEN_IN_TEXT = re.compile(
    rf"\b({'|'.join(sorted(_SECRET_ARGUMENTS))}|headers|body)=.*", re.DOTALL
)


class Spec(Struct, frozen=True):
    """A parsed spec string; `str(spec)` is its canonical form, which parses to an equal value.

    Secrets in it (headers, secret parameters of a URL or a body) are held as `Secret`, so that
    `str`, `repr` and every encoder write the redacted form; `reveal()` returns the whole text.
    `address` is set if the name contains one; `name` is redacted then.
    """

    kind: str
    name: str = ""
    args: dict[str, Any] = field(default_factory=dict)  # str -> str | Spec | Secret
    address: Secret | None = None

    def __post_init__(self) -> None:
        args = {key: _hide_secrets(key, value) for key, value in self.args.items()}
        msgspec.structs.force_setattr(self, "args", args)
        redacted = redact_url(self.name)
        if redacted != self.name:
            msgspec.structs.force_setattr(self, "address", Secret.of(self.name, redacted))
            msgspec.structs.force_setattr(self, "name", redacted)

    def __str__(self) -> str:
        return self._write(revealed=False)

    def __repr__(self) -> str:
        return f"Spec({str(self)!r})"

    def reveal(self) -> str:
        """Returns the canonical form with its secrets: to build the object again, never to store
        or to show it.
        """
        return self._write(revealed=True)

    def reveal_values(self) -> dict[str, str | Spec]:
        """Returns the arguments, and the name under "", with their secrets: for whoever has to
        check what the spec really names.
        """
        name = self.address.reveal() if self.address else self.name
        values = {"": name, **self.args}
        return {k: v.reveal() if isinstance(v, Secret) else v for k, v in values.items()}

    def _write(self, *, revealed: bool) -> str:
        name = self.address.reveal() if revealed and self.address else self.name
        head = f"{self.kind}:{_quote(name)}" if name else self.kind
        arguments = (f"{k}={_format_value(v, revealed)}" for k, v in self.args.items())
        return ",".join([head, *arguments])


def _quote(text: str) -> str:
    needs_no_quotes = bool(text) and not any(c in text for c in ',"()=\n') and text == text.strip()
    return text if needs_no_quotes else json.dumps(text, ensure_ascii=False)


def _format_value(value: str | Spec | Secret, revealed: bool) -> str:
    if isinstance(value, Spec):
        return f"({value._write(revealed=revealed)})"
    if isinstance(value, Secret):
        value = value.reveal() if revealed else value.redacted
    return _quote(value)


def _hide_secrets(key: str, argument: Any) -> Any:
    """Returns the value of an argument as a `Secret` if it contains a secret, else unchanged."""
    if not isinstance(argument, str):
        return argument
    if key in _SECRET_ARGUMENTS:
        return Secret.of(argument)
    if key in ("headers", "body"):
        redacted = _redact_json_argument(key, argument)
    elif key == "env":
        # Names of variables; who writes NAME=VALUE, as other programs take it, writes a secret.
        redacted = re.sub(r"=[^|]*", f"={REDACTED}", argument)
    else:
        # A nested spec may be given as quoted text.
        redacted = redact_spec_text(argument)
    return argument if redacted == argument else Secret.of(argument, redacted)


def _redact_json_argument(key: str, text: str) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return REDACTED
    redacted = redact_headers(value) if key == "headers" and isinstance(value, dict) else None
    redacted = redact_json(value) if redacted is None else redacted
    return text if redacted == value else json.dumps(redacted, ensure_ascii=False)


def redact_spec_text(text: str) -> str:
    """Returns a text that may be a spec, or a broken one, without anything that may be secret."""
    # In this order: the value of a URL's parameter reaches up to a blank, so over other arguments.
    return redact_url(_HIDDEN_IN_TEXT.sub(rf"\1={REDACTED}", text))


def redact_spec(text: str) -> str:
    """Returns a spec as it may be stored and shown: unchanged if it contains no secret."""
    try:
        spec = parse_spec(text)
    except SpecError:
        return redact_spec_text(text)
    return text if str(spec) == spec.reveal() else str(spec)


def parse_spec(text: str) -> Spec:
    """Parses a spec string; raises SpecError with the position of the error."""
    parser = _Parser(text)
    spec = parser.read_spec()
    if parser.position != len(text):
        raise parser.error(f"unexpected {text[parser.position]!r}")
    return spec


class _Parser:
    """A recursive-descent parser; each `read_` method moves `position` beyond what it reads."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def error(self, message: str, position: int | None = None) -> SpecError:
        """Returns the error at a position (by default the current one)."""
        place = self.position if position is None else position
        return SpecError(f"spec {redact_spec_text(self.text)!r}, at {place}: {message}")

    def _next_is(self, character: str) -> bool:
        return self.text.startswith(character, self.position)

    def read_spec(self) -> Spec:
        """Reads `kind:name,key=value,...`."""
        kind = self._read_kind()
        name = ""
        if self._next_is(":"):
            self.position += 1
            value = self._read_value()
            if isinstance(value, Spec):
                raise self.error("a name is text; give nested specs as key=(...)")
            name = value
        args: dict[str, str | Spec] = {}
        while self._next_is(","):
            self.position += 1
            key = self._read_key()
            if key in args:
                raise self.error(f"{key!r} is given twice")
            args[key] = self._read_value()
        return Spec(kind, name, args)

    def _read_kind(self) -> str:
        start = self.position
        while self.position < len(self.text) and (
            self.text[self.position].isalnum() or self.text[self.position] in "-_."
        ):
            self.position += 1
        if self.position == start:
            raise self.error("expected a kind such as local: or openai:")
        return self.text[start : self.position]

    def _read_key(self) -> str:
        """Reads `key=`; a hyphen in a key counts as an underscore."""
        end = self.text.find("=", self.position)
        key = self.text[self.position : end].strip() if end >= 0 else ""
        if not key or not key.replace("_", "").replace("-", "").isalnum():
            raise self.error("expected key=value")
        self.position = end + 1
        return key.replace("-", "_")

    def _read_value(self) -> str | Spec:
        if self._next_is("("):
            return self._read_nested_spec()
        if self._next_is('"'):
            return self._read_quoted()
        return self._read_bare()

    def _read_nested_spec(self) -> Spec:
        opened_at = self.position
        self.position += 1
        spec = self.read_spec()
        if not self._next_is(")"):
            raise self.error(f"the parenthesis opened at {opened_at} is not closed")
        self.position += 1
        return spec

    def _read_quoted(self) -> str:
        try:
            value, self.position = json.JSONDecoder().raw_decode(self.text, self.position)
        except json.JSONDecodeError as error:
            raise self.error("the quoted text is not closed") from error
        return str(value)

    def _read_bare(self) -> str:
        """Reads up to a comma, or a closing parenthesis that this value did not open."""
        # Parentheses inside are counted, so that a bare URL may contain balanced ones.
        start = self.position
        depth = 0
        while self.position < len(self.text):
            character = self.text[self.position]
            if depth == 0 and character in ",)":
                break
            if character == "(":
                depth += 1
            elif character == ")":
                depth -= 1
            self.position += 1
        return self.text[start : self.position].strip()
