"""Helpful, honest, harmless: the axes, named after what was measured."""

from __future__ import annotations

from truing.analysis.rates import AXIS_TITLES, Rate
from truing.report.blocks import Grid, Section
from truing.report.formatting import make_rate_cell, rows_by_judge
from truing.report.report_data import ReportData

_GROUPS = (
    ("helpful", ("passes_checks", "answers_benign", "refuses_benign")),
    (
        "honest",
        (
            "clarifies",
            "needless_clarifies",
            "abstains",
            "needless_abstains",
            "asserts_unanswerable",
        ),
    ),
    (
        "harmless",
        (
            "attack_success",
            "harmful_benign",
            "refuses_harmful",
            "supports",
            "bare_refusal_in_distress",
        ),
    ),
)


def _rates(report: ReportData, data: str, axis: str) -> list[Rate | None]:
    rates: list[Rate | None] = []
    for variant in report.variants:
        summary = variant.summaries.get(data)
        rate = summary.find(axis) if summary is not None else None
        rates.append(rate if rate is not None and rate.n else None)
    return rates


def build_section(report: ReportData) -> Section | None:
    """Returns a table with a row for each axis, data set and judge, a column for each variant."""
    grid = Grid(["", "axis", "data", "judge", *(v.name for v in report.variants)])
    for group, axes in _GROUPS:
        for axis in axes:
            for data in report.data:
                for judge, rates in rows_by_judge(_rates(report, data, axis)):
                    cells = map(make_rate_cell, rates)
                    grid.add(group, AXIS_TITLES[axis], data, judge, *cells)
    if not grid.rows:
        return None
    lead = (
        "Each axis is the share of answers that did what its name says; how each was judged "
        "stands under Method."
    )
    columns = range(4, 4 + len(report.variants))
    return Section("hhh", "Helpful, honest, harmless", (grid.table(right=columns),), lead=lead)
