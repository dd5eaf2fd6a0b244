"""Paired deltas on runs made by hand, against statsmodels and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from truing.analysis.comparison import compare
from truing.analysis.deltas import PairCounts, completed_bounds, mean_difference_interval
from truing.analysis.prompt_counts import PromptCounts
from truing.core.types import Conversation, Lineage, Sample
from truing.runs.folder import JudgeRecord
from truing.stats.intervals import student_quantile
from truing.stats.paired import PairedTable, newcombe_paired, paired_mean

RECORD = JudgeRecord(name="j", question="harmful", file="")


def harm_delta(make_run, samples, verdicts_a, verdicts_b):
    a = make_run("a", samples, {"harmful": verdicts_a})
    b = make_run("b", samples, {"harmful": verdicts_b})
    return compare(a, b).find("harmful")


def test_one_answer_per_prompt_uses_mcnemar_and_newcombe(make_run, prompts):
    from statsmodels.stats.contingency_tables import mcnemar

    verdicts_a = [[True]] * 12 + [[False]] * 28
    verdicts_b = [[True]] * 2 + [[False]] * 10 + [[True]] * 1 + [[False]] * 27
    delta = harm_delta(make_run, prompts(40), verdicts_a, verdicts_b)
    assert (delta.n_pairs, delta.to_no, delta.to_yes) == (40, 10, 1)
    assert delta.estimate == pytest.approx(-9 / 40)
    assert delta.p == pytest.approx(mcnemar([[2, 10], [1, 27]], exact=True).pvalue)
    assert delta.method == "newcombe paired"
    assert delta.lower < -9 / 40 < delta.upper < 0
    assert (delta.rate_a, delta.rate_b) == pytest.approx((12 / 40, 3 / 40))


def test_several_answers_are_paired_by_prompt(make_run, prompts):
    verdicts_a = [[True, True, False]] * 30 + [[False] * 3] * 30
    delta = harm_delta(make_run, prompts(60), verdicts_a, [[False] * 3] * 60)
    assert (delta.n_pairs, delta.method) == (60, "paired by prompt")
    assert delta.estimate == pytest.approx(-1 / 3)
    assert delta.p < 0.001
    assert delta.lower < delta.estimate < delta.upper < 0


def test_unscored_pairs_widen_the_bounds(make_run, prompts):
    verdicts_a = [[True]] * 5 + [[False]] * 5
    verdicts_b = [[False]] * 8 + [[None]] * 2
    delta = harm_delta(make_run, prompts(10), verdicts_a, verdicts_b)
    assert (delta.n_pairs, delta.unscored) == (8, 2)
    assert delta.estimate == pytest.approx(-5 / 8)
    assert delta.bounds == pytest.approx((-0.5, -0.3))


def prompt_counts(events, scored, rows) -> PromptCounts:
    return PromptCounts(*(np.asarray(values, np.int64) for values in (events, scored, rows)))


def test_pair_counts_by_hand():
    # By prompt: -1/2; both unscored in part, -1/2 to 1/2; 0 to 1 and no pair; in one run only.
    counts = PairCounts(
        prompt_counts([1, 1, 0, 1], [2, 1, 0, 1], [2, 2, 1, 1]),
        prompt_counts([0, 1, 1, 0], [2, 1, 1, 0], [2, 2, 1, 0]),
    )
    delta = counts.delta(RECORD, "harmful", None)
    assert (delta.n_pairs, delta.unscored, delta.to_no, delta.to_yes) == (2, 1, 1, 0)
    assert delta.estimate == pytest.approx(-1 / 4)
    assert delta.bounds == pytest.approx(((-0.5 - 0.5 + 0) / 3, (-0.5 + 0.5 + 1) / 3))
    # At least as far as the intervals of the two extreme completions.
    assert delta.worst_case[0] <= paired_mean([0.5, 1, 1], [0, 0.5, 1]).lower
    assert delta.worst_case[1] >= paired_mean([0.5, 0.5, 0], [0, 1, 1]).upper


def test_bounds_of_completed_data_by_hand():
    changes = np.asarray([0.5, -0.25, 0.0, 0.75])
    scored = mean_difference_interval(changes.tolist())
    assert completed_bounds(changes, changes, 0.95) == pytest.approx((scored.lower, scored.upper))
    # One of two changes is 0 or 1, the other 0: about c = 1/2 the squares are 1/4 + 1/4.
    lower, upper = completed_bounds(np.zeros(2), np.asarray([0.0, 1.0]), 0.95)
    half_width = student_quantile(0.95, 1) * math.sqrt((0.5 + 1) / 2)
    assert (lower, upper) == pytest.approx((-half_width, 0.5 + half_width), rel=1e-6)


def test_worst_case_bounds_are_intervals_of_the_completed_data(make_run, prompts):
    verdicts_a = [[True]] * 30 + [[False]] * 70
    verdicts_b = [[None]] * 10 + [[False]] * 90
    delta = harm_delta(make_run, prompts(100), verdicts_a, verdicts_b)
    # As if the unscored ten had stayed harmful: 20 to no, none to yes.
    completed = newcombe_paired(PairedTable(both=10, only_a=20, only_b=0, neither=70))
    assert delta.worst_case[1] == pytest.approx(completed.upper)
    assert delta.worst_case[0] < delta.lower


def test_p_is_adjusted_over_the_categories_of_a_question(make_run):
    samples = [
        Sample(
            id=f"{category}{i}", conversation=Conversation.of(f"{category} {i}"), harms=(category,)
        )
        for category in ("self_harm", "animal_abuse", "child_abuse")
        for i in range(20)
    ]
    verdicts_b = [[False]] * 12 + [[True]] * 48
    a = make_run("a", samples, {"harmful": [[True]] * 60})
    comparison = compare(a, make_run("b", samples, {"harmful": verdicts_b}))
    self_harm = comparison.find("harmful", "self_harm")
    assert self_harm.p == pytest.approx(2 * 0.5**12)
    assert (self_harm.p_adjusted, self_harm.p_fdr) == pytest.approx((3 * self_harm.p,) * 2)
    assert comparison.find("harmful", "child_abuse").p_adjusted == 1.0


def test_a_judge_that_chose_the_variant_is_struck(make_run, prompts):
    chooser = Lineage(name="chooser", hash="c" * 16)
    model = Lineage(name="best-of-4", hash="m" * 16, judges=(chooser,))
    lineages = {"chooser": chooser}
    a = make_run("a", prompts(40), {"harmful@chooser": [[True]] * 40}, lineages=lineages)
    verdicts_b = {"harmful@chooser": [[False]] * 40}
    b = make_run("b", prompts(40), verdicts_b, lineages=lineages, model=model)
    comparison = compare(a, b)
    delta = comparison.find("harmful")
    assert delta.selected_by_judge
    assert "best-of-4" in delta.struck
    assert not comparison.claim.safer
    assert "show nothing here" in comparison.claim.checks[0].text


def test_one_scored_sample(make_run, prompts):
    delta = harm_delta(make_run, prompts(1), [[True]], [[False]])
    assert (delta.estimate, delta.p) == (-1, 1.0)
    assert delta.upper > -0.5


def test_nothing_scored_in_one_run(make_run, prompts):
    delta = harm_delta(make_run, prompts(1), [[None]], [[False]])
    assert (delta.estimate, delta.n_pairs, delta.unscored) == (None, 0, 1)


def test_no_change_still_has_a_width(make_run, prompts):
    delta = harm_delta(make_run, prompts(50), [[False]] * 50, [[False]] * 50)
    assert (delta.estimate, delta.p) == (0, 1.0)
    assert delta.lower < -0.03
    assert delta.upper > 0.03
