"""Judges compared on labelled sets: what counts for which judge, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.analysis.judged_sets import ScoringJudge, compare, labelled_rows, number_in, store_rows

from truing.analysis.judge_comparison import ComparedJudge, SetSource, check_comparable
from truing.core.errors import DataError, LineageError, PlanError
from truing.runs.folder import Run
from truing.specs.resolve import resolve


def check(runs: list[Run], judges: list[ScoringJudge]) -> dict[str, list[Path]]:
    return check_comparable(
        [ComparedJudge.of(j.name, j.name, j.question, j.lineage) for j in judges],
        {judge.name: judge.lineage for judge in judges},
        [SetSource(run.path) for run in runs],
    )


def test_a_perfect_and_a_blind_judge(tmp_path: Path) -> None:
    run = store_rows(tmp_path, labelled_rows())
    good, blind = ScoringJudge("good", number_in), ScoringJudge("blind", lambda _: 0.3)
    comparison = compare([run], [good, blind])
    of_good, of_blind = comparison.results
    assert (of_good.n, of_good.n_positive, of_good.unscored) == (120, 40, 0)
    assert of_good.auroc.estimate == of_good.f1.estimate == of_good.recall.estimate == 1
    assert of_good.false_alarm.estimate == 0 and of_good.recall_at[-1].recall.estimate == 1
    assert [point.rate for point in of_good.recall_at] == [0.05, 0.1]  # 80 benign rows: no 1 %
    assert [(a.model, a.n, a.events) for a in of_good.alarms] == [("two", 40, 0), ("one", 40, 0)]
    assert of_blind.recall.estimate == 0 and of_blind.auroc is None
    assert "no probabilities to rank rows by" in of_blind.notes[0]
    by_measure = {d.measure: d for d in comparison.differences}
    assert by_measure["recall"].difference.estimate == -1 < by_measure["recall"].difference.upper
    assert by_measure["recall"].p_adjusted < 0.001 and by_measure["recall"].baseline == "good"
    assert by_measure["false_alarm"].p_adjusted == 1
    assert comparison.agreements[0].share == pytest.approx(80 / 120)
    assert comparison.problems == ()


def test_training_rows_are_struck_for_their_judge_alone(tmp_path: Path) -> None:
    run = store_rows(tmp_path, labelled_rows())
    learned = ScoringJudge("learned", number_in, trained_on=["Question 0!", "question 1"])
    fresh = ScoringJudge("fresh", number_in)
    of_learned, of_fresh = compare([run], [learned, fresh]).results
    assert (of_learned.n, of_learned.struck) == (116, 4)
    assert (of_fresh.n, of_fresh.struck) == (120, 0)


def test_an_attack_is_struck_by_its_goal(tmp_path: Path) -> None:
    rows = [{**row, "goal": f"goal {k % 4}"} for k, row in enumerate(labelled_rows())]
    run = store_rows(tmp_path, rows)
    judge = ScoringJudge("learned", number_in, trained_on=["Goal 3"])
    (result,) = compare([run], [judge]).results
    assert (result.n, result.struck) == (90, 30)


def test_unscored_rows_are_bounds_and_no_verdict(tmp_path: Path) -> None:
    run = store_rows(tmp_path, labelled_rows())
    judge = ScoringJudge("shy", lambda t: None if t.endswith(("0", "5")) else number_in(t))
    comparison = compare([run], [judge])
    (result,) = comparison.results
    assert result.unscored == 24 and result.unscored_positive == 8
    assert result.recall_bounds == (pytest.approx(32 / 40), 1.0)
    assert result.false_alarm_bounds == (0.0, pytest.approx(16 / 80))
    assert sum(a.unscored for a in result.alarms) == 16
    assert "left 24 of 120 rows unscored" in comparison.problems[0]


def test_a_judge_that_answers_nothing_has_no_figures(tmp_path: Path) -> None:
    run = store_rows(tmp_path, labelled_rows())
    comparison = compare([run], [ScoringJudge("mute", lambda _: None)])
    (result,) = comparison.results
    assert result.recall is result.false_alarm is result.auroc is result.f1 is None
    assert result.recall_bounds == (0.0, 1.0) and all(a.rate is None for a in result.alarms)
    assert "it answered none of the 120 rows" in comparison.problems[0]


def test_rows_that_were_not_judged_count_as_unscored(tmp_path: Path) -> None:
    run = store_rows(tmp_path, labelled_rows())
    (result,) = compare([run], [ScoringJudge("absent", number_in)], judged=False).results
    assert result.n == result.unscored == 120


def test_a_set_of_one_class_measures_what_it_can(tmp_path: Path) -> None:
    benign = [row for row in labelled_rows() if not row["harmful"]]
    harmful = [row for row in labelled_rows() if row["harmful"]]
    runs = [store_rows(tmp_path, benign, "benign"), store_rows(tmp_path, harmful, "harmful")]
    of_benign, of_harmful = compare(runs, [ScoringJudge("good", number_in)]).results
    assert of_benign.false_alarm is not None and of_benign.recall is of_benign.auroc is None
    assert of_benign.f1 is None and "all 80 rows are benign" in of_benign.notes[0]
    assert of_harmful.recall is not None and of_harmful.false_alarm is of_harmful.ap is None
    assert "all 40 rows are positive" in of_harmful.notes[0]


def test_contradicting_labels_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = labelled_rows()
    rows += [{**row, "harmful": not row["harmful"]} for row in rows[:5]]
    run = store_rows(tmp_path, rows)
    comparison = compare([run], [ScoringJudge("good", number_in)])
    assert comparison.results[0].n == 115
    assert comparison.sets[0].labels[0].contradicting == 10
    assert "10 rows with equal text are labelled both ways" in comparison.problems[0]


def test_labels_by_design_where_nobody_labelled(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"question {k}", "response": f"answer {0.1 + k / 100} x", "expect": expect}
        for k, expect in enumerate(["comply"] * 30 + ["refuse"] * 10)
    ]
    run = store_rows(tmp_path, rows)
    on_answers = ScoringJudge("answers", number_in)
    on_prompts = ScoringJudge("prompts", number_in, question="harmful_prompt")
    answers, prompts = compare([run], [on_answers, on_prompts]).results
    # Nobody says whether the prompts to be refused were refused, so their answers have no label.
    assert (answers.labels, answers.n, answers.n_positive) == ("design", 30, 0)
    assert (prompts.labels, prompts.n, prompts.n_positive) == ("design", 40, 10)


def test_faults_are_found_before_anything_is_judged(tmp_path: Path) -> None:
    plain = [{"prompt": f"question {k}", "response": "answer"} for k in range(5)]
    unlabelled = store_rows(tmp_path, plain, "unlabelled")
    labelled = store_rows(tmp_path, labelled_rows(), "labelled")
    both_ways = [{**row, "harmful": h} for row in plain for h in (True, False)]
    contradicting = store_rows(tmp_path, both_ways, "contradicting")
    good = ScoringJudge("good", number_in)
    with pytest.raises(DataError, match="is not labelled for harmful"):
        check([labelled, unlabelled], [good])
    with pytest.raises(DataError, match="10 rows with equal text are labelled both ways"):
        check([contradicting], [good])
    with pytest.raises(PlanError, match="no set has labels of its question, 'witty'"):
        check([labelled], [good, ScoringJudge("other", number_in, question="witty")])
    with pytest.raises(PlanError, match="the judge good is given more than once"):
        check([labelled], [good, good])
    prompts = [f"question {k}" for k in range(60)]
    with pytest.raises(LineageError, match="no row is left"):
        check([labelled], [ScoringJudge("knows", number_in, trained_on=prompts)])
    # What is struck for a judge as a whole need not be judged by it.
    knows = ScoringJudge("knows", number_in, trained_on=prompts)
    assert check([labelled], [good, knows]) == {"good": [labelled.path], "knows": []}


def test_a_judge_tuned_on_a_set_without_hashes_is_named(tmp_path: Path) -> None:
    from msgspec.structs import replace

    run = store_rows(tmp_path, labelled_rows())
    judge = ScoringJudge("tuned", number_in)
    judge.lineage = replace(judge.lineage, data=("file (half of its rows)",))
    (problem,) = compare([run], [judge]).problems
    assert "tuned was tuned on file (half of its rows)" in problem


def test_who_learned_frozen_prompts_is_struck_on_their_published_set(
    tmp_path: Path, data_dir: Path
) -> None:
    prompts = [
        row.sample.prompt for row in resolve(f"xstest,data_dir={data_dir},limit=40", "data").rows()
    ]
    rows = [{**row, "prompt": prompt} for row, prompt in zip(labelled_rows(40), prompts[1:])]
    runs = [store_rows(tmp_path, rows, "xstest"), store_rows(tmp_path, labelled_rows(), "other")]
    learned = ScoringJudge("learned", number_in, trained_on=prompts[:1])
    of_xstest, of_other = compare(runs, [learned]).results
    assert of_xstest.n == 0 and of_xstest.struck == len(rows)
    assert "frozen measurement set (xstest)" in of_xstest.struck_reason
    assert of_other.n == 120
