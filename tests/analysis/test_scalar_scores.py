"""Means in judges' own units against scipy and by hand; rewards are no rates; struck judges; where they are shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from truing.analysis.comparison import compare
from truing.analysis.summary import summarise, write_summary
from truing.analysis.verdict_table import read_verdict_table
from truing.cli.compare import command as compare_command
from truing.cli.show import command as show_command
from truing.core.types import Conversation, Failure, Judgement, Lineage, Message, Response, Sample
from truing.runs.folder import JudgeRecord, Manifest, RunWriter


def build(
    path: Path, values: dict[str, np.ndarray], *, answers: int = 1, struck: str = "", notes=None
) -> Path:
    """`values["reward"]` of shape [prompts, answers]; NaN = unscored. A cost above 0 is a verdict too."""
    kinds = {"reward": "reward", "cost": "harmful", "llm:harm": "harmful", "rules": "refused"}
    records = [
        JudgeRecord(
            name=k,
            question=kinds[k],
            file=f"judgements/{i}.jsonl",
            lineage=Lineage(name=k, hash=f"{i}" * 16),
            struck="chose it" if k == struck else None,
        )
        for i, k in enumerate(values)
    ]
    writer = RunWriter(path, Manifest(model="m", judges=records, complete=True, notes=notes or {}))
    n = len(next(iter(values.values())))
    for at in range(n):
        writer.append(
            "samples.jsonl",
            Sample(id=f"s{at}", conversation=Conversation.of(f"q {at}"), expect="refuse"),
        )
        for index in range(answers):
            writer.append(
                "responses.jsonl",
                Response(
                    sample_id=f"s{at}", index=index, model="m", message=Message("assistant", "a")
                ),
            )
    for record in records:
        for at, row in enumerate(values[record.name].reshape(n, answers)):
            for index, x in enumerate(row):
                value = None if np.isnan(x) else float(x)
                failure = Failure("judge", "too-long", "x") if value is None else None
                verdict = (
                    None
                    if value is None or record.name == "reward"
                    else value > (2 if record.name == "llm:harm" else 0)
                )
                writer.append(
                    record.file,
                    Judgement(
                        sample_id=f"s{at}",
                        index=index,
                        judge=record.name,
                        verdict=verdict,
                        question=record.question,
                        value=value,
                        failure=failure,
                    ),
                )
    writer.close()
    return path


def test_a_mean_is_scipys_interval_over_prompts(tmp_path):
    from scipy import stats

    given = np.random.default_rng(0).normal(-3, 2, (50, 4))
    given[0, :3] = np.nan
    made = summarise(build(tmp_path / "r", {"reward": given}, answers=4))
    (mean,) = made.means
    prompts = np.nanmean(given, axis=1)
    low, high = stats.t.interval(0.95, 49, prompts.mean(), stats.sem(prompts))
    assert (mean.value.estimate, mean.value.lower, mean.value.upper) == pytest.approx(
        (prompts.mean(), low, high)
    )
    assert (mean.n, mean.prompts, mean.missing) == (197, 50, 3)
    assert all(r.question != "reward" for r in made.rates)  # "0 of 0" says nothing


def test_costs_and_grades_have_a_rate_and_a_mean_and_shares_have_a_rate(tmp_path):
    given = {
        "cost": np.array([1.5, -2.0, -0.5, 3.0]),
        "llm:harm": np.array([1.0, 2.0, 5.0, 3.0]),
        "rules": np.array([0.0, 0.5, 1.0, 1.0]),
    }
    made = summarise(build(tmp_path / "r", given))
    assert {(m.judge, m.value.estimate) for m in made.means} == {("cost", 0.5), ("llm:harm", 2.75)}
    assert made.find("harmful", judge="cost").events == 2 and made.find("refused").events == 3


def test_changes_are_paired_by_prompt_over_those_with_values_in_both(tmp_path):
    from scipy import stats

    rng = np.random.default_rng(1)
    a = rng.normal(0, 5, 60)
    b = a + rng.normal(0.4, 0.5, 60)
    b[:5] = np.nan
    got = compare(build(tmp_path / "a", {"reward": a}), build(tmp_path / "b", {"reward": b}))
    (m,) = got.means
    low, high = stats.t.interval(0.95, 54, (b - a)[5:].mean(), stats.sem((b - a)[5:]))
    assert m.n_pairs == 55 and (m.delta.lower, m.delta.upper) == pytest.approx((low, high))
    assert (m.mean_a, m.mean_b) == pytest.approx((a[5:].mean(), b[5:].mean()))
    assert all(d.question != "reward" for d in got.deltas)


def test_one_value_has_no_interval_and_none_no_mean(tmp_path):
    one = summarise(build(tmp_path / "one", {"reward": np.array([2.0, np.nan])}))
    assert one.means[0].value is None and one.means[0].n == 1
    none = summarise(build(tmp_path / "none", {"reward": np.array([np.nan, np.nan])}))
    assert (
        none.means == () and none.find("reward").unscored == 2
    )  # a judge that failed everywhere is not passed over


def test_a_run_that_was_stopped_by_its_figures_has_no_student_interval(tmp_path):
    assert (
        summarise(build(tmp_path / "r", {"reward": np.arange(40.0)}, notes={"until": "x"})).means
        == ()
    )


def test_they_are_shown_and_struck(tmp_path, capsys):
    rng = np.random.default_rng(2)
    a = build(
        tmp_path / "a", {"reward": rng.normal(0, 1, 40), "rules": np.zeros(40)}, struck="reward"
    )
    b = build(
        tmp_path / "b", {"reward": rng.normal(1, 1, 40), "rules": np.zeros(40)}, struck="reward"
    )
    write_summary(a)
    assert show_command(a) == 0
    shown = capsys.readouterr().out
    assert (
        "mean of reward" in shown
        and "struck" in shown
        and "0 of 0" not in shown
        and "unscored (40)" not in shown
    )
    assert compare_command(a, b, out=tmp_path / "report.html") == 0
    assert "mean of reward" in capsys.readouterr().out
    page = (tmp_path / "report.md").read_text()
    assert (
        "Rewards, costs and grades" in page
        and "~~" in page.split("Rewards, costs and grades")[1].split("##")[0]
    )


def test_a_judge_of_values_alone_is_no_column_of_verdicts(tmp_path):
    columns = read_verdict_table(build(tmp_path / "r", {"reward": np.array([1.0, 2.0])}))
    assert list(columns.columns["reward", "reward"].value_sums) == [1.0, 2.0]
