"""Personal data out of exported text: mail and network addresses, telephone, card and account numbers, handles, keys.

By pattern and check digit, deliberately greedy: a number too many hidden costs nothing, one shown may. Names of people
have no pattern and are not found; the export's docs say so.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_RULES: list[tuple[str, re.Pattern[str]]] = [
    (
        "[url with credentials]",
        re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s/@:]+:[^\s/@]+@[^\s]+", re.IGNORECASE),
    ),
    ("[email]", re.compile(r"\b[\w.+%-]+@[\w-]+(?:\.[\w-]+)+\b")),
    ("[iban]", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")),
    ("[key]", re.compile(r"\b(?:sk|pk|ghp|gho|hf|xox[abp])[-_][A-Za-z0-9_-]{16,}\b")),
    ("[ssn]", re.compile(r"\b\d{3}-\d{2}-\d{4}\b")),
    ("[ip]", re.compile(r"\b(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)\b")),
    ("[ip]", re.compile(r"(?<![\w:])(?:[0-9a-f]{1,4}:){4,7}[0-9a-f]{1,4}(?![\w:])", re.IGNORECASE)),
]
_CARD = re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)")
_PHONE = re.compile(r"(?<![\w.])(?:\+|00)?\(?\d{1,4}\)?(?:[ .\-/]?\(?\d{2,5}\)?){2,5}(?!\w)")
_HANDLE = re.compile(r"(?<![\w@/])@[A-Za-z0-9_]{3,30}\b")


def luhn(digits: str) -> bool:
    """Whether the check digit of a card number is right."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        number = int(digit) * (1 + place % 2)
        total += number - 9 if number > 9 else number
    return total % 10 == 0


def _card(found: re.Match[str]) -> str:
    return "[card]" if luhn(re.sub(r"\D", "", found.group())) else found.group()


def _phone(found: re.Match[str]) -> str:
    digits = re.sub(r"\D", "", found.group())
    plain = (
        found.group().isdigit()
    )  # an unbroken run of digits is a number, unless as long as a telephone's
    return (
        "[phone]" if 9 <= len(digits) <= 15 and (not plain or len(digits) >= 10) else found.group()
    )


def redact(text: str) -> str:
    """The text without what looks like personal data."""
    for word, pattern in _RULES:
        text = pattern.sub(word, text)
    steps: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
        (_CARD, _card),
        (_PHONE, _phone),
        (_HANDLE, "[handle]"),
    ]
    for pattern, replacement in steps:
        text = pattern.sub(replacement, text)
    return text
