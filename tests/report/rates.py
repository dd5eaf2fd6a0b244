"""Rates and reports for the tests of report sections, built directly."""

from __future__ import annotations

from typing import Any

from truing.analysis.rates import Rate
from truing.analysis.summary import RunSummary
from truing.report.blocks import Cell, Table
from truing.report.report_data import ReportData, Variant
from truing.stats.intervals import wilson


def make_rate(question: str, events: int, scored: int, **fields: Any) -> Rate:
    """Returns a rate with Wilson's interval; `scored` = 0 gives one without a value."""
    n = fields.pop("n", scored)
    return Rate(
        question=question,
        category=fields.pop("category", None),
        judge=fields.pop("judge", "judge"),
        judge_hash="0" * 16,
        n=n,
        scored=scored,
        unscored=n - scored,
        events=events,
        raw=wilson(events, scored) if scored else None,
        bounds=(events / n if n else 0.0, (events + n - scored) / n if n else 1.0),
        small=scored < 30,
        **fields,
    )


def make_summary(*rates: Rate, **fields: Any) -> RunSummary:
    """Returns the summary of a run with these rates."""
    defaults: dict[str, Any] = {
        "model": "scripted:test",
        "data": ("builtin:safety",),
        "samples": 100,
        "responses": 100,
        "failed": 0,
        "complete": True,
        "outcomes": (),
        "axes": (),
        "headline": {},
    }
    return RunSummary(rates=rates, **{**defaults, **fields})


def make_variant(name: str, *rates: Rate, **fields: Any) -> Variant:
    """Returns a variant measured on the data set `set`."""
    return Variant(name=name, summaries={"set": make_summary(*rates, **fields)})


def make_report(*variants: Variant, **fields: Any) -> ReportData:
    """Returns a report on these variants; the first is the baseline."""
    defaults: dict[str, Any] = {
        "title": "Title",
        "created": "2026-01-01",
        "version": "0",
        "baseline": variants[0].name if variants else "",
        "data": ("set",),
    }
    return ReportData(variants=variants, **{**defaults, **fields})


def cell_texts(table: Table) -> list[list[str]]:
    """Returns the texts of a table's cells, row by row."""
    return [[cell.text for cell in row] for row in table.rows]


def find_cell(table: Table, row: int, column: str) -> Cell:
    """Returns the cell of a row in the first column with this title."""
    return table.rows[row][table.columns.index(column)]
