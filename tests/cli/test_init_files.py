"""The files of `truing init` are what their readers accept."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from truing.cli.init_files import gate_toml, plan_toml, workflow_yaml
from truing.gates.rules import parse_rules
from truing.plan import parse_plan


def test_the_plan_measures_the_model_by_the_judges() -> None:
    text = plan_toml(
        'openai:my-model,base_url="http://host/v1"',
        ["builtin:safety,half=report", "rows=file:rows.jsonl"],
        ["rules:refusal"],
        128,
    )
    plan = parse_plan(text)
    assert plan.models == {"my-model": 'openai:my-model,base_url="http://host/v1"'}
    assert {name: data.spec for name, data in plan.data.items()} == {
        "safety": "builtin:safety,half=report",
        "rows": "file:rows.jsonl",
    }
    assert (plan.run.judges, plan.run.max_tokens) == (("rules:refusal",), 128)
    # The variant in the comments is right too.
    with_second = text.replace("# hhh", "hhh")
    assert list(parse_plan(with_second).models) == ["my-model", "hhh"]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_any_spec_is_written_as_it_is(name: str) -> None:
    quoted = json.dumps(name)[1:-1]
    spec = f'bot=scripted:mixed,note="{quoted}"'
    assert parse_plan(plan_toml(spec, ["builtin:safety"], [], 8)).models == {
        "bot": spec.removeprefix("bot=")
    }


@pytest.mark.parametrize("has_harm_judge", [True, False])
def test_the_rules_are_rules(has_harm_judge: bool) -> None:
    rules = parse_rules(gate_toml(has_harm_judge=has_harm_judge))
    assert len(rules.rules) == 3 + has_harm_judge


def test_the_workflow_passes_on_the_key_and_runs_the_gate() -> None:
    workflow = yaml.safe_load(workflow_yaml("runs/ci/my bot/safety", "MY_KEY"))
    steps = workflow["jobs"]["gate"]["steps"]
    (run,) = [step for step in steps if "truing run" in step.get("run", "")]
    assert run["env"] == {"MY_KEY": "${{ secrets.MY_KEY }}"}
    assert any('truing gate "runs/ci/my bot/safety"' in step.get("run", "") for step in steps)
    assert "env" not in yaml.safe_load(workflow_yaml("r", ""))["jobs"]["gate"]["steps"][3]
