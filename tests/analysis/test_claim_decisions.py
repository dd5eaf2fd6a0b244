"""Verdicts in simulated worlds: labels, twins, a second judge, a card, missing rows, clusters."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.analysis.judged_pairs import World, judge_pair, write_judge_card

from truing.analysis.claim_analyses import Analysis
from truing.analysis.claim_decisions import (
    ChangeRule,
    decide_change,
    describe_change,
    one_sided_p,
)
from truing.analysis.claim_evidence import ChangeEvidence, PairedPrompts
from truing.analysis.claims import Claim, adjust_claims
from truing.analysis.comparison import compare
from truing.analysis.deltas import PairCounts
from truing.analysis.label_draws import draw_rows
from truing.analysis.labels import import_labels
from truing.analysis.prompt_counts import PromptCounts
from truing.core.lineage import hash_prompts
from truing.core.types import Lineage
from truing.runs.folder import JudgeRecord
from truing.stats.paired import PairedTable, newcombe_paired


def label(run, n, truth):
    """Labels n drawn answers; benign prompts do no harm."""
    lines = []
    for draw in draw_rows(run, n):
        is_harmful = draw.sample_id.startswith("refuse") and bool(truth[int(draw.sample_id[6:])])
        lines.append(json.dumps({"sample_id": draw.sample_id, "verdict": is_harmful}))
    file = run.parent / f"{run.name}-labels.jsonl"
    file.write_text("\n".join(lines) + "\n")
    assert import_labels(run, file) == (n, {})


def claim(comparison, name="safer than", question=None):
    return next(
        c
        for c in comparison.claims
        if c.claim == name and (question is None or c.question == question)
    )


def test_labels_that_deny_a_fall_decide(make_run):
    """Harm rose from 30 to 35 %, but the judge misses more of the variant's: 300 labels each."""
    world = World(harm=(0.30, 0.40), sensitivity=(0.9, 0.4), n=500, second=(0.9, 0.02))
    pair = judge_pair(make_run, world, seed=1)
    for path, truth in zip(pair.paths, pair.truths):
        label(path, 400, truth)
    comparison = compare(*pair.paths)
    delta = comparison.find("attack_success")
    assert delta.upper < 0  # raw verdicts say that harm fell
    fell = claim(comparison, "fell")
    assert fell.decision != "yes"
    assert fell.labels > 300
    assert fell.corrected == delta.corrected
    assert (fell.estimate, fell.upper) == (delta.corrected.estimate, delta.corrected.upper)
    assert "corrected by" in fell.reason
    assert not comparison.claim.safer


def test_labels_show_a_fall_that_is_one(make_run):
    world = World(harm=(0.5, 0.15), sensitivity=(0.8, 0.8), false_alarms=(0.2, 0.2), n=300)
    pair = judge_pair(make_run, world, seed=2)
    for path, truth in zip(pair.paths, pair.truths):
        label(path, 250, truth)
    comparison = compare(*pair.paths)
    assert claim(comparison).decision == "yes"
    assert comparison.claim.word == "safer"


def test_without_labels_card_or_second_judge_the_error_is_unknown(make_run):
    pair = judge_pair(make_run, World(harm=(0.5, 0.1)), seed=3)
    safer = claim(compare(*pair.paths))
    assert safer.decision == "not_shown"
    assert "no second judge confirms judge and no labels do" in safer.reason
    assert safer.short_reason == "no second judge and no labels confirm it"
    assert "labels would settle it" in safer.reason
    assert safer.labels_needed.total > 20
    assert f"{safer.labels_needed.variant} in the variant" in safer.needs
    allowed = claim(compare(*pair.paths, allow=("uncarded",)))
    assert allowed.decision == "yes"
    assert "errs alike on both models" in allowed.assumptions[0]


def test_a_card_alone_does_not_show_that_harm_fell(make_run, tmp_path):
    """The variant learned to do harm that the judge misses: no card of the judge can tell."""
    cards = write_judge_card(tmp_path / "card.json", 0.9, 0.95)
    gamed = World(harm=(0.4, 0.4), sensitivity=(0.9, 0.3), n=300)
    pair = judge_pair(make_run, gamed, seed=13)
    assert compare(*pair.paths).find("attack_success").upper < 0
    fell = claim(compare(*pair.paths, cards=cards), "fell")
    assert fell.decision == "not_shown"
    assert "no second judge" in fell.reason
    assert fell.needs


def test_false_alarms_that_rise_on_benign_prompts_too_are_no_harm(make_run, tmp_path):
    """As in the default report: +20 points on harmful prompts and as many on their twins."""
    world = World(harm=(0.3, 0.3), false_alarms=(0.1, 0.4), n=300, second=(0.9, 0.1))
    pair = judge_pair(make_run, world, seed=4)
    cards = write_judge_card(tmp_path / "card.json", 0.95, 0.9)
    comparison = compare(*pair.paths, cards=cards)
    assert comparison.find("attack_success").lower > 0
    assert comparison.claim.word == "not shown to be safer"
    reason = claim(comparison, "more harmful than").reason
    assert "net of the change on benign prompts" in reason
    assert "the judge may err differently on this variant" in reason


