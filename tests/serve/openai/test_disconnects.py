"""Clients that leave, over real sockets, before a real upstream: slots come back, and the upstream
sees its requests end.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web
from tests.serve.openai.live import free_port, running_server, wait_until

from truing.serve.openai.app import chat_app
from truing.serve.openai.audit import HarmAudit
from truing.serve.openai.limits import ServerLimits
from truing.serve.openai.model_router import ModelRouter
from truing.specs.resolve import resolve
from truing.stats.sequential import HarmRateAlarm


class SlowUpstream:
    """An OpenAI-compatible endpoint that streams a word every 20 ms, or never answers."""

    def __init__(self) -> None:
        self.port = free_port()
        self.open = self.started = self.cancelled = 0

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.open += 1
        self.started += 1
        try:
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            if body.get("stream"):
                await response.prepare(request)
                for _ in range(1500):
                    chunk = {"choices": [{"index": 0, "delta": {"content": "word "}}]}
                    await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
                    await asyncio.sleep(0.02)
            await asyncio.sleep(30)
            return response
        except (asyncio.CancelledError, ConnectionError):
            self.cancelled += 1
            raise
        finally:
            self.open -= 1

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Runs it in a thread."""
        loop = asyncio.new_event_loop()
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)

        def run() -> None:
            asyncio.set_event_loop(loop)
            loop.run_until_complete(runner.setup())
            loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", self.port).start())
            loop.run_forever()
            loop.run_until_complete(runner.cleanup())
            loop.close()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)


def send_chat(port: int, *, stream: bool) -> socket.socket:
    """Sends a request and returns its socket."""
    message = {"messages": [{"role": "user", "content": "hello"}], "stream": stream}
    body = json.dumps(message).encode()
    sock = socket.create_connection(("127.0.0.1", port), timeout=10)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    sock.sendall(head + b"content-length: %d\r\n\r\n" % len(body) + body)
    return sock


RAILS = {
    "none": None,
    "input": "rails: {input: {flows: [own]}}\n",
    "output in chunks": (
        "rails: {input: {flows: [own]}, output: {flows: [own], "
        "streaming: {enabled: true, chunk_size: 5, context_size: 2}}}\n"
    ),
}
FLOW = 'define subflow own\n  if "secret" in $user_message\n    bot refuse to respond\n    stop\n'


@pytest.mark.parametrize("rails", RAILS)
def test_clients_that_leave_free_their_slots_and_stop_the_upstream(
    rails: str, tmp_path: Path
) -> None:
    upstream, port = SlowUpstream(), free_port()
    model = resolve(f"openai:m,base_url=http://127.0.0.1:{upstream.port}/v1,retries=0", "model")
    configs = {}
    if RAILS[rails] is not None:
        (tmp_path / "config.yml").write_text(RAILS[rails] or "")
        (tmp_path / "rails.co").write_text(FLOW)
        configs = {"own": tmp_path}
    limits = ServerLimits(concurrency=8, waiting=8)
    app = chat_app(ModelRouter(model, configs), limits=limits)
    control = app.state.chat.admission
    with upstream.serving(), running_server(app, port, limits):
        clients = [send_chat(port, stream=index % 2 == 0) for index in range(16)]
        assert wait_until(lambda: control.in_flight == 8 and control.admitted == 16)
        assert wait_until(lambda: upstream.open == 8)
        for sock in clients[::2]:  # those who stream have the beginning
            if clients.index(sock) < 8:
                assert wait_until(lambda s=sock: b"200 OK" in s.recv(64, socket.MSG_PEEK))
        for sock in clients[8:]:  # first those who still wait for a slot
            sock.close()
        assert wait_until(lambda: control.admitted == 8)
        assert control.in_flight == 8
        for sock in clients[:8]:
            sock.close()
        assert wait_until(lambda: control.in_flight == 0 and control.admitted == 0)
        assert wait_until(lambda: upstream.open == 0), upstream.open
        assert upstream.started == upstream.cancelled == 8


def test_a_stream_without_rails_is_audited_counted_and_logged_also_where_its_client_leaves() -> (
    None
):
    upstream, port = SlowUpstream(), free_port()
    model = resolve(f"openai:m,base_url=http://127.0.0.1:{upstream.port}/v1,retries=0", "model")
    alarm = HarmRateAlarm(0.05, audit_rate=1.0)
    audit = HarmAudit(resolve("rules:refusal", "judge"), alarm, print)
    limits = ServerLimits()
    app = chat_app(ModelRouter(model), limits=limits, audit=audit)
    with upstream.serving(), running_server(app, port, limits):
        sock = send_chat(port, stream=True)
        assert wait_until(lambda: b"word" in sock.recv(65536))
        sock.close()
        assert wait_until(lambda: alarm.state().audited == 1)
        metrics = app.state.chat.metrics
        left = b'truing_requests_total{path="/v1/chat/completions",status="499"} 1.0'
        assert wait_until(lambda: left in metrics.render())
        assert b'truing_answers_total{finish="error"} 1.0' in metrics.render()
