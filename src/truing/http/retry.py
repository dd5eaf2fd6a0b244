"""When and how often a failed HTTP request is sent again."""

from __future__ import annotations

import email.utils
import math
import random
import re
import time
from collections.abc import Mapping

from msgspec import Struct

from truing.http.bounds import DEFAULT_MAX_BYTES
from truing.specs.resolve import Args

RETRYABLE_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
THROTTLED_STATUSES = frozenset({429, 529})
"""Statuses by which an endpoint says that it gets too many requests (529: Anthropic's overload)."""

_MAX_BACKOFF_SECONDS = 30.0
# `m(?!s)`: "20ms" is not 20 minutes.
_DURATION = re.compile(
    r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?$"
)


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """Limits of one request: seconds for each attempt, retries, seconds of wait, bytes of the body.

    A request whose next attempt would have to wait longer than `max_wait` fails instead.
    """

    timeout: float = 120.0
    retries: int = 5
    max_wait: float = 120.0
    max_bytes: int = DEFAULT_MAX_BYTES

    @classmethod
    def from_args(cls, args: Args) -> RetryPolicy:
        """Reads `timeout=`, `retries=`, `max_wait=` and `max_bytes=` of a spec."""
        policy = cls(
            timeout=args.number("timeout", 120.0),
            retries=args.integer("retries", 5),
            max_wait=args.number("max_wait", 120.0),
            max_bytes=args.integer("max_bytes", DEFAULT_MAX_BYTES),
        )
        # Not `<= 0`: NaN would pass it.
        if not policy.timeout > 0 or policy.retries < 0 or not policy.max_wait >= 0:
            raise args.fault("timeout must be above 0, retries and max_wait not below 0")
        if policy.max_bytes < 1024:
            raise args.fault("max_bytes must be at least 1024")
        return policy


class RequestError(Exception):
    """One failed attempt.

    `kind` and `message` become the `Failure`. `max_retries` limits the retries for this kind of
    error (None: as many as the policy allows), `retry_after` is the wait that the endpoint asks for
    in seconds, `throttled` says that the endpoint works but gets too many requests.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        max_retries: int | None = None,
        retry_after: float | None = None,
        throttled: bool = False,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.max_retries = max_retries
        self.retry_after = retry_after
        self.throttled = throttled


def backoff_delay(attempt: int, retry_after: float | None) -> float:
    """Returns the seconds to wait before the next attempt, after `attempt` failed ones.

    An endpoint's `retry_after` is honoured, plus up to 5 % jitter, so that the clients it turned
    away do not all return at once. Without it: exponential backoff with full jitter (Brooker 2015,
    "Exponential Backoff and Jitter").
    """
    if retry_after is not None:
        return retry_after + random.uniform(0, min(0.05 * retry_after, 1.0))
    return random.uniform(0, min(_MAX_BACKOFF_SECONDS, 0.5 * 2**attempt))


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Returns the seconds that `retry-after-ms` or `Retry-After` (seconds or a date) asks for.

    None if neither header is there or readable. A date is compared with the response's own `Date`
    header, so that a wrong local clock has no effect.
    """
    # OpenAI and Azure send the more exact header too.
    milliseconds = _parse_number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("Retry-After", "")
    seconds = _parse_number(value)
    if seconds is not None:
        return seconds
    retry_time, server_time = _parse_date(value), _parse_date(headers.get("Date", ""))
    if retry_time is None:
        return None
    return max(0.0, retry_time - (server_time if server_time is not None else time.time()))


def _parse_number(text: str) -> float | None:
    """Returns a number of seconds, negative ones as 0; None if it is no finite number."""
    try:
        number = float(text)
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None


def _parse_date(text: str) -> float | None:
    try:
        date = email.utils.parsedate_tz(text)
        return float(email.utils.mktime_tz(date)) if date is not None else None
    except (ValueError, OverflowError, TypeError, IndexError):
        # A date that looks like one and is none, such as the 99th of a month.
        return None


def parse_duration(text: str) -> float | None:
    """Returns the seconds of `20ms`, `1.5s`, `6m0s`, `2h` or a bare number; None for other texts.

    The format of OpenAI's `x-ratelimit-reset-*` headers.
    """
    number = _parse_number(text)
    if number is not None:
        return number
    match = _DURATION.match(text.strip())
    if not text.strip() or match is None:
        return None
    hours, minutes, seconds, milliseconds = (float(g) if g else 0.0 for g in match.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000
