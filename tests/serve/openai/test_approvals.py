"""The rail `ask a person` over HTTP: allowed, denied, late, and who may answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient
from tests.integrations.hook_rails_folder import write_rails

from truing.core.types import Answer, Conversation, Message, Sampling, ToolCall
from truing.models.scripted import ScriptedModel
from truing.serve.openai.app import ask_people, chat_app
from truing.serve.openai.approvals import Approvals
from truing.serve.openai.model_router import ModelRouter

TOOLS = [{"type": "function", "function": {"name": "transfer", "parameters": {}}}]
CALL = ToolCall("c1", "transfer", '{"amount": 5}')


def reply(conversation: Conversation, sampling: Sampling) -> Answer:
    return Answer(message=Message("assistant", "", (CALL,)), finish_reason="tool_calls")


def write_asking_rails(folder: Path, seconds: float) -> Path:
    write_rails(folder)
    config = folder / "config.yml"
    text = config.read_text().replace("[check tool calls]", "[ask a person]")
    config.write_text(text.replace("  tools: {", f"  tools: {{ask_timeout: {seconds}, "))
    return folder


def make_client(folder: Path, keys: list[str], approver_keys: list[str]) -> TestClient[Any]:
    approvals = Approvals(approver_keys) if approver_keys or not keys else None
    ask = approvals.ask if approvals is not None else None
    router = ModelRouter(ScriptedModel(reply), {"asks": folder}, ask_person=ask)
    app = chat_app(router, keys=[*keys, *approver_keys])
    if approvals is not None:
        ask_people(app, approvals)
    return TestClient(app)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Any]:
    folder = write_asking_rails(tmp_path / "asks", 20)
    with make_client(folder, ["k"], ["boss"]) as test_client:
        yield test_client


def start_turn(client: Any) -> tuple[threading.Thread, list[Any]]:
    """Asks for a turn in a thread; its body comes into the list."""
    bodies: list[Any] = []

    def ask() -> None:
        body = {"messages": [{"role": "user", "content": "pay"}], "tools": TOOLS}
        response = client.post("/v1/chat/completions", json=body, headers=bearer("k"))
        bodies.append(response.json())

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, bodies


def wait_for_call(client: Any) -> dict[str, Any]:
    end = time.monotonic() + 15
    while time.monotonic() < end:
        rows = client.get("/v1/approvals", headers=bearer("boss")).json()["data"]
        if rows:
            row: dict[str, Any] = rows[0]
            return row
        time.sleep(0.05)
    raise AssertionError("nobody was asked")


@pytest.mark.parametrize("allow", [True, False])
def test_a_person_decides(client: Any, allow: bool) -> None:
    thread, bodies = start_turn(client)
    row = wait_for_call(client)
    assert (row["name"], row["arguments"]) == ("transfer", CALL.arguments)
    answer = {"id": row["id"], "allow": allow}
    for headers in (bearer("k"), bearer("stranger")):
        refused = client.post("/v1/approvals", json=answer, headers=headers)
        assert refused.status_code in (401, 403)
    assert client.post("/v1/approvals", json=answer, headers=bearer("boss")).status_code == 200
    thread.join(15)
    choice = bodies[0]["choices"][0]
    assert choice["finish_reason"] == ("tool_calls" if allow else "content_filter")
    assert bool(choice["message"].get("tool_calls")) is allow
    late = client.post("/v1/approvals", json=answer, headers=bearer("boss"))
    assert late.status_code == 404
    assert client.get("/v1/approvals", headers=bearer("boss")).json()["data"] == []


def test_a_call_that_nobody_answers_is_denied(tmp_path: Path) -> None:
    folder = write_asking_rails(tmp_path / "asks", 0.1)
    with make_client(folder, ["k"], ["boss"]) as client:
        thread, bodies = start_turn(client)
        thread.join(15)
    choice = bodies[0]["choices"][0]
    assert choice["finish_reason"] == "content_filter" and "in time" in choice["message"]["content"]


def test_without_approvers_every_call_is_denied_at_once(tmp_path: Path) -> None:
    folder = write_asking_rails(tmp_path / "asks", 20)
    with make_client(folder, ["k"], []) as client:
        thread, bodies = start_turn(client)
        thread.join(15)
        assert client.get("/v1/approvals", headers=bearer("k")).status_code == 404
    assert bodies[0]["choices"][0]["finish_reason"] == "content_filter"


@pytest.mark.parametrize("body", [{}, {"id": 1, "allow": True}, {"id": "x", "allow": "yes"}])
def test_an_answer_of_another_form_is_refused(client: Any, body: dict[str, Any]) -> None:
    response = client.post("/v1/approvals", json=body, headers=bearer("boss"))
    assert response.status_code == 400 and response.json()["error"]["message"]
