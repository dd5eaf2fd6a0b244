"""The gain by the judge that was optimised, beside the gain by another one (Goodhart's law)."""

from __future__ import annotations

from truing.analysis.goodhart import GoodhartEntry
from truing.report.blocks import Cell, Grid, Section
from truing.report.report_data import ReportData
from truing.stats.intervals import Interval


def _gain_cell(interval: Interval | None, unit: str, kind: str = "") -> Cell:
    if interval is None:
        return Cell("–", "quiet")
    # Rates in percentage points, scores in standard deviations of the baseline.
    scale, suffix, digits = (100, " pp", 1) if unit == "rate" else (1, " sd", 2)
    gain_text = (
        f"{scale * interval.estimate:+.{digits}f}{suffix} [{scale * interval.lower:+.{digits}f}, "
        f"{scale * interval.upper:+.{digits}f}]"
    )
    return Cell(gain_text.replace("-", "−"), kind)


def _inflation_cell(line: GoodhartEntry, kind: str) -> Cell:
    if line.inflation is not None:
        return _gain_cell(line.inflation, line.unit, kind)
    cell_text = "cannot be told" if line.note.startswith("cannot be told") else "–"
    return Cell(cell_text, "quiet", line.note)


def build_section(report: ReportData) -> Section | None:
    """Returns None if no judge chose, trained or blocked a variant."""
    grid = Grid(
        [
            "variant",
            "data",
            "question",
            "optimised judge",
            "its gain",
            "independent judge",
            "its gain",
            "inflation",
            "prompts",
        ]
    )
    for variant, by_data in report.comparisons.items():
        for data, comparison in by_data.items():
            for line in comparison.ledger:
                inflation = line.inflation
                inflated = inflation is not None and inflation.lower > 0
                grid.add(
                    variant,
                    data,
                    line.question,
                    Cell(line.optimised, "", line.why),
                    _gain_cell(line.gain_optimised, line.unit, "struck"),
                    line.independent or "none",
                    _gain_cell(line.gain_independent, line.unit),
                    _inflation_cell(line, "bad" if inflated else ""),
                    Cell(str(line.n), "", line.note),
                )
    if not grid.rows:
        return None
    lead = (
        "A method that optimises a judge also finds the judge's errors. Inflation is the gain by "
        "that judge minus the gain by a judge of another lineage or by labels, on the same "
        "prompts, each gain divided by what the judge tells apart (sensitivity + specificity − 1 "
        "of its card, over its interval); above zero, part of it is not real. Without cards a "
        "better judge would look like an exploited one, and nothing can be told."
    )
    return Section(
        "ledger", "Gain by the optimised judge", (grid.table(right=[4, 6, 7, 8]),), lead=lead
    )
