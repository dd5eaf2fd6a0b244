"""A slice of the server's fuzz (benchmarks/security/server_fuzz.py): requests of the grammar against
an app with rails and a model that fails at seven requests in ten.

No status from 500 on but the upstream's 502 and 504, errors in the OpenAI form, no slot left.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
from pathlib import Path
from typing import Any

from benchmarks.security.request_grammar import HttpRequest, make_raw_request, make_request
from tests.serve.openai.live import free_port, running_server, wait_until

from truing.core.types import Answer, Conversation, Sampling
from truing.models.scripted import ScriptedModel
from truing.serve.openai.app import chat_app
from truing.serve.openai.limits import ServerLimits
from truing.serve.openai.model_router import ModelRouter
from truing.specs.resolve import resolve

WORDS = (
    "rails: {input: {flows: [own]}, output: {flows: [own output]}}\n",
    'define subflow own\n  if "secret" in $user_message\n    bot refuse to respond\n    stop\n\n'
    'define subflow own output\n  if "secret" in $bot_message\n    bot refuse to respond\n    stop\n',
)


def make_app(folder: Path, seed: int) -> Any:
    """The app: a configuration of rails, a model that fails, a judge, a key."""
    rng = random.Random(seed)
    rails = folder / "words"
    rails.mkdir()
    (rails / "config.yml").write_text(WORDS[0])
    (rails / "rails.co").write_text(WORDS[1])

    def answer(conversation: Conversation, sampling: Sampling) -> str | Answer:
        if rng.random() < 0.7:
            return Answer.failed(rng.choice(("http", "timeout", "dropped")), "the upstream failed")
        return "a fine answer of six words"

    limits = ServerLimits(seconds=5, body=250_000, header_bytes=16_384)
    return chat_app(
        ModelRouter(ScriptedModel(answer), {"words": rails}),
        limits=limits,
        keys=["k"],
        judge=resolve("rules:refusal", "judge"),
    )


async def send(app: Any, request: HttpRequest) -> tuple[int, dict[str, str], bytes]:
    """Calls the app as an ASGI server does."""
    sent: list[Any] = []
    done = asyncio.Event()
    path, _, query = request.path.partition("?")
    scope = {
        "type": "http",
        "method": request.method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(k.encode(), v.encode("latin-1")) for k, v in request.headers.items()],
    }
    messages = [{"type": "http.request", "body": request.body, "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await done.wait()
        return {"type": "http.disconnect"}

    async def collect(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, collect)
    done.set()
    headers = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(m.get("body", b"") for m in sent[1:])


def check(request: HttpRequest, status: int, headers: dict[str, str], body: bytes) -> str:
    """The reason why a response is wrong, or nothing."""
    if "x-request-id" not in headers:
        return "no request id"
    if status < 400:
        return "error and [DONE]" if b'{"error"' in body and b"[DONE]" in body else ""
    if request.method == "HEAD" and not body:
        return ""
    error = json.loads(body)["error"]
    if set(error) != {"message", "type", "param", "code"} or len(error["message"]) > 700:
        return "not the OpenAI form"
    if status >= 500 and error["type"] not in ("upstream_error", "timeout_error"):
        return "a fault of the server"
    return ""


def test_no_generated_request_is_a_fault_of_the_server(tmp_path: Path) -> None:
    rng, app = random.Random(5), make_app(tmp_path, 6)
    faults, statuses = [], set()

    async def run() -> None:
        for _ in range(600):
            request = make_request(rng, "k")
            status, headers, body = await asyncio.wait_for(send(app, request), 10)
            statuses.add(status)
            if reason := check(request, status, headers, body):
                faults.append((reason, status, request, body[:300]))

    asyncio.run(run())
    assert faults == []
    # The grammar reaches each kind of answer.
    assert statuses >= {200, 400, 401, 404, 405, 413, 415, 431, 502, 504}
    admission = app.state.chat.admission
    assert (admission.admitted, admission.in_flight) == (0, 0)


def test_no_bytes_on_a_socket_are_a_fault_of_the_server(tmp_path: Path) -> None:
    rng, app, port = random.Random(7), make_app(tmp_path, 8), free_port()
    limits = ServerLimits(header_seconds=0.3, body_seconds=0.3)
    admission = app.state.chat.admission
    with running_server(app, port, limits):
        for _ in range(150):
            pieces = make_raw_request(rng, "k")
            with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
                try:
                    for piece in pieces:
                        sock.sendall(piece)
                    sock.settimeout(0.02)
                    data = sock.recv(65536)
                except OSError:  # refused in the middle, or no answer yet
                    continue
            for line in data.split(b"HTTP/1.1 ")[1:]:
                assert line[:3] not in (b"500", b"501", b"503"), (pieces, data)
        assert wait_until(lambda: admission.admitted == 0 and admission.in_flight == 0)
        request = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            sock.sendall(request)
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")
