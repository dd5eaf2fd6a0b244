"""At most and at least: worst-case bounds, the judge's card, hand-picked labels, distrust."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from tests.analysis.rates import make_rate

from truing.analysis.judge_facts import JudgeFacts
from truing.analysis.rate_claims import (
    RateFigure,
    RateRule,
    bound_by_card,
    decide_rate,
    distrust_reason,
)
from truing.analysis.summary import summarise
from truing.stats.intervals import Interval


def card(sensitivity=0.9, specificity=0.9) -> JudgeFacts:
    """A card whose intervals are narrower than the five points around its rates."""
    return JudgeFacts(
        judge="j",
        question="harmful",
        data="d",
        n=10_000,
        sensitivity=Interval(sensitivity, sensitivity - 0.01, sensitivity + 0.01),
        specificity=Interval(specificity, specificity - 0.01, specificity + 0.01),
    )


@pytest.mark.parametrize(
    ("figure", "judge", "struck", "reason", "allowance"),
    [
        ("corrected", "other", None, None, None),  # labels need no card
        ("raw", "engine", None, None, None),
        ("raw", "human:a", None, None, None),
        ("raw", "other", None, "has no card", "uncarded"),
        ("transported", "j", None, "assumes that the card's", "transported"),
        ("raw", "j", "it chose the answers", "it chose the answers", "overlap"),
        ("corrected", "j", "was trained on 3 prompts", "3 prompts", "overlap"),
    ],
)
def test_distrust(figure, judge, struck, reason, allowance):
    has_card = judge == "j"
    actual = distrust_reason(figure, judge, struck, has_card=has_card)
    assert actual is None if reason is None else reason in actual
    if allowance is not None:
        allowed = distrust_reason(figure, judge, struck, has_card=has_card, allow=(allowance,))
        assert allowed is None


def test_harm_that_a_judge_misses_counts_by_hand():
    figure = RateFigure("raw", 0.02, 0.01, 0.04)
    # Of a sensitivity of 90 % at least 85 % is left: 4 % may be 4 / 0.85.
    assert bound_by_card(make_rate(2, 100), figure, card(), "upper") == pytest.approx(0.04 / 0.85)
    # At most 15 % false alarms, and nothing missed.
    figure = RateFigure("raw", 0.6, 0.5, 0.7)
    assert bound_by_card(make_rate(60, 100), figure, card(), "lower") == pytest.approx(
        (0.5 - 0.15) / 0.85
    )
    # "Answers" are what a judge of refusals does not find.
    rate = make_rate(60, 100, question="answers_benign")
    by_card = bound_by_card(rate, figure, card(sensitivity=0.7), "lower")
    assert by_card == pytest.approx((0.5 - 0.35) / 0.65)


def test_at_most_allows_for_what_the_card_leaves_open():
    rate = make_rate(2, 200)  # up to 3.6 %
    rule = RateRule(bound="upper", limit=0.04)
    assert decide_rate(rate, rule, card(sensitivity=0.99)).decision == "yes"
    claim = decide_rate(rate, rule, card(sensitivity=0.7))
    assert (claim.claim, claim.decision) == ("at most", "not_shown")
    assert "errors that its card leaves open" in claim.reason
    # By hand: 1 % against the 2.6 % of verdicts that may be 4 % of harm, at a power of 80 %.
    assert claim.needs == f"about {claim.prompts_needed} more prompts"
    assert claim.prompts_needed == pytest.approx(610 - 200, abs=10)


def test_labels_of_chosen_rows_say_nothing_about_the_others(make_run, prompts):
    # People looked at 400 of 1,000 answers, all of them harmless; 40 % of all are harmful.
    verdicts = [[False]] * 400 + [[]] * 600
    run = make_run("r", prompts(1000), {"harmful@human:a": verdicts, "refused": [[False]] * 1000})
    rate = summarise(run).find("harmful")
    assert (rate.n, rate.unlabelled, rate.events) == (400, 600, 0)
    claim = decide_rate(rate, RateRule(bound="upper", limit=0.02), None)
    assert claim.decision == "not_shown"
    assert claim.upper > 0.6
    assert "were not drawn at random" in claim.reason
    everything = make_run(
        "all", prompts(1000), {"harmful@human:a": [[False]] * 1000, "refused": [[False]] * 1000}
    )
    rate = summarise(everything).find("harmful")
    assert decide_rate(rate, RateRule(bound="upper", limit=0.02), None).decision == "yes"


@pytest.mark.parametrize("bound", ["upper", "lower"])
@pytest.mark.parametrize("n", [30, 100, 300])
@pytest.mark.parametrize("limit", [0.002, 0.005, 0.01, 0.02, 0.05, 0.3])
def test_a_decision_on_either_side_is_wrong_in_one_run_of_forty(n, limit, bound):
    """By enumeration: at a true rate equal to the limit, neither "yes" nor "no" is right."""
    rule = RateRule(bound=bound, limit=limit, allow=("uncarded",))
    decisions = [decide_rate(make_rate(k, n), rule, None).decision for k in range(n + 1)]
    chances = binom.pmf(range(n + 1), n, limit)
    for decision in ("yes", "no"):
        wrong = sum(p for d, p in zip(decisions, chances) if d == decision)
        assert wrong <= 0.025 + 1e-9, decision


@given(st.integers(1, 60), st.data(), st.floats(0.01, 0.99), st.sampled_from(["upper", "lower"]))
def test_more_missing_rows_never_show_more(n, data, limit, bound):
    """What is not shown is not shown either if verdicts are taken away."""
    events = data.draw(st.integers(0, n))
    from_events = data.draw(st.integers(0, events))
    from_others = data.draw(st.integers(0, n - events))
    rule = RateRule(bound=bound, limit=limit, allow=("uncarded",))
    whole = decide_rate(make_rate(events, n), rule, None).decision
    missing = from_events + from_others
    if missing < n:
        fewer = decide_rate(make_rate(events - from_events, n, missing), rule, None).decision
        assert fewer in (whole, "not_shown")
