"""Runs a training function on several machines by Ray Train.

    run_on_ray(train, workers=2, out="runs/safe")

`train` is called once in every worker with `torch.distributed` initialised, as under
`accelerate launch`. All machines must see the folder of the run and the current folder of the
driver, in which the workers run, so that relative paths mean the same in both. A worker that dies
ends the attempt, and the next attempt resumes from the newest checkpoint in the folder of the run.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from msgspec import Struct

from truing.core.errors import MissingExtra, PlanError, RunError
from truing.core.private_files import create_folder, replace_file
from truing.core.version import __version__
from truing.distributed.ray_address import start_ray

# Ray reserves 30 % of the memory for its object store by default. The workers share results by
# the run folder, so the store stays nearly empty.
_OBJECT_STORE_BYTES = 200 * 2**20


class WorkerPlan(Struct, frozen=True):
    """What a worker has to agree on with the driver.

    `folder` is the driver's current folder, `version` its version of truing, `result` the file into
    which the first worker writes what the function returned.
    """

    folder: str
    version: str
    result: str

    def enter(self) -> None:
        """Changes to the driver's folder; raises RunError where driver and worker differ."""
        node = socket.gethostname()
        if self.version != __version__:
            raise RunError(
                f"the worker on {node} has truing {__version__}, the driver {self.version}: "
                f"install the same version on all machines"
            )
        if not Path(self.folder).is_dir():
            raise RunError(
                f"the worker on {node} does not see {self.folder}: start from a folder that all "
                f"machines share"
            )
        os.chdir(self.folder)


def run_on_ray(
    work: Callable[[], bytes | None],
    *,
    workers: int,
    out: str | Path,
    device: str = "auto",
    retries: int = 1,
) -> bytes:
    """Calls `work` in `workers` processes of a Ray cluster; returns what the first one returned.

    Uses the cluster that RAY_ADDRESS names, else starts one on this machine. With `device` cuda
    each worker gets a GPU, with auto where the cluster has any. A failed attempt is repeated up to
    `retries` times. Raises PlanError if the cluster is too small, RunError if the last attempt
    failed.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("ray", "several machines (package ray)") from error
    starts_cluster = not ray.is_initialized()
    if starts_cluster:
        _connect(ray, workers)
    try:
        gpu = needs_gpus(ray.cluster_resources(), workers, device)
        folder = Path(out).resolve() / "ray"
        result_path = folder / f"result-{uuid4().hex}"
        plan = WorkerPlan(str(Path.cwd()), __version__, str(result_path))
        _train_in_workers(work, plan, workers=workers, gpu=gpu, retries=retries)
        if not result_path.is_file():
            raise RunError(f"the workers ended without a result in {folder}")
        data = result_path.read_bytes()
        result_path.unlink()
        return data
    finally:
        if starts_cluster:
            ray.shutdown()


def _connect(ray: Any, workers: int) -> None:
    local = {} if os.environ.get("RAY_ADDRESS") else _local_cluster(workers)
    try:
        start_ray(ray, lambda: ray.init(include_dashboard=False, log_to_driver=False, **local))
    except Exception as error:  # Ray raises a bare Exception where a node does not start
        address = os.environ.get("RAY_ADDRESS", "this machine")
        raise RunError(f"no Ray at {address}: {_last_line(error)}") from error


def _local_cluster(workers: int) -> dict[str, int]:
    # Ray's CPUs are a count for scheduling: on a machine with fewer cores than workers these would
    # wait for ever.
    cpus = max(os.cpu_count() or 1, workers + 1)
    return {"object_store_memory": _OBJECT_STORE_BYTES, "num_cpus": cpus}


def needs_gpus(resources: dict[str, float], workers: int, device: str) -> bool:
    """Returns whether each worker is to get a GPU.

    Raises PlanError where a worker would wait for ever for its CPU or its GPU.
    """
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
    gpu = device.startswith("cuda") or (device == "auto" and gpus > 0)
    if gpu and gpus < workers:
        raise PlanError(
            f"--workers {workers}: one GPU for each, and the Ray cluster has {gpus}; use fewer "
            f"workers, or --device cpu"
        )
    if cpus < workers:
        raise PlanError(f"--workers {workers}: the Ray cluster has {cpus} CPUs; use fewer workers")
    return gpu


def _train_in_workers(
    work: Callable[[], bytes | None], plan: WorkerPlan, *, workers: int, gpu: bool, retries: int
) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    def run_worker(_config: dict[str, Any]) -> None:
        plan.enter()
        result_bytes = work()
        # Written by the first worker: all of them see the folder of the run.
        if os.environ.get("RANK", "0") == "0":
            create_folder(Path(plan.result).parent)
            replace_file(Path(plan.result), result_bytes or b"")

    trainer = TorchTrainer(
        run_worker,
        train_loop_config={},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
        run_config=RunConfig(
            storage_path=str(Path(plan.result).parent),
            failure_config=FailureConfig(max_failures=retries),
        ),
    )
    try:
        fit_result = trainer.fit()
    except Exception as error:
        raise RunError(
            f"Ray Train: {_last_line(error)}; the newest checkpoint is intact, and the same "
            f"command resumes from it"
        ) from error
    if fit_result.error is not None:
        raise RunError(f"a Ray worker failed: {fit_result.error}")


def _last_line(error: Exception) -> str:
    """Returns the line that names the cause: Ray's messages are whole remote tracebacks."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
