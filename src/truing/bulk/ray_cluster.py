"""Connects to a Ray cluster, and refuses one whose machines run another version of truing."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

from msgspec import Struct

from truing.core.errors import RunError, UserError
from truing.core.version import __version__
from truing.distributed.ray_address import check_reachable, start_ray
from truing.specs.extras import needs_extra

_OBJECT_STORE_BYTES = 200 << 20  # results are counts, so the store stays nearly empty
_CLIENT_PORT = 10001
_VERSION_SECONDS = 120


class RayOptions(Struct, frozen=True, kw_only=True):
    """Where workers run and what each of them gets.

    - `address`: `ray` (this machine, or the cluster that RAY_ADDRESS names), `ray://HEAD` (Ray's
      client port 10001) or `ray://HEAD:PORT` (any other port is that of the cluster itself, of
      which this machine is a node)
    - `workers`: at most so many processes; None is one for each `cpus` (or `gpus`) of the cluster
    - `cpus`, `gpus`: what one worker takes; a fraction lets several share a GPU
    - `rate`: most requests a second to each endpoint, of all workers together
    """

    address: str = "ray"
    workers: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    rate: float | None = None


def check_ray_options(options: RayOptions) -> None:
    """Raises UserError with all faults of the options."""
    faults = []
    if options.address != "ray" and not options.address.startswith("ray://"):
        faults.append(f"--on {options.address}: give ray, or ray://HEAD of a cluster")
    if options.workers is not None and options.workers < 1:
        faults.append(f"--workers {options.workers}: give 1 or more")
    numbers = {"cpus": options.cpus, "gpus": options.gpus}
    wrong = {name: value for name, value in numbers.items() if not 0 <= value < math.inf}
    faults += [f"--worker-{name} {value:g}: give 0 or more" for name, value in wrong.items()]
    if not wrong and not options.cpus and not options.gpus:
        faults.append("a worker needs --worker-cpus or --worker-gpus above 0")
    if options.rate is not None and not 0 < options.rate < math.inf:
        faults.append(f"--worker-rate {options.rate:g}: give requests a second, above 0")
    if faults:
        raise UserError(*faults)


@contextmanager
def connect_ray(options: RayOptions) -> Iterator[Any]:
    """Yields the module `ray`, connected; ends a cluster that it started itself.

    Raises UserError for a cluster that is not there or has too little for a worker, RunError for
    one whose machines have another version of truing.
    """
    check_ray_options(options)
    with needs_extra("--on ray", "ray"):
        import ray
        import ray.exceptions
    if ray.is_initialized():
        _check_cluster(ray, options)
        yield ray
        return
    # Ray prints what befell its machines to standard output, where a command's own result goes.
    with redirect_stdout(sys.stderr):
        _start_or_join(ray, options)
        try:
            _check_cluster(ray, options)
            yield ray
        finally:
            ray.shutdown()


def _check_cluster(ray: Any, options: RayOptions) -> None:
    count_workers(read_machines(ray), options)
    check_versions(_read_versions(ray))


def _start_or_join(ray: Any, options: RayOptions) -> None:
    address = _ray_address(options.address) or os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray Data's actors make Ray's core print an error that is none (ray issue 53727).
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address:
            check_reachable(address.removeprefix("ray://"))
            ray.init(address=address, **quiet)
        else:
            _start_ray(ray, options, quiet)
    except Exception as error:  # Ray raises bare ones, too
        raise UserError(
            f"--on: no Ray at {address or 'this machine'}: {_first_line(error)}{_token_hint(error)}"
        ) from error


def _start_ray(ray: Any, options: RayOptions, quiet: Mapping[str, Any]) -> None:
    """Starts Ray on this machine."""
    # Ray's CPUs are a count for scheduling, so that they may be more than there are.
    needed = math.ceil((options.workers or 1) * options.cpus)
    start_ray(
        ray,
        lambda: ray.init(
            num_cpus=max(os.cpu_count() or 1, needed),
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            **quiet,
        ),
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # Some of Ray's messages announce a traceback, whose last line is the reason.
    return f"{lines[0]} {lines[-1].strip()}" if lines[0].endswith(":") else lines[0]


def _token_hint(error: Exception) -> str:
    """Says how a cluster that asks for a token is joined: Ray names none of it where it fails."""
    is_join = "connect" in str(error).lower() or "token" in str(error).lower()
    if not is_join or os.environ.get("RAY_AUTH_MODE") == "token":
        return ""
    return (
        "; if its head was started with a token, set RAY_AUTH_MODE=token here and on every "
        "machine, and give them the head's ~/.ray/auth_token"
    )


def _ray_address(on: str) -> str | None:
    """Returns the address for Ray, or None for this machine.

    A port other than that of Ray's client is the cluster's own.
    """
    host, _, port = on.removeprefix("ray://").partition(":")
    if on == "ray":
        return None
    if host == "auto":
        return "auto"
    if port and port != str(_CLIENT_PORT):
        return f"{host}:{port}"
    return f"ray://{host}:{_CLIENT_PORT}"


def read_machines(ray: Any) -> list[dict[str, float]]:
    """Returns the CPUs and GPUs of each machine of the cluster."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def count_workers(machines: Sequence[Mapping[str, float]], options: RayOptions) -> int:
    """Returns how many workers have room on the machines of a cluster, `workers` at most.

    A worker fits on one machine: two machines of one GPU have no room for one that takes two.
    Raises UserError where none has room: it would wait for ever.
    """
    needs = {"CPU": options.cpus, "GPU": options.gpus}
    n_workers = sum(
        min(int(machine.get(what, 0.0) / need + 1e-9) for what, need in needs.items() if need)
        for machine in machines
    )
    if not n_workers:
        needed = " and ".join(f"{need:g} {what}s" for what, need in needs.items() if need)
        largest = " and ".join(
            f"{max((machine.get(what, 0.0) for machine in machines), default=0.0):g} {what}s"
            for what, need in needs.items()
            if need
        )
        raise UserError(
            f"a worker needs {needed} of one machine, and no machine of the cluster has so much "
            f"(at most {largest}); give --worker-cpus or --worker-gpus"
        )
    return min(n_workers, options.workers or n_workers)


def _read_versions(ray: Any) -> dict[str, str]:
    """Returns the version of truing on each machine of the cluster, "" where there is none."""

    # Ray sends a function inside of a function by value: it also runs where truing has no such
    # module yet.
    def read_version() -> str:
        try:
            from truing.core.version import __version__ as version
        except ImportError:
            return ""
        return version

    remote = ray.remote(num_cpus=0, max_retries=2)(read_version)
    nodes = {
        f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})": remote.options(
            scheduling_strategy=ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
                node["NodeID"], soft=False
            )
        ).remote()
        for node in ray.nodes()
        if node["Alive"]
    }
    try:
        versions = ray.get(list(nodes.values()), timeout=_VERSION_SECONDS)
    except ray.exceptions.RayError as error:
        raise RunError(f"the cluster does not answer: {str(error).splitlines()[0]}") from error
    return dict(zip(nodes, versions))


def check_versions(versions: Mapping[str, str]) -> None:
    """Raises RunError with each machine that has another version of truing than this process."""
    faults = []
    for node, version in versions.items():
        if version != __version__:
            has = f"has truing {version}" if version else "has no truing"
            faults.append(f"{node} {has}, and this is {__version__}; install that version there")
    if faults:
        raise RunError(*faults)
