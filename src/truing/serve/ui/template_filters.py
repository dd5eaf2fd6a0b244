"""Jinja filters: how counts and shares are written on a page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from truing.report.formatting import category_label


def format_count(count: int, singular: str, plural: str = "") -> str:
    """Formats a count with its noun: `1 row`, `2,000 rows`."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def format_share(share: float) -> str:
    """Formats a share as a whole percentage."""
    return f"{100 * share:.0f} %"


def format_score(score: float) -> str:
    """Formats a judge's probability or value with three significant digits."""
    return f"{score:.3g}".replace("-", "−")


FILTERS: dict[str, Callable[..., Any]] = {
    "category": category_label,
    "count_of": format_count,
    "share": format_share,
    "score": format_score,
}
