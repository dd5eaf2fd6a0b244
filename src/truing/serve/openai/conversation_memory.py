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
from truing.serve.openai.stored_threads import Rows, ThreadKey, ThreadStore

MIN_ID, MAX_ID = 16, 255  # characters of a thread id, as in NeMo's server
MAX_THREAD_BYTES = 1_000_000
_ANSWER_BYTES = 100_000  # of these, kept free for the next answer
_STATE_SHAPE = '{"messages": [...], "signature": "..."} as the last response returned it, or {}'


def check_room(rows: Rows) -> None:
    """Raises RequestRefused (400) if the messages of a request leave no room for an answer.

    Before the model answers: a client would pay for an answer that is not kept.
    """
    if len(json.dumps(rows)) > MAX_THREAD_BYTES - _ANSWER_BYTES:
        raise RequestRefused(400, "the conversation is too long to be continued")


class ContinuedConversation:
    """The conversation that a request continues; `earlier` are the messages before its own.

    It is a thread of the store, or else a state that is signed under `state_key`.
    """

    def __init__(
        self, memory: ConversationMemory, state_key: str = "", thread: ThreadKey | None = None
    ) -> None:
        self.memory, self.state_key, self.thread = memory, state_key, thread
        self.earlier: Rows = []
        self.version = 0

    async def save(self, rows: Rows) -> dict[str, Any]:
        """Keeps the messages up to an answer; returns what the response says of it."""
        if len(json.dumps(rows)) > MAX_THREAD_BYTES:
            raise RequestRefused(400, "the conversation is too long to be continued")
        if self.thread is not None:
            assert self.memory.store is not None
            document = {"messages": rows}
            if not await self.memory.store.save(self.thread, document, self.version):
                raise RequestRefused(409, "another request has continued the thread meanwhile")
            return {}
        return {"state": {"messages": rows, "signature": self.memory.sign(self.state_key, rows)}}


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
        async with self._lock(key.name):
            assert self.store is not None
            thread = ContinuedConversation(self, thread=key)
            stored = await self.store.load(key)
            thread.earlier, thread.version = stored.rows, stored.version
            yield thread

    def _lock(self, name: str) -> AbstractAsyncContextManager[Any]:
        if self.shared_lock is not None:
            return self.shared_lock(name)
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock

    def _thread_key(self, thread_id: Any, tenant: str, config: str) -> ThreadKey:
        if self.store is None:
            raise _refuse("thread_id", "this server keeps no threads: start it with --threads")
        if not isinstance(thread_id, str) or not MIN_ID <= len(thread_id) <= MAX_ID:
            raise _refuse("thread_id", f"a text of {MIN_ID} to {MAX_ID} characters")
        return thread_key(tenant, config, thread_id)

    def _read_state(self, state: Any, tenant: str, config: str) -> ContinuedConversation:
        key = json.dumps([tenant, config])
        continued = ContinuedConversation(self, key)
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


def thread_key(tenant: str, *names: str) -> ThreadKey:
    """Returns the key of what belongs to an API key: the same names under another are another's."""
    text = json.dumps([tenant, *names]).encode()
    return ThreadKey(tenant or "everybody", hashlib.sha256(text).hexdigest())


def _refuse(name: str, reason: str) -> RequestRefused:
    param = f"guardrails.{name}"
    return RequestRefused(400, f"{param}: {reason}", param=param)
