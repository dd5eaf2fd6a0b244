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
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from weakref import WeakValueDictionary

from truing.serve.openai.admission import RequestRefused
from truing.serve.openai.schemas import GuardrailsRequest
from truing.serve.openai.thread_stores import Rows, ThreadStore

MIN_ID, MAX_ID = 16, 255  # characters of a thread id, as in NeMo's server
MAX_THREAD_BYTES = 1_000_000
_ANSWER_BYTES = 100_000  # of these, kept free for the next answer
_STATE_SHAPE = '{"messages": [...], "signature": "..."} as the last response returned it, or {}'


class ContinuedConversation:
    """The conversation that a request continues; `earlier` are the messages before its own."""

    def __init__(self, memory: ConversationMemory, key: str, *, is_thread: bool) -> None:
        self.memory, self.key, self.is_thread = memory, key, is_thread
        self.earlier: Rows = []
        self.version = 0

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
            if not await self.memory.store.save(self.key, rows, self.version):
                raise RequestRefused(409, "another request has continued the thread meanwhile")
            return {}
        return {"state": {"messages": rows, "signature": self.memory.sign(self.key, rows)}}


class ConversationMemory:
    """Loads and saves the conversations that requests continue; `store` is that of threads.

    `secret` signs states; processes that serve the same clients have the same one, and with
    `shared_lock` they also wait for each other's requests of a thread.
    """

    def __init__(self, store: ThreadStore | None = None) -> None:
        self.store = store
        self.secret = secrets.token_bytes(32)
        self.shared_lock: Callable[[str], AbstractAsyncContextManager[None]] | None = None
        # A lock lives as long as a request holds or awaits it.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def sign(self, key: str, rows: Rows) -> str:
        """Returns the signature of messages that the server has seen under a key."""
        text = json.dumps([key, rows], sort_keys=True).encode()
        return hmac.new(self.secret, text, hashlib.sha256).hexdigest()

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
        async with self._lock(key):
            assert self.store is not None
            thread = ContinuedConversation(self, key, is_thread=True)
            stored = await self.store.load(key)
            thread.earlier, thread.version = stored.rows, stored.version
            yield thread

    def _lock(self, key: str) -> AbstractAsyncContextManager[Any]:
        if self.shared_lock is not None:
            return self.shared_lock(key)
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock

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
