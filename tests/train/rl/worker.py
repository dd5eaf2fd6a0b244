"""A run of the tiny task in a process of its own: for kill, two-process and Ray tests.

python worker.py OUT METHOD '{"steps": 6}'                    alone
python -m torch.distributed.run --nproc_per_node 2 worker.py OUT METHOD '{...}'
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def task() -> Any:
    spec = importlib.util.spec_from_file_location(
        "rlhf_task", Path(__file__).parents[3] / "benchmarks" / "rlhf" / "task.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def work(out: str, method: str, given: dict[str, Any]) -> Any:
    """Trains in float64; every process leaves its weights in OUT/weights-RANK.pt."""
    import torch
    import torch.distributed as dist

    from truing.train.rl.policy_models import CRITICS, SeparateCrew, SharedCrew
    from truing.train.rl.reward_signals import FunctionSignal, Signals
    from truing.train.rl.settings import RLSettings
    from truing.train.rl.trainer import Extras, Trainer
    from truing.train.sharding import gather_tensors

    torch.set_num_threads(1)
    known = task()
    slow, given_single = given.pop("slow", 0.0), given.pop("single", False)
    settings = RLSettings(
        method=method,
        out=out,
        **{
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
            **given,
        },
    )  # type: ignore[arg-type]
    signals = Signals([FunctionSignal("gold", known.reward)], [FunctionSignal("risk", known.cost)])
    given_to = (
        known.model(0, dtype=torch.float32 if given_single else torch.float64),
        known.tokenizer(),
        CRITICS[settings.method],
    )
    crew: Any = (
        SharedCrew(*given_to, rank=settings.lora) if settings.lora else SeparateCrew(*given_to)
    )
    if settings.lora and not given_single:
        crew.peft.double()  # peft makes adapters in float32
    trainer = Trainer(
        crew, known.prompts(), signals, settings, Extras(tell=lambda row: time.sleep(slow))
    )
    trainer.run()
    rank = dist.get_rank() if dist.is_initialized() else 0
    held = sum((p.to_local() if hasattr(p, "to_local") else p).numel() for p in _every(crew))
    weights = {
        f"{n}.{k}": gather_tensors(p.detach())
        for n in ("actor", *crew.critics)
        for k, p in crew.named(n)
    }
    torch.save(weights, Path(out) / f"weights-{rank}.pt")
    Path(out, f"held-{rank}.json").write_text(json.dumps({"numbers": held}))


def _every(crew: Any) -> list[Any]:
    models = [crew.peft] if hasattr(crew, "peft") else [crew.reference, *crew.models.values()]
    return [p for m in models for p in m.parameters()]


if __name__ == "__main__":
    group = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if group:
        import torch.distributed as distributed

        distributed.init_process_group("gloo")
    work(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
    if group:
        distributed.barrier()
        distributed.destroy_process_group()
