"""Jinja filters: how times, counts and numbers are written on a page."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from truing.stats.intervals import Interval


def format_utc(seconds: float) -> str:
    """Formats a time as ISO date and minute in UTC; 0 as an empty string."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds)) if seconds else ""


def format_iso(seconds: float) -> str:
    """Formats a time for `<time datetime=...>`; the page's script shows it in the local zone."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def format_interval(interval: Interval | None) -> str:
    """Formats an estimate with its interval, or a dash where it is undefined."""
    if interval is None:
        return "\u2013"
    return f"{interval.estimate:.2f} [{interval.lower:.2f}, {interval.upper:.2f}]"


def format_count(count: int, singular: str, plural: str = "") -> str:
    """Formats a count with its noun: `1 item`, `2 items`."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def format_percent(share: float) -> str:
    """Formats a share as a whole percentage."""
    return f"{100 * share:.0f} %"


FILTERS: dict[str, Callable[..., Any]] = {
    "utc": format_utc,
    "iso": format_iso,
    "interval": format_interval,
    "count_of": format_count,
    "percent": format_percent,
}
