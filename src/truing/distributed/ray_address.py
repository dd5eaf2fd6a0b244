"""Whether a Ray cluster answers at its address, and how one is started here."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

_START_ATTEMPTS = 3


def check_reachable(address: str) -> None:
    """Connects once to `host:port`: Ray itself waits minutes for a cluster that is not there.

    Raises OSError if nothing answers within five seconds. Addresses without a port are Ray's own
    words, such as `auto`, and pass.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=5).close()


def start_ray(ray: Any, start: Callable[[], object]) -> None:
    """Calls `start`, a `ray.init`, up to three times while it runs out of time.

    Ray gives a machine 30 s to start its processes and has no setting for it: little on a busy one.
    """
    for attempt in range(_START_ATTEMPTS):
        try:
            start()
            return
        except Exception as error:  # Ray raises a bare one
            ray.shutdown()
            if attempt == _START_ATTEMPTS - 1 or "timed out" not in str(error):
                raise
