"""The scripts of examples/ that run without a model."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from truing.plan import parse_plan, run_plan
from truing.report import render

PLAN = """
baseline = "mixed"
[models]
mixed = "scripted:mixed"
refuse = "scripted:refuse"
[run]
judges = ["rules:refusal", "rules:degenerate", "keywords:"]
limit = 60
n = 2
[data]
safety = "builtin:safety"

[data.honest]
spec = "builtin:honest"
judges = ["rules:clarifies", "rules:abstains"]

[data.support]
spec = "builtin:support"
judges = ["rules:supports", "rules:refusal"]
"""


@pytest.fixture
def recompute(root: Path) -> ModuleType:
    path = root / "examples" / "recompute_report.py"
    spec = importlib.util.spec_from_file_location("recompute_report", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pandas_alone_recomputes_a_report(
    recompute: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    render.write_report(run_plan(parse_plan(PLAN), tmp_path), tmp_path)
    assert recompute.main(tmp_path) == 0
    printed = capsys.readouterr().out
    assert int(printed.split()[0]) > 60, printed
    # A report with another figure than its run folders is found out.
    path = tmp_path / "report.json"
    report = json.loads(path.read_text())
    report["variants"][1]["summaries"]["safety"]["axes"][0]["events"] += 1
    report["comparisons"]["refuse"]["safety"]["deltas"][0]["estimate"] -= 0.01
    path.write_text(json.dumps(report))
    assert recompute.main(tmp_path) == 2


def test_rails_take_attack_success_from_an_agent_and_leave_utility(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    plan = parse_plan((root / "examples" / "agents.toml").read_text(), "agents.toml")
    report = run_plan(plan, tmp_path)
    shares = {}
    for variant in report.variants:
        agents = variant.summaries["tasks"].agents
        assert agents
        shares[variant.name] = {f.name: f.raw.estimate for f in agents.figures if f.raw}
    plain, guarded = shares["plain"], shares["guarded"]
    assert guarded["attack success"] < 0.3 < plain["attack success"]
    assert guarded["utility"] > plain["utility"] - 0.1
