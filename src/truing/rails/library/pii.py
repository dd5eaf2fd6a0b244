"""Finds personal data and secrets in text by pattern and check digit; no model is needed.

The names of entities are Presidio's. Entities without a pattern here (PERSON, LOCATION,
US_PASSPORT, ...) are left to Presidio, where it is installed. Check digits: Luhn (ISO/IEC 7812-1)
for cards, mod 97 (ISO 13616) for IBANs, mod 11 for NHS numbers.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from truing.core.errors import PlanError, did_you_mean


@dataclass(frozen=True, slots=True)
class EntitySpan:
    """A found entity: its kind, and its characters `start` to `end` (exclusive)."""

    entity: str
    start: int
    end: int


# -- check digits and other tests of a match ---------------------------------------------------


def is_luhn_valid(digits: str) -> bool:
    """Returns whether a card number's check digit is right (Luhn)."""
    total = 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if position % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def is_iban_valid(text: str) -> bool:
    """Returns whether an IBAN's check digits are right (mod 97)."""
    iban = text.replace(" ", "").upper()
    if not 15 <= len(iban) <= 34:
        return False
    rearranged = iban[4:] + iban[:4]
    # Letters count as two digits: A = 10, ..., Z = 35, as int() reads them in base 36.
    return int("".join(str(int(c, 36)) for c in rearranged)) % 97 == 1


