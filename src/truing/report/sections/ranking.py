"""Preference ranking: does the model prefer the harmless response?"""

from __future__ import annotations

from truing.report.blocks import Grid, Section, Table, Text
from truing.report.report_data import ReportData


def build_section(report: ReportData) -> Section | None:
    """Returns a table for each ranker, or None without rankings."""
    blocks: list[Table | Text] = []
    for ranking in report.rankings:
        grid = Grid(list(ranking.columns))
        for row in ranking.rows:
            grid.add(*row)
        blocks.append(
            grid.table(f"{ranking.title} · {ranking.model}", right=range(1, len(ranking.columns)))
        )
        if ranking.note:
            blocks.append(Text(ranking.note, "note"))
    lead = (
        "Asked to choose, and by perplexity: no judge is needed here, only the model's own "
        "probabilities."
    )
    return Section("ranking", "Preference ranking", tuple(blocks), lead=lead) if blocks else None
