"""When and how often a failed HTTP request is sent again."""

from __future__ import annotations

import email.utils
import random
import re
import time
from collections.abc import Mapping

from msgspec import Struct

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
    max_bytes: int = 8 << 20

    @classmethod
    def from_args(cls, args: Args) -> RetryPolicy:
        """Reads `timeout=`, `retries=` and `max_wait=` of a spec."""
        policy = cls(
            timeout=args.number("timeout", 120.0),
            retries=args.integer("retries", 5),
            max_wait=args.number("max_wait", 120.0),
        )
        if policy.timeout <= 0 or policy.retries < 0 or policy.max_wait < 0:
            raise args.fault("timeout must be above 0, retries and max_wait not below 0")
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
    milliseconds = headers.get("retry-after-ms")
    if milliseconds is not None and milliseconds.strip().isdigit():
        return int(milliseconds) / 1000
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    retry_date = email.utils.parsedate_tz(value)
    if retry_date is None:
        return None
    response_date = email.utils.parsedate_tz(headers.get("Date", ""))
    server_time = email.utils.mktime_tz(response_date) if response_date is not None else time.time()
    return max(0.0, email.utils.mktime_tz(retry_date) - server_time)


def parse_duration(text: str) -> float | None:
    """Returns the seconds of `20ms`, `1.5s`, `6m0s`, `2h` or a bare number; None for other texts.

    The format of OpenAI's `x-ratelimit-reset-*` headers.
    """
    try:
        return float(text)
    except ValueError:
        match = _DURATION.match(text.strip())
    if not text.strip() or match is None:
        return None
    hours, minutes, seconds, milliseconds = (float(g) if g else 0.0 for g in match.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000
