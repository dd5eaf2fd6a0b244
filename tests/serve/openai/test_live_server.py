"""`truing serve` as a process: the official OpenAI client, a client that leaves, a graceful stop,
generated requests.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import openai
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, settings
from tests.serve.openai.live import free_port, running_server, wait_for

from truing.core.types import Conversation, Sampling
from truing.models.scripted import ScriptedModel
from truing.serve.openai.admission import ServerLimits
from truing.serve.openai.app import chat_app
from truing.serve.openai.model_router import ModelRouter
from truing.specs.resolve import resolve


@contextmanager
def process(*flags: str, **env: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`truing serve` on a free port, up and answering."""
    port = free_port()
    command = [sys.executable, "-m", "truing", "serve", "--port", str(port), *flags]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **env})
    try:
        wait_for(port, child)
        yield child, f"http://127.0.0.1:{port}/v1"
    finally:
        child.kill()
        child.communicate()


@contextmanager
def inside(model: object, **limits: object) -> Iterator[tuple[uvicorn.Server, str]]:
    """The same app in a thread of this process, so that a test sees its model."""
    port = free_port()
    app = chat_app(ModelRouter(model), limits=ServerLimits(**limits))  # type: ignore[arg-type]
    with running_server(app, port, ServerLimits(**limits)) as server:  # type: ignore[arg-type]
        yield server, f"http://127.0.0.1:{port}/v1"


HELLO: list[dict[str, str]] = [{"role": "user", "content": "hello"}]


def test_the_official_client_reads_answers_streams_errors_and_models(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("rails:\n  input:\n    flows: [polite]\n")
    (tmp_path / "polite.co").write_text(
        'define bot ask nicely\n  "Could you say that nicely?"\n\n'
        'define subflow polite\n  if "rude" in $user_message\n    bot ask nicely\n    stop\n'
    )
    with process(
        "--model",
        "scripted:comply",
        "--rails",
        str(tmp_path),
        "--keys-env",
        "MY_KEYS",
        MY_KEYS="k1",
    ) as (_, url):
        client = openai.OpenAI(base_url=url, api_key="k1", max_retries=0)
        whole = client.chat.completions.create(model="m", messages=HELLO)  # type: ignore[arg-type]
        assert "short overview" in (whole.choices[0].message.content or "")
        parts = list(client.chat.completions.create(model="m", messages=HELLO, stream=True))  # type: ignore[call-overload]
        assert (
            "".join(p.choices[0].delta.content or "" for p in parts)
            == whole.choices[0].message.content
        )
        rude = [{"role": "user", "content": "a rude word"}]
        blocked = client.chat.completions.create(model="m", messages=rude)  # type: ignore[arg-type]
        assert blocked.choices[0].message.content == "Could you say that nicely?"
        assert blocked.choices[0].finish_reason == "content_filter"
        assert [m.id for m in client.models.list()]
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=url, api_key="wrong", max_retries=0).models.list()
        with pytest.raises(openai.BadRequestError, match="at least one"):
            client.chat.completions.create(model="m", messages=[])


class Slow(ScriptedModel):
    """Streams a word every tenth of a second and notes when it is closed."""

    closed = False

    async def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        """Fifty words."""
        try:
            for at in range(50):
                yield f"word{at} "
                await asyncio.sleep(0.1)
        finally:
            Slow.closed = True


def test_a_client_that_leaves_mid_stream_stops_the_work() -> None:
    Slow.closed = False
    with inside(Slow("x")) as (server, url):
        client = openai.OpenAI(base_url=url, api_key="x", max_retries=0)
        stream = client.chat.completions.create(model="m", messages=HELLO, stream=True)  # type: ignore[call-overload]
        for at, _ in enumerate(stream):
            if at == 3:
                break
        stream.close()
        client.close()
        end = time.monotonic() + 3
        while not Slow.closed and time.monotonic() < end:
            time.sleep(0.05)
        assert Slow.closed, "the stream went on after its client had left"
        assert not server.should_exit


def test_beyond_the_queue_is_429_and_the_others_are_answered() -> None:
    async def go(url: str) -> list[int]:
        async with aiohttp.ClientSession() as http:

            async def one() -> int:
                async with http.post(f"{url}/chat/completions", json={"messages": HELLO}) as got:
                    assert got.status == 200 or got.headers["retry-after"] == "1"
                    return got.status

            return sorted(await asyncio.gather(*(one() for _ in range(10))))

    with inside(ScriptedModel("ok", delay=0.4), concurrency=2, waiting=2) as (_, url):
        assert asyncio.run(go(url)) == [200] * 4 + [429] * 6


def test_a_terminated_server_finishes_what_it_began() -> None:
    with process("--model", "scripted:echo,delay=3") as (child, url):
        answers: list[str] = []

        def ask() -> None:
            client = openai.OpenAI(base_url=url, api_key="x", max_retries=0)
            made = client.chat.completions.create(model="m", messages=HELLO)  # type: ignore[arg-type]
            answers.append(made.choices[0].message.content or "")

        thread = threading.Thread(target=ask)
        thread.start()
        page = url.removesuffix("/v1") + "/metrics"
        while b"truing_in_flight 1.0" not in urllib.request.urlopen(page, timeout=10).read():
            assert thread.is_alive()
            time.sleep(0.05)
        child.send_signal(signal.SIGTERM)
        thread.join(15)
        assert answers == ["hello"]
        assert child.wait(15) is not None
        assert child.stderr is not None
        _, *lines = child.stderr.read().splitlines()
        rows = [json.loads(line) for line in lines]
        assert [row["status"] for row in rows if row["route"] == "/v1/chat/completions"] == [200]


@pytest.mark.slow
def test_a_server_whose_log_nobody_reads_answers_and_ends() -> None:
    with process("--model", "scripted:echo") as (child, url):
        host = url.removeprefix("http://").removesuffix("/v1")
        connection = http.client.HTTPConnection(host, timeout=20)
        for _ in range(400):  # of about 400 bytes each: more than a pipe holds
            connection.request("GET", "/v1/models")
            assert connection.getresponse().read()
        connection.close()
        child.send_signal(signal.SIGTERM)
        # uvicorn ends by the signal that it got.
        assert child.wait(20) in (0, -signal.SIGTERM)


def test_a_wrong_start_is_one_clear_line(tmp_path: Path) -> None:
    def ends(*flags: str, **env: str) -> str:
        made = subprocess.run(
            [sys.executable, "-m", "truing", "serve", *flags],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, **env},
        )
        assert made.returncode == 1 and "Traceback" not in made.stderr
        return made.stderr

    assert "give --model" in ends()
    assert "NO_SUCH" in ends("--model", "scripted:echo", "--keys-env", "NO_SUCH")
    assert "no such folder" in ends("--model", "scripted:echo", "--rails", str(tmp_path / "none"))
    (tmp_path / "config.yml").write_text("rails:\n  input:\n    flow: [x]\n")
    said = ends("--model", "scripted:echo", "--rails", str(tmp_path))
    assert "config.yml" in said and "flows" in said


schema = schemathesis.openapi.from_asgi(
    "/schema/openapi.json",
    chat_app(ModelRouter(resolve("scripted:mixed", "model")), limits=ServerLimits(seconds=5)),
)


@schema.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_generated_request_breaks_the_server(case: schemathesis.Case) -> None:
    response = case.call()
    assert response.status_code < 500, (response.status_code, response.text[:200])
