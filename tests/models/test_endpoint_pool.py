"""A pool of endpoints, against real servers that answer, fail, stall, answer 429 and die."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web

from truing.core.errors import BudgetExceeded, SpecError
from truing.core.types import Conversation, Sampling
from truing.http.limits import close_connections
from truing.models.endpoint_pool import EndpointPool
from truing.specs.resolve import resolve

PROMPT = Conversation.of("What is a kettle for?")


class Server:
    """An OpenAI-compatible server on a free port; `behave` decides on each request."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests: list[float] = []
        self.in_flight = self.most_in_flight = self.given_up = 0
        self.seconds = 0.0
        self.status: int | None = None
        self.headers: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        self.runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.port = self.runner.addresses[0][1]

    async def stop(self) -> None:
        await self.runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(time.monotonic())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        finally:
            self.in_flight -= 1
        if self.status is not None:
            return web.Response(status=self.status, headers=self.headers, text="no")
        if (await request.json()).get("stream"):
            chunk = f'data: {{"choices":[{{"delta":{{"content":"{self.name}"}}}}]}}\n\n'
            end = 'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
            return web.Response(text=chunk + end, content_type="text/event-stream")
        message = {"role": "assistant", "content": self.name}
        choice = {"message": message, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": {"total_tokens": 3}})


Scenario = Callable[[EndpointPool, list[Server]], Awaitable[Any]]


def run(scenario: Scenario, *, count: int = 2, weights: str = "", **arguments: Any) -> Any:
    """Runs a scenario with a pool over `count` servers; weights are `1 2`, one for each."""

    async def work() -> Any:
        async with AsyncExitStack() as stack:
            servers = [Server("abcdefgh"[k]) for k in range(count)]
            for server in servers:
                await server.start()
                stack.push_async_callback(server.stop)
            parts = weights.split() or ["1"] * count
            urls = " ".join(f"{s.url}*{w}" for s, w in zip(servers, parts))
            rest = "".join(f",{key}={value}" for key, value in arguments.items())
            pool = resolve(f'pool:m,urls="{urls}"{rest}', "model")
            stack.push_async_callback(close_connections)
            return await scenario(pool, servers)

    return asyncio.run(work())


async def ask(pool: EndpointPool, count: int) -> list[str]:
    async def one(seed: int) -> str:
        (answer,) = await pool.generate(PROMPT, Sampling(seed=seed))
        return answer.failure.kind if answer.failure else answer.text

    return list(await asyncio.gather(*(one(k) for k in range(count))))


def test_weights_share_the_load() -> None:
    async def scenario(pool: EndpointPool, servers: list[Server]) -> list[int]:
        for server in servers:
            server.seconds = 0.02
        assert set(await ask(pool, 40)) == {"a", "b"}
        return [server.most_in_flight for server in servers]

    assert run(scenario, weights="1 3") == [10, 30]


def test_a_429_moves_load_and_is_left_alone_for_as_long_as_it_asks() -> None:
    async def scenario(pool: EndpointPool, servers: list[Server]) -> None:
        limited, other = servers
        limited.status, limited.headers = 429, {"Retry-After": "1"}
        started = time.monotonic()
        assert await ask(pool, 4) == ["b"] * 4
        refused = len(limited.requests)
        assert 1 <= refused <= 2
        assert await ask(pool, 10) == ["b"] * 10
        if time.monotonic() - started < 0.9:
            assert len(limited.requests) == refused
        limited.status = None
        await asyncio.sleep(max(0.0, started + 1.5 - time.monotonic()))
        assert "a" in await ask(pool, 4)
        assert len(other.requests) >= 14

    run(scenario)


@pytest.mark.parametrize("fault", ["500", "dead"])
def test_an_endpoint_that_fails_costs_no_answer(fault: str) -> None:
    async def scenario(pool: EndpointPool, servers: list[Server]) -> None:
        if fault == "dead":
            await servers[0].stop()
        else:
            servers[0].status = 500
        assert set(await ask(pool, 12)) <= {"b", "c"}
        failing = pool._members[0]
        assert failing.failures and failing.paused_until > time.monotonic()
        if fault == "500":
            # It gets no request while it is paused, and after that one at a time.
            before = len(servers[0].requests)
            assert set(await ask(pool, 6)) <= {"b", "c"}
            assert len(servers[0].requests) == before
            servers[0].status, failing.paused_until = None, 0.0
            await ask(pool, 6)
            assert servers[0].most_in_flight <= 12 and not failing.failures

    run(scenario, count=3)


def test_where_all_fail_the_failure_is_that_of_an_endpoint() -> None:
    async def scenario(pool: EndpointPool, servers: list[Server]) -> list[str]:
        for server in servers:
            server.status = 503
        return await ask(pool, 2)

    assert run(scenario, retries=0) == ["http", "http"]


def test_after_a_pause_all_are_asked_again() -> None:
    async def scenario(pool: EndpointPool, servers: list[Server]) -> list[str]:
        for server in servers:
            server.status, server.headers = 429, {"Retry-After": "0.3"}
        request = asyncio.create_task(ask(pool, 1))
        await asyncio.sleep(0.1)
        for server in servers:
            server.status = None
        return await request

    assert run(scenario) in (["a"], ["b"])


def test_a_wait_that_is_too_long_fails_at_once() -> None:
    async def scenario(pool: EndpointPool, servers: list[Server]) -> list[str]:
        for server in servers:
            server.status, server.headers = 429, {"Retry-After": "3600"}
        return await ask(pool, 1)

    assert run(scenario, max_wait=2) == ["rate_limited"]


def test_a_request_that_is_refused_is_not_sent_again() -> None:
    async def scenario(pool: EndpointPool, servers: list[Server]) -> None:
        for server in servers:
            server.status = 400
        assert await ask(pool, 1) == ["http"]
        assert sum(len(server.requests) for server in servers) == 1

    run(scenario)


def test_a_stalled_endpoint_is_hedged_and_given_up() -> None:
    async def scenario(pool: EndpointPool, servers: list[Server]) -> None:
        servers[0].seconds = 30.0
        started = time.monotonic()
        assert await ask(pool, 1) == ["b"]
        assert time.monotonic() - started < 10
        for _ in range(100):
            if servers[0].given_up:
                break
            await asyncio.sleep(0.02)
        assert servers[0].given_up == 1 and not pool._members[0].in_flight

    run(scenario, hedge=0.1)


def test_without_a_hedge_no_request_is_sent_twice() -> None:
    async def scenario(pool: EndpointPool, servers: list[Server]) -> int:
        for server in servers:
            server.seconds = 0.1
        await ask(pool, 4)
        return sum(len(server.requests) for server in servers)

    assert run(scenario) == 4


def test_one_rate_holds_for_all_endpoints() -> None:
    async def scenario(pool: EndpointPool, servers: list[Server]) -> None:
        started = time.monotonic()
        await ask(pool, 12)
        assert time.monotonic() - started >= 11 / 40
        times = sorted(t for server in servers for t in server.requests)
        assert len(times) == 12

    run(scenario, count=3, per_second=40)


def test_one_budget_holds_for_all_endpoints() -> None:
    async def scenario(pool: EndpointPool, servers: list[Server]) -> None:
        await ask(pool, 3)
        with pytest.raises(BudgetExceeded, match="3 requests"):
            await pool.generate(PROMPT, Sampling())

    run(scenario, budget_requests=3)


def test_a_stream_begins_at_another_endpoint() -> None:
    async def scenario(pool: EndpointPool, servers: list[Server]) -> list[str]:
        servers[0].status = 503
        return [chunk async for chunk in pool.stream(PROMPT, Sampling())]

    assert run(scenario) == ["b"]


def test_the_model_does_not_depend_on_its_endpoints() -> None:
    one = resolve('pool:m,urls="http://a/v1"', "model")
    two = resolve('pool:m,urls="http://b:8000/v1 http://c/v1*2"', "model")
    assert one.name == two.name == "openai:m"
    assert one.lineage == two.lineage
    other = resolve('pool:m,urls="http://a/v1",body="{\\"top_k\\": 3}"', "model")
    assert other.lineage != one.lineage
    assert len(two.parts) == 2


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ('pool:m,urls=""', "1 to 256 base URLs"),
        ('pool:,urls="http://a/v1"', "give the model's name"),
        ('pool:m,urls="http://a/v1 http://a/v1"', "stands there twice"),
        ('pool:m,urls="http://a/v1*0"', "is not above 0"),
        ('pool:m,urls="http://a/v1*x"', "is no weight"),
        ('pool:m,urls="ftp://a"', "no http or https URL"),
        ('pool:m,urls="http://u:p@a/v1"', "must not contain secrets"),
        ('pool:m,urls="http://a/v1",hedge=-1', "hedge must be 0 or more"),
        ('pool:m,urls="http://a/v1",per_second=nan', "per_second must be 0 or more"),
        ('pool:m,urls="http://a/v1",copies=2', "unknown argument 'copies'"),
    ],
)
def test_a_wrong_spec_is_refused(spec: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        resolve(spec, "model")
