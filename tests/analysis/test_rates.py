"""Counts, bounds, clusters, outcomes and axes on hand-made runs; the contract's field names; what is not imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from truing.analysis.summary import summarise, write_summary
from truing.core.errors import RunError
from truing.core.types import Conversation, Lineage, Sample


def test_a_rate_counts_its_unscored_rows_beside(make_run, prompts):
    run = make_run(
        "r",
        prompts(10, harms=("self_harm",)),
        {"harmful": [[True]] * 2 + [[False]] * 5 + [[None]] * 3},
    )
    rate = summarise(run).find("harm")
    assert (rate.n, rate.scored, rate.unscored, rate.events) == (10, 7, 3, 2)
    assert rate.bounds == (0.2, 0.5)
    assert rate.raw.estimate == pytest.approx(2 / 7)
    assert rate.raw.lower == pytest.approx(
        0.0822, abs=1e-4
    )  # statsmodels: proportion_confint(2, 7, method="wilson")
    assert rate.raw.upper == pytest.approx(0.6411, abs=1e-4)
    assert rate.small
    by_category = summarise(run).find("harmful", "self_harm")
    assert by_category.events == 2


def test_the_summary_has_the_fields_of_the_contract(make_run, prompts):
    run = make_run("r", prompts(3), {"harmful": [[True], [False], [None]]})
    write_summary(run)
    read = json.loads((run / "summary.json").read_text())
    rate = next(r for r in read["rates"] if r["question"] == "harmful")
    assert {
        "question",
        "category",
        "judge",
        "judge_hash",
        "n",
        "scored",
        "unscored",
        "events",
        "raw",
        "corrected",
        "transported",
        "bounds",
        "selected_by_judge",
    } <= set(rate)
    assert {"estimate", "lower", "upper"} <= set(rate["raw"])
    assert (
        rate["corrected"] is None
        and rate["transported"] is None
        and rate["bounds"] == [1 / 3, 2 / 3]
    )
    assert rate["selected_by_judge"] is False


def test_nothing_scored_is_no_rate(make_run, prompts):
    rate = summarise(make_run("r", prompts(4), {"harmful": [[None]] * 4})).find("harm")
    assert rate.raw is None and rate.bounds == (0.0, 1.0) and rate.scored == 0


def test_failed_answers_are_unscored_even_without_a_judgement(make_run, prompts):
    run = make_run(
        "r", prompts(4), {"harmful": [[True], [False], [False], []]}, finish={(3, 0): "error"}
    )
    summary = summarise(run)
    rate = summary.find("harm")
    assert (rate.n, rate.unscored, rate.events, summary.failed) == (4, 1, 1, 1)


def test_several_answers_of_a_prompt_are_one_cluster(make_run, prompts):
    alike = [[True] * 5] * 10 + [[False] * 5] * 30
    rate = summarise(make_run("r", prompts(40), {"harmful": alike})).find("harm")
    assert rate.n == 200 and rate.prompts == 40
    assert rate.raw.estimate == 0.25
    assert rate.raw.width > 0.25  # as wide as 40 rows, not 200
    mixed = [[True, False, False, False, False]] * 40
    assert summarise(make_run("m", prompts(40), {"harmful": mixed})).find("harm").raw.width < 0.15


def test_outcomes_are_disjoint_and_harm_comes_first(make_run, prompts):
    run = make_run(
        "r",
        prompts(7, harms=("self_harm",)),
        {
            "harmful": [[True], [False], [False], [False], [None], [False], [False]],
            "refused": [[True], [True], [False], [False], [False], [False], [False]],
            "degenerate": [[False], [False], [True], [False], [False], [False], [False]],
        },
        finish={(5, 0): "abstained", (6, 0): "blocked"},
    )
    found = next(o for o in summarise(run).outcomes if o.category is None and o.expect is None)
    assert (found.harmful, found.refused, found.degenerate, found.answered, found.unscored) == (
        1,
        1,
        1,
        1,
        1,
    )
    assert (found.abstained, found.blocked, found.n) == (1, 1, 7)


def test_axes_by_expectation_and_twins_by_pair(make_run):
    def sample(i: int, expect: str, harms: tuple[str, ...] = ()) -> Sample:
        words = Conversation.of(f"{expect} {i}")
        return Sample(
            id=f"{expect}{i}", conversation=words, expect=expect, harms=harms, pair=f"p{i}"
        )

    samples = [sample(i, "refuse", ("animal_abuse",)) for i in range(4)] + [
        sample(i, "comply") for i in range(4)
    ]
    run = make_run(
        "r",
        samples,
        {
            "refused": [[True], [True], [True], [False], [True], [False], [False], [False]],
            "degenerate": [[False]] * 7 + [[True]],
            "harmful": [[False], [False], [False], [True]] + [[False]] * 4,
        },
    )
    summary = summarise(run)
    assert summary.find("answers_benign").events == 2 and summary.find("answers_benign").n == 4
    assert summary.find("answers_benign", "animal_abuse").n == 4
    assert summary.find("refuses_harmful").raw.estimate == 0.75
    assert summary.find("over_refusal").raw.estimate == 0.25
    assert summary.find("asr").events == 1 and summary.find("asr").n == 4
    assert summary.find("harm").n == 8
    assert summary.find("harm", "animal_abuse").n == 4  # the twins belong to no harm category
    assert any(line.startswith("category violence") for line in summary.not_tested)


def test_a_struck_judge_is_marked(make_run, prompts):
    judge = Lineage(name="test:harmful", hash="aa")
    run = make_run(
        "r",
        prompts(3),
        {"harmful": [[False]] * 3},
        lineages={"test:harmful": judge},
        model=Lineage(name="best-of", judges=(judge,)),
    )
    rate = summarise(run).find("harm")
    assert rate.selected_by_judge and "chosen, trained or blocked" in rate.struck


def test_judgements_of_foreign_rows_are_named(make_run, prompts):
    run = make_run("r", prompts(3), {"harmful": [[False]] * 3})
    file = next((run / "judgements").iterdir())
    with file.open("a") as stream:
        stream.write(
            '{"sample_id":"stranger","judge":"test:harmful","question":"harmful","verdict":true}\n'
        )
    summary = summarise(run)
    assert summary.find("harm").events == 0
    assert any("belong to no sample" in note for note in summary.notes)


def test_a_broken_line_is_named_and_a_torn_one_is_not_there(make_run, prompts):
    run = make_run("r", prompts(3), {"harmful": [[False]] * 3})
    file = next((run / "judgements").iterdir())
    with file.open("a") as stream:
        stream.write('{"sample_id":"s0","verd')
    assert summarise(run).find("harm").scored == 3
    with file.open("a") as stream:
        stream.write("\n")
    with pytest.raises(RunError, match=r"jsonl:4"):
        summarise(run)


def test_the_plain_path_loads_neither_numpy_nor_scipy(make_run, prompts):
    run = make_run("r", prompts(40), {"harmful": [[False, True]] * 40})
    code = (
        f"import sys; from truing.analysis.summary import write_summary; write_summary({str(run)!r});"
        "print([m for m in ('numpy', 'scipy', 'statsmodels') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_run_folder(tmp_path: Path):
    with pytest.raises(RunError, match="no run folder"):
        summarise(tmp_path)


def test_rates_by_the_judges_own_categories_have_their_question_name(make_run, prompts):
    run = make_run("r", prompts(4), {"harmful": [[True], [True], [False], [None]]})
    file = next((run / "judgements").iterdir())
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[0]["harms"] = {"self_harm": 0.9, "animal_abuse": 0.2}
    rows[1]["harms"] = {"self_harm": 0.4}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rate = summarise(run).find("harmful_predicted", "self_harm")
    assert (rate.n, rate.scored, rate.events) == (4, 3, 1)
