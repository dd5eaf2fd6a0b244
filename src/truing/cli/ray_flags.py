"""The flags of the commands that can spread their work over a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cyclopts import Parameter

if TYPE_CHECKING:
    from truing.bulk.ray_cluster import RayOptions


@Parameter(name="*")
@dataclass(frozen=True)
class RayFlags:
    """Where the work is done.

    Parameters
    ----------
    on
        ray, or ray://HEAD of a cluster: work on many shards at a time (default: in this process).
    workers
        Maximum number of worker processes (default: as many as the cluster has room for).
    worker_cpus
        CPUs that a worker takes.
    worker_gpus
        GPUs that a worker takes; 0.25 lets four share one.
    worker_rate
        Maximum requests per second to each endpoint, of all workers together.
    """

    on: str | None = None
    workers: int | None = None
    worker_cpus: float = 1.0
    worker_gpus: float = 0.0
    worker_rate: float | None = None

    @property
    def options(self) -> RayOptions:
        """The same for the cluster."""
        from truing.bulk.ray_cluster import RayOptions

        return RayOptions(
            address=self.on or "ray",
            workers=self.workers,
            cpus=self.worker_cpus,
            gpus=self.worker_gpus,
            rate=self.worker_rate,
        )
