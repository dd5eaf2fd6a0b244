"""How far the judges can be trusted: agreement with people and calibration, where there is a
card.
"""

from __future__ import annotations

from truing.analysis.judge_facts import JudgeFacts, collect_judge_facts
from truing.report.blocks import Cell, Figure, Grid, Section, Table
from truing.report.charts.calibration import reliability_diagram
from truing.report.formatting import format_percent
from truing.report.report_data import ReportData
from truing.stats.intervals import Interval

_LEAD = (
    "From each judge's card: labelled rows that it did not learn from. ECE is the mean gap "
    "between the probability that it "
    "states and the share that people confirm. On answers of another model, or of one tuned "
    "against the judge, it may err "
    "otherwise."
)


def _share_cell(i: Interval | None) -> Cell:
    if i is None:
        return Cell("–", "quiet")
    return Cell(f"{format_percent(i.estimate)} [{100 * i.lower:.1f}, {100 * i.upper:.1f}]")


def _number_cell(i: Interval | None) -> Cell:
    return (
        Cell("–", "quiet")
        if i is None
        else Cell(f"{i.estimate:.2f} [{i.lower:.2f}, {i.upper:.2f}]")
    )


def _judge_table(facts: list[JudgeFacts]) -> Table:
    grid = Grid(
        [
            "judge",
            "question",
            "labelled rows",
            "sensitivity",
            "specificity",
            "AUROC",
            "kappa with people",
            "ECE",
        ]
    )
    for f in facts:
        error = Cell("–", "quiet") if f.ece is None else Cell(f"{f.ece:.3f}")
        rows = Cell(f"{f.n:,} of {f.data}", "sentence", f.method)
        grid.add(
            f.judge,
            f.question,
            rows,
            _share_cell(f.sensitivity),
            _share_cell(f.specificity),
            _number_cell(f.auroc),
            _number_cell(f.kappa),
            error,
        )
    return grid.table("Judges by their cards", right=range(3, 8))


def build_section(report: ReportData) -> Section | None:
    """Returns None if no judge of the runs has a card."""
    records = [r for v in report.variants for m in v.manifests.values() for r in m.judges]
    facts = collect_judge_facts(records, report.facts)
    if not facts:
        return None
    blocks: list[Table | Figure] = [_judge_table(facts)]
    for f in facts:
        if len(f.bins) > 1:
            title = (
                f"{f.judge}: stated probability against the share that people confirm, {f.n:,} rows"
            )
            alt = "; ".join(
                f"{100 * b.confidence:.0f} % stated, {100 * b.rate.estimate:.0f} % of {b.n}"
                for b in f.bins
            )
            blocks.append(Figure(reliability_diagram(f.bins, title), title, alt))
    return Section("judges", "How far the judges can be trusted", tuple(blocks), lead=_LEAD)
