"""Harm by category: one chart and one folded table for each question."""

from __future__ import annotations

from tests.report.rates import cell_texts, make_rate, make_report, make_variant

from truing.report.blocks import Figure, Raw, Table
from truing.report.report_data import Variant
from truing.report.sections.harm import build_section


def test_nothing_without_categories() -> None:
    assert build_section(make_report(make_variant("a", make_rate("harmful", 3, 40)))) is None


def test_chart_and_table_by_category() -> None:
    a = make_variant(
        "a",
        make_rate("harmful", 10, 40),
        make_rate("harmful", 6, 12, category="self_harm"),
    )
    b = make_variant("b", make_rate("harmful", 4, 40))
    section = build_section(make_report(a, b))
    assert section is not None
    key, figure, table = section.blocks
    assert isinstance(key, Raw) and ">a<" in key.html.replace("</i>", ">")
    assert isinstance(figure, Figure)
    assert figure.caption == "set: harmful answers (all prompts)"
    assert figure.alt.startswith("all: a 25 %, b 10 %; ")
    assert figure.alt.endswith(": a 6 of 12")  # no percentage of so few
    assert figure.svg.count("hollow") == 1  # the category with 12 rows
    assert isinstance(table, Table) and table.folded
    assert table.columns == ("category", "a", "b")
    all_rows, self_harm = cell_texts(table)
    assert all_rows == ["all", "25.0 % [14.2, 40.2]", "10.0 % [4.0, 23.1]"]
    assert self_harm[1:] == ["6 of 12", "–"]


def test_harm_is_not_repeated_where_it_equals_attack_success() -> None:
    def make(harm_events: int) -> list[str]:
        variant = make_variant(
            "a",
            make_rate("harmful", harm_events, 40, category="self_harm"),
            axes=(make_rate("attack_success", 10, 40, category="self_harm"),),
        )
        section = build_section(make_report(variant))
        assert section is not None
        return [block.caption for block in section.blocks if isinstance(block, Figure)]

    assert make(10) == ["set: harmful answers to harmful prompts"]
    assert make(11) == [
        "set: harmful answers to harmful prompts",
        "set: harmful answers (all prompts)",
    ]


def test_one_figure_shows_one_judge_and_a_category_never_assigned_is_none_of_n() -> None:
    def make(name: str, judge: str, *categories: str) -> Variant:
        predicted = [
            make_rate("harmful_predicted", 4, 40, category=c, judge=judge) for c in categories
        ]
        rate = make_rate("harmful", 4, 40, judge=judge)
        return make_variant(name, rate, *predicted, headline={"harmful": judge})

    variants = [
        make("a", "one", "self_harm"),
        make("b", "one", "animal_abuse"),
        make("c", "other", "self_harm"),
    ]
    section = build_section(make_report(*variants))
    assert section is not None
    tables = [b for b in section.blocks if isinstance(b, Table) and "own categories" in b.caption]
    assert [t.caption.rsplit(" by ", 1)[1] for t in tables] == ["one", "other"]
    self_harm, animals = cell_texts(tables[0])
    assert self_harm[1:] == ["10.0 % [4.0, 23.1]", "0.0 % [0.0, 8.8]", "–"]
    assert animals[1:] == ["0.0 % [0.0, 8.8]", "10.0 % [4.0, 23.1]", "–"]
    assert "0 of 40" in tables[0].rows[0][2].title
