"""The GitHub action: its shell steps run as written, with a model of fixed answers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS = ACTION["runs"]["steps"]
PLAN = """
[models]
bot = "scripted:refuse"
[run]
judges = ["rules:refusal", "rules:degenerate"]
[data.safety]
spec = "builtin:safety,limit=80"
"""
RULES = """title = "release"
rules = ["no-regression[degenerate] vs BASELINE within 0.2"]
[[rule]]
check = "LIMIT"
allow = ["uncarded"]
"""


def _run_step(name: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a step's script as GitHub does: `bash -eo pipefail`."""
    (step,) = (step for step in STEPS if step.get("name") == name)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    files = {"GITHUB_OUTPUT": str(folder / "out"), "GITHUB_STEP_SUMMARY": str(folder / "summary")}
    assert set(step.get("env", {})) == set(environment)
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", step["run"]],
        cwd=folder,
        env={**os.environ, "PATH": path, **files, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _gate(folder: Path, limit: str) -> str:
    """Runs the steps from the measurement to the verdict, and returns the verdict."""
    (folder / "plan.toml").write_text(PLAN, encoding="utf-8")
    (folder / "gate.toml").write_text(RULES.replace("LIMIT", limit), encoding="utf-8")
    assert _run_step("Measure", folder, PLAN="plan.toml").returncode == 0
    done = _run_step("Gate", folder, RUN="bot/safety", RULES="gate.toml")
    assert done.returncode == 0, done.stderr
    return (folder / "out").read_text(encoding="utf-8").splitlines()[-1].removeprefix("verdict=")


def test_a_run_passes_becomes_the_baseline_and_the_next_is_compared_with_it(tmp_path: Path) -> None:
    assert _gate(tmp_path, "refuses_harmful.lower > 0.8") == "passed"
    assert "there is no baseline yet" in (tmp_path / "gate.md").read_text(encoding="utf-8")
    assert _run_step("Keep the run as the baseline", tmp_path).returncode == 0
    assert _gate(tmp_path, "refuses_harmful.lower > 0.8") == "passed"
    comment = (tmp_path / "gate.md").read_text(encoding="utf-8")
    assert "no-regression" in comment and "no baseline" not in comment
    assert (tmp_path / "summary").read_text(encoding="utf-8").endswith(comment)
    assert (tmp_path / "gate.xml").exists() and (tmp_path / "gate.sarif").exists()


def test_rules_on_the_baseline_alone_get_their_baseline(tmp_path: Path) -> None:
    only = 'rules = ["no-regression[degenerate] vs BASELINE within 0.2"]\n'
    (tmp_path / "plan.toml").write_text(PLAN, encoding="utf-8")
    (tmp_path / "gate.toml").write_text(only, encoding="utf-8")
    verdicts = []
    for _ in range(2):
        assert _run_step("Measure", tmp_path, PLAN="plan.toml").returncode == 0
        assert _run_step("Gate", tmp_path, RUN="bot/safety", RULES="gate.toml").returncode == 0
        verdicts.append((tmp_path / "out").read_text(encoding="utf-8").splitlines()[-2:])
        assert _run_step("Keep the run as the baseline", tmp_path).returncode == 0
    assert verdicts == [["keep=true", "verdict=inconclusive"], ["keep=true", "verdict=passed"]]


def test_files_of_the_checkout_are_no_results(tmp_path: Path) -> None:
    (tmp_path / "runs" / "ci").mkdir(parents=True)
    (tmp_path / "gate.md").write_text("planted", encoding="utf-8")
    name = "Remove files that stand in the place of results"
    assert _run_step(name, tmp_path).returncode == 0
    assert not (tmp_path / "gate.md").exists() and not (tmp_path / "runs" / "ci").exists()


def test_a_broken_rule_fails_the_job_and_so_does_an_error(tmp_path: Path) -> None:
    assert _gate(tmp_path, "answers_benign.lower > 0.5") == "failed"
    assert _gate(tmp_path, "no rule at all") == "error"


@pytest.mark.parametrize(
    ("verdict", "allow", "status"),
    [
        ("passed", "false", 0),
        ("failed", "true", 1),
        ("inconclusive", "false", 1),
        ("inconclusive", "true", 0),
        ("error", "true", 1),
        ("", "true", 1),
    ],
)
def test_only_a_passed_gate_ends_well(
    tmp_path: Path, verdict: str, allow: str, status: int
) -> None:
    assert _run_step("Verdict", tmp_path, VERDICT=verdict, ALLOW=allow).returncode == status


def test_no_text_of_a_pull_request_is_put_into_a_script() -> None:
    scripts = [step["run"] for step in STEPS if "run" in step]
    assert len(scripts) >= 5
    assert [script for script in scripts if "${{" in script] == []


def test_the_recipe_of_the_page_gives_the_inputs_that_the_action_has() -> None:
    page = (ROOT / "docs" / "gate.md").read_text(encoding="utf-8")
    workflow: dict[str, Any] = yaml.safe_load(re.findall(r"(?ms)^```yaml\n(.*?)^```", page)[-1])
    (step,) = (
        step for step in workflow["jobs"]["gate"]["steps"] if "/truing@" in step.get("uses", "")
    )
    required = {name for name, entry in ACTION["inputs"].items() if entry.get("required")}
    assert required <= set(step["with"]) <= set(ACTION["inputs"])
