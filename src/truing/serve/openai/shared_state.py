"""What all processes and machines of a service share, in Redis: rates, locks and a secret.

Without it every process counts for itself. Nothing of a request is stored: rates are kept under
hashes of the API keys. Where Redis does not answer, requests that it decides on are refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

from truing.core.errors import PlanError
from truing.serve.openai.admission import RequestRefused
from truing.serve.openai.redis_client import RedisConnection, open_redis, refused_without_redis

_PREFIX = "truing:serve:"
_WINDOW_SECONDS = 60
_WHAT = "what the servers share (--redis)"

# A sliding window: one entry for each request of the last minute. One script, so that two
# processes cannot both take the last place; by the clock of Redis, since those of machines differ.
_COUNT_REQUEST = """
local now = redis.call('TIME')
local t = now[1] * 1000000 + now[2]
local window = tonumber(ARGV[2]) * 1000000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%d', t - window))
if redis.call('ZCARD', KEYS[1]) + tonumber(ARGV[4]) > tonumber(ARGV[1]) then
  local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  if #oldest == 0 then return string.format('%d', window) end
  return string.format('%d', tonumber(oldest[2]) + window - t)
end
for number = 1, tonumber(ARGV[4]) do
  redis.call('ZADD', KEYS[1], string.format('%d', t), ARGV[3] .. ':' .. number)
end
redis.call('EXPIRE', KEYS[1], ARGV[2] + 1)
return '-1'
"""


def open_shared_state(url: str) -> SharedState:
    """Returns the state behind `--redis`, `redis://HOST:PORT/DATABASE` (see `open_redis`)."""
    return SharedState(open_redis(url, "--redis", "limits that processes share (package redis)"))


class SharedState:
    """Rates, locks and the secret of a service, in one database of Redis."""

    def __init__(self, connection: RedisConnection) -> None:
        self.connection = connection

    @property
    def _client(self) -> Any:
        return self.connection.client

    async def count_request(self, key: str, limit: int, count: int = 1) -> float:
        """Counts a request of an API key, for as many as `count`; returns 0, or the seconds until
        it may come again.

        A request that is refused is not counted. Raises RequestRefused (503) where Redis does not
        answer.
        """
        name = f"{_PREFIX}rate:{hashlib.sha256(key.encode()).hexdigest()}"
        arguments: list[str | int] = [limit, _WINDOW_SECONDS, secrets.token_hex(8), count]
        with refused_without_redis(_WHAT):
            wait = int(await self._client.eval(_COUNT_REQUEST, 1, name, *arguments))
        return max(0.0, wait / 1e6)

    @asynccontextmanager
    async def lock(self, name: str, seconds: float) -> AsyncIterator[None]:
        """Holds a lock that all processes know, for at most `seconds`, and waits as long for it.

        Raises RequestRefused (429) where another holds it all the time.
        """
        lock = self._client.lock(
            f"{_PREFIX}lock:{name}", timeout=seconds, blocking_timeout=seconds, sleep=0.02
        )
        with refused_without_redis(_WHAT):
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
        return await self.connection.find_fault()

    async def close(self) -> None:
        """Closes the connections."""
        await self.connection.close()


@contextmanager
def _unless_redis_fails() -> Iterator[None]:
    """Passes over a failure of Redis."""
    from redis.exceptions import RedisError

    with suppress(RedisError, OSError):
        yield
