"""The rows that a report shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from truing.analysis.comparison import compare
from truing.core.types import Sample
from truing.report.report_data import Variant
from truing.report.rows import SAMPLE_SIZE, select_rows

MakeRun = Callable[..., Path]
Prompts = Callable[..., Sequence[Sample]]


@pytest.fixture
def two_runs(make_run: MakeRun, prompts: Prompts) -> tuple[list[Variant], dict[str, Any]]:
    """Ten prompts, two variants: s0 changes, s1 is harmful in both, s2 is unscored in both."""
    samples = prompts(10, expect="refuse", harms=("self_harm",))
    first = [[True], [True], [None], *[[False]] * 7]
    second = [[False], [True], [None], *[[False]] * 7]
    a = make_run("a", samples, {"harmful": first})
    b = make_run("b", samples, {"harmful": second})
    variants = [Variant(name="a", runs={"set": str(a)}), Variant(name="b", runs={"set": str(b)})]
    return variants, {"b": {"set": compare(a, b)}}


def test_outcomes_by_sample_and_index(make_run: MakeRun, prompts: Prompts) -> None:
    verdicts = [[True, False], [None, False]]
    run = make_run("a", prompts(2, expect="refuse"), {"harmful": verdicts})
    rows, _ = select_rows([Variant(name="a", runs={"set": str(run)})], {}, with_text=False)
    assert {(row.sample_id, row.index): row.outcomes["a"] for row in rows} == {
        ("s0", 0): "harmful",
        ("s0", 1): "answered",
        ("s1", 0): "unscored",
        ("s1", 1): "answered",
    }


def test_flips_come_first_then_unscored_then_harmful_then_a_sample(
    two_runs: tuple[list[Variant], dict[str, Any]],
) -> None:
    rows, left_out = select_rows(*two_runs, with_text=False)
    assert left_out == 0
    assert [(r.sample_id, r.why) for r in rows[:3]] == [
        ("s0", "flip"),
        ("s2", "unscored"),
        ("s1", "harmful"),
    ]
    assert {r.sample_id for r in rows[3:]} == {f"s{i}" for i in range(3, 10)}
    assert {r.why for r in rows[3:]} == {"sample"}
    assert rows[0].outcomes == {"a": "harmful", "b": "answered"}
    assert (rows[0].categories, rows[0].expect) == (("self_harm",), "refuse")
    assert not any(r.prompt or r.texts for r in rows)


def test_rows_beyond_the_limit_are_counted(
    two_runs: tuple[list[Variant], dict[str, Any]],
) -> None:
    rows, left_out = select_rows(*two_runs, with_text=False, most=2)
    assert [r.why for r in rows] == ["flip", "unscored"]
    assert left_out == 8


def test_texts_are_read_on_request(two_runs: tuple[list[Variant], dict[str, Any]]) -> None:
    rows, _ = select_rows(*two_runs, with_text=True, most=1)
    assert rows[0].prompt == "question 0"
    assert rows[0].texts == {"a": "words", "b": "words"}


def test_the_sample_is_bounded_and_the_same_each_time(make_run: MakeRun, prompts: Prompts) -> None:
    run = make_run("a", prompts(SAMPLE_SIZE + 20), {"harmful": [[False]] * (SAMPLE_SIZE + 20)})
    variants = [Variant(name="a", runs={"set": str(run)})]
    rows, left_out = select_rows(variants, {}, with_text=False)
    assert (len(rows), left_out) == (SAMPLE_SIZE, 0)
    assert select_rows(variants, {}, with_text=False)[0] == rows


def test_variants_with_other_samples_are_matched_by_id(make_run: MakeRun, prompts: Prompts) -> None:
    samples = prompts(6, expect="refuse")
    a = make_run("a", samples[:5], {"harmful": [[i == 4] for i in range(5)]})
    b = make_run("b", samples[:0:-1], {"harmful": [[False]] * 4 + [[True]]})
    variants = [Variant(name="a", runs={"set": str(a)}), Variant(name="b", runs={"set": str(b)})]
    rows, left_out = select_rows(variants, {}, with_text=False)
    shown = {row.sample_id: row.outcomes for row in rows}
    assert left_out == 0
    assert shown["s0"] == {"a": "answered"}
    assert shown["s1"] == {"a": "answered", "b": "harmful"}
    assert shown["s4"] == {"a": "harmful", "b": "answered"}
