"""The sections of a report, in reading order: this list is the only place that knows them all."""

from __future__ import annotations

from collections.abc import Callable

from truing.report.blocks import Section
from truing.report.sections import (
    attacks,
    changes,
    corrected,
    harm,
    headline,
    hhh,
    judges,
    ledger,
    means,
    method,
    outcomes,
    plane,
    ranking,
    rows,
)
from truing.report.story import Story

SECTIONS: tuple[Callable[[Story], Section | None], ...] = (
    headline.headline,
    plane.section,
    changes.section,
    corrected.section,
    ledger.section,
    outcomes.section,
    harm.section,
    attacks.section,
    hhh.section,
    means.section,
    ranking.section,
    judges.section,
    rows.section,
    method.section,
)
