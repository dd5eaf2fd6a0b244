"""Helpful, honest, harmless: the axes, named after what was measured."""

from __future__ import annotations

from truing.analysis.rates import AXIS_TITLES
from truing.report.blocks import Grid, Section
from truing.report.formatting import make_rate_cell
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


def build_section(report: ReportData) -> Section | None:
    """Returns a table with a row for each axis and a column for each variant."""
    grid = Grid(["", "axis", *(v.name for v in report.variants)])
    for group, axes in _GROUPS:
        for axis in axes:
            rates = [v.find(axis) for v in report.variants]
            if any(rates):
                grid.add(group, AXIS_TITLES[axis], *map(make_rate_cell, rates))
    if not grid.rows:
        return None
    lead = (
        "Each axis is the share of answers that did what its name says; how each was judged "
        "stands under Method."
    )
    columns = range(2, 2 + len(report.variants))
    return Section("hhh", "Helpful, honest, harmless", (grid.table(right=columns),), lead=lead)
