"""Finds personal data and secrets in text, by pattern and check digit; no model is needed.

Names of entities are Presidio's. What has no pattern here (PERSON, LOCATION, US_PASSPORT, ...) is left to Presidio, where
it is installed.
Check digits: Luhn (ISO/IEC 7812-1) for cards, mod 97 (ISO 13616) for IBANs, mod 11 for NHS numbers.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from truing.core.errors import PlanError, did_you_mean


@dataclass(frozen=True, slots=True)
class Span:
    """What was found: its kind, and where it stands."""

    entity: str
    start: int
    end: int


def luhn(digits: str) -> bool:
    """Whether a card number's check digit is right."""
    total = 0
    for at, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if at % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def iban(text: str) -> bool:
    """Whether an IBAN's check digits are right."""
    plain = text.replace(" ", "").upper()
    if not 15 <= len(plain) <= 34:
        return False
    moved = plain[4:] + plain[:4]
    return int("".join(str(int(c, 36)) for c in moved)) % 97 == 1


def _card(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and luhn(digits)


def _nhs(text: str) -> bool:
    digits = [int(c) for c in re.sub(r"\D", "", text)]
    check = 11 - sum(d * (10 - at) for at, d in enumerate(digits[:9])) % 11
    return len(digits) == 10 and check != 10 and (0 if check == 11 else check) == digits[9]


def _ssn(text: str) -> bool:
    area, group, serial = text.split("-")
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _phone(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    return 8 <= len(digits) <= 15 and (
        text.startswith(("+", "(", "00")) or bool(re.search(r"[\s.-]", text.strip()))
    )


def _entropy(text: str) -> float:
    counts = Counter(text)
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())


def _random_looking(text: str) -> bool:
    value = re.split(r"[:=\s]", text, maxsplit=1)[-1].strip(" '\":=")
    return len(value) >= 16 and _entropy(value) > 3.5 and any(c.isdigit() for c in value)


_Check = Callable[[str], bool] | None
PERSONAL: dict[str, tuple[str, _Check]] = {
    "EMAIL_ADDRESS": (
        r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}\.){1,5}[A-Za-z]{2,24}\b",
        None,
    ),
    "CREDIT_CARD": (r"(?<![\d.-])\d(?:[ -]?\d){12,18}(?![\d-])", _card),
    "IBAN_CODE": (r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b", iban),
    "US_SSN": (r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])", _ssn),
    "UK_NHS": (r"(?<![\d-])\d{3}[ -]\d{3}[ -]\d{4}(?![\d-])", _nhs),
    "IP_ADDRESS": (
        r"(?<![\w.:])(?:(?:\d{1,3}\.){3}\d{1,3}|(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{1,4})(?![\w.:])",
        _ip,
    ),
    "PHONE_NUMBER": (
        r"(?<![\w.+-])(?:\+|00)?\(?\d{1,4}\)?(?:[ .-]?\(?\d{2,4}\)?){2,5}(?![\w-])",
        _phone,
    ),
    "MAC_ADDRESS": (r"\b(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}\b", None),
    "URL": (r"\bhttps?://[^\s<>\"')\]]+", None),
}
SECRETS: dict[str, tuple[str, _Check]] = {
    "AWS_KEY": (r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b", None),
    "GITHUB_TOKEN": (r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{40,})\b", None),
    "SLACK_TOKEN": (r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}\b", None),
    "GOOGLE_KEY": (r"\bAIza[0-9A-Za-z_-]{35}\b", None),
    "API_KEY": (r"\bsk-(?:[a-z]+-)?[A-Za-z0-9_-]{20,}\b", None),
    "JWT": (r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}", None),
    "PRIVATE_KEY": (
        r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----[\s\S]{0,8000}?(?:-----END [A-Z ]{0,40}KEY-----|$)",
        None,
    ),
    "PASSWORD": (
        r"(?i)\b(?:api[_-]?key|secret|token|passw(?:or)?d|access[_-]?key)\b\s{0,3}[:=]\s{0,3}['\"]?[A-Za-z0-9_\-+/=.]{16,200}",
        _random_looking,
    ),
}
_COMPILED = {
    name: (re.compile(pattern), check) for name, (pattern, check) in {**PERSONAL, **SECRETS}.items()
}
NAMED = frozenset({"PERSON", "LOCATION", "NRP", "ORGANIZATION"})  # Presidio with a model of spaCy
BY_PRESIDIO = NAMED | {
    "CRYPTO",
    "DATE_TIME",
    "MEDICAL_LICENSE",
    "US_BANK_NUMBER",
    "US_DRIVER_LICENSE",
    "US_ITIN",
    "US_PASSPORT",
}


def find(text: str, entities: Iterable[str]) -> list[Span]:
    """The spans of the wanted kinds, in order; of two that overlap the longer stands."""
    found: list[Span] = []
    for entity in entities:
        pattern, check = _COMPILED[entity]
        for match in pattern.finditer(text):
            if check is None or check(match.group()):
                found.append(Span(entity, *match.span()))
    return list(_apart(found))


def _apart(spans: list[Span]) -> Iterator[Span]:
    kept: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.start - s.end, s.start)):
        if all(span.end <= k.start or span.start >= k.end for k in kept):
            kept.append(span)
    yield from sorted(kept, key=lambda s: s.start)


def mask(text: str, spans: Iterable[Span]) -> str:
    """Each span as ``<ENTITY>``."""
    out, at = [], 0
    for span in spans:
        out += [text[at : span.start], f"<{span.entity}>"]
        at = span.end
    return "".join(out) + text[at:]


def check_names(entities: Iterable[str], where: str) -> tuple[list[str], list[str]]:
    """The entities that patterns find, and those that need Presidio; PlanError for a name that nobody knows."""
    own, model, faults = [], [], []
    for entity in entities:
        if entity in _COMPILED:
            own.append(entity)
        elif entity in BY_PRESIDIO:
            model.append(entity)
        else:
            faults.append(
                f"{where}: there is no entity {entity!r}{did_you_mean(entity, [*_COMPILED, *BY_PRESIDIO])}"
            )
    if faults:
        raise PlanError(*faults)
    return own, model
