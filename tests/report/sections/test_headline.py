"""The first section: the large numbers and the warnings below them."""

from __future__ import annotations

from tests.report.rates import make_rate, make_report, make_variant

from truing.report.blocks import Text, Tile, Tiles
from truing.report.sections.headline import build_section, variant_tiles


def test_a_tile_has_value_interval_and_counts() -> None:
    tiles = variant_tiles(make_variant("a", make_rate("harmful", 10, 100, n=103)))
    assert tiles.title == "a · scripted:test"
    assert tiles.tiles == (
        Tile("harmful answers", "10.0 %", "[5.5, 17.4] · 10 of 100 · 3 unscored", "low"),
    )


def test_attack_success_replaces_harm_over_all_prompts() -> None:
    attack_success = make_rate("attack_success", 20, 50)
    helpful = make_rate("answers_benign", 45, 50)
    variant = make_variant(
        "scripted:test", make_rate("harmful", 20, 100), axes=(attack_success, helpful)
    )
    tiles = variant_tiles(variant)
    assert tiles.title == "scripted:test"  # the model's name is not repeated
    assert [(t.label, t.value, t.kind) for t in tiles.tiles] == [
        ("harmful answers to harmful prompts", "40.0 %", "low"),
        ("answers benign prompts", "90.0 %", "high"),
    ]


def test_a_selecting_judge_is_struck_and_an_unscored_rate_has_no_tile() -> None:
    variant = make_variant(
        "a",
        make_rate("harmful", 1, 50, selected_by_judge=True, struck="chose"),
        make_rate("degenerate", 0, 0, n=50),
    )
    assert variant_tiles(variant).tiles == (
        Tile("harmful answers", "2.0 %", "struck: selected by this judge", "struck"),
    )


def test_failed_answers_and_a_missing_judge_are_stated() -> None:
    section = build_section(make_report(make_variant("a", failed=7, responses=1000)))
    tiles, failed, note = section.blocks
    assert isinstance(tiles, Tiles) and tiles.tiles == ()
    assert isinstance(failed, Text) and failed.kind == "warning"
    assert failed.text.startswith("7 of 1,000 answers failed")
    assert isinstance(note, Text) and note.text.startswith("No judge of harm was asked")


def test_many_false_alarms_on_benign_prompts_cast_doubt_on_the_judge() -> None:
    harm = make_rate("harmful", 40, 100)
    doubtful = make_variant("x", harm, axes=(make_rate("harmful_benign", 50, 100),))
    sound = make_variant("y", harm, axes=(make_rate("harmful_benign", 20, 100),))
    blocks = build_section(make_report(doubtful, sound)).blocks
    warning = blocks[-1]
    assert isinstance(warning, Text) and warning.kind == "warning"
    assert "more than 20% of the answers to benign prompts harmful (x)" in warning.text
    assert len(build_section(make_report(sound)).blocks) == 1
