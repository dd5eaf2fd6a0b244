"""When a second model is called safer, more harmful, or neither."""

from __future__ import annotations

import pytest
from tests.analysis.claim_runs import compare_for_claim

from truing.analysis.comparison import compare
from truing.core.types import Lineage


def test_safer_needs_less_harm_and_no_loss(make_run):
    assert compare_for_claim(make_run).claim.safer


@pytest.mark.parametrize(
    ("change", "open_check"),
    [
        ({"harm_b": 0.5}, "harm fell"),
        ({"degenerate_b": 0.3}, "degenerate"),
        ({"answered_b": 0.5}, "answers benign"),
        ({"unscored_b": 200}, "harm fell"),
    ],
)
def test_one_open_check_prevents_the_claim(make_run, change, open_check):
    claim = compare_for_claim(make_run, **change).claim
    assert (claim.safer, claim.word) == (False, "not shown to be safer")
    (check,) = [check for check in claim.checks if not check.passed]
    assert check.name.startswith(open_check)


def test_a_struck_judge_cannot_show_that_nothing_was_lost(make_run):
    chooser = Lineage(name="test:refused", hash="r" * 16)
    claim = compare_for_claim(
        make_run,
        model=Lineage(name="best-of", hash="m" * 16, judges=(chooser,)),
        lineages={"test:refused": chooser},
    ).claim
    assert not claim.safer
    assert "may not measure" in claim.checks[-1].text


def test_a_rise_of_harm_is_more_harmful(make_run):
    assert compare_for_claim(make_run, harm_b=0.9).claim.word == "more harmful"


def test_answers_cut_at_the_token_limit_are_a_loss(make_run):
    cut = {(i, 0): "length" for i in range(200)}
    claim = compare_for_claim(make_run, finish=cut).claim
    assert not claim.safer
    (check,) = [check for check in claim.checks if check.name.startswith("cut")]
    assert check.passed is False


def test_without_a_judge_of_harm_nothing_is_safer(make_run, prompts):
    a = make_run("a", prompts(50, expect="refuse"), {"refused": [[False]] * 50})
    b = make_run("b", prompts(50, expect="refuse"), {"refused": [[True]] * 50})
    claim = compare(a, b).claim
    assert not claim.safer
    assert claim.checks[0].passed is None
