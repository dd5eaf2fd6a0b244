"""Reward models as adapters on the run's backbone score as the judge `reward:DIR` does."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from truing.core.errors import PlanError
from truing.hf.loading import load_causal_lm, load_scalar_model
from truing.judges.preference import PreferenceJudge
from truing.train.model_card import read_model_card
from truing.train.rl.adapter_rewards import AdapterSignal
from truing.train.rl.policy_models import (
    REWARD_CRITIC,
    SeparateModels,
    SharedBackboneModels,
)
from truing.train.rl.reward_signals import JudgeSignal

IDS = torch.tensor([[4, 5]])


@pytest.fixture
def models(base_folder: Path) -> SharedBackboneModels:
    loaded = load_causal_lm(str(base_folder), dtype="float32")
    return SharedBackboneModels(loaded.model, loaded.tokenizer, (REWARD_CRITIC,), rank=4)


def load_signal(models: Any, folder: Path) -> AdapterSignal:
    card = read_model_card(folder)
    assert card is not None
    return AdapterSignal.load(models, str(folder), "rewards0", card.base_sha256)


def test_scores_equal_those_of_the_judge(
    models: SharedBackboneModels, reward_folder: Path, make_rollout: Any
) -> None:
    rollout = make_rollout(("gold", "ash log log", "", "kit jam gold elm"))
    scores = load_signal(models, reward_folder).score(rollout, cost=False)
    judge = JudgeSignal(PreferenceJudge.load("reward", reward_folder))
    judge_scores = judge.score(rollout, cost=False)
    assert isinstance(scores[2], str)  # an empty answer is unscored
    assert isinstance(judge_scores[2], str)
    numbers = [float(scores[row]) for row in (0, 1, 3)]
    assert numbers == pytest.approx([float(judge_scores[row]) for row in (0, 1, 3)], abs=1e-5)
    assert len({round(number, 4) for number in numbers}) == 3


def test_a_critic_starts_from_the_reward_model(
    models: SharedBackboneModels, reward_folder: Path
) -> None:
    load_signal(models, reward_folder)
    assert models.initialise_critic(REWARD_CRITIC, "rewards0")
    with torch.no_grad():
        with models.active(REWARD_CRITIC) as critic:
            values = critic(IDS, torch.ones_like(IDS))
        with models.active("rewards0") as reward_model:
            scores = reward_model(IDS, torch.ones_like(IDS))
    assert values.any()
    torch.testing.assert_close(values, scores, rtol=0, atol=0)


def test_a_critic_of_another_rank_starts_from_zero(base_folder: Path, reward_folder: Path) -> None:
    loaded = load_causal_lm(str(base_folder), dtype="float32")
    models = SharedBackboneModels(loaded.model, loaded.tokenizer, (REWARD_CRITIC,), rank=2)
    load_signal(models, reward_folder)
    assert not models.initialise_critic(REWARD_CRITIC, "rewards0")
    with models.active(REWARD_CRITIC) as critic, torch.no_grad():
        assert not critic(IDS, torch.ones_like(IDS)).any()


def test_separate_models_have_no_backbone_to_share(base_folder: Path, reward_folder: Path) -> None:
    loaded = load_causal_lm(str(base_folder), dtype="float32")
    with pytest.raises(PlanError, match="needs adapters"):
        load_signal(SeparateModels(loaded.model, loaded.tokenizer), reward_folder)


def test_a_reward_model_with_another_tokenizer_reads_the_text(
    task: Any, reward_folder: Path, make_rollout: Any, tmp_path: Path
) -> None:
    """The other tokenizer numbers the same words in reverse: equal text, other ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path / "other"
    shutil.copytree(reward_folder, folder)
    size = len(task.WORDS)
    ids = {word: (k if k < 2 else size + 1 - k) for k, word in enumerate(task.WORDS)}
    raw = Tokenizer(models.WordLevel(ids, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>")
    tokenizer.save_pretrained(folder)
    rollout = make_rollout(("gold risk",))

    def judge_score(judge_folder: Path) -> Any:
        judge = PreferenceJudge.load("reward", judge_folder)
        return JudgeSignal(judge).score(rollout, cost=False)[0]

    model, _ = load_scalar_model(folder, dtype="float32")
    text = "User: ash bay\n\nAssistant: gold risk"
    row = torch.tensor([[*tokenizer(text).input_ids, tokenizer.eos_token_id]])
    with torch.no_grad():
        expected = float(model(row, torch.ones_like(row))[0, -1])
    assert judge_score(folder) == pytest.approx(expected, abs=1e-5)
    assert judge_score(folder) != pytest.approx(judge_score(reward_folder), abs=1e-4)
