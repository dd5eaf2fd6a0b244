"""Stores of threads: one set of rules over memory, SQLite, PostgreSQL and Redis."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient
from tests.requirements import require_variable
from tests.serve.openai.live import free_port, wait_until

from truing.core.errors import PlanError
from truing.core.types import Conversation, Sampling
from truing.models.scripted import ScriptedModel
from truing.serve.openai.admission import RequestRefused
from truing.serve.openai.app import chat_app, keep_threads
from truing.serve.openai.memory_threads import MemoryThreads
from truing.serve.openai.model_router import ModelRouter
from truing.serve.openai.redis_client import RedisConnection
from truing.serve.openai.redis_threads import RedisThreads
from truing.serve.openai.sql_threads import SqlThreads
from truing.serve.openai.stored_threads import ThreadBounds, ThreadKey, ThreadStore
from truing.serve.openai.thread_stores import open_thread_store

STORES = ["memory", "sqlite", "redis", "postgres"]
DOCUMENT = {"messages": [{"role": "user", "content": "hi"}]}
LIFE = 1.5  # seconds: Redis has a clock of its own, for which a test must wait


def open_store(kind: str, folder: Path) -> ThreadStore:
    """Opens the same store again and again, as several servers do."""
    return open_thread_store(name_store(kind, folder))


def name_store(kind: str, folder: Path) -> str:
    """Returns what `--threads` takes for a kind of store."""
    if kind in ("redis", "postgres"):
        return require_variable(f"TRUING_TEST_{kind.upper()}")
    return f"sqlite:///{folder / 'threads.db'}" if kind == "sqlite" else kind


@dataclass
class StoreOnTest:
    """A store, keys of two owners that no other test has, and a clock to move."""

    store: Any
    has_own_clock: bool
    now: float = 1_000.0
    owner: str = ""

    def key(self, name: str, owner: str = "a") -> ThreadKey:
        return ThreadKey(f"{self.owner}-{owner}", f"{self.owner}-{name}")

    async def wait(self, seconds: float) -> None:
        self.now += seconds
        if self.has_own_clock:
            await asyncio.sleep(seconds)


@pytest.fixture
def on_test(request: pytest.FixtureRequest, tmp_path: Path) -> StoreOnTest:
    kind, bounds = request.param, ThreadBounds(seconds=LIFE, owner_bytes=5_000)
    case = StoreOnTest(None, has_own_clock=kind == "redis", owner=uuid.uuid4().hex[:20])
    if kind == "memory":
        case.store = MemoryThreads(bounds, lambda: case.now)
    elif kind == "redis":
        case.store = RedisThreads(RedisConnection(name_store(kind, tmp_path)), bounds)
    else:
        case.store = SqlThreads(name_store(kind, tmp_path), bounds, lambda: case.now)
    return case


def run(case: StoreOnTest, check: Callable[[StoreOnTest], Awaitable[None]]) -> None:
    async def run_and_close() -> None:
        try:
            await check(case)
        finally:
            await case.store.close()

    asyncio.run(run_and_close())


all_stores = pytest.mark.parametrize("on_test", STORES, indirect=True)


@all_stores
def test_a_save_continues_a_version(on_test: StoreOnTest) -> None:
    async def check(case: StoreOnTest) -> None:
        store, key = case.store, case.key("x")
        assert await store.find_fault() == ""
        assert (await store.load(key)).version == 0
        assert await store.save(key, DOCUMENT, 0)
        first = await store.load(key)
        assert first.document == DOCUMENT and first.rows == DOCUMENT["messages"]
        assert not await store.save(key, {}, 0)
        assert await store.save(key, {"messages": [1]}, first.version)
        assert not await store.save(key, {}, first.version)
        assert (await store.load(key)).document == {"messages": [1]}

    run(on_test, check)


@all_stores
def test_a_deleted_thread_is_gone(on_test: StoreOnTest) -> None:
    async def check(case: StoreOnTest) -> None:
        store, key = case.store, case.key("x")
        assert not await store.delete(key)
        await store.save(key, DOCUMENT, 0)
        assert await store.delete(key)
        assert await store.load(key) == await store.load(case.key("never"))

    run(on_test, check)


@all_stores
def test_a_load_is_a_use_and_what_is_unused_expires(on_test: StoreOnTest) -> None:
    async def check(case: StoreOnTest) -> None:
        store, key = case.store, case.key("x")
        await store.save(key, DOCUMENT, 0)
        for _ in range(2):
            await case.wait(0.6 * LIFE)
            assert (await store.load(key)).document == DOCUMENT
        await case.wait(1.2 * LIFE)
        assert (await store.load(key)).version == 0
        assert not await store.delete(key)

    run(on_test, check)


@all_stores
def test_a_thread_that_expires_during_a_request_is_stored_again(on_test: StoreOnTest) -> None:
    async def check(case: StoreOnTest) -> None:
        store, key = case.store, case.key("x")
        await store.save(key, DOCUMENT, 0)
        read = await store.load(key)
        await case.wait(1.2 * LIFE)
        assert await store.save(key, {"messages": [1, 2]}, read.version)
        again = await store.load(key)
        assert again.document == {"messages": [1, 2]}
        await case.wait(1.2 * LIFE)
        # Another request has begun the thread anew: its turn must not be lost.
        assert await store.save(key, {"messages": [3]}, 0)
        assert not await store.save(key, {"messages": [1, 2, 4]}, again.version)
        assert (await store.load(key)).document == {"messages": [3]}

    run(on_test, check)


@all_stores
def test_an_owner_drops_its_own_threads_beyond_its_bytes(on_test: StoreOnTest) -> None:
    async def check(case: StoreOnTest) -> None:
        store, document = case.store, {"text": "x" * 1_500}
        await store.save(case.key("other", "b"), document, 0)
        for name in ("first", "second"):
            await store.save(case.key(name), document, 0)
            await case.wait(0.01)
        await store.load(case.key("first"))
        await case.wait(0.2)  # a database notes uses a tenth of the life apart
        await store.load(case.key("first"))
        await store.save(case.key("third"), document, 0)
        versions = [(await store.load(case.key(n))).version for n in ("first", "second", "third")]
        assert [version > 0 for version in versions] == [True, False, True]
        assert (await store.load(case.key("other", "b"))).document == document

    run(on_test, check)


@pytest.mark.parametrize("on_test", ["memory", "sqlite"], indirect=True)
def test_expired_threads_are_deleted_by_the_clock_of_a_server(on_test: StoreOnTest) -> None:
    store = on_test.store

    def size() -> int:
        if isinstance(store, MemoryThreads):
            return store.size
        with store._engine.connect() as connection:
            return len(connection.execute(store._table.select()).all())

    app = chat_app(ModelRouter(ScriptedModel("hello")))
    keep_threads(app, store, cleanup_seconds=0.05)
    asyncio.run(store.save(on_test.key("x"), DOCUMENT, 0))
    with TestClient(app):
        assert size() > 0
        on_test.now += 1.2 * LIFE
        # No request comes.
        assert wait_until(lambda: size() == 0, 20)


def test_deleting_goes_on_after_an_error(caplog: pytest.LogCaptureFixture) -> None:
    class FailingOnce(MemoryThreads):
        calls = 0

        async def delete_expired(self) -> None:
            self.calls += 1
            if self.calls == 1:
                raise ValueError("a row that cannot be read")
            await super().delete_expired()

    store = FailingOnce()
    app = chat_app(ModelRouter(ScriptedModel("hello")))
    keep_threads(app, store, cleanup_seconds=0.01)
    with TestClient(app):
        assert wait_until(lambda: store.calls > 2, 20)
    assert caplog.messages.count("threads that have expired were not deleted") == 1


def test_the_owner_of_most_bytes_makes_room_in_memory() -> None:
    async def save() -> list[bool]:
        store = MemoryThreads(ThreadBounds(total_bytes=6_000))
        keys = [ThreadKey("small", "s"), *(ThreadKey("large", f"l{k}") for k in range(3))]
        for key in keys:
            await store.save(key, {"text": "x" * 1_200}, 0)
        return [(await store.load(key)).version > 0 for key in keys]

    assert asyncio.run(save()) == [True, False, True, True]


@pytest.mark.parametrize("kind", STORES[1:3])
def test_two_servers_on_one_store_lose_no_turn(kind: str, tmp_path: Path) -> None:
    (tmp_path / "bot").mkdir()
    (tmp_path / "bot" / "config.yml").write_text("models: []\n")
    thread = f"thread-{uuid.uuid4().hex}"
    body = {
        "messages": [{"role": "user", "content": "x"}],
        "guardrails": {"thread_id": thread, "config_id": "bot"},
    }
    nested: list[Any] = []

    def server(answer: Callable[[Conversation, Sampling], str]) -> Any:
        app = chat_app(ModelRouter(ScriptedModel(answer), {"bot": tmp_path / "bot"}))
        keep_threads(app, open_store(kind, tmp_path))
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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file", "it is memory, sqlite:FILE"),
        ("", "it is memory, sqlite:FILE"),
        ("sqlite:/nowhere/at/all/threads.db", "cannot open the database"),
        ("redis://127.0.0.1:1/0", "cannot reach Redis"),
        ("redis://127.0.0.1:x", "cannot reach Redis"),
        ("redis://:secret@127.0.0.1:1/0", "REDIS_PASSWORD"),
        ("redis://127.0.0.1:1/0?password=secret", "REDIS_PASSWORD"),
        ("redis://[::1", "Invalid IPv6 URL"),
    ],
)
def test_stores_that_do_not_exist(name: str, message: str) -> None:
    with pytest.raises(PlanError, match=message) as caught:
        open_thread_store(name)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("hours", "megabytes", "message"),
    [
        (0.0, 64, "--thread-hours 0"),
        (float("nan"), 64, "--thread-hours nan"),
        (1.0, 1, "--thread-megabytes 1"),
    ],
)
def test_wrong_bounds_are_refused(hours: float, megabytes: int, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        ThreadBounds.of_flags(hours, megabytes)


def test_threads_may_be_kept_for_ever() -> None:
    assert not ThreadBounds.of_flags(float("inf"), 64).expires


def test_a_request_is_refused_while_redis_does_not_answer() -> None:
    store = RedisThreads(RedisConnection(f"redis://127.0.0.1:{free_port()}"))
    key = ThreadKey("a", "k")
    calls: tuple[Callable[[], Any], ...] = (
        lambda: store.load(key),
        lambda: store.save(key, {}, 0),
        lambda: store.delete(key),
    )
    for call in calls:
        with pytest.raises(RequestRefused, match="--threads") as caught:
            asyncio.run(call())
        assert caught.value.status == 503


def test_a_server_whose_store_is_gone_is_not_ready() -> None:
    app = chat_app(ModelRouter(ScriptedModel("hello")))
    keep_threads(app, RedisThreads(RedisConnection(f"redis://127.0.0.1:{free_port()}")))
    with TestClient(app) as client:
        response = client.get("/ready")
    assert response.status_code == 503 and "Redis does not answer" in response.json()["status"]


def test_a_database_that_fails_refuses_the_request(tmp_path: Path) -> None:
    store = SqlThreads(f"sqlite:///{tmp_path / 'threads.db'}")
    store._table.drop(store._engine)
    with pytest.raises(RequestRefused, match="--threads") as caught:
        asyncio.run(store.load(ThreadKey("a", "k")))
    assert caught.value.status == 503
