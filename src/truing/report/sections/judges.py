"""How far the judges can be trusted: agreement with people and calibration, where there is a
card.
"""

from __future__ import annotations

from truing.analysis.judge_facts import JudgeFacts, collect_judge_facts
from truing.report.blocks import Cell, Figure, Grid, Section, Table
from truing.report.charts.calibration import reliability_diagram
from truing.report.report_data import ReportData
from truing.report.sections.judge_accuracy import share_cell
from truing.stats.intervals import Interval

_LEAD = (
    "From each judge's card: labelled rows that it did not learn from. ECE is the mean gap "
    "between the probability that it "
    "states and the share that people confirm. On answers of another model, or of one tuned "
    "against the judge, it may err "
    "otherwise."
)


def _number_cell(interval: Interval | None) -> Cell:
    return (
        Cell("–", "quiet")
        if interval is None
        else Cell(f"{interval.estimate:.2f} [{interval.lower:.2f}, {interval.upper:.2f}]")
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
    for judge_facts in facts:
        error = Cell("–", "quiet") if judge_facts.ece is None else Cell(f"{judge_facts.ece:.3f}")
        rows = Cell(f"{judge_facts.n:,} of {judge_facts.data}", "sentence", judge_facts.method)
        grid.add(
            judge_facts.judge,
            judge_facts.question,
            rows,
            share_cell(judge_facts.sensitivity),
            share_cell(judge_facts.specificity),
            _number_cell(judge_facts.auroc),
            _number_cell(judge_facts.kappa),
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
    for judge_facts in facts:
        if len(judge_facts.bins) > 1:
            title = (
                f"{judge_facts.judge}: stated probability against the share that people confirm, "
                f"{judge_facts.n:,} rows"
            )
            alt = "; ".join(
                f"{100 * b.confidence:.0f} % stated, {100 * b.rate.estimate:.0f} % of {b.n}"
                for b in judge_facts.bins
            )
            blocks.append(Figure(reliability_diagram(judge_facts.bins, title), title, alt))
    return Section("judges", "How far the judges can be trusted", tuple(blocks), lead=_LEAD)
