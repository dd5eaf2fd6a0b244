"""The sections of a report, in reading order. A section returns None if it has nothing to show."""

from __future__ import annotations

from collections.abc import Callable

from truing.report.blocks import Section
from truing.report.report_data import ReportData
from truing.report.sections import (
    agents,
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
    headline.build_section,
    plane.build_section,
    changes.build_section,
    corrected.build_section,
    goodhart.build_section,
    outcomes.build_section,
    harm.build_section,
    attacks.build_section,
    agents.build_section,
    hhh.build_section,
    scalar_scores.build_section,
    ranking.build_section,
    judges.build_section,
    rows.build_section,
    method.build_section,
)
