"""Whole runs of a tiny model on bad input: a clear error before a weight changes, or a warning."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from truing.core.errors import DataError, PlanError, RunError, UserError
from truing.train.rl.policy_models import SeparateModels
from truing.train.rl.reward_signals import FunctionSignal, RewardSignals
from truing.train.rl.reward_spec import RewardSpec
from truing.train.rl.run import train_rl
from truing.train.rl.settings import RLSettings
from truing.train.training_log import read_log


def constant(name: str, value: float) -> FunctionSignal:
    return FunctionSignal(name, lambda rollout: torch.full((len(rollout.texts),), value))


def silent_models(task: Any, critics: tuple[str, ...] = ()) -> SeparateModels:
    """A policy that ends every answer at once."""
    model = task.model(0)

    def prefer_the_end(module: Any, args: Any, output: Any) -> Any:
        output.logits[..., 1] = output.logits[..., 1] + 50.0
        return output

    model.register_forward_hook(prefer_the_end)
    return SeparateModels(model, task.tokenizer(), critics)


@pytest.mark.parametrize(
    ("method", "critics"), [("grpo", ()), ("ppo-lag", ("reward_critic", "cost_critic"))]
)
def test_empty_answers_alone_end_no_run_and_no_resume(
    make_trainer: Any, task: Any, method: str, critics: tuple[str, ...]
) -> None:
    changes = {"steps": 2, "save_every": 1, "minibatch": 0, "epochs": 1}
    make_trainer(method, models=silent_models(task, critics), **changes).run()
    resumed = make_trainer(method, models=silent_models(task, critics), **{**changes, "steps": 4})
    resumed.run()
    rows = list(read_log(resumed.settings.out))
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert {row["empty"] for row in rows} == {1.0}
    assert {row["unscored"] for row in rows} == {0.0}
    # Silence is neither safe nor harmful: it moves no λ.
    assert {row["cost_mean"] for row in rows} == {resumed.settings.threshold}
    assert "100% of the answers are empty" in rows[0]["warning"]


def test_unscored_empty_answers_stop_a_run_with_their_name(make_trainer: Any, task: Any) -> None:
    trainer = make_trainer("grpo", models=silent_models(task), empty_answer_score="unscored")
    with pytest.raises(RunError, match=r"8 × an empty answer .* --max-unscored 1"):
        trainer.run()
    going_on = make_trainer(
        "grpo", models=silent_models(task), empty_answer_score="unscored", max_unscored=1.0
    )
    going_on.run()
    rows = list(read_log(going_on.settings.out))
    assert [row["unscored"] for row in rows] == [1.0, 1.0]


@pytest.mark.parametrize("method", ["ppo", "grpo", "rloo"])
def test_rewards_that_are_no_numbers_change_no_weight(make_trainer: Any, method: str) -> None:
    signals = RewardSignals([constant("broken", math.nan)])
    trainer = make_trainer(method, signals=signals, special_token_score="judged")
    before = [p.detach().clone() for _, p in trainer.models.named_parameters("actor")]
    with pytest.raises(RunError, match="broken: not a finite number"):
        trainer.run()
    after = [p for _, p in trainer.models.named_parameters("actor")]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_rewards_that_contradict_each_other_are_named(make_trainer: Any, task: Any) -> None:
    opposite = FunctionSignal("opposite", lambda rollout: -task.reward(rollout))
    signals = RewardSignals([FunctionSignal("gold", task.reward), opposite])
    trainer = make_trainer("grpo", signals=signals, steps=5, n=4, truncation_penalty=0.0)
    trainer.run()
    rows = list(read_log(trainer.settings.out))
    assert rows[-1]["reward_conflict"] == pytest.approx(-1.0)
    assert "two rewards contradict each other (r = -1.00)" in rows[-1]["warning"]


def test_a_reward_that_is_the_cost_is_named(make_trainer: Any, task: Any) -> None:
    cost = FunctionSignal("same", task.reward)
    signals = RewardSignals([FunctionSignal("gold", task.reward)], [cost])
    changes = {"threshold": -50.0, "lambda_max": 1.01, "special_token_score": "judged"}
    trainer = make_trainer("grpo", signals=signals, n=4, **changes)
    trainer.run()
    warnings = " ".join(str(row.get("warning")) for row in read_log(trainer.settings.out))
    assert "The cost rises with the reward (r = 1.00)" in warnings


def run_settings(base: Path, out: Path, **changes: Any) -> RLSettings:
    values: dict[str, Any] = {
        "base": str(base),
        "steps": 1,
        "prompts": 2,
        "n": 2,
        "max_new": 4,
        "max_prompt": 16,
        "lora": 0,
        "template": "plain",
        "dtype": "float32",
        "tensorboard": False,
    }
    return RLSettings(method="grpo", out=str(out), **{**values, **changes})


def dataset_of(*prompts: str) -> Any:
    from truing.core.types import Conversation, DataInfo, Row, Sample

    class Prompts:
        info = DataInfo(spec="file:prompts.jsonl", title="", source="", licence="Apache-2.0")

        def rows(self) -> Any:
            for k, text in enumerate(prompts):
                yield Row(sample=Sample(conversation=Conversation.of(text), id=f"s{k}"))

        def preferences(self) -> Any:
            return iter(())

        def sha256(self) -> str:
            return "0"

    return Prompts()


SPEC = RewardSpec([constant("one", 1.0)])


def test_prompts_longer_than_the_window(base_folder: Path, tmp_path: Path) -> None:
    settings = run_settings(base_folder, tmp_path / "a", max_prompt=62, max_new=4)
    with pytest.raises(PlanError, match="max_prompt [+] max_new = 66: .* at most 64 tokens"):
        train_rl(settings, [dataset_of("ash")], SPEC)
    long = " ".join(["ash"] * 40)
    with pytest.raises(DataError, match="none of 1 prompts fits into max_prompt = 16 tokens"):
        train_rl(run_settings(base_folder, tmp_path / "b"), [dataset_of(long)], SPEC)
    result = train_rl(run_settings(base_folder, tmp_path / "c"), [dataset_of("ash", long)], SPEC)
    assert result.left_out == 1


def test_a_tokenizer_without_an_end_token(task: Any, base_folder: Path, tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path / "no-end"
    model = task.model(0)
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    inner = task.tokenizer().backend_tokenizer
    PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>").save_pretrained(folder)
    with pytest.raises(UserError, match="no end token"):
        train_rl(run_settings(folder, tmp_path / "run"), [dataset_of("ash")], SPEC)


def test_a_tokenizer_of_another_model(task: Any, base_folder: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path / "foreign"
    task.model(0).save_pretrained(folder)
    words = {"<pad>": 0, "<eos>": 1} | {f"w{k}": k for k in range(2, 40)}
    inner = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    foreign = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>")
    foreign.save_pretrained(folder)
    with pytest.raises(UserError, match="the tokenizer has 40 tokens and the model"):
        train_rl(run_settings(folder, tmp_path / "run"), [dataset_of("w30")], SPEC)


@pytest.mark.parametrize("file", ["actor.pt", "state.pt", "mark.json"])
def test_a_checkpoint_cut_short_is_named_and_the_one_before_it_resumes(
    base_folder: Path, tmp_path: Path, file: str
) -> None:
    data = [dataset_of("ash", "bay")]
    for name in ("whole", "cut"):
        settings = run_settings(base_folder, tmp_path / name, steps=2, save_every=1)
        train_rl(settings, data, SPEC)
    (settings.folder / "truing.json").unlink()  # as if killed before the model was complete
    damaged = settings.folder / "checkpoint-2"
    content = (damaged / file).read_bytes()
    (damaged / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(RunError, match=f"checkpoint-2/{file}: .*remove this checkpoint"):
        train_rl(settings, data, SPEC)
    shutil.rmtree(damaged)
    result = train_rl(settings, data, SPEC)
    assert (result.steps, result.done_now) == (2, 1)
    weights = [(tmp_path / n / "model.safetensors").read_bytes() for n in ("whole", "cut")]
    assert weights[0] == weights[1]


def test_a_disk_that_fills_while_the_policy_is_written(
    base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, data = run_settings(base_folder, tmp_path / "run"), [dataset_of("ash")]

    def fill_disk(*_: Any, **__: Any) -> None:
        raise SafetensorError('IoError(Os { code: 28, message: "No space left on device" })')

    with monkeypatch.context() as patch:
        patch.setattr("transformers.modeling_utils.safe_save_file", fill_disk)
        with pytest.raises(RunError, match="the disk is full"):
            train_rl(settings, data, SPEC)
    result = train_rl(settings, data, SPEC)
    assert (result.finished, result.done_now) == (True, 0)
    assert (settings.folder / "model.safetensors").is_file()
