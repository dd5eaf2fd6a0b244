"""Streams: errors end them without `[DONE]`, bounds in time and bytes, the audit of each."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator

import pytest
from litestar.testing import TestClient

from truing.core.types import Conversation, Sampling
from truing.models.scripted import ScriptedModel
from truing.serve.openai.app import chat_app
from truing.serve.openai.audit import HarmAudit
from truing.serve.openai.limits import ServerLimits
from truing.serve.openai.model_router import ModelRouter
from truing.specs.resolve import resolve
from truing.stats.sequential import HarmRateAlarm

CHAT = "/v1/chat/completions"
ASKED = {"messages": [{"role": "user", "content": "hello"}], "stream": True}


class Words(ScriptedModel):
    """Streams words, then raises, if there is an error."""

    def __init__(self, words: int, error: BaseException | None = None) -> None:
        super().__init__("x", name="words")
        self.words, self.error = words, error
        self.closed = False

    async def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        try:
            for _ in range(self.words):
                yield "word "
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True


@pytest.mark.parametrize(
    ("model", "limits", "kind"),
    [
        (Words(2, ConnectionError("private")), {}, "upstream_error"),
        (Words(0, ConnectionError("private")), {}, "upstream_error"),
        (Words(1, TimeoutError()), {}, "timeout_error"),
        (Words(10**9), {"response_bytes": 5_000}, "upstream_error"),
        (Words(10**9), {"seconds": 0.2, "response_bytes": 10**9}, "timeout_error"),
        (resolve("scripted:fail", "model"), {}, "upstream_error"),
    ],
)
def test_an_error_is_the_last_event(
    model: ScriptedModel, limits: dict[str, float], kind: str
) -> None:
    app = chat_app(ModelRouter(model), limits=ServerLimits(**limits))  # type: ignore[arg-type]
    with TestClient(app) as client:
        text = client.post(CHAT, json=ASKED).text
        page = client.get("/metrics").text
    *_, last = [event for event in text.split("\n\n") if event]
    assert f'"type":"{kind}"' in last
    assert "[DONE]" not in text and "private" not in text
    assert '"finish_reason":"stop"' not in text
    assert f'truing_broken_streams_total{{error="{kind}"}} 1.0' in page
    assert app.state.chat.admission.in_flight == 0
    assert getattr(model, "closed", True)


def test_a_stream_without_rails_is_audited_and_counted() -> None:
    alarm = HarmRateAlarm(0.05, audit_rate=1.0)
    audit = HarmAudit(resolve("rules:refusal", "judge"), alarm, print)
    with TestClient(chat_app(ModelRouter(Words(3)), audit=audit)) as client:
        for _ in range(3):
            assert "[DONE]" in client.post(CHAT, json=ASKED).text
        page = client.get("/metrics").text
    assert alarm.state().audited == 3
    assert 'truing_answers_total{finish="stop"} 3.0' in page


class SlowEnd(Words):
    """Takes a while between its first text and the rest."""

    async def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        yield "first "
        await asyncio.sleep(0.2)
        yield "rest"


def test_the_time_of_the_first_text_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "truing.serve.openai.request_log")
    with TestClient(chat_app(ModelRouter(SlowEnd(0)))) as client:
        client.post(CHAT, json=ASKED)
        client.post(CHAT, json={**ASKED, "stream": False})
        page = client.get("/metrics").text
    streamed, whole = (json.loads(record.message) for record in caplog.records[:2])
    assert 0 < streamed["first_text_ms"] <= streamed["ms"] - 150
    assert whole["first_text_ms"] is None
    assert "truing_first_text_seconds_count 1.0" in page


def test_a_stream_begins_only_where_there_is_a_slot() -> None:
    app = chat_app(ModelRouter(Words(3)), limits=ServerLimits(concurrency=1, seconds=0.2))
    with TestClient(app) as client, client.portal() as portal:
        slot = app.state.chat.admission.slot()
        portal.call(slot.__aenter__)
        response = client.post(CHAT, json=ASKED)
        portal.call(slot.__aexit__, None, None, None)
    assert response.status_code == 429 and response.headers["retry-after"] == "2"


def test_one_content_type_and_no_cache() -> None:
    with TestClient(chat_app(ModelRouter(Words(1)))) as client:
        response = client.post(CHAT, json=ASKED)
    assert response.headers.get_list("content-type") == ["text/event-stream; charset=utf-8"]
    assert response.headers["cache-control"] == "no-store"
