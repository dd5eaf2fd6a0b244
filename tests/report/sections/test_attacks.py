"""The cells of the attack tables, from results built directly."""

from __future__ import annotations

from typing import Any

from tests.report.rates import cell_texts, make_report, make_variant

from truing.analysis.attack_success import AttackResult
from truing.report.blocks import Block, Figure, Table, Text
from truing.report.sections import attacks
from truing.stats.intervals import Interval


def make_result(hits: int, scored: int, **fields: Any) -> AttackResult:
    defaults: dict[str, Any] = {
        "attack": "role-play",
        "category": None,
        "question": "harmful",
        "prompts": scored,
        "tries": scored,
        "success": Interval(hits / scored, 0.1, 0.6) if scored else None,
    }
    return AttackResult(
        judge="judge", scored=scored, hits=hits, bounds=(0.0, 1.0), **{**defaults, **fields}
    )


def build_blocks(*results: AttackResult) -> tuple[Block, ...]:
    report = make_report(make_variant("m"), attacks={"m": {"set": list(results)}})
    section = attacks.build_section(report)
    assert section is not None
    return section.blocks


def test_success_lift_and_cost() -> None:
    result = make_result(
        10, 40, lift=Interval(0.2, -0.05, 0.4), pairs=40, queries=4.0, tokens=812.3
    )
    figure, table, by_category = build_blocks(result)
    assert isinstance(figure, Figure) and figure.alt == "role-play: m 25 %"
    assert isinstance(table, Table)
    assert table.caption == "set: success by attack" and table.columns[3] == "harmful answers"
    success, lift = "25.0 % [10.0, 60.0]", "+20.0 pp [−5.0 pp, +40.0 pp]"
    assert cell_texts(table) == [["role-play", "m", "40", success, lift, "4.0 queries, 812 tokens"]]
    assert isinstance(by_category, Table)
    assert cell_texts(by_category) == [["all", success]]


def test_few_prompts_are_counts_and_no_success_has_no_cost() -> None:
    table = build_blocks(make_result(0, 12, question="complied"))[1]
    assert isinstance(table, Table)
    assert table.columns[3] == "complied (no refusal; no harm judge was there)"
    assert cell_texts(table) == [["role-play", "m", "12", "0 of 12", "–", "no success"]]
    assert table.rows[0][3].kind == "quiet"


def test_unscored_and_struck_results() -> None:
    unscored = make_result(0, 0, attack="base64", prompts=9, tries=9)
    struck = make_result(10, 40, struck="the judge steered the search")
    table = build_blocks(struck, unscored)[1]
    assert isinstance(table, Table)
    # Attacks are sorted by name.
    assert [row[3].text for row in table.rows] == ["unscored (9)", "25.0 % [10.0, 60.0]"]
    assert table.rows[1][3].kind == "struck"
    assert table.rows[1][3].why.startswith("the judge steered")


def test_hits_at_k_beside_the_floor() -> None:
    result = make_result(
        10,
        40,
        prompts=10,
        at_k={1: 0.25, 4: 0.5},
        at_k_prompts={1: 10, 4: 8},
        at_k_upper={4: 0.6},
        floor={1: 0.02, 4: 0.078},
    )
    tries = build_blocks(result)[2]
    assert isinstance(tries, Table)
    assert tries.columns == ("model", "attack", "hit@1", "hit@4")
    assert cell_texts(tries) == [
        ["m", "role-play", "25.0 %", "50.0 % to 60.0 %"],
        ["", "floor: the judge's errors alone", "2.0 %", "7.8 %"],
    ]
    assert tries.rows[0][3].title.startswith("8 of 10 prompts have 4 scored tries or more; ")
    one_try = make_result(10, 40, at_k={1: 0.25}, at_k_prompts={1: 40})
    note = build_blocks(one_try)[3]
    assert isinstance(note, Text) and note.text.startswith("No floor is shown")


def test_prompts_that_a_search_broke_by_its_queries() -> None:
    pair = make_result(
        20,
        40,
        attack="pair",
        at_queries={1: 0.25, 2: 0.25, 3: 0.25, 4: 0.5},
        at_queries_upper={4: 0.6},
        query_floor=0.1,
    )
    wide = make_result(
        30, 40, attack="tap", at_queries={1: 0.0, 2: 0.1, 3: 0.1, 5: 0.5, 10: 0.6, 12: 0.75}
    )
    tables = [b for b in build_blocks(pair, wide) if isinstance(b, Table)]
    (table,) = [t for t in tables if t.caption.endswith("by number of queries")]
    assert table.caption == "set: prompts that a search broke, by number of queries"
    # No column "within 4": how many TAP had broken by then is not stated, and not those within 3.
    assert table.columns[2:] == (
        "within 1", "within 2", "within 3", "within 5", "within 10", "at its end",
        "judge's errors alone, at most",
    )  # fmt: skip
    # A search that was over after 4 queries has broken no more with 10.
    both = "50.0 % to 60.0 %"
    assert cell_texts(table) == [
        ["m", "pair", "25.0 %", "25.0 %", "25.0 %", both, both, both, "10.0 %"],
        ["m", "tap", "0.0 %", "10.0 %", "10.0 %", "50.0 %", "60.0 %", "75.0 %", "–"],
    ]
    assert [row[7].note for row in table.rows] == ["4 queries at most", "12 queries at most"]


def test_all_figures_of_a_judge_that_steered_are_struck() -> None:
    steered = make_result(
        10,
        40,
        attack="pair",
        lift=Interval(0.2, -0.05, 0.4),
        queries=4.0,
        tokens=812.3,
        at_k={1: 0.25},
        at_k_prompts={1: 40},
        at_queries={1: 0.25},
        struck="the judge steered the search",
    )
    tables = [b for b in build_blocks(steered) if isinstance(b, Table)]
    success, tries, queries = tables[:3]
    figures = [*success.rows[0][3:], tries.rows[0][2], *queries.rows[0][2:4]]
    assert {cell.kind for cell in figures} == {"struck"}
    assert {cell.why for cell in figures} == {"the judge steered the search"}


def test_categories_by_attack() -> None:
    results = (
        make_result(10, 40),
        make_result(20, 40, attack="base64"),
        make_result(3, 12, category="animal_abuse"),
    )
    table = build_blocks(*results)[-1]
    assert isinstance(table, Table)
    assert table.columns == ("category", "role-play", "base64")
    assert cell_texts(table)[1][1:] == ["3 of 12", "–"]


def test_nothing_without_attacks() -> None:
    assert attacks.build_section(make_report(make_variant("m"))) is None
