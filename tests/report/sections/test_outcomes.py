"""Outcomes by kind of prompt and by category."""

from __future__ import annotations

from tests.report.rates import make_report, make_variant

from truing.analysis.summary import OutcomeCounts
from truing.report.blocks import Figure, Raw
from truing.report.sections.outcomes import build_section, by_category, by_expectation

OUTCOMES = (
    OutcomeCounts(category=None, expect=None, n=10, harmful=3, refused=4, answered=3),
    OutcomeCounts(category=None, expect="refuse", n=7, harmful=3, refused=4),
    OutcomeCounts(category=None, expect="comply", n=3, answered=3),
    OutcomeCounts(category="self_harm", expect=None, n=7, harmful=3, refused=4),
)


def test_nothing_without_outcomes() -> None:
    assert build_section(make_report(make_variant("a"))) is None


def test_bars_by_expectation() -> None:
    figure = by_expectation(make_report(make_variant("a", outcomes=OUTCOMES)), "set")
    assert figure is not None
    assert figure.alt == "harmful prompts: harmful 3, refused 4; benign prompts: answered 3"
    both = make_report(make_variant("a", outcomes=OUTCOMES), make_variant("b", outcomes=OUTCOMES))
    figure = by_expectation(both, "set")
    assert figure is not None
    assert figure.alt.startswith("harmful prompts · a: harmful 3, refused 4; harmful prompts · b:")
    assert by_expectation(both, "other") is None


def test_bars_by_category() -> None:
    variant = make_variant("a", outcomes=OUTCOMES)
    figure = by_category(variant.summaries["set"], "title")
    assert figure is not None and figure.caption == "title"
    assert figure.alt.endswith(": harmful 3, refused 4") and ";" not in figure.alt


def test_categories_of_the_baseline_only_with_many_variants() -> None:
    def captions(*names: str) -> list[str]:
        variants = [make_variant(name, outcomes=OUTCOMES) for name in names]
        section = build_section(make_report(*variants))
        assert section is not None and isinstance(section.blocks[0], Raw)
        return [block.caption for block in section.blocks if isinstance(block, Figure)]

    by_kind = "set: outcomes by kind of prompt"
    category_captions = [f"set, {v}: harmful prompts by category" for v in "ab"]
    assert captions("a", "b") == [by_kind, *category_captions]
    assert captions("a", "b", "c") == [by_kind, category_captions[0]]
