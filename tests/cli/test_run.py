"""`truing run` with and without a plan file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs
from tests.cli.command_line import run_truing, truing

from truing.cli.run import AGENT_JUDGES, SpecFlags, _choose_plan
from truing.core.errors import PlanError
from truing.plan import plan_from_specs, run_plan


def test_models_and_data_of_the_command_line_make_a_report(tmp_path: Path) -> None:
    text = run_truing(
        "run --model scripted:comply --model never=scripted:refuse --data builtin:safety "
        "--judge rules:refusal --limit 20 --out",
        tmp_path,
    )
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["baseline"] == "comply"
    assert (tmp_path / "never" / "safety" / "responses.jsonl").is_file()
    assert f"truing ui {tmp_path}" in text
    gate = f"truing gate {tmp_path / 'comply' / 'safety'} gate.toml"
    assert gate in " ".join(text.split()) and "truing init" in text


def test_a_spec_is_called_by_what_it_names() -> None:
    plan = plan_from_specs(
        ["local:models/my-bot", "answers=answers:log.jsonl", "prompted:hhh,of=(local:smollm2)"],
        ["file:rows.jsonl,prompt=question", "lookalikes=builtin:lookalikes"],
        ["rules:refusal"],
    )
    assert list(plan.models) == ["my-bot", "answers", "hhh"]
    assert {name: data.spec for name, data in plan.data.items()} == {
        "rows.jsonl": "file:rows.jsonl,prompt=question",
        "lookalikes": "builtin:lookalikes",
    }


def test_all_faults_of_names_are_reported_together() -> None:
    with pytest.raises(PlanError) as raised:
        plan_from_specs(["scripted:mixed", "scripted:mixed,seed=1", "../x=scripted:mixed"], [], [])
    assert len(raised.value.faults) == 2
    assert "a second 'mixed'" in raised.value.faults[0]
    assert "'../x'" in raised.value.faults[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("run --data builtin:safety", "need --model"),
        ("run plan.toml --model scripted:mixed", "not both"),
        ("run --full --model scripted:mixed", "--full adds variants to the shipped plan"),
        ("run plan.toml --full", "--full adds variants to the shipped plan"),
        ("run --model gpt-4o --judge rules:refusal", "did you mean 'openai:gpt-4o'?"),
        ("run --model scripted:mixed --data rows.csv --judge rules:refusal", "file:rows.csv"),
    ],
)
def test_wrong_arguments_are_status_1_with_what_to_write(
    words: str, message: str, tmp_path: Path
) -> None:
    result = truing(f"{words} --out", tmp_path)
    assert result.status == 1
    assert message in result.err
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_with_a_model_is_told_before_judges_are_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = tmp_path / "loaded"
    module = f"open({str(loaded)!r}, 'w').close()\ndef judge(sample, response): return False\n"
    (tmp_path / "slow_judge.py").write_text(module, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "out"
    wrong = plan_from_specs(["local:nowhere"], ["builtin:safety"], ["python:slow_judge:judge"])
    with pytest.raises(PlanError, match="nowhere"):
        run_plan(wrong, out)
    assert not loaded.exists()
    # Kinds that do not exist are told of judges, too.
    wrong = plan_from_specs(["gpt-4o"], ["builtin:safety"], ["moderetion:default"])
    with pytest.raises(PlanError) as raised:
        run_plan(wrong, out)
    assert "did you mean 'openai:gpt-4o'" in raised.value.faults[0]
    assert "did you mean 'moderation'" in raised.value.faults[1]
    right = plan_from_specs(["scripted:mixed"], ["builtin:safety"], ["python:slow_judge:judge"])
    run_plan(structs.replace(right, run=structs.replace(right.run, limit=1)), out)
    assert loaded.exists()


def test_the_next_step_labels_a_set_of_figures(tmp_path: Path) -> None:
    plan, out = tmp_path / "plan.toml", tmp_path / "out"
    plan.write_text(
        '[models]\nplain = "scripted:mixed"\n'
        '[data]\nsample = {spec = "builtin:article", shown = true}\n'
        'safety = {spec = "builtin:safety", limit = 4}\n'
        '[run]\njudges = ["rules:refusal"]\n'
    )
    printed = run_truing("run", str(plan), "--out", str(out))
    assert f"truing label {out}/plain/safety" in printed
    assert f"{out}/plain/sample" not in printed.rpartition("next:")[2]


@pytest.mark.parametrize(
    "spec", ["builtin:agents,world=mail", "attacked:injection,of=(builtin:agents),tries=2"]
)
def test_tasks_of_agents_beside_other_data_are_judged_by_state_too(spec: str) -> None:
    specs = SpecFlags(model=["scripted-agent"], data=["builtin:safety", f"tasks={spec}"])
    plan = _choose_plan(None, specs)
    assert plan.data["tasks"].judges == AGENT_JUDGES
    assert plan.data["safety"].judges == () and "rules:degenerate" in plan.run.judges
    named = replace(specs, judge=["rules:refusal"])
    assert _choose_plan(None, named).data["tasks"].judges == ()
    alone = replace(specs, data=[spec])
    assert _choose_plan(None, alone).run.judges == AGENT_JUDGES


def test_tasks_of_agents_are_judged_by_state_without_being_told(tmp_path: Path) -> None:
    text = run_truing(
        "run --model agent,of=(scripted-agent) --data tasks=builtin:agents,world=mail --out",
        tmp_path,
    )
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "Agents" in report
    assert "utility under attack" in report
    assert "completes benign tasks" in text


def test_real_tools_run_when_the_command_says_who_allowed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes_tools.py").write_text(
        'def read_note(name: str) -> str:\n    "Returns a note."\n    return name\n'
    )
    (tmp_path / "tasks.jsonl").write_text('{"prompt": "Which notes are there?"}\n')
    monkeypatch.syspath_prepend(tmp_path)
    tools = "tools=python:notes_tools:read_note,allow=read_note"
    words = (
        f"run --model agent,of=(scripted:comply),{tools} --data file:{tmp_path / 'tasks.jsonl'} "
        "--judge rules:refusal --out"
    )
    refused = truing(words, tmp_path / "out")
    assert refused.status == 1
    assert "a run needs --authorised WHO, in a plan `authorised` under [run]" in refused.err
    run_truing(f"{words} {tmp_path / 'out'} --authorised", "Ada")
    manifest = json.loads(
        (tmp_path / "out" / "agent" / "tasks.jsonl" / "manifest.json").read_text()
    )
    assert "Ada" in json.dumps(manifest)


def test_a_budget_ends_a_run_with_status_3_and_a_higher_one_continues(tmp_path: Path) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text("[comply]\ninput = 1\noutput = 2\n")
    command = "run --model scripted:comply --judge rules:refusal --limit 40 --prices"
    out = tmp_path / "out"
    stopped = truing(command, prices, "--budget", "0.001", "--out", out)
    assert stopped.status == 3
    assert "comply on safety: stopped by its budget of 0.001 after" in stopped.err
    assert "a higher budget continues it" in stopped.err
    report = (out / "report.md").read_text(encoding="utf-8")
    assert "stopped by its budget of" in report and "cost: money for all answers" in report
    shown = " ".join(run_truing("show", out).split())
    assert "spent on answers: 0.0" in shown.lower() and "was stopped by its budget" in shown
    done = truing(command, prices, "--budget", "1", "--out", out)
    assert done.status == 0 and "budget" not in done.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--budget 1", "--budget: needs prices"),
        ("--budget=-1 --prices {prices}", "--budget: expected an amount of money above 0"),
        ("--budget-tokens 0", "--budget-tokens: expected a number of tokens above 0"),
        ("--budget 1 --prices {prices}", "no price of 'refuse'"),
        ("--prices nowhere.toml", "nowhere.toml: "),
    ],
)
@pytest.mark.parametrize("command", ["run --judge rules:refusal", "evaluate --data builtin:safety"])
def test_wrong_budgets_are_status_1_before_any_call(
    command: str, flags: str, message: str, tmp_path: Path
) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text("[comply]\ninput = 1\noutput = 2\n")
    words = f"{command} --model scripted:refuse {flags.format(prices=prices)}"
    result = truing(words, "--out", tmp_path / "out")
    assert result.status == 1 and message in result.err
    assert not (tmp_path / "out").exists()
