"""Rewards, costs and grades: means of judges with a numeric scale of their own, and their
changes.
"""

from __future__ import annotations

from truing.analysis.scalar_scores import MeanScore, MeanScoreDelta
from truing.report.blocks import Cell, Grid, Section, Table
from truing.report.formatting import SELECTED, format_value, format_value_interval
from truing.report.report_data import ReportData


def _mean_cell(mean: MeanScore | None) -> Cell:
    if mean is None:
        return Cell("–", "quiet")
    tip = (
        f"{mean.n} values on {mean.prompts} prompts, {mean.missing} answers without one, by "
        f"{mean.judge}"
    )
    if mean.selected_by_judge:
        return Cell(
            format_value_interval(mean.value),
            "struck",
            tip,
            why=mean.struck or SELECTED,
        )
    return Cell(format_value_interval(mean.value), "", tip)


def _delta_cell(delta: MeanScoreDelta | None) -> Cell:
    if delta is None:
        return Cell("–", "quiet")
    tip = (
        f"{delta.n_pairs} prompts, paired: {format_value(delta.mean_a)} before, "
        f"{format_value(delta.mean_b)} after"
    )
    kind, why = ("struck", delta.struck or SELECTED) if delta.selected_by_judge else ("", "")
    return Cell(format_value_interval(delta.delta, sign=True), kind, tip, why=why)


def _data_table(report: ReportData, data_name: str) -> Table | None:
    # Keyed by judge and question: units of two judges do not compare.
    means_by_variant = {
        v.name: {(m.judge, m.question): m for m in v.summaries[data_name].means}
        for v in report.variants
        if data_name in v.summaries
    }
    keys = list(dict.fromkeys(k for by_judge in means_by_variant.values() for k in by_judge))
    if not keys:
        return None
    deltas = {
        v: {(d.judge, d.question): d for d in by[data_name].means}
        for v, by in report.comparisons.items()
        if data_name in by
    }
    grid = Grid(["judge", "question", *means_by_variant, *(f"{v}: change" for v in deltas)])
    for key in keys:
        cells = [_mean_cell(by_judge.get(key)) for by_judge in means_by_variant.values()]
        grid.add(
            key[0],
            key[1],
            *cells,
            *(_delta_cell(by_judge.get(key)) for by_judge in deltas.values()),
        )
    return grid.table(data_name, right=range(2, len(grid.columns)))


def build_section(report: ReportData) -> Section | None:
    """Returns None if every judge gives only verdicts."""
    tables = [table for data in report.data if (table := _data_table(report, data)) is not None]
    if not tables:
        return None
    lead = (
        "In each judge's own unit, so that only values of one judge compare. A prompt counts "
        "once, by the mean over its "
        "answers; Student's intervals, changes paired by prompt."
    )
    return Section("means", "Rewards, costs and grades", tuple(tables), lead=lead)
