"""`truing train grpo` and its siblings: settings from flags, scorers, and one whole run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.command_line import run_truing, truing
from tests.models.local.conftest import write as write_model

from truing.cli.train_rl import RLJob
from truing.cli.train_rl_flags import ConstraintFlags, PolicyFlags, RLRunFlags, SampleFlags
from truing.core.errors import PlanError
from truing.plan.training_steps import generator_factory, resolve_scorer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("base"), "llama")


@pytest.fixture
def grpo_flags(base: Path, tmp_path: Path) -> list[object]:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "ash"}\n{"prompt": "bay cob"}\n')
    data = f"file:{rows}"
    return ["--data", data, "--sample-data", data, "--base", base, "--out", tmp_path / "out"]


GRPO = (
    "train grpo --template plain --max-prompt 32 --max-new 6 --steps 1 --prompts 2 --lora 2"
    " --dtype float32 --reward rules:refusal --cost rules:refusal --sample-every 1"
    " --sample-judge rules:degenerate --no-tensorboard --json"
)


def test_the_command_trains_and_evaluates(grpo_flags: list[object], tmp_path: Path) -> None:
    result = json.loads(run_truing(GRPO, *grpo_flags).splitlines()[-1])
    assert result["steps"] == 1
    assert {"lambda", "measured_true"} <= set(result["last"])
    assert (tmp_path / "out" / "samples" / "step-1" / "manifest.json").is_file()


def test_an_unknown_generator_is_refused_before_training(
    grpo_flags: list[object], tmp_path: Path
) -> None:
    result = truing(f"{GRPO} --generator vlm", *grpo_flags)
    assert result.status == 1
    assert (
        "--generator 'vlm': must be local, vllm (or vllm,tensor_parallel=N), or the URL"
        in result.err
    )
    assert not (tmp_path / "out" / "log.jsonl").exists()


def test_generators() -> None:
    assert generator_factory("local") is None
    assert callable(generator_factory("http://127.0.0.1:9/v1"))
    with pytest.raises(PlanError, match="--generator 'x'"):
        generator_factory("x")


def make_job(method: str, run: RLRunFlags | None = None, **constraint: object) -> RLJob:
    return RLJob(
        method,  # type: ignore[arg-type]
        ["file:rows.jsonl"],
        ["rules:refusal"],
        Path("out"),
        run or RLRunFlags(),
        PolicyFlags(),
        ConstraintFlags(**constraint),  # type: ignore[arg-type]
        SampleFlags(sample_every=5),
    )


def test_settings_from_flags() -> None:
    costs = ["rules:degenerate"]
    settings = make_job("ppo-lag", RLRunFlags(steps=7), cost=costs, lambda_lr=0.3).settings()
    assert (settings.method, settings.steps, settings.lambda_lr) == ("ppo-lag", 7, 0.3)
    assert (settings.out, settings.sample_every) == ("out", 5)


def test_methods_that_compare_answers_sample_several() -> None:
    assert make_job("ppo").settings().n == 1
    assert make_job("grpo").settings().n == 4
    assert make_job("grpo", RLRunFlags(n=2)).settings().n == 2


def test_a_spec_that_is_no_adapter_of_the_base_is_an_ordinary_judge() -> None:
    settings = make_job("ppo").settings()
    assert resolve_scorer("rules:refusal", settings).name == "rules:refusal"  # type: ignore[union-attr]
