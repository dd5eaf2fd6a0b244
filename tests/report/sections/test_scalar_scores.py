"""Means of rewards, costs and grades, and their changes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.report.rates import cell_texts, find_cell, make_report, make_variant

from truing.analysis.scalar_scores import MeanScore, MeanScoreDelta
from truing.report.blocks import Table
from truing.report.report_data import ReportData
from truing.report.sections.scalar_scores import build_section
from truing.stats.intervals import Interval


def make_mean(estimate: float, **fields: Any) -> MeanScore:
    return MeanScore(
        question="reward",
        judge="reward:x",
        judge_hash="0" * 16,
        n=20,
        prompts=10,
        missing=1,
        value=Interval(estimate, estimate - 0.5, estimate + 0.5),
        **fields,
    )


def make_table(second: MeanScore, **fields: Any) -> Table:
    delta = MeanScoreDelta(
        question="reward",
        judge="reward:x",
        judge_hash="0" * 16,
        n_pairs=10,
        mean_a=1.0,
        mean_b=-1.5,
        delta=Interval(-2.5, -3.0, -2.0),
        **fields,
    )
    report: ReportData = make_report(
        make_variant("a", means=(make_mean(1.0),)),
        make_variant("b", means=(second,)),
        comparisons={"b": {"set": SimpleNamespace(means=(delta,))}},
    )
    section = build_section(report)
    assert section is not None
    (table,) = section.blocks
    assert isinstance(table, Table)
    return table


def test_nothing_without_means() -> None:
    assert build_section(make_report(make_variant("a"))) is None


def test_means_and_changes() -> None:
    table = make_table(make_mean(-1.5))
    assert table.columns == ("judge", "question", "a", "b", "b: change")
    assert cell_texts(table) == [
        [
            "reward:x",
            "reward",
            "1.00 [0.500, 1.50]",
            "−1.50 [−2.00, −1.00]",
            "−2.50 [−3.00, −2.00]",
        ]
    ]
    assert find_cell(table, 0, "a").title == (
        "20 values on 10 prompts, 1 answers without one, by reward:x"
    )
    assert find_cell(table, 0, "b: change").title == "10 prompts, paired: 1.00 before, −1.50 after"


def test_values_of_the_optimised_judge_are_struck() -> None:
    table = make_table(
        make_mean(-1.5, selected_by_judge=True, struck="trained"), selected_by_judge=True
    )
    assert find_cell(table, 0, "a").kind == ""
    assert find_cell(table, 0, "b").kind == "struck"
    assert find_cell(table, 0, "b").why == "trained"
    assert find_cell(table, 0, "b: change").kind == "struck"


def test_a_missing_mean_is_a_dash() -> None:
    report = make_report(make_variant("a", means=(make_mean(1.0),)), make_variant("b"))
    section = build_section(report)
    assert section is not None
    (table,) = section.blocks
    assert isinstance(table, Table)
    assert find_cell(table, 0, "b").text == "–"
