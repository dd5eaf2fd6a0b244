"""Redaction: which patterns count as personal data and which do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.annotation.redaction import passes_luhn, redact


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mail jane.roe+x@mail.example.org now", "mail [email] now"),
        ("call +44 20 7946 0958.", "call [phone]."),
        ("or (030) 901820-44 today", "or [phone] today"),
        ("card 4111 1111 1111 1111", "card [card]"),
        ("DE89 3704 0044 0532 0130 00 is it", "[iban] is it"),
        ("at 192.168.10.254:80", "at [ip]:80"),
        ("2001:db8:85a3:0:0:8a2e:370:7334", "[ip]"),
        ("ssn 078-05-1120", "ssn [ssn]"),
        ("ask @some_body!", "ask [handle]!"),
        ("key sk-abcdefghijklmnopqrst", "key [key]"),
        ("postgres://me:pw@host/db", "[url with credentials]"),
    ],
)
def test_personal_data_is_redacted(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "in 2026",
        "version 1.2.3",
        "about 12,500 people",
        "3 to 5",
        "10:30",
        "a@b",
        "price 19.99",
        "x = y @ z",
        "1234567",
    ],
)
def test_other_numbers_stay(text: str) -> None:
    assert redact(text) == text


@given(st.text())
def test_redaction_is_idempotent(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


@given(st.integers(10**11, 10**15))
def test_exactly_one_check_digit_passes_luhn(number: int) -> None:
    digits = str(number)
    assert sum(passes_luhn(digits + str(d)) for d in range(10)) == 1
