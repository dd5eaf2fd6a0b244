"""The task with a known optimum (`benchmarks/rlhf/task.py`), and a factory of trainers on it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def load_task() -> ModuleType:
    path = Path(__file__).parents[3] / "benchmarks" / "rlhf" / "task.py"
    spec = importlib.util.spec_from_file_location("rlhf_task", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def task() -> ModuleType:
    """Tiny tokenizer, model, prompts, reward and cost."""
    return load_task()


@pytest.fixture
def make_trainer(task: ModuleType, tmp_path: Path) -> Any:
    """Returns a function that makes a trainer of a method on the task.

    Its further keyword arguments are settings.
    """
    import torch

    from truing.train.rl.policy_models import CRITICS_BY_METHOD, SeparateModels
    from truing.train.rl.reward_signals import FunctionSignal, RewardSignals
    from truing.train.rl.settings import RLSettings
    from truing.train.rl.trainer import RLTrainer, TrainerOptions

    torch.set_num_threads(1)

    def make(
        method: str = "ppo",
        *,
        options: TrainerOptions | None = None,
        signals: RewardSignals | None = None,
        models: Any = None,
        dtype: torch.dtype = torch.float32,
        **changes: Any,
    ) -> RLTrainer:
        values: dict[str, Any] = {
            "out": str(tmp_path / "run"),
            "steps": 2,
            "prompts": 4,
            "n": 2,
            "epochs": 2,
            "minibatch": 4,
            "micro": 64,
            "max_new": task.LENGTH,
            "lora": 0,
            "lr": 1e-3,
            "critic_lr": 1e-2,
            "tensorboard": False,
            "threshold": 1.0,
        }
        settings = RLSettings(method=method, **{**values, **changes})
        if signals is None:
            costs = [] if method == "ppo" else [FunctionSignal("risk", task.cost)]
            signals = RewardSignals([FunctionSignal("gold", task.reward)], costs)
        if models is None:
            model = task.model(settings.seed, dtype=dtype)
            models = SeparateModels(model, task.tokenizer(), CRITICS_BY_METHOD[method])
        return RLTrainer(models, task.prompts(), signals, settings, options)

    return make


@pytest.fixture
def make_rollout() -> Any:
    """Returns a function that makes a rollout of given answer texts (one token each)."""
    import torch

    from truing.core.types import Conversation, Sample
    from truing.train.rl.rollout import Rollout, TokenizedPrompt

    def make(
        texts: tuple[str, ...],
        *,
        prompt: str = "ash bay",
        log_probs: Any = None,
        ref_log_probs: Any = None,
        answer_mask: Any = None,
        ended: tuple[bool, ...] | None = None,
    ) -> Rollout:
        count = len(texts)
        sample = Sample(conversation=Conversation.of(prompt), id="a")
        if answer_mask is None:
            answer_mask = torch.ones(count, 1, dtype=torch.long)
        if log_probs is None:
            log_probs = torch.zeros(answer_mask.shape)
        ids = torch.cat([torch.full((count, 1), 4), answer_mask * 5], 1)
        return Rollout(
            prompts=(TokenizedPrompt(sample, (4,)),) * count,
            global_rows=tuple(range(count)),
            input_ids=ids,
            attention_mask=torch.cat([torch.ones_like(ids[:, :1]), answer_mask], 1),
            answer_mask=answer_mask,
            log_probs=log_probs,
            ended=(True,) * count if ended is None else ended,
            texts=texts,
            ref_log_probs=ref_log_probs,
        )

    return make


@pytest.fixture(scope="session")
def base_folder(task: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model and its tokenizer in a folder."""
    folder = tmp_path_factory.mktemp("base")
    task.model(0).save_pretrained(folder)
    task.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def reward_folder(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model of supervised training: an adapter on the tiny model."""
    from truing.core.types import Conversation
    from truing.train.examples import TrainingExample, TrainingSet
    from truing.train.settings import TrainingSettings
    from truing.train.supervised import train_supervised

    out = tmp_path_factory.mktemp("rm") / "reward"
    items = tuple(
        TrainingExample(
            name=f"i{k}", conversation=Conversation.of("ash bay"), answers=("gold gold", rejected)
        )
        for k, rejected in enumerate(["log", "kit", "jam"])
    )
    settings = TrainingSettings(
        kind="reward",
        base=str(base_folder),
        out=str(out),
        steps=3,
        batch=2,
        lora=4,
        template="plain",
        lr=1e-2,
        benign=0.0,
        max_length=24,
        tensorboard=False,
        dtype="float32",
    )
    train_supervised(settings, [TrainingSet(spec="x", sha256="", items=items)])
    return out