def _is_card(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    # A run of one digit passes Luhn, e.g. zeros.
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and is_luhn_valid(digits)


def _is_nhs_number(text: str) -> bool:
    digits = [int(c) for c in re.sub(r"\D", "", text)]
    if len(digits) != 10:
        return False
    weighted_sum = sum(digit * (10 - index) for index, digit in enumerate(digits[:9]))
    check_digit = (11 - weighted_sum % 11) % 11  # 11 counts as 0; 10 is never issued
    return check_digit != 10 and check_digit == digits[9]


def _is_ssn(text: str) -> bool:
    # Numbers that are never issued: area 000, 666 and 900-999, group 00, serial 0000.
    area, group, serial = text.split("-")
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_phone_number(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    has_prefix = text.startswith(("+", "(", "00"))
    has_separator = re.search(r"[\s.-]", text.strip()) is not None
    return 8 <= len(digits) <= 15 and (has_prefix or has_separator)


def _entropy(text: str) -> float:
    """Returns the entropy of the text's characters, in bits per character."""
    counts = Counter(text)
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())


def _has_random_value(text: str) -> bool:
    """Returns whether the value of ``key = value`` looks generated, unlike ``token: of thanks``."""
    value = re.split(r"[:=\s]", text, maxsplit=1)[-1].strip(" '\":=")
    return len(value) >= 16 and _entropy(value) > 3.5 and any(c.isdigit() for c in value)


# -- patterns ----------------------------------------------------------------------------------

# entity -> (pattern, test of a match or None). The repetitions are bounded, so that no text makes a
# search slow.
_MatchTest = Callable[[str], bool] | None
PERSONAL_PATTERNS: dict[str, tuple[str, _MatchTest]] = {
    "EMAIL_ADDRESS": (
        r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}"
        r"@[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}\.){1,5}[A-Za-z]{2,24}\b",
        None,
    ),
    "CREDIT_CARD": (r"(?<![\d.-])\d(?:[ -]?\d){12,18}(?![\d-])", _is_card),
    "IBAN_CODE": (r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b", is_iban_valid),
    "US_SSN": (r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])", _is_ssn),
    "UK_NHS": (r"(?<![\d-])\d{3}[ -]\d{3}[ -]\d{4}(?![\d-])", _is_nhs_number),
    "IP_ADDRESS": (
        r"(?<![\w.:])(?:(?:\d{1,3}\.){3}\d{1,3}"
        r"|(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{1,4})(?![\w.:])",
        _is_ip_address,
    ),
    "PHONE_NUMBER": (
        r"(?<![\w.+-])(?:\+|00)?\(?\d{1,4}\)?(?:[ .-]?\(?\d{2,4}\)?){2,5}(?![\w-])",
        _is_phone_number,
    ),
    "MAC_ADDRESS": (r"\b(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}\b", None),
    "URL": (r"\bhttps?://[^\s<>\"')\]]+", None),
}
SECRET_PATTERNS: dict[str, tuple[str, _MatchTest]] = {
    "AWS_KEY": (r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b", None),
    "GITHUB_TOKEN": (r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{40,})\b", None),
    "SLACK_TOKEN": (r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}\b", None),
    "GOOGLE_KEY": (r"\bAIza[0-9A-Za-z_-]{35}\b", None),
    "API_KEY": (r"\bsk-(?:[a-z]+-)?[A-Za-z0-9_-]{20,}\b", None),
    "JWT": (r"\beyJ[\w-]{8,1000}\.eyJ[\w-]{8,}\.[\w-]{8,}", None),
    "PRIVATE_KEY": (
        r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----[\s\S]{0,8000}?(?:-----END [A-Z ]{0,40}KEY-----"
        r"|$)",
        None,
    ),
    "PASSWORD": (
        r"(?i)\b(?:api[_-]?key|secret|token|passw(?:or)?d"
        r"|access[_-]?key)\b\s{0,3}[:=]\s{0,3}['\"]?[A-Za-z0-9_\-+/=.]{16,200}",
        _has_random_value,
    ),
}
_COMPILED = {
    name: (re.compile(pattern), is_match)
    for name, (pattern, is_match) in {**PERSONAL_PATTERNS, **SECRET_PATTERNS}.items()
}
# Entities that Presidio finds with a spaCy model, and all that it finds for us.
SPACY_ENTITIES = frozenset({"PERSON", "LOCATION", "NRP", "ORGANIZATION"})
PRESIDIO_ENTITIES = SPACY_ENTITIES | {
    "CRYPTO",
    "DATE_TIME",
    "MEDICAL_LICENSE",
    "US_BANK_NUMBER",
    "US_DRIVER_LICENSE",
    "US_ITIN",
    "US_PASSPORT",
}


# -- finding and masking -----------------------------------------------------------------------


def find_spans(text: str, entities: Iterable[str]) -> list[EntitySpan]:
    """Returns the spans of the given entities, in order of position and without overlaps."""
    spans: list[EntitySpan] = []
    for entity in entities:
        pattern, is_match = _COMPILED[entity]
        for match in pattern.finditer(text):
            if is_match is None or is_match(match.group()):
                spans.append(EntitySpan(entity, *match.span()))
    return remove_overlaps(spans)


def remove_overlaps(spans: Iterable[EntitySpan]) -> list[EntitySpan]:
    """Returns the spans in order of position; of spans that overlap, the longest is kept."""
    selected: list[EntitySpan] = []
    for span in sorted(spans, key=lambda s: (s.start - s.end, s.start)):
        if all(span.end <= other.start or span.start >= other.end for other in selected):
            selected.append(span)
    return sorted(selected, key=lambda s: s.start)


def mask_spans(text: str, spans: Iterable[EntitySpan]) -> str:
    """Returns the text with each span replaced by ``<ENTITY>``; the spans are in order."""
    parts: list[str] = []
    position = 0
    for span in spans:
        parts += [text[position : span.start], f"<{span.entity}>"]
        position = span.end
    return "".join(parts) + text[position:]


def split_entities(entities: Iterable[str], place: str) -> tuple[list[str], list[str]]:
    """Returns the entities that patterns find, and those that need Presidio.

    Raises PlanError, with `place`, for unknown names.
    """
    by_pattern: list[str] = []
    by_presidio: list[str] = []
    errors: list[str] = []
    for entity in entities:
        if entity in _COMPILED:
            by_pattern.append(entity)
        elif entity in PRESIDIO_ENTITIES:
            by_presidio.append(entity)
        else:
            hint = did_you_mean(entity, [*_COMPILED, *PRESIDIO_ENTITIES])
            errors.append(f"{place}: there is no entity {entity!r}{hint}")
    if errors:
        raise PlanError(*errors)
    return by_pattern, by_presidio
