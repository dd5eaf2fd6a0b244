"""The summary of a run: its JSON, outcomes, notes, and what it does not import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from truing.analysis.summary import summarise, write_summary
from truing.core.errors import RunError, UserError


def test_the_json_has_the_fields_of_the_contract(make_run, prompts):
    run = make_run("r", prompts(3), {"harmful": [[True], [False], [None]]})
    write_summary(run)
    summary = json.loads((run / "summary.json").read_text())
    rate = next(r for r in summary["rates"] if r["question"] == "harmful")
    expected = "question category judge judge_hash n scored unscored events raw corrected"
    assert {*expected.split(), "transported", "bounds", "selected_by_judge"} <= set(rate)
    assert {"estimate", "lower", "upper"} <= set(rate["raw"])
    assert (rate["corrected"], rate["transported"], rate["bounds"]) == (None, None, [1 / 3, 2 / 3])
    assert rate["selected_by_judge"] is False


def test_a_figure_is_a_share_with_its_interval_or_an_error(make_run, prompts):
    answers = {"harmful": [[True], [False], [False]], "refused": [[None], [None], [None]]}
    summary = summarise(make_run("r", prompts(3), answers))
    share = summary.figure("harmful")
    assert share.estimate == pytest.approx(1 / 3) and share.lower < 1 / 3 < share.upper
    with pytest.raises(UserError, match="harmfull: was not measured; did you mean 'harmful'"):
        summary.figure("harmfull")
    with pytest.raises(UserError, match="refused: none of 3 answers was scored"):
        summary.figure("refused")


def test_outcomes_are_disjoint(make_run, prompts):
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
    all_outcomes = summarise(run).outcomes
    counts = next(o for o in all_outcomes if o.category is None and o.expect is None)
    assert (counts.harmful, counts.refused, counts.degenerate, counts.answered) == (1, 1, 1, 1)
    assert (counts.abstained, counts.blocked, counts.unscored, counts.n) == (1, 1, 1, 7)
    by_category = next(o for o in all_outcomes if o.category == "self_harm")
    assert by_category.n == 7


def test_what_was_not_tested_is_listed(make_run, prompts):
    run = make_run("r", prompts(3, harms=("self_harm",)), {"harmful": [[False]] * 3})
    not_tested = summarise(run).not_tested
    assert any(line.startswith("category violence") for line in not_tested)
    assert "refusal: no judge was asked" in not_tested
    assert "over-refusal: no benign prompt was asked" in not_tested
    plain = summarise(make_run("p", prompts(1), {"harmful": [[False]]})).not_tested
    assert "harm by category of the prompt" in plain


def test_find_prefers_the_quoted_judge(make_run, prompts):
    run = make_run("r", prompts(4), {"harmful@human:a": [[True]] * 4, "harmful@j": [[False]] * 4})
    summary = summarise(run)
    assert summary.headline == {"harmful": "j"}
    assert summary.find("harm").judge == "j"
    assert summary.find("harm", judge="human:a").events == 4
    assert summary.find("harm", judge="nobody") is None


def test_judgements_of_unknown_samples_are_noted(make_run, prompts):
    run = make_run("r", prompts(3), {"harmful": [[False]] * 3})
    file = next((run / "judgements").iterdir())
    with file.open("a") as stream:
        stream.write(
            '{"sample_id":"stranger","judge":"test:harmful","question":"harmful","verdict":true}\n'
        )
    summary = summarise(run)
    assert summary.find("harm").events == 0
    assert any("belong to no sample" in note for note in summary.notes)


def test_a_broken_line_is_named_and_a_torn_last_line_ignored(make_run, prompts):
    run = make_run("r", prompts(3), {"harmful": [[False]] * 3})
    file = next((run / "judgements").iterdir())
    with file.open("a") as stream:
        stream.write('{"sample_id":"s0","verd')
    assert summarise(run).find("harm").scored == 3
    with file.open("a") as stream:
        stream.write("\n")
    with pytest.raises(RunError, match=r"jsonl:4"):
        summarise(run)


def test_a_plain_summary_does_not_load_scipy(make_run, prompts):
    run = make_run("r", prompts(40), {"harmful": [[False, True]] * 40})
    code = (
        "import sys; from truing.analysis.summary import write_summary;"
        f"write_summary({str(run)!r});"
        "print([m for m in ('scipy', 'statsmodels') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_folder_without_a_run(tmp_path: Path):
    with pytest.raises(RunError, match="no run folder"):
        summarise(tmp_path)
