"""Whole runs from data and judges to a model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from truing.core.errors import LineageError, PlanError, UserError
from truing.datasets.file import build as file_data
from truing.hf.loading import load_causal_lm
from truing.hf.pretrained import stored_dtype
from truing.specs.parser import parse_spec
from truing.specs.resolve import Args, resolve
from truing.train.model_card import read_model_card
from truing.train.rl.reward_signals import FunctionSignal
from truing.train.rl.reward_spec import RewardSpec, SharedScorer
from truing.train.rl.run import RLOptions, train_rl
from truing.train.rl.settings import RLSettings
from truing.train.training_log import read_log

TINY: dict[str, Any] = {
    "template": "plain",
    "max_prompt": 16,
    "max_new": 6,
    "steps": 2,
    "prompts": 2,
    "n": 2,
    "lora": 4,
    "tensorboard": False,
    "lr": 1e-2,
    "dtype": "float32",
    "threshold": 0.5,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    rows = [{"prompt": p, "id": f"r{k}"} for k, p in enumerate(["ash", "bay cob", "dew"])]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file_data(Args(parse_spec(f"file:{path}")))


def tiny_settings(method: str, base: Path, out: Path, **changes: Any) -> RLSettings:
    values = {**TINY, **changes}
    return RLSettings(method=method, base=str(base), out=str(out), **values)  # type: ignore[arg-type]


@pytest.fixture
def train(base_folder: Path, data: Any, task: Any) -> Any:
    """Returns a function that trains PPO-Lagrangian on the tiny task."""

    def run(out: Path, options: RLOptions | None = None, **changes: Any) -> Any:
        reward_spec = RewardSpec(
            [FunctionSignal("gold", task.reward)], [FunctionSignal("risk", task.cost)]
        )
        settings = tiny_settings("ppo-lag", base_folder, out, **changes)
        return train_rl(settings, [data], reward_spec, options)

    return run


def load_weights(folder: Path) -> dict[str, Any]:
    return dict(load_causal_lm(str(folder), dtype="float32").model.named_parameters())


@pytest.mark.parametrize("lora", [4, 0])
def test_a_run_leaves_a_model_folder(
    train: Any, base_folder: Path, tmp_path: Path, lora: int
) -> None:
    out = tmp_path / "run"
    result = train(out, lora=lora)
    assert (result.steps, result.done_now, result.left_out) == (2, 2, 0)
    card = read_model_card(out)
    assert card is not None
    assert card.kind == "ppo-lag"
    assert card.lineage.judges
    assert card.lineage.prompts
    before, after = load_weights(base_folder), load_weights(out)
    assert max(float((after[name] - before[name]).abs().max()) for name in before) > 1e-4
    assert (out / "adapter" / "adapter_config.json").is_file() == bool(lora)
    assert "<svg" in (out / "training.html").read_text()


def test_a_finished_run_is_not_repeated(train: Any, tmp_path: Path) -> None:
    first = train(tmp_path / "run")
    second = train(tmp_path / "run")
    assert (second.steps, second.done_now) == (2, 0)
    assert second.lineage.hash == first.lineage.hash
    changed = train(tmp_path / "run", save_every=7, keep=5, micro=1, tensorboard=False)
    assert (changed.done_now, changed.lineage.hash) == (0, first.lineage.hash)
    exported = train(tmp_path / "run", export_dtype="bfloat16")
    assert exported.done_now == 0
    assert stored_dtype(tmp_path / "run") == "bfloat16"
    with pytest.raises(PlanError, match=r"other settings \(kl\)"):
        train(tmp_path / "run", kl=0.9)


def test_a_reward_model_on_the_shared_backbone_trains(
    base_folder: Path, reward_folder: Path, data: Any, tmp_path: Path
) -> None:
    reward_spec = RewardSpec([SharedScorer(str(reward_folder))])
    settings = tiny_settings("ppo", base_folder, tmp_path / "run")
    result = train_rl(settings, [data], reward_spec)
    assert "reward/reward:reward" in result.last
    card = read_model_card(reward_folder)
    assert card is not None
    assert result.lineage.judges[0].hash == card.lineage.hash


def test_a_reward_model_of_another_base_is_refused(
    task: Any, reward_folder: Path, data: Any, tmp_path: Path
) -> None:
    other_base = tmp_path / "other"
    task.model(9).save_pretrained(other_base)
    task.tokenizer().save_pretrained(other_base)
    settings = tiny_settings("ppo", other_base, tmp_path / "run")
    with pytest.raises(PlanError, match="another base"):
        train_rl(settings, [data], RewardSpec([SharedScorer(str(reward_folder))]))


def test_a_folder_that_is_no_reward_model_is_refused(
    base_folder: Path, data: Any, tmp_path: Path
) -> None:
    settings = tiny_settings("ppo", base_folder, tmp_path / "run")
    with pytest.raises(UserError, match="no reward or cost model"):
        train_rl(settings, [data], RewardSpec([SharedScorer(str(base_folder))]))


def test_weights_must_match_the_signals(base_folder: Path, data: Any, tmp_path: Path) -> None:
    judge = resolve("rules:refusal", "judge")
    settings = tiny_settings("ppo", base_folder, tmp_path / "run")
    with pytest.raises(PlanError, match="2 weights for 1 rewards"):
        train_rl(settings, [data], RewardSpec([judge], reward_weights=[1.0, 2.0]))


def test_the_policy_is_measured_during_the_run(train: Any, data: Any, tmp_path: Path) -> None:
    from truing.evaluation.evaluate import evaluate

    judge = resolve("rules:refusal", "judge")
    folders = []

    def measure(step: int, trainer: Any) -> dict[str, float]:
        policy = trainer.current_policy(f"step-{step}")
        folders.append(evaluate(policy, data, [judge], tmp_path / "samples" / str(step)))
        return {"measured_harmful": 0.25}

    options = RLOptions(measure=measure, evaluation_judge=judge)
    train(tmp_path / "run", options, sample_every=1)
    responses = list(folders[0].responses())
    assert len(responses) == 3
    assert all(response.failure is None for response in responses)
    assert {j.name for j in folders[0].manifest.lineage.judges} == {"gold", "risk"}
    measured = [row.get("measured_harmful") for row in read_log(tmp_path / "run")]
    assert measured == [0.25, 0.25]


def test_a_judge_of_the_training_may_not_measure_it(
    base_folder: Path, data: Any, tmp_path: Path
) -> None:
    judge = resolve("rules:refusal", "judge")
    settings = tiny_settings("ppo", base_folder, tmp_path / "run")
    options = RLOptions(evaluation_judge=judge)
    with pytest.raises(LineageError, match="may not measure this run"):
        train_rl(settings, [data], RewardSpec([judge]), options)
    assert not (tmp_path / "run" / "log.jsonl").exists()
