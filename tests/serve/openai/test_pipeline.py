"""The pipeline: the order of the checks, request ids, open paths, what a body must be."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from typing import Any

import pytest
from litestar.testing import TestClient

from truing.core.types import Answer, Conversation, Sampling
from truing.models.scripted import ScriptedModel
from truing.serve.openai.app import chat_app
from truing.serve.openai.limits import ServerLimits
from truing.serve.openai.model_router import ModelRouter

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "hello there"}]}
JSON = {"content-type": "application/json"}
KEY = {"authorization": "Bearer right"}


def client(**options: Any) -> TestClient:  # type: ignore[type-arg]
    """A client of an app that serves one scripted model."""
    return TestClient(chat_app(ModelRouter(ScriptedModel("fine", name="talker")), **options))


def call_without_body(app: Any, headers: dict[str, str], path: str = CHAT) -> int:
    """The status of a POST whose body must not be read."""
    statuses: list[int] = []

    async def receive() -> Any:
        raise AssertionError("the body was read")

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
    }
    asyncio.run(app(scope, receive, send))
    return statuses[0]


@pytest.mark.parametrize("path", ["//v1/chat/completions", "/v1//chat/completions/", CHAT + "/"])
def test_a_path_written_otherwise_counts_for_the_same_rate(path: str) -> None:
    app = chat_app(ModelRouter(ScriptedModel("fine")), limits=ServerLimits(per_minute=1))
    assert call_without_body(app, {"content-type": "text/plain"}, path) == 415
    assert call_without_body(app, {"content-type": "text/plain"}, path) == 429


def test_no_body_is_read_before_key_rate_capacity_type_encoding_and_length() -> None:
    limits = ServerLimits(per_minute=4, body=1000, concurrency=1, waiting=0)
    app = chat_app(ModelRouter(ScriptedModel("fine")), limits=limits, keys=["right"])
    assert call_without_body(app, JSON) == 401
    assert call_without_body(app, JSON, path="/no/such/path") == 401
    assert call_without_body(app, {**KEY, "content-type": "text/plain"}) == 415
    assert call_without_body(app, {**KEY, **JSON, "content-encoding": "gzip"}) == 415
    assert call_without_body(app, {**KEY, **JSON, "content-length": "1001"}) == 413
    with app.state.chat.admission.admit():
        assert call_without_body(app, {**KEY, **JSON}) == 429  # the queue is full
    app.state.chat.admission.draining = True
    assert call_without_body(app, {**KEY, **JSON}) == 429  # the rate
    other = chat_app(ModelRouter(ScriptedModel("fine")))
    other.state.chat.admission.draining = True
    assert call_without_body(other, JSON) == 503


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=UTF-8", 200),
        ("application/vnd.api+json", 200),
        ("", 200),
        ("text/plain", 415),  # what a page of another site may send without asking
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("application/json; charset=utf-16", 415),
    ],
)
def test_a_body_is_json_in_utf8(content_type: str, status: int) -> None:
    with client() as c:
        response = c.post(CHAT, content=json.dumps(HELLO), headers={"content-type": content_type})
    assert response.status_code == status


def test_a_compressed_body_is_refused() -> None:
    body = gzip.compress(json.dumps(HELLO).encode())
    with client() as c:
        response = c.post(CHAT, content=body, headers={**JSON, "content-encoding": "gzip"})
    assert response.status_code == 415 and "compressed" in response.json()["error"]["message"]


def test_a_body_of_unknown_length_is_bounded() -> None:
    with client(limits=ServerLimits(body=1000)) as c:
        response = c.post(CHAT, content=iter([b" " * 400] * 4), headers=JSON)
    assert response.status_code == 413


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"messages":[{"role":"user","content":"\xff"}]}', "not UTF-8 at byte 39"),
        (b'{"messages":[{"role":"user","content":"\xed\xa0\x80"}]}', "not UTF-8"),
        (b'{"messages":[{"role":"user","content":"\\ud800"}]}', "malformed|truncated|unpaired"),
        (b'{"messages":' + b"[" * 65 + b"]" * 65 + b"}", "64 levels"),
        (b"[" * 500_000, "64 levels"),
        (b'{"messages":[{"role":"user","content":"x","a":NaN}]}', "malformed"),
        (b'{"messages":[{"role":"user","content":"x"}],"temperature":1e999}', "range|malformed"),
        (b'{"messages":[{"role":"user","content":"x"}],"seed":' + b"9" * 9000 + b"}", "range"),
        (b'{"messages":[{"role":"user","content":"x"}],"n":1e400}', "range|int"),
    ],
)
def test_what_is_not_a_request_is_400_in_the_openai_form(raw: bytes, message: str) -> None:
    import re

    with client() as c:
        response = c.post(CHAT, content=raw, headers=JSON)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert re.search(message, error["message"]), error["message"]
    assert error["type"] == "invalid_request_error"


def test_brackets_in_a_text_are_no_nesting() -> None:
    text = '[{"' * 500 + "\\" + '"]}' * 500
    with client() as c:
        response = c.post(CHAT, json={"messages": [{"role": "user", "content": text}]})
    assert response.status_code == 200


def test_each_response_has_a_request_id() -> None:
    def ids(response: Any) -> list[str]:
        return [v for k, v in response.headers.multi_items() if k == "x-request-id"]

    with client(keys=["right"]) as c:
        mine = {**KEY, "x-request-id": "my-id_1.2"}
        for response in (
            c.post(CHAT, json=HELLO, headers=mine),
            c.post(CHAT, json={**HELLO, "stream": True}, headers=mine),
            c.post(CHAT, json={"messages": []}, headers=mine),
            c.get("/nowhere", headers=mine),
            c.delete(CHAT, headers=mine),
            c.get("/health", headers={"x-request-id": "my-id_1.2"}),
            c.post(CHAT, json=HELLO, headers={"x-request-id": "my-id_1.2"}),
        ):
            assert ids(response) == ["my-id_1.2"], response.status_code
        for forged in ("a b", "x" * 65, "a\tb", 'a"b', ""):
            (generated,) = ids(c.get("/health", headers={"x-request-id": forged}))
            assert generated != forged and generated.startswith("req_")


def test_only_health_is_open_where_keys_are_set() -> None:
    pages = ("/metrics", "/schema", "/schema/openapi.json", "/schema/swagger", "/v1/models")
    with client(keys=["right"]) as c:
        assert c.get("/health").status_code == 200
        assert c.get("/").status_code == 200
        for path in (*pages, "/nowhere", "/health/../metrics", "/health/x"):
            response = c.get(path)
            assert response.status_code == 401, path
            assert response.headers["www-authenticate"] == "Bearer"
            assert response.json()["error"]["type"] == "authentication_error"
        for path in pages:
            assert c.get(path, headers=KEY).status_code == 200, path
    app = chat_app(ModelRouter(ScriptedModel("fine")), keys=["right"])
    for path in ("//", "//health", "/health/", "/HEALTH", "/health\0", "/health;", "*", ""):
        assert call_without_body(app, {}, path) == 401, path
    with client(keys=["right"], metrics_open=True) as c:
        assert c.get("/metrics").status_code == 200
        assert c.get("/schema").status_code == 401


def test_a_browser_page_sees_refusals_and_asks_before_without_a_key() -> None:
    with client(keys=["right"], origins=["https://page.example"]) as c:
        origin = {"origin": "https://page.example"}
        asked = {**origin, "access-control-request-method": "POST"}
        assert c.options(CHAT, headers=asked).status_code == 204
        refused = c.post(CHAT, json=HELLO, headers=origin)
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://page.example"


def test_one_line_a_request_with_ids_and_counts_and_no_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "truing.serve.openai.request_log")
    with client(keys=["right"]) as c:
        c.post(CHAT, json={**HELLO, "model": "hello private"}, headers={**KEY, "x-request-id": "a"})
        c.post(CHAT, json={**HELLO, "stream": True}, headers={**KEY, "x-request-id": "b"})
        c.post(CHAT, json={"messages": [{"role": "private"}]}, headers={**KEY})
        c.get("/private")
    lines = [json.loads(record.message) for record in caplog.records]
    assert [line["status"] for line in lines] == [200, 200, 400, 401]
    whole, streamed, wrong, unknown = lines
    assert (whole["request_id"], whole["route"], whole["model"]) == ("a", CHAT, "talker")
    assert (whole["finish_reason"], whole["completion_tokens"]) == ("stop", 1)
    assert whole["ms"] >= whole["upstream_ms"] >= 0 and whole["sent_bytes"] > 100
    assert (streamed["request_id"], streamed["finish_reason"]) == ("b", "stop")
    assert wrong["error"] == "invalid_request_error" and wrong["model"] is None
    assert unknown["route"] is None and unknown["error"] == "authentication_error"
    for word in ("hello", "private", "right", "fine"):
        assert word not in caplog.text


def test_a_fault_of_ours_is_500_without_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(ScriptedModel):
        async def generate(
            self, conversation: Conversation, sampling: Sampling
        ) -> tuple[Answer, ...]:
            raise KeyError("private detail")

    app = chat_app(ModelRouter(Broken("x")))
    with TestClient(app, raise_server_exceptions=False) as c:
        response = c.post(CHAT, json=HELLO)
    assert response.status_code == 500
    assert response.json()["error"]["message"] == "internal error: KeyError"
    assert "KeyError at" in caplog.text and "test_pipeline.py" in caplog.text
    assert "private" not in caplog.text
    assert app.state.chat.admission.in_flight == app.state.chat.admission.admitted == 0
