"""Conversations that the server continues: by `thread_id` from a store, or by a signed `state`.

A thread belongs to the API key and the configuration of the request that began it: the same id
under another key names another thread. A state is what the response of the turn before held; it is
signed, so that a client cannot write messages into it that the rails have not read.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol
from weakref import WeakValueDictionary

from truing.core.errors import PlanError
from truing.serve.openai.admission import RequestRefused
from truing.serve.openai.schemas import GuardrailsRequest

MIN_ID, MAX_ID = 16, 255  # characters of a thread id, as in NeMo's server
MAX_THREADS = 10_000  # that are held in memory
MAX_THREAD_BYTES = 1_000_000
_ANSWER_BYTES = 100_000  # of these, kept free for the next answer
_STATE_SHAPE = '{"messages": [...], "signature": "..."} as the last response returned it, or {}'

Rows = list[dict[str, Any]]


class ThreadStore(Protocol):
    """Where the messages of threads are kept."""

    async def load(self, key: str) -> Rows:
        """Returns the messages of a thread; none of an unknown one."""
        ...

    async def save(self, key: str, rows: Rows) -> None:
        """Replaces the messages of a thread."""
        ...


class MemoryThreads:
    """The threads that were used last, in this process."""

    def __init__(self, size: int = MAX_THREADS) -> None:
        self._size = size
        self._threads: OrderedDict[str, str] = OrderedDict()

    async def load(self, key: str) -> Rows:
        """Returns the messages of a thread; none of an unknown one."""
        rows: Rows = json.loads(self._threads.get(key, "[]"))
        return rows

    async def save(self, key: str, rows: Rows) -> None:
        """Replaces the messages of a thread; drops the least recently used one."""
        self._threads[key] = json.dumps(rows)
        self._threads.move_to_end(key)
        if len(self._threads) > self._size:
            self._threads.popitem(last=False)


class SqlThreads:
    """Threads in a table of a SQL database, by a URL of SQLAlchemy's; created if it is missing."""

    def __init__(self, url: str) -> None:
        from sqlalchemy import Column, Float, MetaData, String, Table, Text, create_engine

        self._engine = create_engine(url, pool_pre_ping=True)
        metadata = MetaData()
        self._table = Table(
            "truing_threads",
            metadata,
            Column("key", String(64), primary_key=True),
            Column("messages", Text, nullable=False),
            Column("updated", Float, nullable=False),
        )
        metadata.create_all(self._engine)

    async def load(self, key: str) -> Rows:
        """Returns the messages of a thread; none of an unknown one."""
        return await asyncio.to_thread(self._load, key)

    async def save(self, key: str, rows: Rows) -> None:
        """Replaces the messages of a thread."""
        await asyncio.to_thread(self._save, key, json.dumps(rows))

    def _load(self, key: str) -> Rows:
        from sqlalchemy import select

        query = select(self._table.c.messages).where(self._table.c.key == key)
        with self._engine.connect() as connection:
            text = connection.execute(query).scalar()
        rows: Rows = json.loads(text) if text else []
        return rows

    def _save(self, key: str, messages: str) -> None:
        from sqlalchemy.exc import IntegrityError

        if self._update(key, messages):
            return
        values = {"key": key, "messages": messages, "updated": time.time()}
        try:
            with self._engine.begin() as connection:
                connection.execute(self._table.insert().values(**values))
        except IntegrityError:
            # Another process has begun the thread in between.
            self._update(key, messages)

    def _update(self, key: str, messages: str) -> bool:
        table = self._table
        values = {"messages": messages, "updated": time.time()}
        with self._engine.begin() as connection:
            result = connection.execute(table.update().where(table.c.key == key).values(**values))
        return bool(result.rowcount)


def open_thread_store(name: str) -> ThreadStore:
    """Returns the store that `--threads` names: memory, sqlite:FILE, or a URL of SQLAlchemy's.

    Raises PlanError for any other, and for a database that cannot be reached.
    """
    if name == "memory":
        return MemoryThreads()
    if name.startswith("sqlite:") and not name.startswith("sqlite:///"):
        name = f"sqlite:///{name.removeprefix('sqlite:')}"
    if not name.startswith(("sqlite:///", "postgresql")):
        raise PlanError(
            f"--threads {name}: it is memory, sqlite:FILE or postgresql+psycopg://HOST/DATABASE"
        )
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return SqlThreads(name)
    except SQLAlchemyError as error:
        # The message of the driver may hold the password of the URL.
        raise PlanError(f"--threads: {type(error).__name__}: cannot open the database") from error


