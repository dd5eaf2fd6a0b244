"""API keys go to the host that they were given for, and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from truing.core.errors import SpecError
from truing.core.secret import Secret
from truing.core.types import Answer, Conversation, Sampling
from truing.http.client import Endpoint
from truing.http.limits import close_connections
from truing.specs.keys import (
    allow_key_variables,
    is_loopback,
    is_own_machine,
    resolve_api_key,
)
from truing.specs.resolve import resolve

KEY = "sk-test-0123456789"
COMPLETION = {"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]}


class Recorder:
    """A server that keeps the headers of each request; `reply` answers."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        self.url = ""
        self.reply: Any = lambda: web.json_response(COMPLETION)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        self.headers.append({k.lower(): v for k, v in request.headers.items()})
        response: web.StreamResponse = self.reply()
        return response


@asynccontextmanager
async def recording() -> AsyncIterator[Recorder]:
    recorder = Recorder()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", recorder.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    recorder.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield recorder
    finally:
        await close_connections()
        await runner.cleanup()


async def ask(spec: str) -> Answer:
    answers = await resolve(spec, "model").generate(Conversation.of("hello"), Sampling())
    return answers[0]


@pytest.mark.parametrize("spec", ["openai:m,base_url={}/v1", "http:{}/chat", "vllm:m,base_url={}"])
@pytest.mark.parametrize("variable", [None, "OPENAI_API_KEY", "MY_KEY"])
def test_a_key_is_sent_only_if_the_spec_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, spec: str, variable: str | None
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("MY_KEY", KEY)

    async def run() -> None:
        async with recording() as server:
            named = f",api_key_env={variable}" if variable else ""
            answer = await ask(f"{spec.format(server.url)}{named},retries=0")
            assert answer.text == "fine"
            (headers,) = server.headers
            assert headers.get("authorization") == (f"Bearer {KEY}" if variable else None)

    asyncio.run(run())


def test_a_server_that_wants_a_key_leads_to_a_message_that_says_what_to_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    async def run() -> None:
        async with recording() as server:
            server.reply = lambda: web.json_response({"error": "a key is needed"}, status=401)
            answer = await ask(f"openai:m,base_url={server.url}/v1")
            assert answer.failure is not None
            assert "api_key_env=NAME" in answer.failure.message
            assert "OPENAI_API_KEY goes to api.openai.com only" in answer.failure.message

    asyncio.run(run())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_gets_neither_key_nor_prompt(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)

    async def run() -> None:
        async with recording() as server, recording() as other:
            server.reply = lambda: web.Response(status=status, headers={"Location": other.url})
            answer = await ask(f"openai:m,base_url={server.url}/v1,api_key_env=MY_KEY,retries=0")
            assert answer.failure is not None and answer.failure.kind == "http"
            assert f"redirects to {other.url}" in answer.failure.message
            assert len(server.headers) == 1 and not other.headers

    asyncio.run(run())


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://api.openai.com/v1", True),
        ("https://eu.api.openai.com/v1", True),
        ("https://API.OpenAI.com./v1", True),
        ("http://api.openai.com/v1", False),
        ("https://api.openai.com.example.org/v1", False),
        ("https://example.org/api.openai.com/v1", False),
        ("https://api.openai.com@example.org/v1", False),
        ("https://example.org\\@api.openai.com/v1", False),
        ("https://notapi.openai.com/v1", False),
        ("http://127.0.0.1:8000/v1", False),
    ],
)
def test_the_default_key_goes_to_its_vendor_alone(
    monkeypatch: pytest.MonkeyPatch, url: str, sent: bool
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    try:
        key = resolve_api_key(None, url)
    except ValueError:
        key = None  # no URL, so that no request can be sent either
    assert (key is not None) is sent


def test_plain_http_needs_loopback_or_consent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    assert resolve_api_key("MY_KEY", "http://localhost:1/v1") == Secret.of(KEY)
    assert resolve_api_key("MY_KEY", "https://example.org") == Secret.of(KEY)
    with pytest.raises(SpecError, match="plain http; use https, or add allow_http=true"):
        resolve_api_key("MY_KEY", "http://10.0.0.5:8000/v1")
    with pytest.raises(SpecError, match="allow_http=true"):
        resolve("openai:m,base_url=http://10.0.0.5/v1,api_key_env=MY_KEY", "model")
    assert resolve(
        "openai:m,base_url=http://10.0.0.5/v1,api_key_env=MY_KEY,allow_http=yes", "model"
    )
    # Without a key there is nothing to protect.
    assert resolve("openai:m,base_url=http://10.0.0.5/v1", "model")


@pytest.mark.parametrize("value", ["two words", "a\r\nX-Evil: 1", "caf\u00e9"])
def test_a_value_that_no_header_may_carry_is_refused_unshown(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(SpecError, match="MY_KEY holds no API key") as caught:
        resolve_api_key("MY_KEY", "https://example.org")
    assert value not in str(caught.value)


def test_a_line_end_behind_a_key_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", f"{KEY}\n")
    assert resolve_api_key("MY_KEY", "https://example.org") == Secret.of(KEY)


def test_only_allowed_variables_are_read_in_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MY_KEY", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, KEY)
    with allow_key_variables({"MY_KEY"}):
        assert resolve_api_key("MY_KEY", "https://example.org") == Secret.of(KEY)
        with pytest.raises(SpecError, match=r"may not be read here \(allowed: MY_KEY\)"):
            resolve("openai:m,base_url=https://x.org,api_key_env=AWS_SECRET_ACCESS_KEY", "model")
        assert resolve_api_key(None, "https://api.openai.com/v1") is None
        with allow_key_variables({"AWS_SECRET_ACCESS_KEY"}), pytest.raises(SpecError):
            resolve_api_key("AWS_SECRET_ACCESS_KEY", "https://example.org")
    assert resolve_api_key("AWS_SECRET_ACCESS_KEY", "https://example.org") == Secret.of(KEY)


def test_an_endpoint_keeps_its_key_from_other_servers() -> None:
    endpoint = Endpoint("https://example.org/v1/chat", key=KEY)
    assert endpoint.with_url("https://example.org/tokenize").url.path == "/tokenize"
    for url in ("https://example.com/v1", "http://example.org/v1", "https://example.org:444/v1"):
        with pytest.raises(ValueError, match="is not on"):
            endpoint.with_url(url)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "a.localhost", "127.8.9.1", "::1"])
def test_hosts_of_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["localhost.example.org", "0.0.0.0", "10.0.0.1", "", None])
def test_hosts_of_other_machines(host: str | None) -> None:
    assert not is_loopback(host)
    assert is_own_machine(host) == (host == "0.0.0.0")
