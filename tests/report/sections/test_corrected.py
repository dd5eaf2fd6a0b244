"""Raw rates beside corrected and transported ones."""

from __future__ import annotations

from tests.report.rates import cell_texts, find_cell, make_rate, make_report, make_variant

from truing.analysis.rates import CorrectedRate, TransportedRate
from truing.report.blocks import Table
from truing.report.sections.corrected import build_section

CORRECTED = CorrectedRate(estimate=0.2, lower=0.1, upper=0.3, method="ppi", labels=50, covers=90)
TRANSPORTED = TransportedRate(
    estimate=0.15, lower=0.1, upper=0.2, method="rogan-gladen", card="card", band=(0.05, 0.25)
)


def test_nothing_without_corrections() -> None:
    assert build_section(make_report(make_variant("a", make_rate("harmful", 1, 40)))) is None


def test_a_row_for_each_rate_that_has_a_correction() -> None:
    variant = make_variant(
        "a",
        make_rate("harmful", 10, 100, corrected=CORRECTED, transported=TRANSPORTED),
        make_rate("refused", 10, 100),
        make_rate("degenerate", 10, 100, corrected=CORRECTED),
    )
    section = build_section(make_report(variant))
    assert section is not None
    (table,) = section.blocks
    assert isinstance(table, Table)
    raw, corrected = "10.0 % [5.5, 17.4]", "20.0 % [10.0, 30.0]"
    transported = "15.0 % [5.0, 25.0], assumes transport"
    assert cell_texts(table) == [
        ["a", "harmful answers", "all", "judge", raw, corrected, "50", transported],
        ["a", "degenerate answers", "all", "judge", raw, corrected, "50", "–"],
    ]
    assert find_cell(table, 0, "corrected").title == "ppi, covers 90 of 100 answers"


def test_a_card_that_contradicts_the_raw_rate_is_refused() -> None:
    refused = TransportedRate(
        estimate=None, lower=None, upper=None, method="m", card="card", refused="why"
    )
    rate = make_rate("harmful", 10, 100, transported=refused, selected_by_judge=True)
    section = build_section(make_report(make_variant("a", rate)))
    assert section is not None
    (table,) = section.blocks
    assert isinstance(table, Table)
    cell = find_cell(table, 0, "transported")
    assert (cell.text, cell.title) == ("refused", "card: why")
    assert find_cell(table, 0, "raw").kind == "struck"
    assert find_cell(table, 0, "labels").text == "–"
