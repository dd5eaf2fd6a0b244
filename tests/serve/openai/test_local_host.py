"""A server without keys answers to the names of its own machine only."""

from __future__ import annotations

import pytest
from litestar.testing import TestClient

from truing.serve.openai.app import chat_app
from truing.serve.openai.local_host import LocalHostOnly, names_this_machine
from truing.serve.openai.model_router import ModelRouter
from truing.specs.resolve import resolve


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("localhost", True),
        ("LOCALHOST:8000", True),
        ("127.0.0.1:8000", True),
        ("127.8.9.1", True),
        ("[::1]:8000", True),
        ("evil.example", False),
        ("evil.example:8000", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("localhost@evil.example", False),
        ("evil.example@localhost", False),
        ("evil.example/localhost", False),
        ("192.168.1.2", False),
        ("localhost:x", False),
        ("[::1", False),
        ("", False),
    ],
)
def test_names_of_this_machine(host: str, is_local: bool) -> None:
    assert names_this_machine(host) is is_local


def test_a_page_that_points_its_name_at_this_machine_gets_nothing() -> None:
    app = LocalHostOnly(chat_app(ModelRouter(resolve("scripted:echo", "model"))))
    body = {"messages": [{"role": "user", "content": "hi"}]}
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:  # type: ignore[arg-type]
        assert client.post("/v1/chat/completions", json=body).status_code == 200
        for headers in ({"host": "rebound.example:8000"}, {"host": ""}):
            reply = client.post("/v1/chat/completions", json=body, headers=headers)
            assert reply.status_code == 421
            assert "--keys-env" in reply.json()["error"]["message"]
            assert client.get("/v1/models", headers=headers).status_code == 421