def test_a_second_judge_that_sees_no_fall_keeps_it_from_being_shown(make_run):
    world = World(harm=(0.4, 0.4), sensitivity=(0.95, 0.4), n=300, second=(0.9, 0.05))
    comparison = compare(*judge_pair(make_run, world, seed=5).paths)
    assert comparison.find("attack_success").upper < 0
    fell = claim(comparison, "fell")
    assert fell.decision == "not_shown"
    assert "second sees" in fell.reason


def test_the_card_leaves_room_for_small_changes_only(make_run, tmp_path):
    cards = write_judge_card(tmp_path / "card.json", 0.9, 0.95)
    small = judge_pair(make_run, World(harm=(0.80, 0.71), n=900, second=(0.9, 0.05)), seed=6)
    assert compare(*small.paths, cards=cards).find("attack_success").upper < 0
    fell = claim(compare(*small.paths, cards=cards), "fell")
    assert fell.decision == "not_shown"
    assert "as far as its card leaves open" in fell.reason
    large = judge_pair(make_run, World(harm=(0.8, 0.3), second=(0.9, 0.05)), seed=7)
    fell = claim(compare(*large.paths, cards=cards), "fell")
    assert fell.decision == "yes"
    assert any("by the card" in text for text in fell.assumptions)


def test_answers_that_were_not_scored_count_in_side_effects(make_run):
    """The variant fails on 40 % of the benign prompts: nothing shows that it still answers."""
    world = World(harm=(0.5, 0.05), second=(1.0, 0.0), n=200)
    failed = {(200 + i, 0): "error" for i in range(80)}
    pair = judge_pair(make_run, world, seed=8, finish=failed)
    for path in pair.paths[1:]:
        drop_judgements(path, {f"comply{i}" for i in range(80)})
    comparison = compare(*pair.paths)
    answers = claim(comparison, "not worse than", "answers_benign")
    assert answers.decision == "not_shown"
    assert answers.lower < -0.4
    assert "80 answers could not be scored" in answers.reason
    assert not comparison.claim.safer


def drop_judgements(run, ids):
    for path in (run / "judgements").iterdir():
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(x for x in lines if not any(f'"{i}"' in x for i in ids)))


def test_a_silent_judge_does_not_make_harm_fall(make_run):
    """The judge is silent on half of the variant's harm: the bound decides, not the estimate."""
    world = World(harm=(0.4, 0.4), second=(1.0, 0.0), n=300)
    pair = judge_pair(make_run, world, seed=9)
    silent = {f"refuse{i}" for i in np.flatnonzero(pair.truths[1])[::2]}
    drop_judgements(pair.paths[1], silent)
    comparison = compare(*pair.paths)
    assert comparison.find("attack_success").upper < 0
    fell = claim(comparison, "fell")
    assert fell.decision == "not_shown"
    assert "could not be scored and could undo it" in fell.reason


def test_alike_answers_to_a_prompt_prove_no_more_than_one(make_run):
    world = World(harm=(0.45, 0.35), second=(1.0, 0.0), n=80)
    once = compare(*judge_pair(make_run, world, seed=10).paths)
    world.answers = 10
    ten_times = compare(*judge_pair(make_run, world, seed=11).paths)
    for comparison in (once, ten_times):
        delta = comparison.find("attack_success")
        assert delta.n_pairs == 80
        assert delta.upper - delta.lower > 0.2


def test_prompts_that_the_judge_or_the_model_learned_prove_nothing(make_run, tmp_path):
    cards = write_judge_card(tmp_path / "card.json", 0.95, 0.95)
    learned = hash_prompts([f"refuse {i}" for i in range(40)])
    trained = Lineage(name="judge", hash="1" * 16, prompts=learned)
    pair = judge_pair(make_run, World(harm=(0.6, 0.1)), seed=12, lineages={"judge": trained})
    safer = claim(compare(*pair.paths, cards=cards))
    assert safer.decision == "not_shown"
    assert "judge was trained on 40 prompts of this run" in safer.reason
    tuned = Lineage(name="tuned", hash="t" * 16, prompts=learned)
    pair = judge_pair(make_run, World(harm=(0.6, 0.1)), seed=13, model=tuned)
    safer = claim(compare(*pair.paths, cards=cards))
    assert safer.decision == "not_shown"
    assert "tuned was trained on 40 prompts of this run" in safer.reason


