"""How times, counts and numbers read on a page."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from truing.stats.intervals import Interval


def stamp(at: float) -> str:
    """A time as an ISO date and minute, UTC."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(at)) if at else ""


def machine_time(at: float) -> str:
    """A time for `datetime=`; the page's script shows it in the reader's own zone."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def alpha(found: Interval | None) -> str:
    """An alpha with its interval, or a dash where it is undefined."""
    if found is None:
        return "–"
    return f"{found.estimate:.2f} [{found.lower:.2f}, {found.upper:.2f}]"


def plural(count: int, one: str, many: str = "") -> str:
    """`1 item`, `2 items`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def percent(share: float) -> str:
    """A share as a whole percentage."""
    return f"{100 * share:.0f} %"


FILTERS: dict[str, Callable[..., Any]] = {
    "stamp": stamp,
    "machine_time": machine_time,
    "alpha": alpha,
    "plural": plural,
    "percent": percent,
}
