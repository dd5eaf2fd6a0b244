"""The HTTP client: retries, errors of endpoints, limits on a body, and which endpoints a model uses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from tests.servers import Request, Server, serving

from truing.core.errors import BudgetExceeded, PlanError, SpecError
from truing.core.types import Failure
from truing.http import client
from truing.http.client import (
    Endpoint,
    find_endpoints,
    read_budget,
    share_budgets,
    validate_url,
)
from truing.http.limits import BACKOFF_CALLBACK, RequestBudget, close_connections
from truing.http.retry import RetryPolicy
from truing.specs.parser import parse_spec
from truing.specs.resolve import Args

KEY = "sk-secret"


def read_value(data: bytes) -> int:
    return int(json.loads(data)["value"])


def send(endpoint: Endpoint, times: int = 1) -> list[int | Failure]:
    async def run() -> list[int | Failure]:
        try:
            return [await endpoint.send_request(b"{}", read_value) for _ in range(times)]
        finally:
            await close_connections()

    return asyncio.run(run())


@pytest.fixture
def backoffs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """The calls of the backoff callback; waits take no time."""
    calls: list[bool] = []
    monkeypatch.setattr(client, "backoff_delay", lambda attempt, retry_after: retry_after or 0.0)
    token = BACKOFF_CALLBACK.set(calls.append)
    yield calls
    BACKOFF_CALLBACK.reset(token)


def serve_statuses(*statuses: int) -> object:
    """A handler that answers with the statuses in turn, then with 200."""

    async def handle(request: Request) -> None:
        status = statuses[request.number] if request.number < len(statuses) else 200
        await request.send(status, {"value": 3} if status == 200 else {"error": f"key {KEY}"})

    return handle


def test_retries_until_success_and_reports_each_wait(backoffs: list[bool]) -> None:
    with serving(serve_statuses(500, 429)) as server:  # type: ignore[arg-type]
        assert send(Endpoint(server.url)) == [3]
    assert len(server.requests) == 3
    assert backoffs == [True, False, True, False]


@pytest.mark.parametrize(
    ("status", "kind", "requests"),
    [(500, "http", 3), (429, "rate_limited", 3), (404, "http", 1), (401, "auth", 1)],
)
def test_failure_after_the_allowed_retries(
    backoffs: list[bool], status: int, kind: str, requests: int
) -> None:
    with serving(serve_statuses(*[status] * 9)) as server:  # type: ignore[arg-type]
        endpoint = Endpoint(server.url, key=KEY, retry_policy=RetryPolicy(retries=2))
        (failure,) = send(endpoint)
    assert isinstance(failure, Failure)
    assert (failure.stage, failure.kind) == ("model", kind)
    assert failure.message.startswith(f"{status} X: key ***")
    assert len(server.requests) == requests


def test_a_wait_beyond_max_wait_is_a_failure(backoffs: list[bool]) -> None:
    async def handle(request: Request) -> None:
        await request.send(429, {}, headers={"Retry-After": "30"})

    with serving(handle) as server:
        (failure,) = send(Endpoint(server.url, retry_policy=RetryPolicy(max_wait=20.0)))
    assert isinstance(failure, Failure)
    assert (failure.kind, len(server.requests), backoffs) == ("rate_limited", 1, [])


def test_a_body_beyond_max_bytes_is_a_failure() -> None:
    async def handle(request: Request) -> None:
        await request.send(200, {"value": 3, "padding": "x" * 100})

    with serving(handle) as server:
        (failure,) = send(Endpoint(server.url, retry_policy=RetryPolicy(max_bytes=50)))
    message = "an answer of more than 50 bytes (max_bytes=50)"
    assert failure == Failure("model", "too_large", message)


def test_budget_counts_retries(backoffs: list[bool]) -> None:
    with serving(serve_statuses(500, 500)) as server:  # type: ignore[arg-type]
        endpoint = Endpoint(server.url, budget=RequestBudget(requests=2))
        with pytest.raises(BudgetExceeded, match="2 requests"):
            send(endpoint)
    assert len(server.requests) == 2


def test_the_endpoints_of_one_budget_share_it_under_one_name() -> None:
    class Calls:
        """Notes the names under which requests are counted; there is room for all of them."""

        names: list[str] = []  # noqa: RUF012

        async def ask(self, method: str, name: str, *limits: object) -> str:
            self.names.append(name)
            return ""

        def tell(self, method: str, *arguments: object) -> None:
            assert method == "spend_tokens"

    together, alone = RequestBudget(requests=2), RequestBudget(tokens=9)
    with serving(serve_statuses(*[500] * 9)) as server:  # type: ignore[arg-type]
        policy = RetryPolicy(retries=0)
        endpoints = [
            Endpoint(f"{server.url}/{path}", budget=budget, retry_policy=policy)
            for path, budget in (("a", together), ("b", together), ("c", alone), ("d", None))
        ]
        share_budgets(Calls(), endpoints)
        for endpoint in endpoints:
            send(endpoint)
    of_a, of_b, of_c = Calls.names  # the last one has no budget
    assert of_a == of_b != of_c
    with pytest.raises(PlanError, match="cannot be counted for several workers"):
        share_budgets(None, endpoints)
    share_budgets(None, endpoints[3:])


def test_an_endpoint_that_is_down_gets_no_retries(
    backoffs: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_OUTAGE_SECONDS_BEFORE_FIRST_SUCCESS", -1.0)
    server: Server
    with serving(serve_statuses(*[500] * 9)) as server:  # type: ignore[arg-type]
        send(Endpoint(server.url), times=3)
    assert (len(server.requests), backoffs) == (3, [])


def test_endpoints_of_one_account_share_a_limiter() -> None:
    async def run() -> tuple[bool, bool]:
        first = Endpoint("http://127.0.0.1:9/a", key="k")
        second = Endpoint("http://127.0.0.1:9/b", key="k")
        other_key = Endpoint("http://127.0.0.1:9/a", key="l")
        limiters = first.limiter, second.limiter, other_key.limiter
        await close_connections()
        return limiters[0] is limiters[1], limiters[0] is limiters[2]

    assert asyncio.run(run()) == (True, False)


@pytest.mark.parametrize(
    ("url", "remote"),
    [
        ("http://localhost:1/", False),
        ("http://a.localhost/", False),
        ("http://127.0.0.1/", False),
        ("http://[::1]/", False),
        ("http://10.0.0.1/", True),
        ("https://example.org/", True),
    ],
)
def test_loopback_addresses_are_not_remote(url: str, remote: bool) -> None:
    assert Endpoint(url).remote is remote


def test_url_with_a_password_is_refused_without_showing_it() -> None:
    args = Args(parse_spec('openai:m,base_url="http://u:hunter2@host/",budget_requests=4'))
    with pytest.raises(SpecError, match="must not contain secrets") as caught:
        validate_url(args, str(args.text("base_url")))
    assert "hunter2" not in str(caught.value)
    assert read_budget(args).requests == 4
    for malformed in ("ftp://host/", "host", "http://"):
        with pytest.raises(SpecError):
            validate_url(args, malformed)


def test_find_endpoints_searches_wrappers_and_lists_each_once() -> None:
    endpoint, other = Endpoint("http://127.0.0.1:9/"), Endpoint("http://127.0.0.1:8/")

    class Wrapper:
        def __init__(self, **attributes: object) -> None:
            self.__dict__.update(attributes)

    Wrapper.__module__ = "truing.models.pool"
    inner = Wrapper(endpoint=endpoint)
    outer = Wrapper(model=inner, again=[inner, {"judge": other}])
    assert set(find_endpoints(outer)) == {endpoint, other}
    assert len(find_endpoints(outer)) == 2
    assert find_endpoints(object()) == ()
