"""A value that nothing prints, stores or sends by accident, and its removal from texts.

A `Secret` is an API key, a header's value or a part of a URL. Only `reveal()` returns it; `str`,
`repr`, `format`, msgspec and pickle give the redaction in its place, `json` refuses it, and mypy
refuses it where text is expected. A `Scrubber` removes secrets from what a server sends back.
"""

from __future__ import annotations

import base64
import hmac
import html
import json
import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

from msgspec import Struct

REDACTED = "***"

# A shorter value is no secret ("1", "prod"), and its removal would make messages unreadable.
_MIN_SCRUBBED_CHARACTERS = 6
# For answers of a model: a shorter value may occur in its text by chance. The keys of vendors have
# 32 characters or more.
_MIN_CHARACTERS_IN_ANSWERS = 16
# What may stand between two characters: a line break, or the backslash of an escape.
_GAP = r"[\s\\]*"
_MAX_CHARS_PER_CHAR = 7  # `\\u002b `


class Secret(Struct, frozen=True, dict=True, eq=False, repr_omit_defaults=True):
    """A secret value; `redacted` is the text that stands for it wherever it is written."""

    redacted: str = REDACTED

    @classmethod
    def of(cls, value: str, redacted: str = REDACTED) -> Secret:
        """Returns the secret with this value."""
        secret = cls(redacted)
        # Not a field, so that no encoder sees it; a function, so that `vars()` does not show it.
        secret.__dict__["_reveal"] = lambda: value
        return secret

    def reveal(self) -> str:
        """Returns the value. Raises ValueError for a secret that was pickled or copied by fields:
        its value stayed behind.
        """
        reveal: Callable[[], str] | None = self.__dict__.get("_reveal")
        if reveal is None:
            raise ValueError("this secret came without its value: secrets are not stored")
        return reveal()

    def __str__(self) -> str:
        return self.redacted

    def __repr__(self) -> str:
        return f"Secret({self.redacted!r})"

    def __format__(self, format_spec: str) -> str:
        return format(self.redacted, format_spec)

    def __bool__(self) -> bool:
        return self.reveal() != ""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.reveal().encode(), other.reveal().encode())

    def __hash__(self) -> int:
        return hash(self.reveal())

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        return self

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        return Secret, (self.redacted,)


class Scrubber:
    """Removes secrets from texts that someone else wrote, such as an endpoint's error message.

    Each secret is found as it is, URL-encoded, escaped as in JSON or HTML, in base64 at any offset,
    and with white space between its characters.
    """

    def __init__(self, secrets: Iterable[Secret]) -> None:
        secret_texts: set[str] = set()
        for secret in secrets:
            value = secret.reveal()
            # `Bearer KEY` and `name=KEY; other=KEY`: each part is a secret by itself.
            secret_texts |= {value, *re.split(r"[\s,;=]+", value)}
        # Longest first: an alternative that is the beginning of another would leave its rest.
        ordered = sorted(
            (p for p in secret_texts if len(p) >= _MIN_SCRUBBED_CHARACTERS), key=len, reverse=True
        )
        self._reply_forms = [
            form.encode("utf-8", "surrogatepass")
            for part in ordered
            if len(part) >= _MIN_CHARACTERS_IN_ANSWERS
            for form in _plain_forms(part)
        ]
        self.max_chars = max((len(p) * _MAX_CHARS_PER_CHAR for p in ordered), default=0)
        patterns = [_escaped_pattern(p) for p in ordered]
        for part in ordered:
            patterns += [_spaced(form) for form in _base64_forms(part)]
        self._pattern = re.compile("|".join(patterns), re.IGNORECASE) if patterns else None

    def scrub(self, text: str, *, cut_off: bool = False) -> str:
        """Returns the text with each secret replaced by ``***``.

        A text that was `cut_off` may end in the middle of a secret: as many characters as one can
        take are dropped from its end.
        """
        if self._pattern is None:
            return text
        scrubbed = self._pattern.sub(REDACTED, text)
        return scrubbed[: -self.max_chars] if cut_off else scrubbed

    def scrub_reply(self, data: bytes) -> bytes:
        """Returns a reply with each secret of at least `_MIN_CHARACTERS_IN_ANSWERS` characters
        replaced, as it is, URL-encoded or escaped as in JSON: an answer is the model's text, so
        that what only resembles a secret stays.
        """
        for form in self._reply_forms:
            if form in data:
                data = data.replace(form, REDACTED.encode())
        return data


def _escaped_pattern(value: str) -> str:
    """Returns a pattern of the value in which each character may be written in any escaped form."""
    return _GAP.join(map(_character_pattern, value))


def _spaced(form: str) -> str:
    return _GAP.join(map(re.escape, form))


def _character_pattern(character: str) -> str:
    percent = "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
    units = character.encode("utf-16-be", "surrogatepass").hex()
    forms = {
        character,
        percent,
        "".join(f"u{units[i : i + 4]}" for i in range(0, len(units), 4)),
        html.escape(character),
        f"&#{ord(character)};",
    }
    if character == " ":
        forms.add("+")
    return f"(?:{'|'.join(map(_spaced, sorted(forms, key=len, reverse=True)))})"


def _plain_forms(value: str) -> set[str]:
    """Returns a value as it is, URL-encoded, and escaped up to three times as in JSON."""
    forms = {value, quote(value), quote(value, safe="")}
    for _ in range(3):
        forms |= {json.dumps(f, ensure_ascii=ascii)[1:-1] for f in forms for ascii in (True, False)}
    return forms


def _base64_forms(value: str) -> set[str]:
    """Returns the base64 digits of a value that do not depend on what stands beside it."""
    data = value.encode("utf-8", "surrogatepass")
    forms: set[str] = set()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        # Behind 0, 1 or 2 other bytes (modulo 3) the same value has other digits.
        for offset in range(3):
            digits = encode(b"\0" * offset + data).decode().rstrip("=")
            inner = digits[-(-offset * 8 // 6) : (offset + len(data)) * 8 // 6]
            if len(inner) >= _MIN_SCRUBBED_CHARACTERS:
                forms.add(inner)
    return forms
