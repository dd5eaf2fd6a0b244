"""What the judges' cards say: error rates and calibration."""

from __future__ import annotations

from tests.report.rates import cell_texts, make_report, make_variant

from truing.analysis.judge_facts import JudgeFacts
from truing.report.blocks import Figure, Table
from truing.report.report_data import Variant
from truing.report.sections.judges import build_section
from truing.runs.folder import JudgeRecord, Manifest
from truing.stats.calibration import ReliabilityBin
from truing.stats.intervals import Interval


def judged_by(*names: str) -> Variant:
    records = [JudgeRecord(name=n, question="harmful", file=f"{n}.jsonl") for n in names]
    variant = make_variant("a")
    variant.manifests = {"set": Manifest(judges=records)}
    return variant


def test_a_judge_with_a_card() -> None:
    facts = JudgeFacts(
        judge="x",
        question="harmful",
        data="labels",
        n=1200,
        sensitivity=Interval(0.9, 0.85, 0.95),
        auroc=Interval(0.95, 0.93, 0.97),
        ece=0.0412,
        bins=(
            ReliabilityBin(0.1, Interval(0.2, 0.1, 0.3), 100),
            ReliabilityBin(0.9, Interval(0.8, 0.7, 0.9), 50),
        ),
    )
    section = build_section(make_report(judged_by("x", "no card"), facts=(facts,)))
    assert section is not None
    table, figure = section.blocks
    assert isinstance(table, Table)
    assert cell_texts(table) == [
        [
            "x",
            "harmful",
            "1,200 of labels",
            "90.0 % [85.0, 95.0]",
            "–",
            "0.95 [0.93, 0.97]",
            "–",
            "0.041",
        ]
    ]
    assert isinstance(figure, Figure)
    assert figure.alt == "10 % stated, 20 % of 100; 90 % stated, 80 % of 50"
    assert figure.caption.endswith("1,200 rows")


def test_nothing_without_cards() -> None:
    assert build_section(make_report(judged_by("x"))) is None
