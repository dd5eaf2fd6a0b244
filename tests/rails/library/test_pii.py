"""Personal data and secrets by pattern: what is found, what is not, masking."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.core.errors import PlanError
from truing.rails.library import pii
from truing.rails.library.pii import (
    PERSONAL_PATTERNS,
    SECRET_PATTERNS,
    EntitySpan,
    find_spans,
    mask_spans,
)


@pytest.mark.parametrize(
    ("text", "entity"),
    [
        ("write to ada.l+x@mail.example.org please", "EMAIL_ADDRESS"),
        ("card 4111 1111 1111 1111 exp", "CREDIT_CARD"),
        ("IBAN GB82 WEST 1234 5698 7654 32", "IBAN_CODE"),
        ("ssn 123-45-6789", "US_SSN"),
        ("from 192.168.10.4 today", "IP_ADDRESS"),
        ("at 2001:db8::8a2e:370:7334 now", "IP_ADDRESS"),
        ("call +44 20 7946 0958 now", "PHONE_NUMBER"),
        ("see https://example.org/a?b=c", "URL"),
        ("mac 00:1B:44:11:3A:B7", "MAC_ADDRESS"),
        ("nhs 943 476 5919", "UK_NHS"),
    ],
)
def test_personal_data_is_found(text: str, entity: str) -> None:
    assert entity in {s.entity for s in find_spans(text, PERSONAL_PATTERNS)}


@pytest.mark.parametrize(
    "text",
    [
        "order 4111 1111 1111 1112 is late",
        "version 1.2.3 of 2026-11-26",
        "meet at 10:30:15",
        "IBAN GB82 WEST 1234 5698 7654 33",
        "000-12-3456",
        "999.300.1.2",
        "the year 1984 and 365 days",
        "a@b",
        "room 12",
        "3.14159 26535",
    ],
)
def test_lookalikes_are_not_found(text: str) -> None:
    spans = find_spans(text, PERSONAL_PATTERNS)
    # Numbers with separators may be phone numbers.
    assert [s for s in spans if s.entity != "PHONE_NUMBER" or "365" in text] == []


@pytest.mark.parametrize(
    ("text", "entity"),
    [
        ("AKIA" + "ABCDEFGHIJKLMNOP", "AWS_KEY"),
        ("ghp_" + "a1B2" * 10, "GITHUB_TOKEN"),
        ("sk-" + "aB3" * 10, "API_KEY"),
        ("xoxb-" + "1234567890-abc", "SLACK_TOKEN"),
        ("password = 'k9Xq2LmP7vRt4WzB'", "PASSWORD"),
        ("-----BEGIN " + "RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", "PRIVATE_KEY"),
    ],
)
def test_secrets_are_found_and_masked(text: str, entity: str) -> None:
    spans = find_spans(f"x {text} y", SECRET_PATTERNS)
    assert [s.entity for s in spans] == [entity]
    # The closing quotation mark is no part of the password.
    end = "' y" if entity == "PASSWORD" else " y"
    assert mask_spans(f"x {text} y", spans) == f"x <{entity}>{end}"


def test_ordinary_words_are_not_secrets() -> None:
    assert (
        find_spans(
            "The password is required. token: of appreciation, the secret of happiness",
            SECRET_PATTERNS,
        )
        == []
    )


@given(st.text(max_size=400))
def test_spans_of_any_text_are_apart_and_inside_it(text: str) -> None:
    spans = find_spans(text, [*PERSONAL_PATTERNS, *SECRET_PATTERNS])
    assert all(a.end <= b.start for a, b in zip(spans, spans[1:]))
    assert all(text[s.start : s.end] for s in spans)
    if not spans:
        assert mask_spans(text, spans) == text


def test_check_digits() -> None:
    assert pii.is_luhn_valid("79927398713")
    assert not pii.is_luhn_valid("79927398710")
    assert pii.is_iban_valid("DE89 3704 0044 0532 0130 00")
    assert not pii.is_iban_valid("DE89 3704 0044 0532 0130 01")
    assert not pii.is_iban_valid("DE89")


def test_of_overlapping_spans_the_longest_is_kept() -> None:
    short, long, apart = EntitySpan("A", 0, 3), EntitySpan("B", 2, 8), EntitySpan("C", 9, 10)
    assert pii.remove_overlaps([apart, short, long]) == [long, apart]
    assert len(find_spans("mail bob@example.org", ["EMAIL_ADDRESS", "URL"])) == 1


def test_spans_are_masked_in_place() -> None:
    assert mask_spans("abcdef", [EntitySpan("X", 1, 3), EntitySpan("Y", 5, 6)]) == "a<X>de<Y>"
    assert mask_spans("abc", []) == "abc"


def test_entities_are_split_and_unknown_ones_are_errors() -> None:
    with pytest.raises(PlanError, match="EMAIL_ADDRESS"):
        pii.split_entities(["EMAIL_ADRESS"], "config.yml")
    assert pii.split_entities(["PERSON", "URL"], "x") == (["URL"], ["PERSON"])
