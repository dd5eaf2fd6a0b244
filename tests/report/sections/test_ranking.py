"""The table of rankings."""

from __future__ import annotations

from tests.report.rates import cell_texts, make_report, make_variant

from truing.report.blocks import Table, Text
from truing.report.report_data import Ranking
from truing.report.sections.ranking import build_section


def test_a_table_for_each_ranking_with_its_note() -> None:
    ranking = Ranking(
        title="bbq", model="tiny", columns=("method", "share"), rows=(("token", "50 %"),), note="n"
    )
    section = build_section(make_report(make_variant("a"), rankings=(ranking,)))
    assert section is not None
    table, note = section.blocks
    assert isinstance(table, Table)
    assert (table.caption, table.columns, table.right) == (
        "bbq · tiny",
        ("method", "share"),
        frozenset({1}),
    )
    assert cell_texts(table) == [["token", "50 %"]]
    assert note == Text("n", "note")


def test_nothing_without_rankings() -> None:
    assert build_section(make_report(make_variant("a"))) is None
