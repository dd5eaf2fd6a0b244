"""Jinja filters: how counts and shares are written on a page."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from truing.analysis.claims import Claim
from truing.analysis.rates import AXIS_TITLES
from truing.report.blocks import Cell
from truing.report.formatting import category_label

_CLAIMS = {
    "safer than": "safer",
    "more harmful than": "more harmful",
    "fell": "{}: fell",
    "not worse than": "{}: no worse",
}


def format_count(count: int, singular: str, plural: str = "") -> str:
    """Formats a count with its noun: `1 row`, `2,000 rows`."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def format_share(share: float) -> str:
    """Formats a share as a whole percentage."""
    return f"{100 * share:.0f} %"


def format_score(score: float) -> str:
    """Formats a judge's probability or value with three significant digits."""
    return f"{score:.3g}".replace("-", "−")


def format_minutes(moment: str) -> str:
    """Formats a time of ISO 8601 in UTC to the minute: `2026-11-29 23:05 UTC`."""
    is_utc = moment.endswith(("+00:00", "Z"))
    return f"{moment[:10]} {moment[11:16]} UTC" if is_utc and moment[10:11] == "T" else moment


def format_claim(claim: Claim) -> str:
    """Returns a claim in words: `Cut at the token limit: no worse`."""
    title = AXIS_TITLES.get(claim.question, claim.question)
    words = _CLAIMS.get(claim.claim, f"{claim.claim} {{}}").format(title).strip()
    return words[:1].upper() + words[1:]


def find_strike_reasons(cells: Iterable[Cell]) -> list[str]:
    """Returns each reason for which cells are struck, once; cells carry its number."""
    return list(dict.fromkeys(cell.why for cell in cells if cell.why))


FILTERS: dict[str, Callable[..., Any]] = {
    "category": category_label,
    "claim": format_claim,
    "count_of": format_count,
    "minutes": format_minutes,
    "share": format_share,
    "strike_reasons": find_strike_reasons,
    "score": format_score,
}
