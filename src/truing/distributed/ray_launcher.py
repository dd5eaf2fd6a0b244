"""The same run on several machines by Ray Train: each worker is one process of the group, as under `accelerate launch`.

    on_ray(work, workers=2)      # `work` is called once in every worker, with torch.distributed ready

The folder of the run must be one that all machines see; a worker that dies ends the run, and the same call goes on from the
newest checkpoint (up to `retries` times by itself).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from truing.core.errors import MissingExtra, RunError


def on_ray(
    work: Callable[[], Any], *, workers: int, out: str | Path, gpu: bool = False, retries: int = 1
) -> None:
    """Runs `work` in `workers` processes of a Ray cluster (the one that RAY_ADDRESS names, or a new one on this machine)."""
    try:
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
    except ImportError as error:
        raise MissingExtra("ray", "several machines (package ray)") from error
    own = not ray.is_initialized()
    if own:
        ray.init(include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
    try:
        trainer = TorchTrainer(
            lambda _config: work(),
            train_loop_config={},
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
            run_config=RunConfig(
                storage_path=str(Path(out).resolve() / "ray"),
                failure_config=FailureConfig(max_failures=retries),
            ),
        )
        result = trainer.fit()
        if result.error is not None:
            raise RunError(f"a worker failed: {result.error}")
    except Exception as error:
        if isinstance(error, RunError):
            raise
        line = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise RunError(
            f"Ray Train: {line}; the newest checkpoint is whole, and the same command goes on from it"
        ) from error
    finally:
        if own:
            ray.shutdown()
