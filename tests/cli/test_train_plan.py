"""`truing train PLAN.toml`: how it is called, presets, and faults before anything is trained."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from tests.cli.command_line import run_truing, truing

from truing.cli import expand_plan_command
from truing.plan.training_plan import read_preset


@pytest.mark.parametrize(
    ("words", "expanded"),
    [
        (["train", "plan.toml", "--dry-run"], ["train", "plan", "plan.toml", "--dry-run"]),
        (["train", "--preset", "beaver"], ["train", "plan", "--preset", "beaver"]),
        (["train", "sft", "--data", "x.toml"], ["train", "sft", "--data", "x.toml"]),
        (["train", "--help"], ["train", "--help"]),
        (["train"], ["train"]),
        (["run", "plan.toml"], ["run", "plan.toml"]),
        ([], []),
    ],
)
def test_the_short_form(words: list[str], expanded: list[str]) -> None:
    assert expand_plan_command(words) == expanded


def test_a_preset_is_printed_as_toml() -> None:
    printed = run_truing("train --preset beaver --print")
    assert printed == read_preset("beaver") and "steps" in tomllib.loads(printed)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train plan", "give a plan, or --preset NAME: beaver, dpo-safe, grpo-lag, sft-safe"),
        ("train --preset bever", "did you mean 'beaver'"),
        ("train nowhere.toml", "nowhere.toml"),
        ("train nowhere.toml --print", "nowhere.toml: No such file"),
        ("train plan.toml --preset beaver", "give a plan, or --preset NAME"),
        ("train plan.toml --max-minutes 0", "max_minutes = 0.0: must be above 0"),
        ("train plan.toml --out a,b", "a path in a spec may hold none of"),
    ],
)
def test_faults(
    command: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plan.toml").write_text('[steps.a]\nkind = "sft"\ndata = ["file:rows.jsonl"]\n')
    result = truing(command)
    assert result.status == 1
    assert message in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["plan.toml"]
