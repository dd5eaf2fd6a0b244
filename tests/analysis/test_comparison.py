"""The comparison of two runs as a whole."""

from __future__ import annotations

import json

import msgspec
import pytest

from truing.analysis.comparison import compare


def test_a_margin_outside_the_unit_interval_is_refused(make_run, prompts):
    a = make_run("a", prompts(2), {"harmful": [[True]] * 2})
    with pytest.raises(ValueError, match="margin"):
        compare(a, a, margin=-0.1)


def test_find_prefers_a_judge_that_may_measure_both_models(make_run, prompts):
    from truing.core.types import Lineage

    chooser = Lineage(name="chooser", hash="c" * 16)
    verdicts = {"harmful@chooser": [[True]] * 5, "harmful@other": [[False]] * 5}
    lineages = {"chooser": chooser}
    a = make_run("a", prompts(5), verdicts, lineages=lineages)
    b = make_run(
        "b",
        prompts(5),
        verdicts,
        lineages=lineages,
        model=Lineage(name="best-of", hash="m" * 16, judges=(chooser,)),
    )
    comparison = compare(a, b)
    assert comparison.find("harmful").judge == "other"
    assert comparison.find("harmful", judge="chooser").selected_by_judge
    assert comparison.find("refused") is None


def test_the_json_has_the_fields_of_the_contract(make_run, prompts):
    a = make_run("a", prompts(3), {"harmful": [[True], [False], [True]]})
    b = make_run("b", prompts(3), {"harmful": [[False]] * 3})
    comparison = json.loads(msgspec.json.encode(compare(a, b)))
    delta = "question category n_pairs estimate lower upper p p_adjusted judge selected_by_judge"
    assert set(delta.split()) <= set(comparison["deltas"][0])
    assert {"deltas", "flips", "points", "claim", "ledger", "means"} <= set(comparison)
