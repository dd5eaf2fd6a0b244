"""Estimates of training plans: steps and lengths of each kind, counted without training."""

from __future__ import annotations

import json
from pathlib import Path

from tests.models.local.conftest import write as write_model

from truing.plan.estimates import StepEstimate, _count_steps, estimate_plan
from truing.plan.training_plan import StepPlan, parse_training_plan


def write_rows(path: Path, n: int, characters: int) -> Path:
    """Writes rows whose prompt and answer have so many characters together."""
    row = {"prompt": "p" * (characters - 20), "response": "r" * 20}
    path.write_text("".join(json.dumps(row) + "\n" for _ in range(n)))
    return path


def step_of(kind: str, data: list[Path], **keys: object) -> StepPlan:
    specs = json.dumps([f"file:{path}" for path in data])
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    text = f'[steps.a]\nkind = "{kind}"\ndata = {specs}\nbatch = 4\nepochs = 1\n'
    return parse_training_plan(text + "\n".join(lines)).steps["a"]


def test_steps_of_sampled_kinds_follow_what_is_learned(tmp_path: Path) -> None:
    rows = [write_rows(tmp_path / "a.jsonl", 24, 100)]
    by = {"by": "rules:refusal"}
    # A row for each of n answers, by default two; one row a prompt; one pair a prompt.
    assert _count_steps(step_of("distil", rows))[0] == 12
    assert _count_steps(step_of("distil", rows, n=3))[0] == 18
    best = step_of("best-of-sft", rows, n=8, max_tokens=30, **by)
    # Prompts of 80 characters and sampled answers of at most 30 tokens.
    assert _count_steps(best) == (6, 4 * (80 / 4 + 30))
    pairs = step_of("iterative-dpo", rows, rounds=2, max_tokens=30, **by)
    assert _count_steps(pairs) == (12, 4 * 2 * (80 / 4 + 30))
    fixed = step_of("iterative-dpo", rows, rounds=3, steps=5, **by)
    assert _count_steps(fixed)[0] == 15


def test_the_length_is_the_mean_of_all_rows(tmp_path: Path) -> None:
    many, few = tmp_path / "many.jsonl", tmp_path / "few.jsonl"
    data = [write_rows(many, 30, 100), write_rows(few, 10, 500)]
    steps, tokens = _count_steps(step_of("sft", data))
    assert (steps, tokens) == (10, 4 * (30 * 100 + 10 * 500) / 40 / 4)


def test_each_constraint_has_a_critic_in_time_and_memory(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", "llama")
    rows = write_rows(tmp_path / "a.jsonl", 4, 100)

    def estimate(*keys: str) -> StepEstimate:
        text = f"""
        base = "{base}"
        [steps.a]
        kind = "ppo-lag"
        data = ["file:{rows}"]
        reward = ["rules:refusal"]
        cost = ["rules:refusal"]
        steps = 2
        """
        return estimate_plan(parse_training_plan(text + "\n".join(keys)), tmp_path / "out")[0]

    one = estimate()
    two = estimate('cost_limit = ["harm,cost=(rules:degenerate),threshold=0.1"]')
    assert one.memory is not None and two.memory is not None and two.memory > one.memory
    assert two.seconds_a_step > one.seconds_a_step
