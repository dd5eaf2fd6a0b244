"""Threads in Redis: a hash for each, and for each owner an index by use and the bytes."""

from __future__ import annotations

import json
import math
from typing import Any

from truing.serve.openai.redis_client import RedisConnection, refused_without_redis
from truing.serve.openai.stored_threads import (
    ENTRY_BYTES,
    Document,
    StoredThread,
    ThreadBounds,
    ThreadKey,
    next_version,
)

_WHAT = "the store of threads (--threads)"

# KEYS: the thread, the owner's index (name by time of use), the owner's bytes (by name, and '' for
# their sum). ARGV begins with the name of the thread and the milliseconds of life (0: for ever).
# By the clock of Redis, since those of machines differ.
_START = """
local name, life = ARGV[1], tonumber(ARGV[2])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local prefix = string.sub(KEYS[1], 1, #KEYS[1] - #name)
local function drop(dropped)
  local size = redis.call('HGET', KEYS[3], dropped)
  if size then
    redis.call('HINCRBY', KEYS[3], '', '-' .. size)
    redis.call('HDEL', KEYS[3], dropped)
  end
  redis.call('ZREM', KEYS[2], dropped)
  return redis.call('DEL', prefix .. dropped)
end
local function use()
  redis.call('ZADD', KEYS[2], string.format('%d', now), name)
  if life > 0 then
    for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, life) end
  end
end
"""
_LOAD = (
    _START
    + """
local thread = redis.call('HMGET', KEYS[1], 'version', 'document')
if thread[1] then use() end
return thread
"""
)
_SAVE = (
    _START
    + """
local version = redis.call('HGET', KEYS[1], 'version')
if version and version ~= ARGV[3] then return 0 end
if life > 0 then
  local last = string.format('%d', now - life)
  for _, expired in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', last)) do drop(expired) end
end
local size = #ARGV[5] + tonumber(ARGV[6])
local before = tonumber(redis.call('HGET', KEYS[3], name) or '0')
redis.call('HSET', KEYS[1], 'version', ARGV[4], 'document', ARGV[5])
redis.call('HSET', KEYS[3], name, size)
redis.call('HINCRBY', KEYS[3], '', size - before)
use()
while tonumber(redis.call('HGET', KEYS[3], '')) > tonumber(ARGV[7]) do
  local oldest = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
  if not oldest or oldest == name then break end
  drop(oldest)
end
return 1
"""
)
_DELETE = _START + "return drop(name)"


class RedisThreads:
    """Threads in Redis, which expire there."""

    def __init__(self, connection: RedisConnection, bounds: ThreadBounds | None = None) -> None:
        self._connection, self._bounds = connection, bounds or ThreadBounds()
        self._life = math.ceil(self._bounds.seconds * 1000) if self._bounds.expires else 0

    async def load(self, key: ThreadKey) -> StoredThread:
        """Returns a thread, and counts that as a use; an empty one for an unknown or expired
        key.
        """
        version, document = await self._run(_LOAD, key)
        if version is None or document is None:
            return StoredThread({})
        return StoredThread(json.loads(document), int(version))

    async def save(self, key: ThreadKey, document: Document, version: int) -> bool:
        """Replaces a thread; False if one is there that is not at this version any more."""
        texts = (str(version), str(next_version(version)), json.dumps(document))
        return bool(await self._run(_SAVE, key, *texts, ENTRY_BYTES, self._bounds.owner_bytes))

    async def delete(self, key: ThreadKey) -> bool:
        """Deletes a thread; False if there is none."""
        return bool(await self._run(_DELETE, key))

    async def delete_expired(self) -> None:
        """Does nothing: Redis deletes what has expired."""

    async def find_fault(self) -> str:
        """Returns why Redis cannot be used now; "" if it can."""
        return await self._connection.find_fault()

    async def close(self) -> None:
        """Closes the connections of the running event loop."""
        await self._connection.close()

    async def _run(self, script: str, key: ThreadKey, *arguments: str | int) -> Any:
        # Braces: in a cluster the three keys of an owner stand on one server.
        index = f"truing:threads:{{{key.owner}}}"
        keys = (f"truing:thread:{{{key.owner}}}:{key.name}", index, f"{index}:bytes")
        with refused_without_redis(_WHAT):
            return await self._connection.client.eval(
                script, len(keys), *keys, key.name, self._life, *arguments
            )
