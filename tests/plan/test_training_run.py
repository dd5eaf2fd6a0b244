"""A training plan from SFT to the report: cached steps, slices, edits, faults, estimates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.models.local.conftest import write as write_model

from truing.core.errors import PlanError
from truing.plan.training_plan import parse_training_plan
from truing.plan.training_run import (
    TrainingPlanOptions,
    TrainingPlanResult,
    run_training_plan,
)
from truing.train.step_loop import SliceLimit
from truing.train.training_log import read_log

PLAN = """
title = "tiny"
base = "{base}"
[defaults]
lora = 2
dtype = "float32"
tensorboard = false
benign = 0.0
max_length = 128
batch = 4
[steps.sft]
kind = "sft"
data = ["trl:{pairs}"]
chosen = true
steps = 2
[steps.reward]
kind = "reward"
base = "{{steps.sft}}"
data = ["trl:{pairs}"]
steps = 2
[steps.cost]
kind = "cost"
base = "{{steps.sft}}"
data = ["trl:{pairs}"]
steps = {cost_steps}
[steps.policy]
kind = "grpo"
base = "{{steps.sft}}"
data = ["file:{rows}"]
reward = ["reward:{{steps.reward}}"]
cost = ["cost:{{steps.cost}}"]
steps = 2
prompts = 2
n = 2
max_new = 4
max_prompt = 64
[evaluate]
with_text = false
[evaluate.models]
base = "local:{base},dtype=float32"
policy = "local:{{steps.policy}},dtype=float32"
[evaluate.run]
judges = ["rules:refusal"]
max_tokens = 4
[evaluate.data.held]
spec = "file:{rows}"
"""


class Workshop:
    """The folders and files of a plan on a tiny base, and the lines that its runs told."""

    def __init__(self, folder: Path) -> None:
        self.base = write_model(folder / "base", "llama")
        self.pairs, self.rows = folder / "pairs.jsonl", folder / "rows.jsonl"
        pairs = [
            {
                "prompt": f"true wheel {k}?",
                "chosen": f"slowly, {k}.",
                "rejected": "no.",
                "signs": [1, -1],
            }
            for k in range(8)
        ]
        self.pairs.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
        self.rows.write_text('{"prompt": "ash"}\n{"prompt": "bay cob"}\n')
        self.lines: list[str] = []

    def run(
        self, out: Path, *, limit: SliceLimit | None = None, cost_steps: int = 2
    ) -> TrainingPlanResult:
        fields: dict[str, Any] = {"base": self.base, "pairs": self.pairs, "rows": self.rows}
        plan = parse_training_plan(PLAN.format(**fields, cost_steps=cost_steps))
        self.lines = []
        options = TrainingPlanOptions(tell=self.lines.append, limit=limit)
        return run_training_plan(plan, out, options)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("plan"))


@pytest.fixture(scope="module")
def whole_run(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a plan that ran without interruption."""
    out = tmp_path_factory.mktemp("whole")
    result = workshop.run(out)
    assert result.finished and all(step.done_now == 2 for step in result.steps)
    return out


def folders_of(result: TrainingPlanResult) -> dict[str, Path]:
    return {step.name: Path(step.folder) for step in result.steps}


def test_a_plan_runs_to_a_report_and_is_not_run_twice(workshop: Workshop, whole_run: Path) -> None:
    report = json.loads((whole_run / "report.json").read_text())
    assert report["baseline"] == "base" and list(report["comparisons"]) == ["policy"]
    result = workshop.run(whole_run)
    assert result.finished and [step.done_now for step in result.steps] == [0, 0, 0, 0]
    card = json.loads((folders_of(result)["policy"] / "truing.json").read_text())
    judges = {judge["name"].split(":")[0] for judge in card["lineage"]["judges"]}
    assert judges == {"reward", "cost"}


def test_slices_end_in_the_same_weights(
    workshop: Workshop, whole_run: Path, tmp_path: Path
) -> None:
    for _ in range(6):
        result = workshop.run(tmp_path, limit=SliceLimit(steps=3))
        assert sum(step.done_now for step in result.steps) <= 3
        if result.finished:
            break
    whole = folders_of(workshop.run(whole_run))
    for name, folder in folders_of(result).items():
        assert [row["step"] for row in read_log(folder)] == [1, 2]
        weights = (folder / "model.safetensors").read_bytes()
        assert weights == (whole[name] / "model.safetensors").read_bytes()
        # The hash in a folder's name covers the weights it was built on: they are equal too.
        assert folder.name == whole[name].name


def test_an_edited_step_runs_again_and_what_builds_on_it(
    workshop: Workshop, whole_run: Path
) -> None:
    before = folders_of(workshop.run(whole_run))
    result = workshop.run(whole_run, cost_steps=3)
    assert [step.done_now for step in result.steps] == [0, 0, 3, 2]
    told = "\n".join(workshop.lines)
    assert "cost: changed since it ran (steps: 2 -> 3); it runs again" in told
    assert "policy: changed since it ran (cost: " in told
    assert "evaluation: policy is another model now" in told
    assert before["cost"].is_dir()
    # Changed back: the earlier results are still there.
    assert [step.done_now for step in workshop.run(whole_run).steps] == [0, 0, 0, 0]


def test_wrong_specs_of_all_steps_together_before_the_first(tmp_path: Path) -> None:
    text = """
    [steps.a]
    kind = "sft"
    base = "smolm3"
    data = ["trlx:nowhere.jsonl"]
    [steps.b]
    kind = "grpo"
    base = "{steps.a}"
    data = ["file:nowhere.jsonl"]
    reward = ["rewrd:{steps.a}"]
    [evaluate]
    models = {b = "locl:{steps.b}"}
    data = {safety = "builtin:safty"}
    """
    with pytest.raises(PlanError) as caught:
        run_training_plan(parse_training_plan(text), tmp_path / "out")
    shown = str(caught.value)
    for words in (
        "steps.a.base: ",
        "steps.a.data: ",
        "steps.b.data: ",
        "steps.b.reward: ",
        "did you mean 'reward'",
        "evaluate.models.b: ",
        "did you mean 'local'",
        "evaluate.data.safety: ",
    ):
        assert words in shown
    assert not (tmp_path / "out").exists()
