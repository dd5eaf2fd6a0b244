"""Where the messages of threads are kept: in memory, in a SQL database, or in Redis.

Each save names the version that it continues, so that of two servers that answer in one thread at
the same time one is told that the other was first, and no turn is lost.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from msgspec import Struct

from truing.core.errors import MissingExtra, PlanError
from truing.serve.openai.admission import RequestRefused

MAX_THREADS, MAX_MEMORY_BYTES = 10_000, 256 * 2**20  # that are held in memory
_CLEANUP_SECONDS = 600.0  # between two searches of a SQL database for old threads
_REDIS_PREFIX = "truing:thread:"
# Saves a thread if its version is still the expected one: 1, else 0.
_REDIS_SAVE = """
local version = redis.call('HGET', KEYS[1], 'version')
if (version or '0') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'messages', ARGV[3])
if ARGV[4] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
return 1
"""

Rows = list[dict[str, Any]]


class StoredThread(Struct, frozen=True):
    """The messages of a thread, and how often it was saved (0: never)."""

    rows: Rows
    version: int = 0


class ThreadStore(Protocol):
    """Where the messages of threads are kept."""

    async def load(self, key: str) -> StoredThread:
        """Returns a thread; one without messages for an unknown or expired key."""
        ...

    async def save(self, key: str, rows: Rows, version: int) -> bool:
        """Replaces the messages of a thread; False if it is not at this version any more."""
        ...

    async def close(self) -> None:
        """Closes the connections."""
        ...


class MemoryThreads:
    """The threads that were used last, in this process; those unused for `seconds` expire."""

    def __init__(
        self,
        size: int = MAX_THREADS,
        seconds: float | None = None,
        max_bytes: int = MAX_MEMORY_BYTES,
    ) -> None:
        self._size, self._seconds, self._max_bytes = size, seconds, max_bytes
        self._bytes = 0
        self._threads: OrderedDict[str, tuple[str, int, float]] = OrderedDict()

    async def load(self, key: str) -> StoredThread:
        """Returns a thread; one without messages for an unknown or expired key."""
        self._drop_expired()
        if key not in self._threads:
            return StoredThread([])
        messages, version, _ = self._threads.pop(key)
        self._threads[key] = messages, version, time.monotonic()
        return StoredThread(json.loads(messages), version)

    async def save(self, key: str, rows: Rows, version: int) -> bool:
        """Replaces the messages of a thread; drops those unused for longest above bounds."""
        self._drop_expired()
        known = self._threads.get(key, ("", 0, 0.0))[1]
        if known != version and known:
            return False
        self._bytes -= len(self._threads.pop(key, ("", 0, 0.0))[0])
        messages = json.dumps(rows)  # ASCII: a byte each
        self._threads[key] = messages, version + 1, time.monotonic()
        self._bytes += len(messages)
        while len(self._threads) > self._size or self._bytes > self._max_bytes:
            self._drop_oldest()
        return True

    def _drop_expired(self) -> None:
        """Drops what has not been used for too long; the thread used first stands first."""
        if self._seconds is None:
            return
        oldest = time.monotonic() - self._seconds
        while self._threads and next(iter(self._threads.values()))[2] < oldest:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._bytes -= len(self._threads.popitem(last=False)[1][0])

    async def close(self) -> None:
        """Does nothing: there are no connections."""


class SqlThreads:
    """Threads in a table of a SQL database, by a URL of SQLAlchemy's; created if it is missing.

    Threads unused for `seconds` expire; they are deleted now and then.
    """

    def __init__(self, url: str, seconds: float | None = None) -> None:
        from sqlalchemy import Column, Float, Integer, MetaData, String, Table, Text, create_engine

        self._engine = create_engine(url, pool_pre_ping=True)
        self._seconds, self._next_cleanup = seconds, 0.0
        metadata = MetaData()
        self._table = Table(
            "truing_thread_messages",
            metadata,
            Column("key", String(64), primary_key=True),
            Column("messages", Text, nullable=False),
            Column("version", Integer, nullable=False),
            Column("updated", Float, nullable=False, index=True),
        )
        metadata.create_all(self._engine)

    async def load(self, key: str) -> StoredThread:
        """Returns a thread; one without messages for an unknown or expired key."""
        return await asyncio.to_thread(self._load, key)

    async def save(self, key: str, rows: Rows, version: int) -> bool:
        """Replaces the messages of a thread; False if it is not at this version any more."""
        return await asyncio.to_thread(self._save, key, json.dumps(rows), version)

    async def close(self) -> None:
        """Closes the connections."""
        await asyncio.to_thread(self._engine.dispose)

    def _load(self, key: str) -> StoredThread:
        from sqlalchemy import select

        self._delete_expired()
        columns = self._table.c
        query = select(columns.messages, columns.version).where(columns.key == key)
        if self._seconds is not None:
            query = query.where(columns.updated >= time.time() - self._seconds)
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return StoredThread([]) if row is None else StoredThread(json.loads(row[0]), row[1])

    def _delete_expired(self) -> None:
        if self._seconds is None or time.monotonic() < self._next_cleanup:
            return
        self._next_cleanup = time.monotonic() + _CLEANUP_SECONDS
        with self._engine.begin() as connection:
            oldest = time.time() - self._seconds
            connection.execute(self._table.delete().where(self._table.c.updated < oldest))

    def _save(self, key: str, messages: str, version: int) -> bool:
        from sqlalchemy.exc import IntegrityError

        table = self._table
        values = {"messages": messages, "version": version + 1, "updated": time.time()}
        try:
            with self._engine.begin() as connection:
                if version == 0:
                    # One that has expired, and is not deleted yet, may stand there.
                    if self._seconds is not None:
                        oldest = time.time() - self._seconds
                        is_old = (table.c.key == key) & (table.c.updated < oldest)
                        connection.execute(table.delete().where(is_old))
                    connection.execute(table.insert().values(key=key, **values))
                    return True
                is_same = (table.c.key == key) & (table.c.version == version)
                result = connection.execute(table.update().where(is_same).values(**values))
                return bool(result.rowcount)
        except IntegrityError:
            return False  # another server has begun the thread in between


class RedisThreads:
    """Threads in Redis; those unused for `seconds` expire there."""

    def __init__(self, url: str, seconds: float | None = None) -> None:
        try:
            import redis.asyncio
        except ImportError as error:
            raise MissingExtra("redis", "threads in Redis") from error
        self._url, self._milliseconds = url, int((seconds or 0) * 1000)
        self._from_url = redis.asyncio.Redis.from_url
        self._clients: dict[asyncio.AbstractEventLoop, Any] = {}
        try:
            # A wrong address is an error at the start, not at the first request.
            with redis.Redis.from_url(url, socket_connect_timeout=5) as client:
                client.ping()
        except (redis.RedisError, ValueError, OSError) as error:
            # The message may hold the password of the URL.
            raise PlanError(f"--threads: {type(error).__name__}: cannot reach Redis") from error

    def _client(self) -> Any:
        """Returns the client of the running event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            self._clients = {loop: self._from_url(self._url, socket_timeout=10)}
        return self._clients[loop]

    async def load(self, key: str) -> StoredThread:
        """Returns a thread; one without messages for an unknown or expired key."""
        with _refused_without_store():
            version, messages = await self._client().hmget(
                _REDIS_PREFIX + key, ["version", "messages"]
            )
        if version is None or messages is None:
            return StoredThread([])
        return StoredThread(json.loads(messages), int(version))

    async def save(self, key: str, rows: Rows, version: int) -> bool:
        """Replaces the messages of a thread; False if it is not at this version any more."""
        arguments = (str(version), str(version + 1), json.dumps(rows), str(self._milliseconds))
        name = _REDIS_PREFIX + key
        with _refused_without_store():
            return bool(await self._client().eval(_REDIS_SAVE, 1, name, *arguments))

    async def close(self) -> None:
        """Closes the connections of the running event loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()


@contextmanager
def _refused_without_store() -> Iterator[None]:
    """Turns a failure of Redis into the refusal of the request (503)."""
    from redis.exceptions import RedisError

    try:
        yield
    except (RedisError, OSError) as error:
        reason = "the store of threads (--threads) does not answer"
        raise RequestRefused(503, reason, "server_error", 5) from error


def open_thread_store(name: str, hours: float | None = None) -> ThreadStore:
    """Returns the store that `--threads` names; threads unused for `hours` expire.

    Raises PlanError for a name that is none, and for a database that cannot be reached.
    """
    if hours is not None and not hours > 0:
        raise PlanError(f"--thread-hours {hours:g}: expected a number above 0")
    seconds = None if hours is None else hours * 3600
    if name == "memory":
        return MemoryThreads(seconds=seconds)
    if name.startswith(("redis://", "rediss://", "unix://")):
        return RedisThreads(name, seconds)
    if name.startswith("sqlite:") and not name.startswith("sqlite:///"):
        name = f"sqlite:///{name.removeprefix('sqlite:')}"
    if not name.startswith(("sqlite:///", "postgresql")):
        raise PlanError(
            "--threads: it is memory, sqlite:FILE, postgresql+psycopg://HOST/DATABASE or "
            "redis://HOST"
        )
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return SqlThreads(name, seconds)
    except SQLAlchemyError as error:
        # The message of the driver may hold the password of the URL.
        raise PlanError(f"--threads: {type(error).__name__}: cannot open the database") from error
