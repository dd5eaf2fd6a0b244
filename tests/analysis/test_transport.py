"""Rates and differences read through a judge card, and when they are refused."""

from __future__ import annotations

import pytest
from tests.analysis.card_runs import JUDGE, write_garak_card

from truing.analysis.card_files import read_card, write_card
from truing.analysis.comparison import compare
from truing.analysis.judge_card import make_card
from truing.analysis.summary import summarise
from truing.analysis.transport import check_card_matches, transport_difference
from truing.core.errors import DataError
from truing.core.types import Lineage
from truing.runs.folder import JudgeRecord
from truing.stats.intervals import Interval


@pytest.fixture
def garak_card(make_run, prompts, tmp_path):
    """The path of a card with sensitivity 0.92 and specificity 0.39."""
    return write_garak_card(make_run, prompts, tmp_path / "garak.json")


@pytest.fixture
def run_with_harm(make_run, prompts):
    """`run_with_harm(name, k)`: a run with k of 1,000 answers judged harmful by j."""

    def build(name, harmful):
        verdicts = [[True]] * harmful + [[False]] * (1000 - harmful)
        return make_run(name, prompts(1000), {"harmful@j": verdicts}, lineages={"j": JUDGE})

    return build


def test_a_rate_in_a_band(run_with_harm, garak_card):
    rate = summarise(run_with_harm("a", 700), {"j": garak_card}).find("harmful").transported
    assert rate.estimate == pytest.approx((0.7 + 0.39 - 1) / (0.92 + 0.39 - 1))
    assert rate.band[0] <= rate.lower <= rate.estimate <= rate.upper <= rate.band[1]
    assert rate.note == "assumes transport"


def test_a_rate_that_contradicts_the_card_is_refused(run_with_harm, garak_card):
    # Fewer harmful verdicts than the card's false positives alone would give (0.61).
    rate = summarise(run_with_harm("b", 450), {"j": garak_card}).find("harmful").transported
    assert rate.estimate is None
    assert "below 1 - specificity" in rate.refused


@pytest.fixture
def refusal_card(make_run, prompts, tmp_path):
    """The path of a card of refusals with sensitivity 0.9 and specificity 0.95."""
    verdicts = [[True]] * 90 + [[False]] * 10 + [[True]] * 5 + [[False]] * 95
    truth = [[True]] * 100 + [[False]] * 100
    rows = {"refused@j": verdicts, "refused@human:a": truth}
    run = make_run("labelled", prompts(200), rows, lineages={"j": JUDGE})
    write_card(make_card(run, "j"), tmp_path / "refusals.json")
    return tmp_path / "refusals.json"


def test_answered_benign_prompts_by_hand(make_run, prompts, refusal_card):
    """200 of 1,000 benign prompts get a degenerate answer, 120 of the others are refused."""
    run = make_run(
        "r",
        prompts(1000, expect="comply"),
        {
            "refused@j": [[True]] * 120 + [[False]] * 880,
            "degenerate": [[False]] * 800 + [[True]] * 200,
        },
        lineages={"j": JUDGE},
    )
    rate = summarise(run, {"j": refusal_card}).find("answers_benign")
    assert rate.raw.estimate == 0.68
    refusals_of_whole_answers = (120 / 800 + 0.95 - 1) / (0.9 + 0.95 - 1)
    transported = rate.transported
    assert transported.estimate == pytest.approx(0.8 * (1 - refusals_of_whole_answers))
    assert transported.band[0] <= transported.lower < transported.estimate
    assert transported.estimate < transported.upper <= transported.band[1]
    assert "whole answers" in transported.method


def test_without_non_answers_answered_mirrors_refused(make_run, prompts, refusal_card):
    verdicts = {"refused@j": [[True]] * 120 + [[False]] * 880}
    run = make_run("p", prompts(1000, expect="comply"), verdicts, lineages={"j": JUDGE})
    summary = summarise(run, {"j": refusal_card})
    answered = summary.find("answers_benign").transported
    refused = summary.find("refuses_benign").transported
    assert (answered.estimate, answered.lower, answered.upper) == pytest.approx(
        (1 - refused.estimate, 1 - refused.upper, 1 - refused.lower)
    )


def test_non_answers_alone_leave_nothing_to_correct(make_run, prompts, refusal_card):
    verdicts = {"refused@j": [[False]] * 40, "degenerate": [[True]] * 40}
    run = make_run("n", prompts(40, expect="comply"), verdicts, lineages={"j": JUDGE})
    rate = summarise(run, {"j": refusal_card}).find("answers_benign").transported
    assert (rate.estimate, rate.refused) == (None, "no whole answer")


def test_a_card_has_to_be_of_the_same_version(make_run, prompts, garak_card):
    newer = Lineage(name="j", hash="2" * 16)
    run = make_run("a", prompts(10), {"harmful@j": [[True]] * 10}, lineages={"j": newer})
    with pytest.raises(DataError, match="another version of j"):
        summarise(run, {"j": garak_card})
    unjudged = make_run("b", prompts(10), {"harmful": [[True]] * 10})
    with pytest.raises(DataError, match="did not judge this run"):
        summarise(unjudged, {"j": garak_card})
    record = JudgeRecord(name="j", question="harmful", file="x")
    with pytest.raises(DataError, match="the run has none"):
        check_card_matches(read_card(garak_card), record, garak_card)


def test_a_difference_is_divided_by_youdens_index(run_with_harm, garak_card):
    a, b, low = run_with_harm("a", 800), run_with_harm("b", 700), run_with_harm("c", 300)
    transported = compare(a, b, cards={"j": garak_card}).find("harmful").transported
    assert transported.estimate == pytest.approx(-0.1 / 0.31)
    assert transported.lower <= transported.estimate <= transported.upper < 0
    # The rate of the third run contradicts the card, so no difference from it is transported.
    assert compare(a, low, cards={"j": garak_card}).find("harmful").transported is None


def test_a_difference_needs_a_judge_better_than_chance(make_run, prompts, tmp_path, garak_card):
    raw = Interval(-0.1, -0.15, -0.05)
    card = read_card(garak_card)
    assert transport_difference(raw, card, "refused") is None
    assert transport_difference(raw, card, "harmful", delta=0.2) is None  # 0.72 + 0.19 - 1 < 0
    assert transport_difference(raw, card, "harmful").upper < 0
