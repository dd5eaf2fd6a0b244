"""The end of `truing serve`: what the kernel has accepted is answered, clients are told to leave."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.serve.openai.live import wait_until
from tests.serve.openai.test_live_server import process

from truing.cli.serve import command
from truing.cli.serve_flags import ServeFlags
from truing.core.errors import PlanError

BODY = json.dumps({"messages": [{"role": "user", "content": "hello"}]}).encode()
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n" % len(BODY)
)
REQUEST = HEAD + BODY
READY = b"GET /ready HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"


class Clients:
    """Opens connections to a server and sends over them; a test's end closes them."""

    def __init__(self) -> None:
        self.opened = contextlib.ExitStack()

    def send(self, url: str, data: bytes = b"") -> socket.socket:
        parts = urlsplit(url)
        assert parts.hostname and parts.port
        connection = socket.create_connection((parts.hostname, parts.port), timeout=60)
        self.opened.enter_context(connection)
        connection.sendall(data)
        return connection

    def read_ready(self, url: str) -> int:
        return read_response(self.send(url, READY))[0]


@pytest.fixture
def clients() -> Iterator[Clients]:
    clients = Clients()
    with clients.opened:
        yield clients


def read_response(connection: socket.socket) -> tuple[int, str]:
    """Returns the status and the header `connection`; (0, "reset") without a response."""
    response = http.client.HTTPResponse(connection)
    try:
        response.begin()
        response.read()
    except (OSError, http.client.HTTPException):
        return 0, "reset"
    return response.status, response.getheader("connection") or ""


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The process does not run meanwhile: connections wait in the kernel."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_what_the_kernel_has_accepted_is_answered(clients: Clients) -> None:
    with process("--model", "scripted:echo,delay=0.2", "--grace", "60") as (child, url):
        idle = clients.send(url, READY)
        assert read_response(idle)[0] == 200
        with stopped(child.pid):
            waiting = [clients.send(url, REQUEST) for _ in range(64)]
            child.send_signal(signal.SIGTERM)
        assert wait_until(lambda: clients.read_ready(url) == 503)
        late = [clients.send(url, REQUEST) for _ in range(4)]
        idle.sendall(READY)
        assert read_response(idle) == (503, "close")
        assert Counter(read_response(each)[0] for each in (*waiting, *late)) == {200: 68}
        child.send_signal(signal.SIGINT)  # a person does not wait for the rest of the minute
        child.wait(20)


def test_requests_on_new_and_old_connections_at_the_end_of_the_port(clients: Clients) -> None:
    """Without a grace: what arrives while the port closes."""
    with process("--model", "scripted:echo,delay=0.2", "--grace", "0") as (child, url):
        idle, silent = clients.send(url, READY), clients.send(url)
        assert read_response(idle)[0] == 200
        arriving = clients.send(url, HEAD + BODY[:5])
        unsent = clients.send(url)
        time.sleep(0.3)  # all are accepted
        child.send_signal(signal.SIGTERM)
        assert idle.recv(1) == b""  # closed at the end of the port
        unsent.sendall(REQUEST)
        arriving.sendall(BODY[5:])
        assert read_response(unsent) == read_response(arriving) == (200, "close")
        assert silent.recv(1) == b""
        with pytest.raises(ConnectionError):
            clients.send(url)
        assert child.wait(20) in (0, -signal.SIGTERM)


@pytest.mark.slow
def test_workers_end_and_are_replaced_without_a_lost_request(
    clients: Clients, tmp_path: Path
) -> None:
    (tmp_path / "config.yml").write_text("models: []\nrails: {input: {flows: []}}\n")
    flags = ["--model", "scripted:echo,delay=0.2", "--rails", str(tmp_path), "--workers", "2"]
    with process(*flags, "--grace", "10") as (child, url):
        assert wait_until(lambda: clients.read_ready(url) == 200, 60)
        child.send_signal(signal.SIGHUP)
        statuses: Counter[tuple[int, str]] = Counter()
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            connections = [clients.send(url, REQUEST) for _ in range(8)]
            statuses.update(map(read_response, connections))
            # The processes that leave say nothing to balancers: others have the port.
            assert clients.read_ready(url) == 200
        assert {status for status, _ in statuses} == {200}
        waiting = [clients.send(url, REQUEST) for _ in range(64)]
        child.send_signal(signal.SIGTERM)
        assert wait_until(lambda: clients.read_ready(url) == 503)
        assert Counter(read_response(each)[0] for each in waiting) == {200: 64}
        assert child.wait(30) == 0


@pytest.mark.parametrize("grace", [-1.0, 601.0, float("nan"), float("inf")])
def test_a_grace_that_is_no_time_is_one_sentence(grace: float) -> None:
    with pytest.raises(PlanError, match="serve: --grace .*: 0 to 600 seconds"):
        command(model="scripted:echo", flags=ServeFlags(grace=grace))
