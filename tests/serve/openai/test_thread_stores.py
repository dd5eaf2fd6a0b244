"""Stores of threads: versions, expiry, two servers on one store, wrong names."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from litestar.testing import TestClient
from tests.requirements import require_variable
from tests.serve.openai.live import free_port

from truing.core.errors import PlanError
from truing.core.types import Conversation, Sampling
from truing.models.scripted import ScriptedModel
from truing.rails.config.loader import RailsConfig
from truing.serve.openai import thread_stores
from truing.serve.openai.admission import RequestRefused
from truing.serve.openai.app import chat_app, keep_threads
from truing.serve.openai.model_router import ModelRouter
from truing.serve.openai.thread_stores import (
    MemoryThreads,
    RedisThreads,
    ThreadStore,
    open_thread_store,
)

STORES = ["memory", "sqlite", "redis", "postgres"]
ROW = [{"role": "user", "content": "hi"}]
Opener = Callable[..., ThreadStore]


@pytest.fixture
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens the same store again and again, as several servers do."""
    match request.param:
        case "redis" | "postgres":
            name = require_variable(f"TRUING_TEST_{request.param.upper()}")
        case "sqlite":
            name = f"sqlite:{tmp_path / 'threads.db'}"
        case _:
            name = "memory"
    return lambda hours=None: open_thread_store(name, hours)


@pytest.mark.parametrize("open_store", STORES, indirect=True)
def test_a_save_continues_a_version(open_store: Opener) -> None:
    key = uuid.uuid4().hex

    async def run() -> None:
        store = open_store()
        assert (await store.load(key)).version == 0
        assert await store.save(key, ROW, 0)
        thread = await store.load(key)
        assert (thread.rows, thread.version) == (ROW, 1)
        assert not await store.save(key, [], 0)
        assert await store.save(key, ROW * 2, 1)
        assert not await store.save(key, [], 1)
        assert (await store.load(key)).rows == ROW * 2
        await store.close()

    asyncio.run(run())


@pytest.mark.parametrize("open_store", STORES, indirect=True)
def test_unused_threads_expire(open_store: Opener) -> None:
    key = uuid.uuid4().hex
    seconds = 0.3

    async def run() -> None:
        store = open_store(seconds / 3600)
        assert await store.save(key, ROW, 0)
        assert (await store.load(key)).rows == ROW
        await asyncio.sleep(2 * seconds)
        assert (await store.load(key)).rows == []
        assert await store.save(key, ROW, 0)
        assert (await store.load(key)).rows == ROW
        await store.close()

    asyncio.run(run())


def test_old_threads_are_deleted_from_a_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread_stores, "_CLEANUP_SECONDS", 0.0)
    store: Any = open_thread_store(f"sqlite:{tmp_path / 'threads.db'}", 0.05 / 3600)

    async def run() -> None:
        for number in range(5):
            await store.save(str(number), ROW, 0)
        await asyncio.sleep(0.1)
        await store.load("other")

    asyncio.run(run())
    with store._engine.connect() as connection:
        assert connection.execute(store._table.select()).all() == []


@pytest.mark.parametrize("open_store", STORES[1:3], indirect=True)
def test_two_servers_on_one_store_lose_no_turn(open_store: Opener, tmp_path: Path) -> None:
    (tmp_path / "bot").mkdir()
    (tmp_path / "bot" / "config.yml").write_text("models: []\n")
    RailsConfig.load(tmp_path / "bot")
    thread = f"thread-{uuid.uuid4().hex}"
    body = {
        "messages": [{"role": "user", "content": "x"}],
        "guardrails": {"thread_id": thread, "config_id": "bot"},
    }
    nested: list[Any] = []

    def server(answer: Callable[[Conversation, Sampling], str]) -> Any:
        app = chat_app(ModelRouter(ScriptedModel(answer), {"bot": tmp_path / "bot"}))
        keep_threads(app, open_store())
        return TestClient(app)

    def count(conversation: Conversation, sampling: Sampling) -> str:
        return f"{sum(m.role != 'system' for m in conversation.messages)} messages"

    def answer_meanwhile(conversation: Conversation, sampling: Sampling) -> str:
        # While this server answers, the other one answers in the same thread.
        nested.append(other.post("/v1/chat/completions", json=body))
        return count(conversation, sampling)

    with server(count) as other, server(answer_meanwhile) as slow:
        conflict = slow.post("/v1/chat/completions", json=body)
        assert nested[0].status_code == 200
        assert conflict.status_code == 409 and "meanwhile" in conflict.text
        last = other.post("/v1/chat/completions", json=body)
    assert last.json()["choices"][0]["message"]["content"] == "3 messages"


def test_the_least_recently_used_thread_goes_first() -> None:
    async def run() -> list[int]:
        store = MemoryThreads(2)
        for key in "abc":
            await store.save(key, ROW, 0)
        return [len((await store.load(key)).rows) for key in "abc"]

    assert asyncio.run(run()) == [0, 1, 1]


@pytest.mark.parametrize(
    ("name", "hours", "message"),
    [
        ("file", None, "it is memory, sqlite:FILE"),
        ("", None, "it is memory, sqlite:FILE"),
        ("sqlite:/nowhere/at/all/threads.db", None, "cannot open the database"),
        ("redis://:secret@127.0.0.1:1/0", None, "cannot reach Redis"),
        ("redis://127.0.0.1:x", None, "cannot reach Redis"),
        ("memory", 0.0, "--thread-hours 0"),
        ("memory", float("nan"), "--thread-hours nan"),
    ],
)
def test_stores_that_do_not_exist(name: str, hours: float | None, message: str) -> None:
    with pytest.raises(PlanError, match=message) as caught:
        open_thread_store(name, hours)
    assert "secret" not in str(caught.value)


def test_threads_in_memory_are_bounded_by_their_bytes() -> None:
    async def save_and_load() -> list[int]:
        store = MemoryThreads(max_bytes=2_500)
        for key in "abc":
            assert await store.save(key, [{"role": "user", "content": "x" * 1_000}], 0)
        return [len((await store.load(key)).rows) for key in "abc"]

    assert asyncio.run(save_and_load()) == [0, 1, 1]


def test_expired_threads_leave_the_memory_without_being_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(thread_stores, "time", SimpleNamespace(monotonic=lambda: now))

    async def save_and_wait() -> int:
        nonlocal now
        store = MemoryThreads(seconds=60)
        await store.save("old", [{"role": "user", "content": "x"}], 0)
        now = 50.0
        await store.save("used", [{"role": "user", "content": "y"}], 0)
        now = 100.0
        await store.load("used")
        now = 150.0
        await store.save("new", [], 0)
        return len((await store.load("used")).rows) if set(store._threads) == {"used", "new"} else 0

    assert asyncio.run(save_and_wait()) == 1


def test_a_request_is_refused_while_redis_does_not_answer() -> None:
    import redis.asyncio as redis

    store = RedisThreads.__new__(RedisThreads)  # its constructor asks Redis
    store._url, store._milliseconds = f"redis://127.0.0.1:{free_port()}", 0
    store._from_url, store._clients = redis.Redis.from_url, {}
    for call in (lambda: store.load("k"), lambda: store.save("k", [], 0)):
        with pytest.raises(RequestRefused, match="--threads") as caught:
            asyncio.run(call())
        assert caught.value.status == 503
