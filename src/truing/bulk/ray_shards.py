"""Spreads shards over a cluster with Ray Data.

Ray Data keeps a pool of actors, each of which holds a judge or a model; gives them one shard after
the other; starts new ones while shards wait; and repeats the shards of a process or machine that
died. What one shard means, and that it counts once, is no matter of Ray's: a worker commits it, and
a worker that gets a committed shard returns what is stored. (Workers that rank return rows, which
the driver stores: a shard whose rows have not arrived is ranked again.)
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from truing.bulk.ray_cluster import RayOptions, check_versions, count_workers, read_machines
from truing.bulk.shared_rate import RateClock
from truing.core.errors import RunError, TruingError
from truing.core.version import __version__


class ShardWorker(Protocol):
    """Does the work on shards in one process; shards and results are encoded."""

    def work(self, shard: bytes) -> bytes:
        """Returns the result of a shard; errors of the work are results."""
        ...


WorkerFactory = Callable[[Callable[[str], Awaitable[float]] | None], ShardWorker]
"""Builds a worker; gets the function that reserves requests of a shared rate limit, if any."""


class _ShardActor:
    """The class that Ray Data creates in each process of the pool."""

    def __init__(self, version: str, build_worker: WorkerFactory, rate_clock: Any) -> None:
        # A machine that joined the cluster after the driver looked.
        check_versions({_this_machine(): version})
        reserve = _make_reserve(rate_clock) if rate_clock is not None else None
        self._worker = build_worker(reserve)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"result": [self._worker.work(bytes(shard)) for shard in batch["shard"]]}


def _this_machine() -> str:
    import socket

    return f"the machine that started the work, seen from {socket.gethostname()},"


def _make_reserve(rate_clock: Any) -> Callable[[str], Awaitable[float]]:
    async def reserve(scope: str) -> float:
        seconds: float = await rate_clock.reserve.remote(scope)
        return seconds

    return reserve


def _import_ray_data() -> Any:
    """Returns the module `ray.data`, for a driver whose claim on the cluster ends soon after it.

    A killed driver's claim outlives it, by 180 s in Ray Data (2.60), and its successor gets the
    rest of the cluster meanwhile: one worker. A driver renews its claim every 10 s.
    """
    os.environ.setdefault("RAY_DATA_AUTOSCALING_REQUEST_EXPIRE_TIME_S", "30")
    import ray.data

    return ray.data


def map_shards(
    ray: Any,
    shards: Sequence[bytes],
    build_worker: WorkerFactory,
    options: RayOptions,
    rates: Mapping[str, float] | None = None,
) -> Iterator[bytes]:
    """Yields the result of each shard as it arrives, in any order.

    `rates` are the most requests a second to some endpoints, by scope, of all workers together.

    Raises RunError if workers cannot be started.
    """
    if ray.util.client.ray.is_connected():
        yield from _map_within_cluster(ray, shards, build_worker, options, rates)
        return
    ray_data = _import_ray_data()
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray_data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    # A worker with its one shard is used to 1.0; Ray adds workers from 1.75 on: it would add none.
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    rate_clock = None
    if options.rate is not None or rates:
        actor = ray.remote(num_cpus=0, max_restarts=-1)(RateClock)
        rate_clock = actor.remote(options.rate, dict(rates or {}))
    max_workers = min(count_workers(read_machines(ray), options), len(shards))
    rows = ray_data.from_items(
        [{"shard": shard} for shard in shards], override_num_blocks=len(shards)
    )
    finished_rows = rows.map_batches(
        _ShardActor,
        batch_size=1,
        # One shard at a time: another one would wait behind a slow one while others are idle.
        compute=ray_data.ActorPoolStrategy(
            min_size=1, max_size=max_workers, max_tasks_in_flight_per_actor=1
        ),
        num_cpus=options.cpus or None,
        num_gpus=options.gpus or None,
        fn_constructor_args=(__version__, build_worker, rate_clock),
    )
    try:
        for row in finished_rows.iter_rows():
            yield row["result"]
    except (ray.exceptions.RayError, RuntimeError) as error:
        raise _describe_end(error) from error


def _describe_end(error: Exception) -> RunError:
    # Ray's messages are whole remote tracebacks; their last line names the cause.
    cause = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return RunError(f"Ray: {cause}; finished shards are safe, and the same command continues")


class _ShardDriver:
    """Runs `map_shards` in a process of the cluster."""

    def __init__(self, *arguments: Any) -> None:
        import ray

        self._results = map_shards(ray, *arguments)

    def take(self) -> bytes | None:
        """Returns the next result; None after the last."""
        return next(self._results, None)


def _map_within_cluster(ray: Any, *arguments: Any) -> Iterator[bytes]:
    """Does the same for a driver that is no node of the cluster: Ray Data (2.60) fails there."""
    driver = ray.remote(num_cpus=0)(_ShardDriver).remote(*arguments)
    try:
        while (result := ray.get(driver.take.remote())) is not None:
            yield result
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        raise cause if isinstance(cause, TruingError) else _describe_end(error) from error
