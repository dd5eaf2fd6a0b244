"""Backoff delays, and the headers and arguments that they depend on."""

from __future__ import annotations

import random

import pytest

from truing.core.errors import SpecError
from truing.http.retry import RetryPolicy, backoff_delay, parse_duration, parse_retry_after
from truing.specs.parser import parse_spec
from truing.specs.resolve import Args


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20ms", 0.02),
        ("1.5s", 1.5),
        ("6m0s", 360.0),
        ("2h", 7200.0),
        ("1h2m3s4ms", 3723.004),
        ("7", 7.0),
        ("", None),
        (" ", None),
        ("soon", None),
        ("5 apples", None),
    ],
)
def test_parse_duration(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "3"}, 3.0),
        ({"Retry-After": "-3"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"retry-after-ms": "250", "Retry-After": "3"}, 0.25),
        (
            {
                "Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT",
                "Date": "Wed, 21 Oct 2015 07:28:00 GMT",
            },
            30.0,
        ),
    ],
)
def test_parse_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert parse_retry_after(headers) == seconds


def test_backoff_is_exponential_with_full_jitter() -> None:
    random.seed(0)
    for attempt in range(1, 12):
        limit = min(30.0, 0.5 * 2**attempt)
        delays = [backoff_delay(attempt, None) for _ in range(200)]
        assert 0 <= min(delays) < 0.1 * limit
        assert 0.9 * limit < max(delays) <= limit


def test_backoff_waits_at_least_as_long_as_the_endpoint_asks() -> None:
    delays = [backoff_delay(1, 10.0) for _ in range(100)]
    assert all(10.0 <= delay <= 10.5 for delay in delays)
    assert all(100.0 <= backoff_delay(1, 100.0) <= 101.0 for _ in range(100))


def test_policy_from_spec_arguments() -> None:
    args = Args(parse_spec("openai:m,timeout=3,retries=0,max_wait=1"))
    assert RetryPolicy.from_args(args) == RetryPolicy(timeout=3.0, retries=0, max_wait=1.0)
    for text in ("timeout=0", "retries=-1", "max_wait=-1"):
        with pytest.raises(SpecError, match="timeout must be above 0"):
            RetryPolicy.from_args(Args(parse_spec(f"openai:m,{text}")))


@pytest.mark.parametrize(
    "value",
    [
        "nan",
        "inf",
        "1e999",
        "9" * 5000,
        "\u00b2",
        "Mon, 99 Foo 99999999 99:99:99 GMT",
        "-",
        "x" * 99,
    ],
)
def test_a_wait_that_makes_no_sense_is_no_wait(value: str) -> None:
    assert parse_retry_after({"Retry-After": value}) is None
    assert parse_retry_after({"retry-after-ms": value}) is None
    assert parse_duration(value) is None
