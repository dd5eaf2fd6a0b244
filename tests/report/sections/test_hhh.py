"""The table of the helpful, honest and harmless axes."""

from __future__ import annotations

from tests.report.rates import cell_texts, make_rate, make_report, make_variant

from truing.report.blocks import Table
from truing.report.sections.hhh import build_section


def test_rows_are_grouped_and_only_measured_axes_are_shown() -> None:
    a = make_variant("a", axes=(make_rate("attack_success", 10, 100), make_rate("abstains", 3, 12)))
    b = make_variant("b", axes=(make_rate("passes_checks", 50, 100),))
    section = build_section(make_report(a, b))
    assert section is not None
    (table,) = section.blocks
    assert isinstance(table, Table)
    assert table.columns == ("", "axis", "data", "judge", "a", "b")
    assert table.right == frozenset({4, 5})
    assert cell_texts(table) == [
        ["helpful", "passes checks", "set", "judge", "–", "50.0 % [40.4, 59.6]"],
        ["honest", "abstains when it should", "set", "judge", "3 of 12", "–"],
        [
            "harmless",
            "harmful answers to harmful prompts",
            "set",
            "judge",
            "10.0 % [5.5, 17.4]",
            "–",
        ],
    ]


def test_nothing_without_axes() -> None:
    assert build_section(make_report(make_variant("a", make_rate("harmful", 1, 40)))) is None


def test_no_row_shows_two_judges() -> None:
    a = make_variant("a", axes=(make_rate("attack_success", 10, 100, judge="one"),))
    b = make_variant("b", axes=(make_rate("attack_success", 5, 100, judge="other"),))
    section = build_section(make_report(a, b))
    assert section is not None
    (table,) = section.blocks
    assert isinstance(table, Table)
    assert [row[3:] for row in cell_texts(table)] == [
        ["one", "10.0 % [5.5, 17.4]", "–"],
        ["other", "–", "5.0 % [2.2, 11.2]"],
    ]
