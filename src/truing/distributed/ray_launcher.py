"""Runs a training function on several machines by Ray Train.

    run_on_ray(train, workers=2, out="runs/safe")

`train` is called once in every worker with `torch.distributed` initialised, as under
`accelerate launch`. All machines must see the folder of the run: a worker that dies ends the
attempt, and the next attempt resumes from the newest checkpoint in that folder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from truing.core.errors import MissingExtra, RunError

# Ray reserves 30 % of the memory for its object store by default. The workers share results by
# the run folder, so the store stays nearly empty.
_OBJECT_STORE_BYTES = 200 * 2**20


def run_on_ray(
    work: Callable[[], Any], *, workers: int, out: str | Path, gpu: bool = False, retries: int = 1
) -> None:
    """Calls `work` in `workers` processes of a Ray cluster and waits for all of them.

    Uses the cluster that RAY_ADDRESS names, else starts one on this machine. A failed attempt is
    repeated up to `retries` times. Raises RunError if the last attempt failed.
    """
    try:
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
    except ImportError as error:
        raise MissingExtra("ray", "several machines (package ray)") from error
    starts_cluster = not ray.is_initialized()
    if starts_cluster:
        ray.init(
            include_dashboard=False, log_to_driver=False, object_store_memory=_OBJECT_STORE_BYTES
        )
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
            raise RunError(f"a Ray worker failed: {result.error}")
    except RunError:
        raise
    except Exception as error:
        # Ray's messages are whole remote tracebacks; their last line names the cause.
        cause = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise RunError(
            f"Ray Train: {cause}; the newest checkpoint is intact, and the same command resumes "
            f"from it"
        ) from error
    finally:
        if starts_cluster:
            ray.shutdown()
