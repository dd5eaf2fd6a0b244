"""The bounds of a connection, over raw sockets: header bytes, seconds, trailers, connections,
pipelined requests, and what is not HTTP.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.serve.openai.live import free_port, running_server, wait_until

from truing.models.scripted import ScriptedModel
from truing.serve.openai.app import chat_app
from truing.serve.openai.limits import ServerLimits
from truing.serve.openai.model_router import ModelRouter

LIMITS = ServerLimits(
    header_bytes=8_192,
    header_seconds=0.4,
    body_seconds=0.4,
    send_seconds=0.5,
    connections=6,
    body=50_000,
)
BODY = json.dumps({"messages": [{"role": "user", "content": "hello"}]}).encode()
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"

CLOSE = b"connection: close\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[int, object]]:
    """The port and the app's service."""
    port = free_port()
    app = chat_app(ModelRouter(ScriptedModel("fine " * 400)), limits=LIMITS)
    with running_server(app, port, LIMITS):
        yield port, app.state.chat


@contextmanager
def connection(port: int) -> Iterator[socket.socket]:
    """An open socket."""
    with socket.create_connection(("127.0.0.1", port), timeout=8) as sock:
        yield sock


def read_to_end(sock: socket.socket) -> bytes:
    """What the server sends until it closes."""
    data = b""
    try:
        while chunk := sock.recv(65536):
            data += chunk
    except ConnectionResetError:
        pass
    return data


def exchange(port: int, *parts: bytes) -> bytes:
    """Sends the parts and reads until the server closes the connection."""
    with connection(port) as sock:
        try:
            for part in parts:
                sock.sendall(part)
        except OSError:  # refused before all was sent
            pass
        return read_to_end(sock)


def error_of(response: bytes) -> str:
    """The message of an error in the OpenAI form."""
    body = json.loads(response.split(b"\r\n\r\n", 1)[1])
    return str(body["error"]["message"])


def test_a_request_that_is_whole_is_answered(server: tuple[int, object]) -> None:
    request = HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY
    assert exchange(server[0], request).startswith(b"HTTP/1.1 200 OK")
    # In pieces, and chunked with the smallest chunks.
    chunked = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"
    head = HEAD + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    pieces = (head[:30], head[30:], chunked[:200], chunked[200:])
    assert exchange(server[0], *pieces).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"NONSENSE\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\nabc",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_not_http_is_400_and_closed(server: tuple[int, object], garbage: bytes) -> None:
    response = exchange(server[0], garbage)
    assert response.startswith(b"HTTP/1.1 400 Bad Request")
    assert b"connection: close" in response and b"x-request-id: req_" in response
    assert error_of(response)


def test_endless_headers_and_trailers_are_refused_and_closed(server: tuple[int, object]) -> None:
    flood = [b"x-a: " + b"b" * 1000 + b"\r\n"] * 200
    response = exchange(server[0], b"GET /health HTTP/1.1\r\n", *flood)
    assert response.startswith(b"HTTP/1.1 431 ") or response == b""
    one = exchange(server[0], b"GET /health HTTP/1.1\r\nx-a: ", *[b"b" * 1000] * 200)
    assert one.startswith(b"HTTP/1.1 431 ") or one == b""
    many = exchange(server[0], b"GET /health HTTP/1.1\r\n" + b"a: b\r\n" * 150 + CLOSE)
    assert many.startswith(b"HTTP/1.1 431 ")
    path = exchange(server[0], b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n" + CLOSE)
    assert path.startswith(b"HTTP/1.1 414 ")
    trailers = exchange(
        server[0],
        HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n",
        *flood,
    )
    assert b"200 OK" not in trailers


def test_a_client_that_sends_too_slowly_is_cut_off(server: tuple[int, object]) -> None:
    port, _ = server
    started = time.monotonic()
    assert exchange(port) == b""  # nothing at all: closed, with nothing to answer
    assert exchange(port, b"GET /hea").startswith(b"HTTP/1.1 408 ")
    body = exchange(port, HEAD + b"content-length: 100\r\n\r\n{")
    assert body.startswith(b"HTTP/1.1 408 ")
    assert "within 0.4 s" in json.loads(body.split(b"\r\n\r\n")[1])["error"]["message"]
    with connection(port) as sock:  # a body that trickles in faster than any pause that is noticed
        sock.sendall(HEAD + b"content-length: 100000\r\n\r\n")

        def send_byte_after_byte() -> None:
            for _ in range(400):
                sock.sendall(b" ")
                time.sleep(0.02)

        with pytest.raises(OSError, match="reset|Broken pipe"):
            send_byte_after_byte()
    assert time.monotonic() - started < 20


def test_a_client_that_does_not_read_is_cut_off() -> None:
    class Endless(ScriptedModel):
        async def stream(self, conversation, sampling):  # type: ignore[no-untyped-def]
            while True:
                yield "word " * 2000

    port, limits = free_port(), ServerLimits(send_seconds=0.3, response_bytes=10**9)
    app = chat_app(ModelRouter(Endless("x")), limits=limits)
    body = json.dumps({"messages": [{"role": "user", "content": "x"}], "stream": True}).encode()
    with running_server(app, port, limits), connection(port) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
        control = app.state.chat.admission
        assert wait_until(lambda: control.in_flight == 1)
        assert wait_until(lambda: control.in_flight == 0)


def test_too_many_connections_are_503(server: tuple[int, object]) -> None:
    sockets = [socket.create_connection(("127.0.0.1", server[0])) for _ in range(6)]
    try:
        response = exchange(server[0])
        assert response.startswith(b"HTTP/1.1 503 ")
    finally:
        for sock in sockets:
            sock.close()
    request = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    assert wait_until(lambda: exchange(server[0], request).startswith(b"HTTP/1.1 200"))


def test_pipelined_requests_are_answered_in_order_and_end_when_the_client_leaves() -> None:
    port, limits = free_port(), ServerLimits(concurrency=4)
    app = chat_app(ModelRouter(ScriptedModel("late", delay=30)), limits=limits)
    request = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
    health = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
    with running_server(app, port, limits):
        control = app.state.chat.admission
        with connection(port) as sock:
            sock.sendall(health + health)
            assert wait_until(lambda: sock.recv(65536, socket.MSG_PEEK).count(b"200 OK") == 2)
        with connection(port) as sock:
            sock.sendall(request + request + health)
            assert wait_until(lambda: control.in_flight == 1)
        assert wait_until(lambda: control.admitted == 0 and control.in_flight == 0)
