"""Rates beside their values corrected for the judge's errors, by labels or by the judge's card."""

from __future__ import annotations

from truing.analysis.rates import AXIS_TITLES, CorrectedRate, Rate, TransportedRate
from truing.report.blocks import Cell, Grid, Section, Table
from truing.report.formatting import SELECTED, category_label, format_percent
from truing.report.report_data import ReportData
from truing.stats.intervals import Interval

_WORDS = {
    **AXIS_TITLES,
    "harmful": "harmful answers",
    "refused": "refusals",
    "degenerate": "degenerate answers",
}


def _format_interval(i: Interval | CorrectedRate) -> str:
    return f"{format_percent(i.estimate)} [{100 * i.lower:.1f}, {100 * i.upper:.1f}]"


def _transported_cell(t: TransportedRate | None) -> Cell:
    if t is None:
        return Cell("–", "quiet")
    if t.estimate is None or t.band is None:
        return Cell("refused", "quiet", f"{t.card}: {t.refused}")
    return Cell(
        f"{format_percent(t.estimate)} [{100 * t.band[0]:.1f}, {100 * t.band[1]:.1f}], {t.note}",
        "",
        t.card,
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
    c = rate.corrected
    corrected = (
        Cell("–", "quiet")
        if c is None
        else Cell(_format_interval(c), "", f"{c.method}, covers {c.covers} of {rate.n} answers")
    )
    where = category_label(rate.category, taxonomy)
    grid.add(
        variant,
        _WORDS.get(rate.question, rate.question),
        where,
        rate.judge,
        raw,
        corrected,
        str(c.labels) if c else "–",
        _transported_cell(rate.transported),
    )


def build_section(report: ReportData) -> Section | None:
    """Returns None if no label was drawn and no card given."""
    tables: list[Table] = []
    for data in report.data:
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
            summary = variant.summaries.get(data)
            for rate in (*summary.rates, *summary.axes) if summary else ():
                if rate.corrected is not None or rate.transported is not None:
                    _add_row(
                        grid, variant.name, rate, summary.taxonomy if summary else "beavertails"
                    )
        if grid.rows:
            tables.append(grid.table(data, right=[4, 5, 6, 7]))
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
