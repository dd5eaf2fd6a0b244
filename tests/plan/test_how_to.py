"""The plan of docs/how-to/train-plan.md: it is a plan, and (slow) it runs on SmolLM2 in slices."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.cli.command_line import run_truing

from truing.plan.training_plan import parse_training_plan


@pytest.fixture
def page(root: Path) -> str:
    return (root / "docs" / "how-to" / "train-plan.md").read_text(encoding="utf-8")


def code_of(page: str, language: str) -> str:
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", page)[0]


def test_the_plan_of_the_page_is_a_plan(page: str) -> None:
    plan = parse_training_plan(code_of(page, "toml"))
    assert list(plan.steps) == ["sft", "reward", "cost", "policy"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_plan_of_the_page_runs_on_smollm2(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(code_of(page, "python"), {})
    Path("plan.toml").write_text(code_of(page, "toml"), encoding="utf-8")
    estimates = json.loads(run_truing("train plan.toml --dry-run --json"))
    assert [step["status"] for step in estimates] == ["new", "waiting", "waiting", "waiting"]
    assert all(2**28 < step["memory"] < 2**34 for step in estimates)
    command = "train plan.toml --out out --json --max-steps 6"
    for _ in range(8):
        result = json.loads(run_truing(command).splitlines()[-1])
        if result["finished"]:
            break
    assert result["finished"] and Path(result["report"]["html"]).is_file()