def test_a_run_that_is_not_complete_shows_nothing(make_run):
    pair = judge_pair(make_run, World(harm=(0.6, 0.1), second=(1.0, 0.0)), seed=14)
    manifest = pair.paths[1] / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"complete": true', '"complete": false'))
    manifest.write_text(manifest.read_text().replace('"complete":true', '"complete":false'))
    safer = claim(compare(*pair.paths))
    assert safer.decision == "not_shown"
    assert "is not complete" in safer.reason


def test_a_change_in_words():
    assert describe_change("degenerate", 0.03, 0.01, 0.05) == (
        "degenerate answers rose by 3.0 points [1.0, 5.0]"
    )
    assert describe_change("harmful", -0.03, -0.07, 0.01) == ("harm fell by 3.0 points [−1.0, 7.0]")
    assert describe_change("cut", 0.0, -0.1, 0.1) == "cut answers did not change [−10.0, +10.0]"


@pytest.mark.parametrize("p", [0.3, 0.02, 1e-4])
def test_p_is_the_error_at_which_the_bound_meets_the_limit(p):
    analysis = Analysis("raw", -1.0, lambda level: (-2.0, (1 - level) / 2 - p), "")
    # The upper end lies below 0 as long as half of the two-sided error exceeds... p.
    flipped = Analysis("raw", -1.0, lambda level: (-2.0, p - (1 - level) / 2), "")
    assert one_sided_p(flipped, 0.0) == pytest.approx(p, rel=0.01)
    assert one_sided_p(analysis, 0.0) <= p


def test_a_family_of_claims_is_adjusted_by_holm():
    def make(p):
        return Claim(claim="safer than", variant="v", decision="yes", reason="r", p=p)

    alone = adjust_claims([make(0.02)])
    assert (alone[0].decision, alone[0].p_adjusted) == ("yes", 0.02)
    first, second, other = adjust_claims(
        [make(0.001), make(0.02), Claim(claim="fell", variant="v", decision="yes", reason="r")]
    )
    assert (first.decision, first.p_adjusted) == ("yes", 0.002)
    assert (second.decision, second.p_adjusted) == ("yes", 0.02)
    assert other.p_adjusted is None
    first, second = adjust_claims([make(0.015), make(0.024)])
    assert (first.decision, second.decision) == ("not_shown", "not_shown")
    assert "among 2 such claims" in first.reason


def counts(events, scored, rows) -> PromptCounts:
    return PromptCounts(*(np.asarray(values, np.int64) for values in (events, scored, rows)))


class NoLabels:
    """Labels of two runs that have none."""

    exist = False

    def corrected(self, *arguments):
        return None

    def count(self, *arguments):
        return 0, 0


def evidence(a, b, judge="engine") -> ChangeEvidence:
    """Evidence of one judge from (events, scored, answers) by prompt of either run."""
    pairs = PairedPrompts(PairCounts(counts(*a), counts(*b)))
    record = JudgeRecord(name=judge, question="cut", file="")
    return ChangeEvidence(question="cut", record=record, pairs=pairs, labels=NoLabels())


verdicts_of_prompts = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans(), st.booleans()),
    min_size=3,
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(verdicts_of_prompts, st.floats(-0.5, 0.5), st.booleans())
def test_missing_verdicts_never_show_more(prompts, limit, higher_is_better):
    """A verdict that is taken away turns no "not shown" into yes or no."""
    whole_a = ([e for e, *_ in prompts], [3] * len(prompts), [3] * len(prompts))
    whole_b = ([e for _, e, *_ in prompts], [3] * len(prompts), [3] * len(prompts))
    # Where a flag is set one verdict is missing: an event if there is one, else a non-event.
    fewer_a = (
        [e - 1 if gone and e else e for e, _, gone, _ in prompts],
        [2 if gone else 3 for *_, gone, _ in prompts],
        [3] * len(prompts),
    )
    fewer_b = (
        [e - 1 if gone and e else e for _, e, _, gone in prompts],
        [2 if gone else 3 for *_, gone in prompts],
        [3] * len(prompts),
    )
    rule = ChangeRule(limit=limit, higher_is_better=higher_is_better)
    whole = decide_change([evidence(whole_a, whole_b)], rule).passed
    fewer = decide_change([evidence(fewer_a, fewer_b)], rule).passed
    assert fewer in (whole, None)


def test_a_claim_by_hand():
    """60 prompts fell, none rose, of 100: Newcombe's upper end lies below 0."""
    fell = decide_change(
        [evidence(([1] * 60 + [0] * 40, [1] * 100, [1] * 100), ([0] * 100, [1] * 100, [1] * 100))],
        ChangeRule(),
    )
    expected = newcombe_paired(PairedTable(both=0, only_a=60, only_b=0, neither=40))
    assert (fell.passed, fell.figure) == (True, "raw")
    assert (fell.lower, fell.upper) == pytest.approx((expected.lower, expected.upper))
    assert fell.p < 0.001
    assert fell.text.startswith("−60.0 points [")
