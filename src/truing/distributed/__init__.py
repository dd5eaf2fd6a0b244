"""Runs with several processes or machines.

`process_group.ProcessGroup` wraps `torch.distributed`; `ray_launcher.run_on_ray` starts the
processes of one run on a Ray cluster.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "process_group": "Lockstep ProcessGroup as_float64 launched_processes",
        "ray_address": "check_reachable start_ray",
        "ray_launcher": "run_on_ray",
        "shared_errors": "share_errors",
    },
)
