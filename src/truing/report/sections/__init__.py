"""The sections of a report, in reading order: this list is the only place that knows them all."""

from __future__ import annotations

from collections.abc import Callable

from truing.report.blocks import Section
from truing.report.report_data import ReportData
from truing.report.sections import (
    attacks,
    changes,
    corrected,
    goodhart,
    harm,
    headline,
    hhh,
    judges,
    method,
    outcomes,
    plane,
    ranking,
    rows,
    scalar_scores,
)

SECTIONS: tuple[Callable[[ReportData], Section | None], ...] = (
    headline.headline,
    plane.section,
    changes.section,
    corrected.section,
    goodhart.section,
    outcomes.section,
    harm.section,
    attacks.section,
    hhh.section,
    scalar_scores.section,
    ranking.section,
    judges.section,
    rows.section,
    method.section,
)
