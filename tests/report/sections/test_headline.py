"""The first section: what may be said, the large numbers of each data set, and the warnings."""

from __future__ import annotations

from types import SimpleNamespace

from tests.report.rates import cell_texts, make_rate, make_report, make_summary, make_variant

from truing.analysis.claims import Claim, Conclusion
from truing.analysis.lineage_relations import LineageRelation
from truing.analysis.rates import CorrectedRate
from truing.report.blocks import Table, Text, Tile, Tiles
from truing.report.report_data import Variant
from truing.report.sections.headline import build_section, variant_tiles


def test_a_tile_has_value_interval_and_counts() -> None:
    tiles = variant_tiles(make_variant("a", make_rate("harmful", 10, 100, n=103)), "set")
    assert tiles.title == "a · scripted:test · set"
    assert tiles.tiles == (
        Tile("harmful answers", "10.0 %", "[5.5, 17.4] · 10 of 100 · 3 unscored · by judge", "low"),
    )


def test_attack_success_replaces_harm_over_all_prompts() -> None:
    attack_success = make_rate("attack_success", 20, 50)
    helpful = make_rate("answers_benign", 45, 50)
    variant = make_variant(
        "scripted:test",
        make_rate("harmful", 20, 100),
        axes=(attack_success, helpful),
        headline={"degenerate": "judge"},
    )
    tiles = variant_tiles(variant, "set")
    assert tiles.title == "scripted:test · set"  # the model's name is not repeated
    assert [(t.label, t.value, t.kind) for t in tiles.tiles] == [
        ("harmful answers to harmful prompts", "40.0 %", "low"),
        ("answers benign prompts", "90.0 %", "high"),
    ]


def test_a_struck_judge_is_struck_and_an_unscored_rate_has_no_tile() -> None:
    variant = make_variant(
        "a",
        make_rate("harmful", 1, 50, selected_by_judge=True, struck="it chose"),
        make_rate("degenerate", 0, 0, n=50),
    )
    assert variant_tiles(variant, "set").tiles == (
        Tile("harmful answers", "2.0 %", "struck: it chose", "struck"),
    )


def test_labels_replace_the_rate_of_the_judge() -> None:
    by_labels = CorrectedRate(estimate=0.104, lower=0.07, upper=0.15, method="ppi++", labels=300)
    rate = make_rate("harmful", 567, 1000, corrected=by_labels)
    (tile,) = variant_tiles(make_variant("a", rate), "set").tiles
    assert tile.value == "10.4 %"
    assert tile.detail == "[7.0, 15.0] · corrected by 300 labels (judge: 56.7 %)"


def test_a_few_rows_are_counts() -> None:
    (tile,) = variant_tiles(make_variant("a", make_rate("harmful", 2, 6)), "set").tiles
    assert (tile.value, tile.detail) == ("2 of 6", "too few for a percentage · by judge")


def test_every_data_set_is_shown_by_name() -> None:
    """A plain set without harm must not hide the jailbroken one."""
    variant = Variant(
        name="a",
        summaries={
            "plain": make_summary(make_rate("harmful", 0, 84)),
            "jailbroken": make_summary(make_rate("harmful", 76, 84)),
        },
    )
    section = build_section(make_report(variant, data=("plain", "jailbroken")))
    tiles = [block for block in section.blocks if isinstance(block, Tiles)]
    assert [(t.title, t.tiles[0].value) for t in tiles] == [
        ("a · scripted:test · plain", "0.0 %"),
        ("a · scripted:test · jailbroken", "90.5 %"),
    ]


def test_what_may_be_said_comes_first() -> None:
    claim = Claim(claim="safer than", variant="b", decision="not_shown", reason="why", needs="more")
    comparison = SimpleNamespace(
        claim=Conclusion(safer=False, word="not shown to be safer", checks=()),
        claims=(claim, claim),
    )
    harm = make_rate("harmful", 1, 50)
    report = make_report(
        make_variant("a", harm), make_variant("b", harm), comparisons={"b": {"set": comparison}}
    )
    table = build_section(report).blocks[0]
    assert isinstance(table, Table)
    assert cell_texts(table) == [["b", "set", "not shown to be safer", "why", "more"]]


def test_failed_answers_and_a_missing_judge_are_stated() -> None:
    section = build_section(make_report(make_variant("a", failed=7, responses=1000)))
    tiles, failed, note = section.blocks
    assert isinstance(tiles, Tiles) and tiles.tiles == ()
    assert isinstance(failed, Text) and failed.kind == "warning"
    assert failed.text.startswith("7 of 1,000 answers failed")
    assert isinstance(note, Text) and note.text.startswith("No judge of harm was asked")


def test_a_run_that_is_not_complete_is_named() -> None:
    variant = make_variant("a", make_rate("harmful", 1, 50), complete=False)
    warning = build_section(make_report(variant)).blocks[-1]
    assert isinstance(warning, Text) and "a on set is not complete" in warning.text


def test_many_false_alarms_on_benign_prompts_cast_doubt_on_the_judge() -> None:
    harm = make_rate("harmful", 40, 100)
    doubtful = make_variant("x", harm, axes=(make_rate("harmful_benign", 50, 100),))
    sound = make_variant("y", harm, axes=(make_rate("harmful_benign", 20, 100),))
    blocks = build_section(make_report(doubtful, sound)).blocks
    warning = blocks[-1]
    assert isinstance(warning, Text) and warning.kind == "warning"
    assert "more than 20% of the answers to benign prompts harmful (x)" in warning.text
    assert "neither levels nor differences" in warning.text
    assert len(build_section(make_report(sound)).blocks) == 1


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
    warning = build_section(make_report(*variants)).blocks[-1]
    assert warning == Text(
        "j was trained on 82 prompts of this run (set): its figures there are struck.", "warning"
    )


def test_answers_without_a_judge_of_degenerate_ones_say_so() -> None:
    variant = make_variant("a", axes=(make_rate("answers_benign", 45, 50),))
    (tile,) = variant_tiles(variant, "set").tiles
    assert tile.label.endswith("broken answers included (no judge of degenerate answers)")
