"""Threads in a table of a SQL database."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from truing.serve.openai.admission import RequestRefused
from truing.serve.openai.stored_threads import (
    ENTRY_BYTES,
    Document,
    StoredThread,
    ThreadBounds,
    ThreadKey,
    next_version,
)

_REFRESH_SECONDS = 60.0  # the longest for which a load leaves the time of the last use as it is
_READY_SECONDS = 1.0  # for which the answer to "is the database there?" is kept
_BATCH = 100  # threads that are dropped by one statement
T = TypeVar("T")


class SqlThreads:
    """Threads in a table of the database at a URL of SQLAlchemy's; created if it is missing."""

    def __init__(
        self,
        url: str,
        bounds: ThreadBounds | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        from sqlalchemy import Column, Float, Integer, MetaData, String, Table, Text, create_engine

        self._engine = create_engine(url, pool_pre_ping=True)
        self._bounds, self._clock = bounds or ThreadBounds(), clock
        self._checked_at, self._fault = -_READY_SECONDS, ""
        metadata = MetaData()
        self._table = Table(
            "truing_threads",
            metadata,
            Column("name", String(64), primary_key=True),
            Column("owner", String(64), nullable=False, index=True),
            Column("document", Text, nullable=False),
            Column("version", Integer, nullable=False),
            Column("size", Integer, nullable=False),
            Column("used", Float, nullable=False, index=True),
        )
        metadata.create_all(self._engine)

    async def load(self, key: ThreadKey) -> StoredThread:
        """Returns a thread, and counts that as a use; an empty one for an unknown or expired
        key.
        """
        return await self._run(self._load, key)

    async def save(self, key: ThreadKey, document: Document, version: int) -> bool:
        """Replaces a thread; False if one is there that is not at this version any more."""
        return await self._run(self._save, key, json.dumps(document), version)

    async def delete(self, key: ThreadKey) -> bool:
        """Deletes a thread; False if there is none."""
        return await self._run(self._delete, key)

    async def delete_expired(self) -> None:
        """Deletes the threads that have expired."""
        if self._bounds.expires:
            await self._run(self._delete_expired)

    async def find_fault(self) -> str:
        """Returns why the database cannot be used now; "" if it can."""
        if time.monotonic() - self._checked_at >= _READY_SECONDS:
            self._checked_at = time.monotonic()
            try:
                await self._run(self._ping)
                self._fault = ""
            except RequestRefused as error:
                self._fault = error.message
        return self._fault

    async def close(self) -> None:
        """Closes the connections."""
        await asyncio.to_thread(self._engine.dispose)

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Runs `work` in a thread. Raises RequestRefused (503) where the database fails."""

        def run() -> T:
            with _refused_without_database():
                return work(*arguments)

        return await asyncio.to_thread(run)

    def _ping(self) -> None:
        from sqlalchemy import text

        with self._engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def _is_alive(self) -> Any:
        """Returns the condition that a thread has not expired."""
        if not self._bounds.expires:
            return self._table.c.used.is_not(None)
        return self._table.c.used >= self._clock() - self._bounds.seconds

    def _load(self, key: ThreadKey) -> StoredThread:
        from sqlalchemy import select

        columns, now = self._table.c, self._clock()
        query = select(columns.document, columns.version, columns.used)
        with self._engine.begin() as connection:
            row = connection.execute(
                query.where(columns.name == key.name, self._is_alive())
            ).one_or_none()
            if row is None:
                return StoredThread({})
            if now - row.used > min(_REFRESH_SECONDS, self._bounds.seconds / 10):
                is_thread = columns.name == key.name
                connection.execute(self._table.update().where(is_thread).values(used=now))
        return StoredThread(json.loads(row.document), row.version)

    def _save(self, key: ThreadKey, text: str, version: int) -> bool:
        from sqlalchemy.exc import IntegrityError

        table, columns = self._table, self._table.c
        values = {
            "document": text,
            "version": next_version(version),
            "size": len(text) + ENTRY_BYTES,
            "used": self._clock(),
        }
        is_thread = columns.name == key.name
        may_replace = (columns.version == version) | ~self._is_alive()
        try:
            with self._engine.begin() as connection:
                replaced = connection.execute(
                    table.update().where(is_thread & may_replace).values(**values)
                )
                if not replaced.rowcount:
                    connection.execute(
                        table.insert().values(name=key.name, owner=key.owner, **values)
                    )
                self._drop_beyond_bound(connection, key.owner)
        except IntegrityError:
            return False  # it stands there, at another version
        return True

    def _drop_beyond_bound(self, connection: Any, owner: str) -> None:
        """Deletes the threads of an owner that were unused for longest, down to the bytes."""
        from sqlalchemy import func, select

        columns = self._table.c
        query = select(func.sum(columns.size)).where(columns.owner == owner)
        excess = (connection.execute(query).scalar() or 0) - self._bounds.owner_bytes
        while excess > 0:
            oldest = connection.execute(
                select(columns.name, columns.size)
                .where(columns.owner == owner)
                .order_by(columns.used)
                .limit(_BATCH)
            ).all()
            if not oldest:
                return
            names = []
            for name, size in oldest:
                if excess <= 0:
                    break
                names.append(name)
                excess -= size
            connection.execute(self._table.delete().where(columns.name.in_(names)))

    def _delete(self, key: ThreadKey) -> bool:
        is_thread = (self._table.c.name == key.name) & self._is_alive()
        with self._engine.begin() as connection:
            return bool(connection.execute(self._table.delete().where(is_thread)).rowcount)

    def _delete_expired(self) -> None:
        with self._engine.begin() as connection:
            connection.execute(self._table.delete().where(~self._is_alive()))


@contextmanager
def _refused_without_database() -> Iterator[None]:
    """Turns a failure of the database into the refusal of the request (503)."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except SQLAlchemyError as error:
        reason = "the store of threads (--threads) does not answer"
        raise RequestRefused(503, reason, "server_error", 5) from error
