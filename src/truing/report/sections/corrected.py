"""Rates beside their values corrected for the judge's errors, by labels or by the judge's card."""

from __future__ import annotations

from truing.analysis.rates import AXIS_TITLES, CorrectedRate, Rate, TransportedRate
from truing.report.blocks import Cell, Grid, Section, Table
from truing.report.formatting import SELECTED, category_label, format_rate_interval
from truing.report.report_data import ReportData
from truing.stats.intervals import Interval

_WORDS = {
    **AXIS_TITLES,
    "harmful": "harmful answers",
    "refused": "refusals",
    "degenerate": "degenerate answers",
}


def _format_interval(interval: Interval | CorrectedRate) -> str:
    return format_rate_interval(interval.estimate, interval.lower, interval.upper)


def _transported_cell(transported: TransportedRate | None) -> Cell:
    if transported is None:
        return Cell("–", "quiet")
    if transported.estimate is None or transported.band is None:
        return Cell("refused", "quiet", f"{transported.card}: {transported.refused}")
    return Cell(
        f"{format_rate_interval(transported.estimate, *transported.band)}, {transported.note}",
        "",
        transported.card,
    )


def _add_row(grid: Grid, variant: str, rate: Rate, taxonomy: str) -> None:
    raw = (
        Cell("–", "quiet")
        if rate.raw is None
        else Cell(
            _format_interval(rate.raw),
            "struck" if rate.selected_by_judge else "",
            why=rate.struck or SELECTED if rate.selected_by_judge else "",
        )
    )
    estimate = rate.corrected
    corrected_cell = (
        Cell("–", "quiet")
        if estimate is None
        else Cell(
            _format_interval(estimate),
            "",
            f"{estimate.method}, covers {estimate.covers} of {rate.n} answers",
        )
    )
    category_text = category_label(rate.category, taxonomy)
    grid.add(
        variant,
        _WORDS.get(rate.question, rate.question),
        category_text,
        rate.judge,
        raw,
        corrected_cell,
        str(estimate.labels) if estimate else "–",
        _transported_cell(rate.transported),
    )


def build_section(report: ReportData) -> Section | None:
    """Returns None if no label was drawn and no card given."""
    tables: list[Table] = []
    for data_name in report.data:
        grid = Grid(
            [
                "variant",
                "question",
                "category",
                "judge",
                "raw",
                "corrected",
                "labels",
                "transported",
            ]
        )
        for variant in report.variants:
            summary = variant.summaries.get(data_name)
            for rate in (*summary.rates, *summary.axes) if summary else ():
                if rate.corrected is not None or rate.transported is not None:
                    _add_row(
                        grid, variant.name, rate, summary.taxonomy if summary else "beavertails"
                    )
        if grid.rows:
            tables.append(grid.table(data_name, right=[4, 5, 6, 7]))
    if not tables:
        return None
    lead = (
        "Corrected: from labels by people on answers drawn at random in this run. Transported: "
        "from the judge's card, made "
        "on other answers, in a band over its error rates; refused where the raw rate contradicts "
        "the card."
    )
    return Section(
        "corrected",
        "Allowing for the judges' errors",
        tuple(tables),
        lead=lead,
        open_=len(tables) < 3,
    )
