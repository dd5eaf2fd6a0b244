"""A chat server in a thread of the test's process, over real sockets."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from litestar import Litestar

from truing.serve.openai.http_protocol import bounded_protocol
from truing.serve.openai.limits import ServerLimits


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_for(port: int, child: subprocess.Popen[str] | None = None) -> None:
    """Until the port answers, at most half a minute."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if child is not None and child.poll() is not None:
            raise AssertionError(child.stderr.read() if child.stderr else "the server ended")
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the server did not come up")


@contextmanager
def running_server(app: Litestar, port: int, limits: ServerLimits) -> Iterator[uvicorn.Server]:
    """The app behind the protocol of `truing serve`."""
    config = uvicorn.Config(
        app,
        port=port,
        http=bounded_protocol(limits),
        ws="none",
        log_level="critical",
        timeout_graceful_shutdown=10,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(port)
        yield server
    finally:
        server.should_exit = True
        thread.join(20)


def wait_until(condition, seconds: float = 10.0) -> bool:  # type: ignore[no-untyped-def]
    """Whether the condition comes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False
