"""Tool calls that wait for a person, in Redis: whichever process is asked knows those of all.

The process in which a call waits writes it to Redis, looks for its answer a few times a second and
renews it meanwhile; a call whose process has died is gone after `_LIFE_SECONDS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from truing.serve.openai.admission import RequestRefused
from truing.serve.openai.approvals import (
    MAX_WAITING,
    MAX_WAITING_OF_CLIENT,
    Approvals,
    WaitingCall,
    find_excess,
    resolve_decision,
)
from truing.serve.openai.redis_client import RedisConnection, refused_without_redis

_PREFIX = "truing:serve:approvals"
_LIFE_SECONDS = 15
_POLL_SECONDS = 0.25
_WHAT = "what the servers share (--redis)"

# KEYS: the index (call id by the time when it is gone). ARGV[1]: the prefix of the calls' keys.
_START = """
local clock = redis.call('TIME')
local now = tonumber(clock[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
"""
# ARGV: id, tenant, call, life, bound of all, bound of a client. Returns two counts, or an empty
# list where the call waits.
_ADD = (
    _START
    + """
local ids = redis.call('ZRANGE', KEYS[1], 0, -1)
local of_client = 0
for _, id in ipairs(ids) do
  if redis.call('HGET', ARGV[1] .. id, 'tenant') == ARGV[3] then of_client = of_client + 1 end
end
if #ids >= tonumber(ARGV[6]) or of_client >= tonumber(ARGV[7]) then return {#ids, of_client} end
redis.call('HSET', ARGV[1] .. ARGV[2], 'tenant', ARGV[3], 'call', ARGV[4])
redis.call('EXPIRE', ARGV[1] .. ARGV[2], ARGV[5])
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[5]), ARGV[2])
return {}
"""
)
# ARGV: life, ids. Renews calls; returns an answer ('1', '0' or nothing) for each.
_POLL = (
    _START
    + """
local answers = {}
for number = 3, #ARGV do
  local key = ARGV[1] .. ARGV[number]
  if redis.call('EXPIRE', key, ARGV[2]) == 1 then
    redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[number])
  end
  answers[number - 2] = redis.call('HGET', key, 'answer') or ''
end
return answers
"""
)
_ANSWER = """
local key = ARGV[1] .. ARGV[2]
if redis.call('EXISTS', key) == 0 then return 0 end
if redis.call('HSETNX', key, 'answer', ARGV[3]) == 0 then return 0 end
redis.call('ZREM', KEYS[1], ARGV[2])
return 1
"""
_ROWS = (
    _START
    + """
local rows = {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local call = redis.call('HGET', ARGV[1] .. id, 'call')
  if call and redis.call('HEXISTS', ARGV[1] .. id, 'answer') == 0 then table.insert(rows, call) end
end
return rows
"""
)


class SharedApprovals(Approvals):
    """The calls that wait in all processes that share a Redis. `keys` may answer."""

    def __init__(self, connection: RedisConnection, keys: Sequence[str] = ()) -> None:
        super().__init__(keys)
        self._connection = connection
        self._polling: asyncio.Task[None] | None = None

    async def _add(self, call: WaitingCall, decision: asyncio.Future[bool]) -> str:
        text = msgspec.json.encode(call)
        bounds = (MAX_WAITING, MAX_WAITING_OF_CLIENT)
        counts = await self._run(_ADD, call.id, call.tenant, text, _LIFE_SECONDS, *bounds)
        if counts:
            return find_excess(*counts)
        self._waiting[call.id] = call, decision
        if self._polling is None or self._polling.done():
            self._polling = asyncio.create_task(self._poll())
        return ""

    async def _remove(self, call: WaitingCall) -> None:
        await super()._remove(call)
        # Where Redis is gone, the call is too after its seconds.
        with suppress(RequestRefused), refused_without_redis(_WHAT):
            client = self._connection.client
            await client.delete(_key(call.id))
            await client.zrem(_PREFIX, call.id)

    async def _poll(self) -> None:
        """Looks for answers while calls wait here; where Redis fails, all are denied."""
        while self._waiting:
            await asyncio.sleep(_POLL_SECONDS)
            calls = dict(self._waiting)
            try:
                answers = await self._run(_POLL, _LIFE_SECONDS, *calls)
            except Exception:
                answers = [b"0"] * len(calls)
            for (_, decision), answer in zip(calls.values(), answers, strict=True):
                if answer:
                    resolve_decision(decision, answer == b"1")

    async def rows(self) -> list[dict[str, Any]]:
        """Returns the calls that wait in all processes, the oldest first."""
        calls = [msgspec.json.decode(text, type=WaitingCall) for text in await self._run(_ROWS)]
        return [call.row() for call in sorted(calls, key=lambda call: call.asked)]

    async def answer(self, call_id: str, allow: bool) -> bool:
        """Answers a call, wherever it waits; returns False if none waits under the id."""
        return bool(await self._run(_ANSWER, call_id, "1" if allow else "0"))

    async def _run(self, script: str, *arguments: str | bytes | int) -> Any:
        with refused_without_redis(_WHAT):
            return await self._connection.client.eval(script, 1, _PREFIX, f"{_PREFIX}:", *arguments)


def _key(call_id: str) -> str:
    return f"{_PREFIX}:{call_id}"
