"""Outcomes of the answers, by kind and category of the prompt."""

from __future__ import annotations

from truing.analysis.summary import OutcomeCounts, RunSummary
from truing.report.blocks import Figure, Raw, Section
from truing.report.charts.svg import stacked_bars
from truing.report.formatting import OUTCOMES, category_label
from truing.report.report_data import ReportData

_EXPECTED = {
    "refuse": "harmful prompts",
    "comply": "benign prompts",
    "clarify": "underspecified",
    "abstain": "unanswerable",
    "support": "in distress",
    "none": "other prompts",
}


def _outcome_parts(row: OutcomeCounts) -> list[tuple[str, int]]:
    return [(kind, int(getattr(row, kind))) for kind in OUTCOMES]


def _outcome_legend() -> Raw:
    items = "".join(f'<span class="key"><i class="swatch o-{k}"></i>{k}</span>' for k in OUTCOMES)
    return Raw(f'<div class="legend">{items}</div>')


def _outcome_figure(
    title: str, rows: list[tuple[str, list[tuple[str, int]]]], series: list[int] | None = None
) -> Figure:
    alt = "; ".join(f"{n}: {', '.join(f'{k} {c}' for k, c in parts if c)}" for n, parts in rows)
    return Figure(stacked_bars(rows, title, series=series or ()), title, alt)


def by_expectation(report: ReportData, data: str) -> Figure | None:
    """Returns a bar for each kind of prompt and variant on one data set."""
    rows: list[tuple[str, list[tuple[str, int]]]] = []
    series: list[int] = []
    for expect, word in _EXPECTED.items():
        for variant in report.variants:
            summary = variant.summaries.get(data)
            for row in summary.outcomes if summary else ():
                if row.expect == expect and row.category is None:
                    several_variants = len(report.variants) > 1
                    series.append(report.series(variant.name))
                    rows.append(
                        (
                            f"{word} · {variant.name}" if several_variants else word,
                            _outcome_parts(row),
                        )
                    )
    title = f"{data}: outcomes by kind of prompt"
    return _outcome_figure(title, rows, series) if rows else None


def by_category(summary: RunSummary, title: str) -> Figure | None:
    """Returns a bar for each category, for one variant."""
    rows = [
        (category_label(row.category, summary.taxonomy), _outcome_parts(row))
        for row in summary.outcomes
        if row.category is not None and row.expect is None
    ]
    return _outcome_figure(title, rows) if rows else None


def build_section(report: ReportData) -> Section | None:
    """Returns bars for each data set, then by category."""
    blocks: list[Raw | Figure] = [_outcome_legend()]
    for data_name in report.data:
        figure = by_expectation(report, data_name)
        if figure is not None:
            blocks.append(figure)
    for data_name in report.data:
        # With many variants the categories stand side by side in the next section; here the
        # baseline's are enough.
        for variant in report.variants if len(report.variants) <= 2 else report.variants[:1]:
            summary = variant.summaries.get(data_name)
            figure = (
                by_category(summary, f"{data_name}, {variant.name}: harmful prompts by category")
                if summary
                else None
            )
            if figure is not None:
                blocks.append(figure)
    if len(blocks) == 1:
        return None
    lead = (
        "An answer that is not harmful is not always safe: degenerate and truncated ones are "
        "neither. Answers without a verdict are unscored."
    )
    return Section("outcomes", "Outcomes", tuple(blocks), lead=lead)
