"""Counts, bounds and clusters of rates; axes; outcomes. On runs made by hand."""

from __future__ import annotations

import json

import pytest

from truing.analysis.prompt_counts import count_by_category
from truing.analysis.rates import (
    ALL_AXES,
    AXIS_TITLES,
    axis_verdicts,
    belongs_to_category,
    verdict_codes,
)
from truing.analysis.summary import summarise
from truing.analysis.verdict_table import (
    NO,
    read_verdict_table,
)
from truing.core.types import Conversation, Lineage, Sample


def test_unscored_rows_are_counted_separately(make_run, prompts):
    run = make_run(
        "r",
        prompts(10, harms=("self_harm",)),
        {"harmful": [[True]] * 2 + [[False]] * 5 + [[None]] * 3},
    )
    rate = summarise(run).find("harm")
    assert (rate.n, rate.scored, rate.unscored, rate.events) == (10, 7, 3, 2)
    assert rate.bounds == (0.2, 0.5)
    assert rate.raw.estimate == pytest.approx(2 / 7)
    # statsmodels: proportion_confint(2, 7, method="wilson")
    assert (rate.raw.lower, rate.raw.upper) == pytest.approx((0.0822, 0.6411), abs=1e-4)
    assert rate.small
    assert summarise(run).find("harmful", "self_harm").events == 2


def test_nothing_scored_has_no_rate(make_run, prompts):
    rate = summarise(make_run("r", prompts(4), {"harmful": [[None]] * 4})).find("harm")
    assert (rate.raw, rate.bounds, rate.scored) == (None, (0.0, 1.0), 0)


def test_failed_answers_are_unscored_without_a_judgement(make_run, prompts):
    run = make_run(
        "r", prompts(4), {"harmful": [[True], [False], [False], []]}, finish={(3, 0): "error"}
    )
    summary = summarise(run)
    rate = summary.find("harm")
    assert (rate.n, rate.unscored, rate.events, summary.failed) == (4, 1, 1, 1)


def test_the_answers_to_a_prompt_are_one_cluster(make_run, prompts):
    alike = [[True] * 5] * 10 + [[False] * 5] * 30
    rate = summarise(make_run("r", prompts(40), {"harmful": alike})).find("harm")
    assert (rate.n, rate.prompts, rate.raw.estimate) == (200, 40, 0.25)
    assert rate.raw.width > 0.25  # as wide as 40 rows, not 200
    mixed = [[True, False, False, False, False]] * 40
    assert summarise(make_run("m", prompts(40), {"harmful": mixed})).find("harm").raw.width < 0.15


def twins(make_run):
    """Four harmful prompts, each paired with a benign one; refusals, degenerate answers, harm."""

    def sample(i: int, expect: str, harms: tuple[str, ...] = ()) -> Sample:
        conversation = Conversation.of(f"{expect} {i}")
        return Sample(
            id=f"{expect}{i}", conversation=conversation, expect=expect, harms=harms, pair=f"p{i}"
        )

    samples = [sample(i, "refuse", ("animal_abuse",)) for i in range(4)]
    samples += [sample(i, "comply") for i in range(4)]
    return make_run(
        "r",
        samples,
        {
            "refused": [[True], [True], [True], [False], [True], [False], [False], [False]],
            "degenerate": [[False]] * 7 + [[True]],
            "harmful": [[False], [False], [False], [True]] + [[False]] * 4,
        },
    )


def test_axes_select_prompts_by_expectation(make_run):
    summary = summarise(twins(make_run))
    # Of four benign prompts one was refused and one got a degenerate answer.
    assert (summary.find("answers_benign").events, summary.find("answers_benign").n) == (2, 4)
    assert summary.find("refuses_harmful").raw.estimate == 0.75
    assert summary.find("over_refusal").raw.estimate == 0.25
    assert (summary.find("asr").events, summary.find("asr").n) == (1, 4)


def test_benign_twins_have_a_category_on_axes_only(make_run):
    run = twins(make_run)
    summary = summarise(run)
    assert summary.find("answers_benign", "animal_abuse").n == 4
    assert summary.find("harm").n == 8
    assert summary.find("harm", "animal_abuse").n == 4
    table = read_verdict_table(run)
    assert belongs_to_category(table, 5, "animal_abuse", axis=True)
    assert not belongs_to_category(table, 5, "animal_abuse", axis=False)
    assert belongs_to_category(table, 5, None, axis=False)
    codes = verdict_codes(table, table.headline_column("refused"))
    assert count_by_category(table, codes, ("comply",), axis=True)["animal_abuse"].events == 1


def test_an_axis_without_a_judge_has_no_verdicts(make_run, prompts):
    table = read_verdict_table(make_run("r", prompts(2), {"harmful": [[True], [False]]}))
    assert axis_verdicts(table, "answers_benign") is None
    assert axis_verdicts(table, "supports") is None
    assert axis_verdicts(table, "cut").codes == [bytes([NO, NO])]
    assert set(AXIS_TITLES) >= set(ALL_AXES)


def test_an_inverted_axis_counts_no_as_the_event(make_run, prompts):
    run = make_run("r", prompts(3, expect="abstain"), {"abstains": [[True], [False], [None]]})
    rate = summarise(run).find("asserts_unanswerable")
    assert (rate.events, rate.scored, rate.unscored) == (1, 2, 1)


def test_a_struck_judges_rate_is_marked(make_run, prompts):
    judge = Lineage(name="test:harmful", hash="aa")
    run = make_run(
        "r",
        prompts(3),
        {"harmful": [[False]] * 3},
        lineages={"test:harmful": judge},
        model=Lineage(name="best-of", judges=(judge,)),
    )
    rate = summarise(run).find("harm")
    assert rate.selected_by_judge
    assert "chosen, trained or blocked" in rate.struck


def test_rates_by_the_judges_own_categories(make_run, prompts):
    run = make_run("r", prompts(4), {"harmful": [[True], [True], [False], [None]]})
    file = next((run / "judgements").iterdir())
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[0]["harms"] = {"self_harm": 0.9, "animal_abuse": 0.2}
    rows[1]["harms"] = {"self_harm": 0.4}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rate = summarise(run).find("harmful_predicted", "self_harm")
    assert (rate.n, rate.scored, rate.events) == (4, 3, 1)
