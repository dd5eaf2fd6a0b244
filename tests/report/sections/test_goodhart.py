"""The ledger of gains by the optimised and by an independent judge."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.report.rates import cell_texts, make_report, make_variant

from truing.analysis.goodhart import GoodhartEntry
from truing.report.blocks import Table
from truing.report.sections.goodhart import build_section
from truing.stats.intervals import Interval


def make_entry(**fields: Any) -> GoodhartEntry:
    defaults: dict[str, Any] = {
        "independent": "free",
        "gain_optimised": Interval(0.5, 0.4, 0.6),
        "gain_independent": Interval(-0.1, -0.2, 0.0),
        "inflation": Interval(0.6, 0.5, 0.7),
    }
    return GoodhartEntry(
        question="harmful", optimised="chooser", why="best-of", n=40, **{**defaults, **fields}
    )


def make_table(*entries: GoodhartEntry) -> Table:
    report = make_report(
        make_variant("a"),
        make_variant("b"),
        comparisons={"b": {"set": SimpleNamespace(ledger=entries)}},
    )
    section = build_section(report)
    assert section is not None
    (table,) = section.blocks
    assert isinstance(table, Table)
    return table


def test_gains_in_percentage_points() -> None:
    table = make_table(make_entry())
    assert cell_texts(table) == [
        [
            "b",
            "set",
            "harmful",
            "chooser",
            "+50.0 pp [+40.0, +60.0]",
            "free",
            "−10.0 pp [−20.0, +0.0]",
            "+60.0 pp [+50.0, +70.0]",
            "40",
        ]
    ]
    kinds = [cell.kind for cell in table.rows[0]]
    assert kinds[4] == "struck"  # the optimised judge's own gain proves nothing
    assert kinds[7] == "bad"  # inflation is above zero
    assert table.rows[0][3].title == "best-of"


def test_gains_in_standard_deviations_and_inflation_that_may_be_zero() -> None:
    table = make_table(make_entry(unit="sd", inflation=Interval(0.1, -0.1, 0.3)))
    assert table.rows[0][4].text == "+0.50 sd [+0.40, +0.60]"
    assert table.rows[0][7].kind == ""


def test_without_an_independent_judge() -> None:
    entry = make_entry(independent=None, gain_independent=None, inflation=None, note="no other")
    row = make_table(entry).rows[0]
    assert [row[i].text for i in (5, 6, 7)] == ["none", "–", "–"]
    assert row[8].title == "no other"


def test_nothing_without_entries() -> None:
    report = make_report(make_variant("a"), comparisons={"b": {"set": SimpleNamespace(ledger=())}})
    assert build_section(report) is None
