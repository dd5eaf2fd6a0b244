"""Means of judges in their own unit, against scipy and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from truing.analysis.comparison import compare
from truing.analysis.scalar_scores import student_mean_interval
from truing.analysis.summary import summarise, write_summary
from truing.analysis.verdict_table import read_verdict_table
from truing.cli.compare import command as compare_command
from truing.cli.show import command as show_command
from truing.core.types import Conversation, Failure, Judgement, Lineage, Message, Response, Sample
from truing.runs.folder import JudgeRecord, Manifest, RunWriter

QUESTIONS = {"reward": "reward", "cost": "harmful", "llm:harm": "harmful", "rules": "refused"}
VERDICT_THRESHOLDS = {"cost": 0, "llm:harm": 2, "rules": 0}  # a reward has no verdicts


def build_run_of_values(
    path: Path,
    values: dict[str, np.ndarray],
    *,
    answers: int = 1,
    struck: str = "",
    notes: dict[str, str] | None = None,
) -> Path:
    """Builds a run from values by judge, of shape [prompts, answers]; NaN is unscored."""
    records = [
        JudgeRecord(
            name=judge,
            question=QUESTIONS[judge],
            file=f"judgements/{i}.jsonl",
            lineage=Lineage(name=judge, hash=f"{i}" * 16),
            struck="chose it" if judge == struck else None,
        )
        for i, judge in enumerate(values)
    ]
    writer = RunWriter(path, Manifest(model="m", judges=records, complete=True, notes=notes or {}))
    n = len(next(iter(values.values())))
    for i in range(n):
        conversation = Conversation.of(f"q {i}")
        writer.append(
            "samples.jsonl", Sample(id=f"s{i}", conversation=conversation, expect="refuse")
        )
        for index in range(answers):
            message = Message("assistant", "a")
            writer.append(
                "responses.jsonl",
                Response(sample_id=f"s{i}", index=index, model="m", message=message),
            )
    for record in records:
        for i, row in enumerate(values[record.name].reshape(n, answers)):
            for index, value in enumerate(row):
                writer.append(record.file, judgement(record, f"s{i}", index, float(value)))
    writer.close()
    return path


def judgement(record: JudgeRecord, sample_id: str, index: int, value: float) -> Judgement:
    threshold = VERDICT_THRESHOLDS.get(record.name)
    missing = bool(np.isnan(value))
    return Judgement(
        sample_id=sample_id,
        index=index,
        judge=record.name,
        question=record.question,
        verdict=None if missing or threshold is None else value > threshold,
        value=None if missing else value,
        failure=Failure("judge", "too-long", "x") if missing else None,
    )


def test_a_mean_has_students_interval_over_prompts(tmp_path):
    from scipy import stats

    rewards = np.random.default_rng(0).normal(-3, 2, (50, 4))
    rewards[0, :3] = np.nan
    summary = summarise(build_run_of_values(tmp_path / "r", {"reward": rewards}, answers=4))
    (mean,) = summary.means
    prompt_means = np.nanmean(rewards, axis=1)
    interval = stats.t.interval(0.95, 49, prompt_means.mean(), stats.sem(prompt_means))
    assert mean.value.estimate == pytest.approx(prompt_means.mean())
    assert (mean.value.lower, mean.value.upper) == pytest.approx(interval)
    assert (mean.n, mean.prompts, mean.missing) == (197, 50, 3)
    assert all(rate.question != "reward" for rate in summary.rates)  # it would be "0 of 0"


def test_costs_and_grades_have_a_rate_and_a_mean(tmp_path):
    values = {
        "cost": np.array([1.5, -2.0, -0.5, 3.0]),
        "llm:harm": np.array([1.0, 2.0, 5.0, 3.0]),
        "rules": np.array([0.0, 0.5, 1.0, 1.0]),  # within [0, 1]: a rate only
    }
    summary = summarise(build_run_of_values(tmp_path / "r", values))
    means = {(mean.judge, mean.value.estimate) for mean in summary.means}
    assert means == {("cost", 0.5), ("llm:harm", 2.75)}
    assert summary.find("harmful", judge="cost").events == 2
    assert summary.find("refused").events == 3


def test_changes_are_paired_over_prompts_with_values_in_both_runs(tmp_path):
    from scipy import stats

    rng = np.random.default_rng(1)
    a = rng.normal(0, 5, 60)
    b = a + rng.normal(0.4, 0.5, 60)
    b[:5] = np.nan
    comparison = compare(
        build_run_of_values(tmp_path / "a", {"reward": a}),
        build_run_of_values(tmp_path / "b", {"reward": b}),
    )
    (mean,) = comparison.means
    changes = (b - a)[5:]
    interval = stats.t.interval(0.95, 54, changes.mean(), stats.sem(changes))
    assert mean.n_pairs == 55
    assert (mean.delta.lower, mean.delta.upper) == pytest.approx(interval)
    assert (mean.mean_a, mean.mean_b) == pytest.approx((a[5:].mean(), b[5:].mean()))
    assert all(delta.question != "reward" for delta in comparison.deltas)


def test_a_single_value_has_no_interval(tmp_path):
    run = build_run_of_values(tmp_path / "one", {"reward": np.array([2.0, np.nan])})
    (mean,) = summarise(run).means
    assert (mean.value, mean.n) == (None, 1)
    assert student_mean_interval([1.0]) is None


def test_a_judge_without_any_value_is_shown_as_unscored(tmp_path):
    run = build_run_of_values(tmp_path / "none", {"reward": np.array([np.nan, np.nan])})
    summary = summarise(run)
    assert summary.means == ()
    assert summary.find("reward").unscored == 2


def test_a_stopped_run_has_no_students_interval(tmp_path):
    run = build_run_of_values(tmp_path / "r", {"reward": np.arange(40.0)}, notes={"until": "x"})
    assert summarise(run).means == ()


def test_means_are_shown_and_struck_in_commands_and_reports(tmp_path, capsys):
    rng = np.random.default_rng(2)
    a, b = (
        build_run_of_values(
            tmp_path / name,
            {"reward": rng.normal(shift, 1, 40), "rules": np.zeros(40)},
            struck="reward",
        )
        for name, shift in (("a", 0), ("b", 1))
    )
    write_summary(a)
    assert show_command(a) == 0
    output = capsys.readouterr().out
    assert "mean of reward" in output
    assert "struck" in output
    assert "0 of 0" not in output
    assert "unscored (40)" not in output
    assert compare_command(a, b, out=tmp_path / "report.html") == 0
    assert "mean of reward" in capsys.readouterr().out
    report = (tmp_path / "report.md").read_text()
    assert "Rewards, costs and grades" in report
    assert "~~" in report.split("Rewards, costs and grades")[1].split("##")[0]


def test_values_are_kept_by_position(tmp_path):
    run = build_run_of_values(tmp_path / "r", {"reward": np.array([1.0, 2.0])})
    table = read_verdict_table(run)
    assert list(table.columns["reward", "reward"].value_sums) == [1.0, 2.0]