class ContinuedConversation:
    """The conversation that a request continues; `earlier` are the messages before its own."""

    def __init__(self, memory: ConversationMemory, key: str, *, is_thread: bool) -> None:
        self.memory, self.key, self.is_thread = memory, key, is_thread
        self.earlier: Rows = []

    def check_room(self, rows: Rows) -> None:
        """Raises RequestRefused (400) if the messages of a request leave no room for an answer.

        Before the model answers: a client would pay for an answer that is not kept.
        """
        if len(json.dumps(rows)) > MAX_THREAD_BYTES - _ANSWER_BYTES:
            raise RequestRefused(400, "the conversation is too long to be continued")

    async def save(self, rows: Rows) -> dict[str, Any]:
        """Keeps the messages up to an answer; returns what the response says of it."""
        if len(json.dumps(rows)) > MAX_THREAD_BYTES:
            raise RequestRefused(400, "the conversation is too long to be continued")
        if self.is_thread:
            assert self.memory.store is not None
            await self.memory.store.save(self.key, rows)
            return {}
        return {"state": {"messages": rows, "signature": self.memory.sign(self.key, rows)}}


class ConversationMemory:
    """Loads and saves the conversations that requests continue; `store` is that of threads."""

    def __init__(self, store: ThreadStore | None = None) -> None:
        self.store = store
        self._secret = secrets.token_bytes(32)
        # A lock lives as long as a request holds or awaits it.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def sign(self, key: str, rows: Rows) -> str:
        """Returns the signature of messages that the server has seen under a key."""
        text = json.dumps([key, rows], sort_keys=True).encode()
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()

    @asynccontextmanager
    async def open(
        self, guardrails: GuardrailsRequest | None, tenant: str, config: str
    ) -> AsyncIterator[ContinuedConversation | None]:
        """Yields the conversation that a request continues, or None.

        Requests of one thread are answered one after the other. Raises RequestRefused (400) for an
        id or a state that cannot be continued.
        """
        if guardrails is None or (guardrails.thread_id is None and guardrails.state is None):
            yield None
            return
        if guardrails.thread_id is not None and guardrails.state is not None:
            raise _refuse("state", "give thread_id or state, not both")
        if guardrails.thread_id is None:
            yield self._read_state(guardrails.state, tenant, config)
            return
        key = self._thread_key(guardrails.thread_id, tenant, config)
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        async with lock:
            assert self.store is not None
            thread = ContinuedConversation(self, key, is_thread=True)
            thread.earlier = await self.store.load(key)
            yield thread

    def _thread_key(self, thread_id: Any, tenant: str, config: str) -> str:
        if self.store is None:
            raise _refuse("thread_id", "this server keeps no threads: start it with --threads")
        if not isinstance(thread_id, str) or not MIN_ID <= len(thread_id) <= MAX_ID:
            raise _refuse("thread_id", f"a text of {MIN_ID} to {MAX_ID} characters")
        text = json.dumps([tenant, config, thread_id]).encode()
        return hashlib.sha256(text).hexdigest()

    def _read_state(self, state: Any, tenant: str, config: str) -> ContinuedConversation:
        key = json.dumps([tenant, config])
        continued = ContinuedConversation(self, key, is_thread=False)
        if state == {}:
            return continued
        rows = state.get("messages") if isinstance(state, dict) else None
        signature = state.get("signature") if isinstance(state, dict) else None
        if not isinstance(rows, list) or not isinstance(signature, str):
            raise _refuse("state", f"expected {_STATE_SHAPE}")
        if not hmac.compare_digest(self.sign(key, rows), signature):
            raise _refuse("state", f"not from this server and key, or changed; {_STATE_SHAPE}")
        continued.earlier = rows
        return continued


def _refuse(name: str, reason: str) -> RequestRefused:
    param = f"guardrails.{name}"
    return RequestRefused(400, f"{param}: {reason}", param=param)
