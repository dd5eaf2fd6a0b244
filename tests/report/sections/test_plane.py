"""Safety against helpfulness, and the Pareto front."""

from __future__ import annotations

from typing import Any

from tests.report.rates import make_rate, make_report, make_summary, make_variant

from truing.analysis.rates import CorrectedRate
from truing.analysis.summary import RunSummary
from truing.report.blocks import Figure, Text
from truing.report.report_data import Variant
from truing.report.sections.plane import _variant_point, build_section


def make_point(name: str, harmful: int, helpful: int, **fields: Any) -> Variant:
    axes = (
        make_rate("attack_success", harmful, 100, **fields),
        make_rate("answers_benign", helpful, 100),
    )
    return make_variant(name, axes=axes)


def test_nothing_without_both_axes() -> None:
    variant = make_variant("a", axes=(make_rate("attack_success", 1, 100),))
    assert build_section(make_report(variant)) is None


def test_safety_is_one_minus_harm_with_its_interval_reversed() -> None:
    variant = make_point("a", 10, 90)
    report = make_report(variant)
    rate = variant.find("attack_success")
    point = _variant_point(report, variant, rate, variant.find("answers_benign"))
    assert point is not None and rate is not None and rate.raw is not None
    assert point.x == (0.9, 1 - rate.raw.upper, 1 - rate.raw.lower)
    assert point.x[1] < point.x[0] < point.x[2]
    assert point.y[0] == 0.9


def test_values_and_front() -> None:
    # c is dominated by b: less safe and less helpful.
    report = make_report(make_point("a", 50, 95), make_point("b", 10, 80), make_point("c", 20, 70))
    section = build_section(report)
    assert section is not None
    (figure,) = section.blocks
    assert isinstance(figure, Figure)
    assert figure.alt == (
        "no harmful answer to harmful prompts / answers benign prompts: "
        "a: 50.0 % and 95.0 %; b: 90.0 % and 80.0 %; c: 80.0 % and 70.0 %."
    )


def test_a_selecting_judge_makes_the_point_hollow() -> None:
    report = make_report(make_point("a", 10, 90, selected_by_judge=True, struck="chose"))
    section = build_section(report)
    assert section is not None
    note = section.blocks[1]
    assert isinstance(note, Text) and note.text.startswith("Hollow: the judge may not measure")


def test_refusals_stand_in_for_harm_without_a_judge_of_harm() -> None:
    axes = (make_rate("refuses_harmful", 80, 100), make_rate("answers_benign", 60, 100))
    section = build_section(make_report(make_variant("a", axes=axes)))
    assert section is not None
    figure = section.blocks[0]
    assert isinstance(figure, Figure)
    assert figure.alt == "refuses harmful prompts / answers benign prompts: a: 80.0 % and 60.0 %."


def test_each_data_set_has_its_own_plane() -> None:
    def make(harmful: int) -> RunSummary:
        axes = (make_rate("attack_success", harmful, 100), make_rate("answers_benign", 90, 100))
        return make_summary(axes=axes)

    variant = Variant(name="a", summaries={"plain": make(0), "jailbroken": make(40)})
    section = build_section(make_report(variant, data=("plain", "jailbroken")))
    assert section is not None
    plain, jailbroken = section.blocks
    assert isinstance(plain, Figure) and plain.caption.startswith("plain: right is safer")
    assert isinstance(jailbroken, Figure) and "a: 60.0 % and 90.0 %" in jailbroken.alt


def test_axes_of_two_data_sets_are_named_together() -> None:
    harm = make_summary(axes=(make_rate("attack_success", 10, 100),))
    benign = make_summary(axes=(make_rate("answers_benign", 90, 100),))
    variant = Variant(name="a", summaries={"attacks": harm, "everyday": benign})
    section = build_section(make_report(variant, data=("attacks", "everyday")))
    assert section is not None
    (figure,) = section.blocks
    assert isinstance(figure, Figure) and figure.caption.startswith("attacks and everyday:")


def test_labels_move_the_point() -> None:
    by_labels = CorrectedRate(estimate=0.3, lower=0.2, upper=0.4, method="ppi++", labels=90)
    axes = (
        make_rate("attack_success", 10, 100, corrected=by_labels),
        make_rate("answers_benign", 90, 100),
    )
    section = build_section(make_report(make_variant("a", axes=axes)))
    assert section is not None
    figure = section.blocks[0]
    assert isinstance(figure, Figure) and "a: 70.0 % and 90.0 %" in figure.alt
