"""The first page: three answers, the variants side by side, and the warnings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.report.rates import find_cell, make_rate, make_report, make_summary, make_variant

from truing.analysis.claims import Claim
from truing.analysis.lineage_relations import LineageRelation
from truing.analysis.rates import CorrectedRate
from truing.analysis.verdict_table import TokenTotals
from truing.report.blocks import AnswerCards, Cell, Table, Text
from truing.report.key_answers import KeyAnswer
from truing.report.report_data import ReportData, Variant
from truing.report.sections.headline import build_section, next_commands


def variants_table(report: ReportData) -> Table:
    (table,) = [block for block in build_section(report).blocks if isinstance(block, Table)]
    return table


def figure_cell(report: ReportData, label: str, variant: str) -> Cell:
    table = variants_table(report)
    row = next(i for i, row in enumerate(table.rows) if row[0].text == label)
    return find_cell(table, row, variant)


def three_answers(variant: str, **fields: Any) -> list[KeyAnswer]:
    titles = ("Is it safe enough?", "Did it get safer?", "Did it stay useful?")
    return [
        KeyAnswer(asks=asks, title=title, variant=variant, **fields)
        for asks, title in zip(("safe_enough", "safer", "useful"), titles)
    ]


def test_a_figure_has_interval_counts_and_judge() -> None:
    report = make_report(make_variant("a", make_rate("harmful", 10, 100, n=103)))
    row = variants_table(report).rows[0]
    assert row == (
        Cell("harmful answers", note="by judge"),
        Cell("10.0 % [5.5, 17.4]", note="3 unscored; 10 of 100"),
    )


def test_attack_success_replaces_harm_over_all_prompts() -> None:
    variant = make_variant(
        "a",
        make_rate("harmful", 20, 100),
        axes=(make_rate("attack_success", 20, 50), make_rate("answers_benign", 45, 50)),
        headline={"degenerate": "judge"},
    )
    labels = [row[0].text for row in variants_table(make_report(variant)).rows]
    assert labels == ["harmful answers to harmful prompts", "answers benign prompts"]


def test_a_struck_judge_is_named_where_its_figure_stands() -> None:
    variant = make_variant(
        "a",
        make_rate("harmful", 1, 50, selected_by_judge=True, struck="it chose"),
        make_rate("degenerate", 0, 0, n=50),
    )
    cell = figure_cell(make_report(variant), "harmful answers", "a")
    assert (cell.kind, cell.why) == ("struck", "it chose")


def test_labels_replace_the_rate_of_the_judge() -> None:
    by_labels = CorrectedRate(estimate=0.104, lower=0.07, upper=0.15, method="ppi++", labels=300)
    rate = make_rate("harmful", 567, 1000, corrected=by_labels)
    cell = figure_cell(make_report(make_variant("a", rate)), "harmful answers", "a")
    assert cell.text == "10.4 % [7.0, 15.0]"
    assert "corrected by 300 labels; the judge alone: 56.7 %" in cell.note


def test_a_few_rows_are_counts() -> None:
    report = make_report(make_variant("a", make_rate("harmful", 2, 6)))
    assert figure_cell(report, "harmful answers", "a").text == "2 of 6"


def test_every_data_set_is_shown_by_name() -> None:
    """A plain set without harm must not hide the jailbroken one."""
    variant = Variant(
        name="a",
        summaries={
            "plain": make_summary(make_rate("harmful", 0, 84)),
            "jailbroken": make_summary(make_rate("harmful", 76, 84)),
        },
    )
    rows = variants_table(make_report(variant, data=("plain", "jailbroken"))).rows
    assert [(row[0].note, row[1].text[:6]) for row in rows] == [
        ("plain; by judge", "0.0 % "),
        ("jailbroken; by judge", "90.5 %"),
    ]


def test_the_answers_come_first_with_word_reason_and_what_would_settle_them() -> None:
    answers = three_answers("b", baseline="a", reason="why", needs="60 labels", figure="3 %")
    report = make_report(make_variant("a"), make_variant("b"), answers=tuple(answers), focus="b")
    about, cards = build_section(report).blocks[:2]
    assert isinstance(about, Text) and about.text == "About b, compared with a."
    assert isinstance(cards, AnswerCards)
    assert [(card.title, card.kind, card.word) for card in cards.cards] == [
        ("Is it safe enough?", "open", "not shown"),
        ("Did it get safer?", "open", "not shown"),
        ("Did it stay useful?", "open", "not shown"),
    ]
    assert cards.cards[0].lines == (("Why:", "why"), ("Would settle it:", "60 labels"))


def test_a_struck_answer_says_why_in_place_of_its_reason() -> None:
    report = make_report(
        make_variant("a"),
        answers=tuple(three_answers("a", struck="it chose", reason="why", figure="3 %")),
        focus="a",
    )
    cards = build_section(report).blocks[1]
    assert isinstance(cards, AnswerCards)
    assert cards.cards[0].is_struck and cards.cards[0].lines == (("Struck:", "it chose"),)


def test_only_what_is_shown_of_a_change_is_coloured_and_named() -> None:
    claims = [
        Claim(
            claim="not worse than",
            variant="b",
            decision=decision,
            reason="why",
            question=question,
            judge="judge",
        )
        for question, decision in (
            ("answers_benign", "yes"),
            ("cut", "no"),
            ("degenerate", "not_shown"),
        )
    ]
    axes = (make_rate("answers_benign", 45, 50), make_rate("cut", 40, 50))
    rates = (make_rate("degenerate", 5, 50),)
    variants = [
        make_variant(name, *rates, axes=axes, headline={"degenerate": "judge"}) for name in "ab"
    ]
    comparison = SimpleNamespace(claims=tuple(claims))
    report = make_report(*variants, comparisons={"b": {"set": comparison}})
    kinds = {
        label: (cell.kind, cell.note.split(";")[0])
        for label in ("answers benign prompts", "cut at the token limit", "broken answers")
        if (cell := figure_cell(report, label, "b"))
    }
    assert kinds == {
        "answers benign prompts": ("good", "not worse"),
        "cut at the token limit": ("bad", "worse"),
        "broken answers": ("", "5 of 50"),
    }
    assert figure_cell(report, "answers benign prompts", "a (baseline)").kind == ""


def test_tokens_are_the_cost() -> None:
    tokens = TokenTotals(answers=10, read=9000, written=500, cached=8000)
    report = make_report(make_variant("a", make_rate("harmful", 1, 50), tokens=tokens))
    assert figure_cell(report, "cost: tokens written an answer", "a").text == "50"
    assert figure_cell(report, "cost: tokens read an answer", "a") == Cell(
        "900", note="800 from a cache"
    )


def test_the_next_commands_name_the_runs_and_the_labels() -> None:
    variants = [
        Variant(name=name, runs={"set": f"runs/{name} 1/set"}, summaries={"set": make_summary()})
        for name in "ab"
    ]
    report = make_report(
        *variants, answers=tuple(three_answers("b", data="set")), focus="b", baseline="a"
    )
    assert next_commands(report) == [
        "truing label 'runs/b 1/set' --against 'runs/a 1/set' --n 60",
        "truing view 'runs/a 1/set' 'runs/b 1/set'",
        "truing gate 'runs/b 1/set' gate.toml  # rules: yours, or those that truing init writes",
    ]


def test_failed_answers_and_a_missing_judge_are_stated() -> None:
    section = build_section(make_report(make_variant("a", failed=7, responses=1000)))
    failed, note, _ = section.blocks
    assert isinstance(failed, Text) and failed.kind == "warning"
    assert failed.text.startswith("7 of 1,000 answers failed")
    assert isinstance(note, Text) and note.text.startswith("No judge of harm was asked")


def test_a_run_that_is_not_complete_is_named() -> None:
    variant = make_variant("a", make_rate("harmful", 1, 50), complete=False)
    report = make_report(variant)
    warning = build_section(report).blocks[0]
    assert isinstance(warning, Text) and "a on set is not complete" in warning.text
    assert variants_table(report).columns[1] == "a (not complete)"


def test_many_false_alarms_on_benign_prompts_cast_doubt_on_the_judge() -> None:
    harm = make_rate("harmful", 40, 100)
    doubtful = make_variant("x", harm, axes=(make_rate("harmful_benign", 50, 100),))
    sound = make_variant("y", harm, axes=(make_rate("harmful_benign", 20, 100),))
    warning = build_section(make_report(doubtful, sound)).blocks[0]
    assert isinstance(warning, Text) and warning.kind == "warning"
    assert "more than 20% of the answers to benign prompts harmful (x)" in warning.text
    assert "neither levels nor differences" in warning.text
    assert [type(b) for b in build_section(make_report(sound)).blocks] == [Table]


def test_a_judge_that_learned_the_prompts_is_named() -> None:
    relation = LineageRelation(
        kind="judge and prompts",
        judge="j",
        other="prompts",
        consequence="strike",
        n=82,
        text="j was trained on 82 prompts of this run",
    )
    harm = make_rate("harmful", 40, 100)
    variants = [make_variant(name, harm, lineage=(relation,)) for name in "ab"]
    warning = build_section(make_report(*variants)).blocks[0]
    assert warning == Text(
        "j was trained on 82 prompts of this run (set): its figures there are struck.", "warning"
    )


def test_what_a_judge_shares_without_being_struck_stands_beside_its_name() -> None:
    relation = LineageRelation(
        kind="judge and model", judge="judge", other="m", consequence="warn", text="shares a base"
    )
    report = make_report(make_variant("a", make_rate("harmful", 4, 100), lineage=(relation,)))
    assert (
        variants_table(report).rows[0][0].note == "by judge; related to what it judges, see below"
    )
    assert build_section(report).blocks[-1] == Text("Related: shares a base.", "note")


def test_answers_without_a_judge_of_degenerate_ones_say_so() -> None:
    variant = make_variant("a", axes=(make_rate("answers_benign", 45, 50),))
    label = variants_table(make_report(variant)).rows[0][0].text
    assert label.endswith("broken answers included (no judge of degenerate answers)")
