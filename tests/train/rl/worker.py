"""Trains the tiny task in a process of its own: for kill, two-process and Ray tests.

python worker.py OUT METHOD '{"steps": 6}'
python -m torch.distributed.run --nproc_per_node 2 worker.py OUT METHOD '{...}'

With STAND_IN=1 it trains on the device of tests/distributed/stand_in_device.py, whose process group
takes no tensor of the CPU.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def load_task() -> Any:
    spec = importlib.util.spec_from_file_location(
        "rlhf_task", Path(__file__).parents[3] / "benchmarks" / "rlhf" / "task.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STAND_IN = os.environ.get("STAND_IN") == "1"


def load_stand_in() -> Any:
    sys.path.insert(0, str(Path(__file__).parents[3]))
    from tests.distributed import stand_in_device

    return stand_in_device


def train(out: str, method: str, changes: dict[str, Any]) -> None:
    """Trains in float64 (float32 with `single`) and sleeps `slow` seconds after each step.

    Every process writes its weights to OUT/weights-RANK.pt and the number of weights that it holds
    in memory to OUT/held-RANK.json.
    """
    import torch
    import torch.distributed as dist

    from truing.train.rl.policy_models import (
        CRITICS_BY_METHOD,
        POLICY,
        SeparateModels,
        SharedBackboneModels,
    )
    from truing.train.rl.reward_signals import FunctionSignal, RewardSignals
    from truing.train.rl.settings import RLSettings
    from truing.train.rl.trainer import RLTrainer, TrainerOptions
    from truing.train.sharding import gather_tensors

    torch.set_num_threads(1)
    task = load_task()
    slow, single = changes.pop("slow", 0.0), changes.pop("single", False)
    values: dict[str, Any] = {
        "prompts": 4,
        "n": 2,
        "epochs": 2,
        "minibatch": 4,
        "micro": 3,
        "max_new": 8,
        "lora": 0,
        "lr": 1e-3,
        "critic_lr": 1e-2,
        "tensorboard": False,
        "threshold": 1.0,
        "whiten": True,
        "normalise_reward": "ema",
        "save_every": 1,
    }
    settings = RLSettings(method=method, out=out, **{**values, **changes})  # type: ignore[arg-type]
    signals = RewardSignals(
        [FunctionSignal("gold", task.reward)], [FunctionSignal("risk", task.cost)]
    )
    model = task.model(0, dtype=torch.float32 if single else torch.float64)
    if STAND_IN:
        model = model.to(load_stand_in().DEVICE)
    critics = CRITICS_BY_METHOD[settings.method]
    models: Any
    if settings.lora:
        models = SharedBackboneModels(model, task.tokenizer(), critics, rank=settings.lora)
        if not single:
            models.peft.double()  # PEFT makes adapters in float32
    else:
        models = SeparateModels(model, task.tokenizer(), critics)
    options = TrainerOptions(on_log=lambda row: time.sleep(slow))
    if settings.ptx:
        options.pretraining_batches = lambda k: three_rows_of_text(task, k)
    RLTrainer(models, task.prompts(), signals, settings, options).run()

    rank = dist.get_rank() if dist.is_initialized() else 0
    weights = {
        f"{role}.{name}": gather_tensors(parameter.detach()).cpu()
        for role in (POLICY, *models.critics)
        for name, parameter in models.named_parameters(role)
    }
    torch.save(weights, Path(out) / f"weights-{rank}.pt")
    held = {"numbers": count_local_weights(models)}
    Path(out, f"held-{rank}.json").write_text(json.dumps(held))


def three_rows_of_text(task: Any, k: int) -> tuple[Any, Any, Any]:
    """Returns a batch of the ptx loss: two rows for one process, one for the other."""
    import torch

    generator = torch.Generator().manual_seed(k)
    ids = torch.randint(3, len(task.tokenizer()), (3, 5), generator=generator)
    return ids, torch.ones_like(ids), ids


def count_local_weights(models: Any) -> int:
    """Returns the number of weights in the memory of this process; shards count alone."""
    if hasattr(models, "peft"):
        modules = [models.peft]
    else:
        modules = [models.reference, *models.trained.values()]
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return sum((p.to_local() if hasattr(p, "to_local") else p).numel() for p in parameters)


if __name__ == "__main__":
    is_group = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if STAND_IN:
        load_stand_in().install()
    if is_group:
        import torch.distributed as distributed

        distributed.init_process_group("standin" if STAND_IN else "gloo")
    train(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
    if is_group:
        distributed.barrier()
        distributed.destroy_process_group()
