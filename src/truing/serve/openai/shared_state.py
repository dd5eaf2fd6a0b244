"""What all processes and machines of a service share, in Redis: rates, locks and a secret.

Without it every process counts for itself. Nothing of a request is stored: rates are kept under
hashes of the API keys. Where Redis does not answer, requests that it decides on are refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from truing.core.errors import MissingExtra, PlanError
from truing.serve.openai.admission import RequestRefused

if TYPE_CHECKING:
    from redis.asyncio import Redis

PASSWORD_VARIABLE = "REDIS_PASSWORD"
_PREFIX = "truing:serve:"
_WINDOW_SECONDS = 60
_ANSWER_SECONDS = 5.0  # that Redis may take
_CONNECTION_SECONDS = 15.0  # that a call waits for a free connection
_CONNECTIONS = 16  # of a process
_READY_SECONDS = 1.0  # for which the answer to "is Redis there?" is kept

# A sliding window: one entry for each request of the last minute. One script, so that two
# processes cannot both take the last place; by the clock of Redis, since those of machines differ.
_COUNT_REQUEST = """
local now = redis.call('TIME')
local t = now[1] * 1000000 + now[2]
local window = tonumber(ARGV[2]) * 1000000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%d', t - window))
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then
  local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  return string.format('%d', tonumber(oldest[2]) + window - t)
end
redis.call('ZADD', KEYS[1], string.format('%d', t), ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[2] + 1)
return '-1'
"""


def open_shared_state(url: str) -> SharedState:
    """Returns the state behind `--redis`, `redis://HOST:PORT/DATABASE`.

    A password comes from the environment variable REDIS_PASSWORD. Raises PlanError for another kind
    of address and for one with a password in it, which other users of the machine could read.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise PlanError(f"--redis {parts.scheme}://...: it is redis://HOST:PORT/DATABASE")
    if parts.password:
        raise PlanError(
            f"--redis: the address holds a password; give it in the environment variable "
            f"{PASSWORD_VARIABLE}"
        )
    try:
        from redis.asyncio import BlockingConnectionPool, Redis
    except ImportError as error:
        raise MissingExtra("redis", "limits that processes share (package redis)") from error
    # By default every call that overlaps another opens a connection, without a bound.
    pool = BlockingConnectionPool.from_url(
        url,
        password=os.environ.get(PASSWORD_VARIABLE),
        max_connections=_CONNECTIONS,
        timeout=_CONNECTION_SECONDS,
        socket_timeout=_ANSWER_SECONDS,
        socket_connect_timeout=_ANSWER_SECONDS,
    )
    return SharedState(Redis.from_pool(pool))


class SharedState:
    """Rates, locks and the secret of a service, in one database of Redis."""

    def __init__(self, client: Redis) -> None:
        self._client: Any = client
        self._count_request = self._client.register_script(_COUNT_REQUEST)
        self._checked_at, self._fault = -_READY_SECONDS, ""

    async def count_request(self, key: bytes, limit: int) -> float:
        """Counts a request of an API key; returns 0, or the seconds until it may come again.

        A request that is refused is not counted. Raises RequestRefused (503) where Redis does not
        answer.
        """
        name = f"{_PREFIX}rate:{hashlib.sha256(key).hexdigest()}"
        arguments: list[str | int] = [limit, _WINDOW_SECONDS, secrets.token_hex(8)]
        with _refused_without_redis():
            wait = int(await self._count_request(keys=[name], args=arguments))
        return max(0.0, wait / 1e6)

    @asynccontextmanager
    async def lock(self, name: str, seconds: float) -> AsyncIterator[None]:
        """Holds a lock that all processes know, for at most `seconds`, and waits as long for it.

        Raises RequestRefused (429) where another holds it all the time.
        """
        lock = self._client.lock(
            f"{_PREFIX}lock:{name}", timeout=seconds, blocking_timeout=seconds, sleep=0.02
        )
        with _refused_without_redis():
            acquired = await lock.acquire()
        if not acquired:
            raise RequestRefused(
                429, "another request of this conversation is being answered", "rate_limit_error", 2
            )
        try:
            yield
        finally:
            # Where it has run out, or Redis is gone, there is nothing to release.
            with _unless_redis_fails():
                await asyncio.shield(lock.release())

    async def secret(self) -> bytes:
        """Returns the secret by which all processes sign; the first of them makes it.

        Raises PlanError where Redis does not answer.
        """
        from redis.exceptions import RedisError

        name = f"{_PREFIX}secret"
        try:
            await self._client.set(name, secrets.token_bytes(32), nx=True)
            secret: bytes = await self._client.get(name)
        except (RedisError, OSError) as error:
            raise PlanError(f"--redis: Redis does not answer ({type(error).__name__})") from error
        return secret

    async def find_fault(self) -> str:
        """Returns why the state cannot be used now; "" if it can."""
        from redis.exceptions import RedisError

        if time.monotonic() - self._checked_at >= _READY_SECONDS:
            # Before the answer: while Redis hangs, probes must not take the connections of rates.
            self._checked_at = time.monotonic()
            try:
                await self._client.ping()
                self._fault = ""
            except (RedisError, OSError) as error:
                self._fault = f"Redis does not answer ({type(error).__name__})"
        return self._fault

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()


@contextmanager
def _refused_without_redis() -> Iterator[None]:
    """Turns a failure of Redis into the refusal of the request."""
    from redis.exceptions import RedisError

    try:
        yield
    except (RedisError, OSError) as error:
        raise RequestRefused(
            503, "the limits that the servers share cannot be reached", "server_error", 5
        ) from error


@contextmanager
def _unless_redis_fails() -> Iterator[None]:
    """Passes over a failure of Redis."""
    from redis.exceptions import RedisError

    with suppress(RedisError, OSError):
        yield
