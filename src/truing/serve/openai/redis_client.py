"""How this server reaches Redis, whatever it keeps there: addresses, passwords, bounds, faults.

A password comes from the environment variable REDIS_PASSWORD: other users of the machine can read
the arguments of a command.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from truing.core.errors import MissingExtra, PlanError
from truing.serve.openai.admission import RequestRefused

if TYPE_CHECKING:
    from redis.asyncio import Redis

PASSWORD_VARIABLE = "REDIS_PASSWORD"
_ANSWER_SECONDS = 5.0  # that Redis may take
_CONNECTION_SECONDS = 15.0  # that a call waits for a free connection
_CONNECTIONS = 16  # of a process to one database
_READY_SECONDS = 1.0  # for which the answer to "is Redis there?" is kept
_SCHEMES = ("redis", "rediss", "unix")


def open_redis(url: str, flag: str, purpose: str) -> RedisConnection:
    """Returns the connection to the Redis that a flag names; opens nothing yet.

    Raises PlanError for another kind of address and for one with a password in it, MissingExtra
    (for `purpose`) without the package redis.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise PlanError(f"{flag}: {error}; it is redis://HOST:PORT/DATABASE") from error
    if parts.scheme not in _SCHEMES or not (parts.hostname or parts.scheme == "unix"):
        raise PlanError(f"{flag} {parts.scheme}://...: it is redis://HOST:PORT/DATABASE")
    if parts.password or "password=" in parts.query:
        raise PlanError(
            f"{flag}: the address holds a password; give it in the environment variable "
            f"{PASSWORD_VARIABLE}"
        )
    try:
        import redis.asyncio  # noqa: F401 - named here, before the first request needs it
    except ImportError as error:
        raise MissingExtra("redis", purpose) from error
    return RedisConnection(url)


class RedisConnection:
    """The clients of one database: one for each event loop, with a bounded number of
    connections.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._clients: dict[asyncio.AbstractEventLoop, Redis] = {}
        self._checked_at, self._fault = -_READY_SECONDS, ""

    @property
    def client(self) -> Any:
        """The client of the running event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            # One server has one event loop: those before it have ended.
            self._clients = {loop: self._open()}
        return self._clients[loop]

    def _open(self) -> Redis:
        from redis.asyncio import BlockingConnectionPool, Redis

        # By default every call that overlaps another opens a connection, without a bound.
        pool = BlockingConnectionPool.from_url(
            self._url,
            password=os.environ.get(PASSWORD_VARIABLE),
            max_connections=_CONNECTIONS,
            timeout=_CONNECTION_SECONDS,
            socket_timeout=_ANSWER_SECONDS,
            **_connect_options(self._url),
        )
        return Redis.from_pool(pool)

    def require_answer(self, flag: str) -> None:
        """Raises PlanError if Redis does not answer: a wrong address is an error at the start."""
        import redis

        try:
            with redis.Redis.from_url(
                self._url,
                password=os.environ.get(PASSWORD_VARIABLE),
                socket_timeout=_ANSWER_SECONDS,
                **_connect_options(self._url),
            ) as client:
                client.ping()
        except (redis.RedisError, ValueError, OSError) as error:
            raise PlanError(f"{flag}: {type(error).__name__}: cannot reach Redis") from error

    async def find_fault(self) -> str:
        """Returns why Redis cannot be used now; "" if it can."""
        from redis.exceptions import RedisError

        if time.monotonic() - self._checked_at >= _READY_SECONDS:
            # Before the answer: while Redis hangs, probes must not take the connections of others.
            self._checked_at = time.monotonic()
            try:
                await self.client.ping()
                self._fault = ""
            except (RedisError, OSError) as error:
                self._fault = f"Redis does not answer ({type(error).__name__})"
        return self._fault

    async def close(self) -> None:
        """Closes the connections of the running event loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()


def _connect_options(url: str) -> dict[str, float]:
    """Returns what a socket of the machine itself does not take."""
    return {} if url.startswith("unix:") else {"socket_connect_timeout": _ANSWER_SECONDS}


@contextmanager
def refused_without_redis(what: str) -> Iterator[None]:
    """Turns a failure of Redis into the refusal of a request (503): `what` does not answer."""
    from redis.exceptions import RedisError

    try:
        yield
    except (RedisError, OSError) as error:
        raise RequestRefused(503, f"{what} does not answer", "server_error", 5) from error
