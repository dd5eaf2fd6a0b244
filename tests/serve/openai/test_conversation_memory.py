"""Threads: one store for each key and configuration, kept over a restart."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient

from truing.core.types import Conversation, Sampling
from truing.models.scripted import ScriptedModel
from truing.serve.openai import conversation_memory
from truing.serve.openai.app import chat_app, keep_threads
from truing.serve.openai.model_router import ModelRouter
from truing.serve.openai.thread_stores import MemoryThreads, open_thread_store

CHAT = "/v1/chat/completions"
THREAD = "thread-of-sixteen-characters"


@pytest.fixture
def bot(tmp_path: Path) -> Path:
    (tmp_path / "bot").mkdir()
    (tmp_path / "bot" / "config.yml").write_text("models: []\n")
    return tmp_path / "bot"


def _client(bot: Path, store: str) -> TestClient:  # type: ignore[type-arg]
    def count(conversation: Conversation, sampling: Sampling) -> str:
        return f"{sum(m.role != 'system' for m in conversation.messages)} messages"

    model = ScriptedModel(count)
    app = chat_app(ModelRouter(model, {"bot": bot}), keys=["key-of-anna", "key-of-bert"])
    keep_threads(app, open_thread_store(store))
    return TestClient(app)


def _say(client: Any, text: str, key: str = "anna", thread: Any = THREAD, **fields: Any) -> Any:
    body = {
        "messages": [{"role": "user", "content": text}],
        "guardrails": {"thread_id": thread},
        **fields,
    }
    return client.post(CHAT, json=body, headers={"authorization": f"Bearer key-of-{key}"})


def _text(reply: Any) -> str:
    return str(reply.json()["choices"][0]["message"]["content"])


@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_a_thread_goes_on(bot: Path, tmp_path: Path, store: str) -> None:
    name = "memory" if store == "memory" else f"sqlite:{tmp_path / 'threads.db'}"
    with _client(bot, name) as client:
        assert _text(_say(client, "one")) == "1 messages"
        assert _text(_say(client, "two")) == "3 messages"
        stream = _say(client, "three", stream=True)
        events = [line[6:] for line in stream.text.splitlines() if line.startswith("data: {")]
        deltas = [choice["delta"] for event in events for choice in json.loads(event)["choices"]]
        assert "".join(delta.get("content") or "" for delta in deltas) == "5 messages"
        assert _text(_say(client, "four")) == "7 messages"
        # The same id under another key is another thread.
        assert _text(_say(client, "one", key="bert")) == "1 messages"
        assert _text(_say(client, "one", thread="another-thread-of-anna")) == "1 messages"
    if store == "sqlite":
        with _client(bot, name) as client:
            assert _text(_say(client, "five")) == "9 messages"


@pytest.mark.parametrize("thread", ["short", "x" * 300, 3, ["a"]])
def test_wrong_ids_are_refused(bot: Path, thread: Any) -> None:
    with _client(bot, "memory") as client:
        reply = _say(client, "hi", thread=thread)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "guardrails.thread_id"


def test_a_thread_that_is_too_long_is_refused_before_the_model_answers(
    bot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation_memory, "MAX_THREAD_BYTES", 101_000)
    calls = []

    def count(conversation: Conversation, sampling: Sampling) -> str:
        calls.append(1)
        return "yes"

    app = chat_app(ModelRouter(ScriptedModel(count), {"bot": bot}), keys=["key-of-anna"])
    keep_threads(app, MemoryThreads())
    with TestClient(app) as client:
        assert _text(_say(client, "one")) == "yes"
        for options in ({}, {"stream": True}):
            refused = _say(client, "x" * 1000, **options)
            assert refused.status_code == 400 and "too long to be continued" in refused.text
        assert len(calls) == 1
        assert _text(_say(client, "two")) == "yes"


def test_a_state_of_another_key_is_refused(bot: Path) -> None:
    with _client(bot, "memory") as client:
        fields = {"guardrails": {"state": {}}}
        state = _say(client, "one", **fields).json()["guardrails"]["state"]
        fields = {"guardrails": {"state": state}}
        assert _text(_say(client, "two", **fields)) == "3 messages"
        refused = _say(client, "two", key="bert", **fields)
    assert refused.status_code == 400 and "not from this server and key" in refused.text


def test_requests_of_one_thread_are_answered_one_after_the_other(bot: Path) -> None:
    with _client(bot, "memory") as client, ThreadPoolExecutor(4) as pool:
        texts = [_text(reply) for reply in pool.map(lambda n: _say(client, str(n)), range(4))]
    assert sorted(texts) == ["1 messages", "3 messages", "5 messages", "7 messages"]


def test_a_server_without_a_store_says_how_to_get_one(bot: Path) -> None:
    with TestClient(chat_app(ModelRouter(ScriptedModel("x"), {"bot": bot}))) as client:
        reply = _say(client, "hi")
        both = {"guardrails": {"thread_id": THREAD, "state": {}}}
        assert _say(client, "hi", **both).status_code == 400
    assert reply.status_code == 400 and "--threads" in reply.text
