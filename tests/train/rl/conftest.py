"""The task with a known optimum (`benchmarks/rlhf/task.py`), and a short way to a trainer on it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("torch")


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
def trainer(task: ModuleType, tmp_path: Path) -> Any:
    """A function that makes a trainer of a method on the task; keyword arguments are settings."""
    import torch

    from truing.train.rl.policy_models import CRITICS, SeparateCrew
    from truing.train.rl.reward_signals import FunctionSignal, Signals
    from truing.train.rl.settings import RLSettings
    from truing.train.rl.trainer import Extras, Trainer

    torch.set_num_threads(1)

    def make(
        method: str = "ppo",
        *,
        extras: Any = None,
        signals: Any = None,
        dtype: Any = torch.float32,
        crew: Any = None,
        prompts: Any = None,
        **given: Any,
    ) -> Any:
        plain: dict[str, Any] = {
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
        settings = RLSettings(method=method, **{**plain, **given})
        if signals is None:
            costs = [] if method == "ppo" else [FunctionSignal("risk", task.cost)]
            signals = Signals([FunctionSignal("gold", task.reward)], costs)
        made = crew or SeparateCrew(
            task.model(settings.seed, dtype=dtype), task.tokenizer(), CRITICS[method]
        )
        return Trainer(made, prompts or task.prompts(), signals, settings, extras or Extras())

    return make
