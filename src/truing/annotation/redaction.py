"""Redaction of personal data in exported text.

It finds mail and network addresses, telephone, card and account numbers, handles and keys, by
pattern and check digit. It prefers to redact too much. Names of people have no pattern and are not
found.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_Replacement = str | Callable[[re.Match[str]], str]


def passes_luhn(digits: str) -> bool:
    """Returns whether the check digit of a card number is right (Luhn, ISO/IEC 7812)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        number = int(digit) * (1 + place % 2)  # every second digit from the right is doubled
        total += number - 9 if number > 9 else number
    return total % 10 == 0


def _redact_card(match: re.Match[str]) -> str:
    return "[card]" if passes_luhn(re.sub(r"\D", "", match.group())) else match.group()


def _redact_phone(match: re.Match[str]) -> str:
    n_digits = len(re.sub(r"\D", "", match.group()))
    # Without separators, nine digits are more likely a number of something than a telephone's.
    fewest = 10 if match.group().isdigit() else 9
    return "[phone]" if fewest <= n_digits <= 15 else match.group()


# In this order: a URL holds an @ like a mail address, and an IBAN or a card number contains runs of
# digits that look like a telephone number.
_RULES: list[tuple[re.Pattern[str], _Replacement]] = [
    (
        re.compile(r"\b[a-z][a-z0-9+.-]{0,40}://[^\s/@:]+:[^\s/@]+@[^\s]+", re.IGNORECASE),
        "[url with credentials]",
    ),
    (re.compile(r"[\w.+%-]{1,64}@[\w-]+(?:\.[\w-]+)+\b"), "[email]"),
    (re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), "[iban]"),
    (re.compile(r"\b(?:sk|pk|ghp|gho|hf|xox[abp])[-_][A-Za-z0-9_-]{16,}\b"), "[key]"),
    (re.compile(r"\b\d{3}-\d{2}-\d{4}\b"), "[ssn]"),
    (
        re.compile(r"\b(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)\b"),
        "[ip]",
    ),
    (
        re.compile(r"(?<![\w:])(?:[0-9a-f]{1,4}:){4,7}[0-9a-f]{1,4}(?![\w:])", re.IGNORECASE),
        "[ip]",
    ),
    (re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)"), _redact_card),
    (
        re.compile(r"(?<![\w.])(?:\+|00)?\(?\d{1,4}\)?(?:[ .\-/]?\(?\d{2,5}\)?){2,5}(?!\w)"),
        _redact_phone,
    ),
    (re.compile(r"(?<![\w@/])@[A-Za-z0-9_]{3,30}\b"), "[handle]"),
]


def redact(text: str) -> str:
    """Returns the text with personal data replaced by labels such as `[email]`."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text
