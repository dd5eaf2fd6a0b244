"""Limits that several servers share, in a real Redis."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any

import pytest
from litestar.testing import TestClient
from tests.requirements import require_variable

from truing.core.errors import MissingExtra, PlanError
from truing.models.scripted import ScriptedModel
from truing.serve.openai.admission import RequestRefused
from truing.serve.openai.app import chat_app, share_state
from truing.serve.openai.limits import ServerLimits
from truing.serve.openai.model_router import ModelRouter
from truing.serve.openai.shared_state import SharedState, open_shared_state

NOBODY = "redis://127.0.0.1:9/0"


async def use(count: int, work: Any) -> Any:
    """Returns what `work` does with the states of several servers."""
    states = [open_shared_state(require_variable("TRUING_TEST_REDIS")) for _ in range(count)]
    try:
        return await work(states)
    finally:
        for state in states:
            await state.close()


def test_one_limit_holds_for_four_servers_exactly() -> None:
    key = secrets.token_hex(8)

    async def ask(states: list[SharedState]) -> list[float]:
        # 300 requests for a limit of 200: every server sees less than the limit.
        async def send(state: SharedState) -> list[float]:
            return [await state.count_request(key, 200) for _ in range(25)]

        lists = await asyncio.gather(*(send(state) for state in states for _ in range(3)))
        return [wait for waits in lists for wait in waits]

    waits = asyncio.run(use(4, ask))
    assert len(waits) == 300 and sum(wait == 0 for wait in waits) == 200
    assert all(0 < wait <= 60 for wait in waits if wait)


def test_a_request_leaves_the_window_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("truing.serve.openai.shared_state._WINDOW_SECONDS", 1)
    key = secrets.token_hex(8)

    async def ask(states: list[SharedState]) -> None:
        (state,) = states
        assert await state.count_request(key, 1) == 0
        wait = await state.count_request(key, 1)
        assert 0 < wait <= 1
        await asyncio.sleep(wait + 0.05)
        assert await state.count_request(key, 1) == 0
        assert await state.count_request(secrets.token_hex(8), 1) == 0  # another key

    asyncio.run(use(1, ask))


def test_a_lock_is_held_by_one_server_at_a_time() -> None:
    name = secrets.token_hex(8)

    async def work(states: list[SharedState]) -> list[str]:
        steps: list[str] = []

        async def hold(state: SharedState, who: str) -> None:
            async with state.lock(name, 20):
                steps.append(f"{who} in")
                await asyncio.sleep(0.05)
                steps.append(f"{who} out")

        await asyncio.gather(hold(states[0], "a"), hold(states[1], "b"))
        async with states[0].lock(name, 20):
            with pytest.raises(RequestRefused, match="is being answered"):
                async with states[1].lock(name, 0.2):
                    pass
        return steps

    steps = asyncio.run(use(2, work))
    assert [steps[0][0], steps[2][0]] == [step[0] for step in (steps[1], steps[3])]


def test_all_servers_have_one_secret() -> None:
    async def read(states: list[SharedState]) -> set[bytes]:
        return set(await asyncio.gather(*(state.secret() for state in states)))

    (secret,) = asyncio.run(use(3, read))
    assert len(secret) == 32


def test_two_servers_refuse_what_is_above_the_limit_of_both() -> None:
    key = secrets.token_hex(8)
    limits = ServerLimits(per_minute=5)
    statuses = []
    apps = [
        chat_app(ModelRouter(ScriptedModel("hello")), limits=limits, keys=[key]) for _ in range(2)
    ]
    for app in apps:
        share_state(app, open_shared_state(require_variable("TRUING_TEST_REDIS")))
    with TestClient(apps[0]) as first, TestClient(apps[1]) as second:
        for k in range(8):
            reply = (first, second)[k % 2].get(
                "/v1/models", headers={"authorization": f"Bearer {key}"}
            )
            statuses.append(reply.status_code)
        assert first.get("/ready").json() == {"status": "ready"}
        assert int(reply.headers["retry-after"]) > 50
    assert statuses == [200] * 5 + [429] * 3


def test_without_redis_requests_are_refused_and_the_server_is_not_ready() -> None:
    state = open_shared_state(NOBODY)

    async def ask() -> str:
        started = time.monotonic()
        with pytest.raises(RequestRefused, match="does not answer") as refused:
            await state.count_request("", 5)
        assert refused.value.status == 503
        with pytest.raises(RequestRefused, match="does not answer"):
            async with state.lock("x", 5):
                pass
        with pytest.raises(PlanError, match="Redis does not answer"):
            await state.secret()
        assert time.monotonic() - started < 20
        fault = await state.find_fault()
        await state.close()
        return fault

    assert "Redis does not answer (ConnectionError)" in asyncio.run(ask())


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://host/x", "it is redis://HOST:PORT/DATABASE"),
        ("redis://", "it is redis://HOST:PORT/DATABASE"),
        ("redis://user:word@host/0", "REDIS_PASSWORD"),
    ],
)
def test_a_wrong_address_is_refused_without_its_password(url: str, message: str) -> None:
    with pytest.raises(PlanError, match=message) as error:
        open_shared_state(url)
    assert "word@" not in str(error.value) and ":word" not in str(error.value)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(MissingExtra, match=r"truing\[redis\]"):
        open_shared_state(NOBODY)
