"""Opens the store of threads that `--threads` names: memory, a SQL database, or Redis."""

from __future__ import annotations

from truing.core.errors import PlanError
from truing.serve.openai.memory_threads import MemoryThreads
from truing.serve.openai.redis_client import open_redis
from truing.serve.openai.redis_threads import RedisThreads
from truing.serve.openai.sql_threads import SqlThreads
from truing.serve.openai.stored_threads import ThreadBounds, ThreadStore


def open_thread_store(name: str, bounds: ThreadBounds | None = None) -> ThreadStore:
    """Returns the store that `--threads` names.

    Raises PlanError for a name that is none, and for a database that cannot be reached.
    """
    if name == "memory":
        return MemoryThreads(bounds)
    if name.startswith(("redis://", "rediss://", "unix://")):
        connection = open_redis(name, "--threads", "threads in Redis")
        connection.require_answer("--threads")
        return RedisThreads(connection, bounds)
    if name.startswith("sqlite:") and not name.startswith("sqlite:///"):
        name = f"sqlite:///{name.removeprefix('sqlite:')}"
    if not name.startswith(("sqlite:///", "postgresql")):
        raise PlanError(
            "--threads: it is memory, sqlite:FILE, postgresql+psycopg://HOST/DATABASE or "
            "redis://HOST"
        )
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return SqlThreads(name, bounds)
    except SQLAlchemyError as error:
        # The message of the driver may hold the password of the URL.
        raise PlanError(f"--threads: {type(error).__name__}: cannot open the database") from error
