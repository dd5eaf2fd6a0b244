"""The rail `ask a person` over HTTP: allowed, denied, late, and who may answer."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient
from tests.integrations.hook_rails_folder import write_rails
from tests.requirements import require_variable

from truing.core.types import Answer, Conversation, Message, Sampling, ToolCall
from truing.models.scripted import ScriptedModel
from truing.serve.openai.admission import RequestRefused
from truing.serve.openai.app import ask_people, chat_app
from truing.serve.openai.approvals import (
    CURRENT_CLIENT,
    MAX_WAITING,
    MAX_WAITING_OF_CLIENT,
    Approvals,
    Client,
)
from truing.serve.openai.model_router import ModelRouter
from truing.serve.openai.redis_client import RedisConnection
from truing.serve.openai.shared_approvals import SharedApprovals

TOOLS = [{"type": "function", "function": {"name": "transfer", "parameters": {}}}]
CALL = ToolCall("c1", "transfer", '{"amount": 5}')


def reply(conversation: Conversation, sampling: Sampling) -> Answer:
    return Answer(message=Message("assistant", "", (CALL,)), finish_reason="tool_calls")


def write_asking_rails(folder: Path, seconds: float) -> Path:
    write_rails(folder)
    config = folder / "config.yml"
    text = config.read_text().replace("[check tool calls]", "[ask a person]")
    config.write_text(text.replace("  tools: {", f"  tools: {{ask_timeout: {seconds}, "))
    return folder


def make_client(folder: Path, keys: list[str], approver_keys: list[str]) -> TestClient[Any]:
    approvals = Approvals(approver_keys) if approver_keys or not keys else None
    ask = approvals.ask if approvals is not None else None
    router = ModelRouter(ScriptedModel(reply), {"asks": folder}, ask_person=ask)
    app = chat_app(router, keys=[*keys, *approver_keys])
    if approvals is not None:
        ask_people(app, approvals)
    return TestClient(app)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Any]:
    folder = write_asking_rails(tmp_path / "asks", 20)
    with make_client(folder, ["k"], ["boss"]) as test_client:
        yield test_client


def start_turn(client: Any) -> tuple[threading.Thread, list[Any]]:
    """Asks for a turn in a thread; its body comes into the list."""
    bodies: list[Any] = []

    def ask() -> None:
        body = {"messages": [{"role": "user", "content": "pay"}], "tools": TOOLS}
        response = client.post("/v1/chat/completions", json=body, headers=bearer("k"))
        bodies.append(response.json())

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, bodies


def wait_for_call(client: Any) -> dict[str, Any]:
    end = time.monotonic() + 15
    while time.monotonic() < end:
        rows = client.get("/v1/approvals", headers=bearer("boss")).json()["data"]
        if rows:
            row: dict[str, Any] = rows[0]
            return row
        time.sleep(0.05)
    raise AssertionError("nobody was asked")


@pytest.mark.parametrize("allow", [True, False])
def test_a_person_decides(client: Any, allow: bool) -> None:
    thread, bodies = start_turn(client)
    row = wait_for_call(client)
    assert (row["name"], row["arguments"]) == ("transfer", CALL.arguments)
    # For whom: the configuration, and the beginning of the hash of the client's key.
    client_hash = hashlib.sha256(b"k").hexdigest()
    assert (row["config"], row["client"]) == ("asks", client_hash[: len(row["client"])])
    assert len(row["client"]) >= 6 and row["seconds"] >= 0
    answer = {"id": row["id"], "allow": allow}
    for headers in (bearer("k"), bearer("stranger")):
        refused = client.post("/v1/approvals", json=answer, headers=headers)
        assert refused.status_code in (401, 403)
    assert client.post("/v1/approvals", json=answer, headers=bearer("boss")).status_code == 200
    thread.join(15)
    choice = bodies[0]["choices"][0]
    assert choice["finish_reason"] == ("tool_calls" if allow else "content_filter")
    assert bool(choice["message"].get("tool_calls")) is allow
    late = client.post("/v1/approvals", json=answer, headers=bearer("boss"))
    assert late.status_code == 404
    assert client.get("/v1/approvals", headers=bearer("boss")).json()["data"] == []


def test_a_call_that_nobody_answers_is_denied(tmp_path: Path) -> None:
    folder = write_asking_rails(tmp_path / "asks", 0.1)
    with make_client(folder, ["k"], ["boss"]) as client:
        thread, bodies = start_turn(client)
        thread.join(15)
    choice = bodies[0]["choices"][0]
    assert choice["finish_reason"] == "content_filter" and "in time" in choice["message"]["content"]


def test_without_approvers_every_call_is_denied_at_once(tmp_path: Path) -> None:
    folder = write_asking_rails(tmp_path / "asks", 20)
    with make_client(folder, ["k"], []) as client:
        thread, bodies = start_turn(client)
        thread.join(15)
        assert client.get("/v1/approvals", headers=bearer("k")).status_code == 404
    assert bodies[0]["choices"][0]["finish_reason"] == "content_filter"


@pytest.mark.parametrize("body", [{}, {"id": 1, "allow": True}, {"id": "x", "allow": "yes"}])
def test_an_answer_of_another_form_is_refused(client: Any, body: dict[str, Any]) -> None:
    response = client.post("/v1/approvals", json=body, headers=bearer("boss"))
    assert response.status_code == 400 and response.json()["error"]["message"]


# -- of one process, and of several that share a Redis ---------------------------------------------

KINDS = pytest.mark.parametrize("kind", ["process", "redis"])


def open_approvals(kind: str, monkeypatch: pytest.MonkeyPatch) -> Approvals:
    """Opens approvals that share nothing with those of another test."""
    if kind == "process":
        return Approvals(["boss"])
    name = f"truing:test:{secrets.token_hex(6)}"
    monkeypatch.setattr("truing.serve.openai.shared_approvals._PREFIX", name)
    return SharedApprovals(RedisConnection(require_variable("TRUING_TEST_REDIS")), ["boss"])


def ask_as(approvals: Approvals, tenant: str, arguments: str = "{}") -> asyncio.Task[bool]:
    """Asks for the client of a request, as the rail does."""

    async def ask() -> bool:
        CURRENT_CLIENT.set(Client(tenant, "bank"))
        return await approvals.ask("transfer", arguments)

    return asyncio.create_task(ask())


def run_with(check: Callable[[], Awaitable[Any]], *opened: Approvals) -> Any:
    """Runs a check, and closes the connections to Redis in its event loop."""

    async def run_and_close() -> Any:
        try:
            return await check()
        finally:
            for approvals in opened:
                if isinstance(approvals, SharedApprovals):
                    await approvals._connection.close()

    return asyncio.run(run_and_close())


async def cancel(*tasks: asyncio.Task[bool]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def wait_for_rows(approvals: Approvals, count: int) -> list[dict[str, Any]]:
    end = time.monotonic() + 15
    while time.monotonic() < end:
        rows = await approvals.rows()
        if len(rows) == count:
            return rows
        await asyncio.sleep(0.05)
    raise AssertionError(f"{len(rows)} calls wait, not {count}")


@KINDS
def test_one_client_cannot_have_the_calls_of_others_denied(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    approvals = open_approvals(kind, monkeypatch)

    async def run() -> None:
        asked = [ask_as(approvals, "greedy") for _ in range(MAX_WAITING_OF_CLIENT)]
        await wait_for_rows(approvals, MAX_WAITING_OF_CLIENT)
        with caplog.at_level(logging.WARNING, "truing.serve"):
            assert await ask_as(approvals, "greedy", "secret words") is False
        assert "client greedy" in caplog.text and "bank" in caplog.text
        assert "secret words" not in caplog.text
        other = ask_as(approvals, "other")
        rows = await wait_for_rows(approvals, MAX_WAITING_OF_CLIENT + 1)
        newest = max(rows, key=lambda row: row["client"] == "other")
        assert (newest["client"], newest["config"]) == ("other", "bank")
        assert await approvals.answer(newest["id"], True)
        assert await other is True
        assert not await approvals.answer(newest["id"], False)
        await cancel(*asked)
        # Who gives up waits no more.
        await wait_for_rows(approvals, 0)

    run_with(run, approvals)


def test_no_more_wait_than_a_person_can_see() -> None:
    approvals = Approvals(["boss"])

    async def run() -> None:
        asked = [ask_as(approvals, f"client {k // 10}") for k in range(MAX_WAITING)]
        await wait_for_rows(approvals, MAX_WAITING)
        assert await ask_as(approvals, "one more") is False
        assert await ask_as(approvals, "other", "x" * 30_000) is False
        await cancel(*asked)

    run_with(run)


def test_another_process_passes_the_answer_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asking = open_approvals("redis", monkeypatch)
    answering = SharedApprovals(RedisConnection(require_variable("TRUING_TEST_REDIS")), ["boss"])

    async def run() -> list[bool]:
        tasks = [ask_as(asking, "a", '{"n": 1}'), ask_as(asking, "b", '{"n": 2}')]
        for row in await wait_for_rows(answering, 2):
            assert await answering.answer(row["id"], row["arguments"] == '{"n": 1}')
        return await asyncio.gather(*tasks)

    assert run_with(run, asking, answering) == [True, False]


def test_calls_of_a_process_that_died_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("truing.serve.openai.shared_approvals._LIFE_SECONDS", 4)
    dying, living = (
        open_approvals("redis", monkeypatch),
        SharedApprovals(RedisConnection(require_variable("TRUING_TEST_REDIS")), ["boss"]),
    )

    async def run() -> None:
        task = ask_as(dying, "a")
        await wait_for_rows(living, 1)
        await asyncio.sleep(4.5)
        assert len(await living.rows()) == 1  # renewed while its process lives
        dying._polling.cancel()  # type: ignore[attr-defined]
        await wait_for_rows(living, 0)
        await cancel(task)

    run_with(run, dying, living)


def test_where_redis_does_not_answer_no_call_is_made() -> None:
    approvals = SharedApprovals(RedisConnection("redis://127.0.0.1:9/0"), ["boss"])

    async def run() -> None:
        with pytest.raises(RequestRefused, match="--redis"):
            await ask_as(approvals, "a")

    run_with(run, approvals)
