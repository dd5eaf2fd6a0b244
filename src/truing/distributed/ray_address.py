"""Whether a Ray cluster answers at its address."""

from __future__ import annotations

import socket


def check_reachable(address: str) -> None:
    """Connects once to `host:port`: Ray itself waits minutes for a cluster that is not there.

    Raises OSError if nothing answers within five seconds. Addresses without a port are Ray's own
    words, such as `auto`, and pass.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=5).close()
