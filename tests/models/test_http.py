"""Any JSON API as a model."""

from __future__ import annotations

import asyncio

import pytest
from tests.servers import Request, serving

from truing.core.errors import SpecError
from truing.core.types import Answer, Conversation, Message, Sampling
from truing.http.limits import close_connections
from truing.models.http import HttpModel, fill_template, read_path
from truing.specs.parser import Spec
from truing.specs.resolve import resolve


def made(url: str, **args: str) -> HttpModel:
    model = resolve(Spec("http", url, args), "model")
    assert isinstance(model, HttpModel)
    return model


def ask(model: HttpModel, *conversations: Conversation, n: int = 1) -> list[Answer]:
    async def run() -> list[Answer]:
        try:
            return [
                a for c in conversations for a in await model.generate(c, Sampling(n=n, seed=5))
            ]
        finally:
            await close_connections()

    return asyncio.run(run())


def test_body_template_path_headers_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOT_KEY", "k-1")

    async def handler(r: Request) -> None:
        await r.send(200, {"data": {"turns": [{"text": "first"}, {"text": f"to {r.json['q']}"}]}})

    body = '{"q":"Q: {{prompt}}","opts":{"max":"{{max_tokens}}"},"messages":"{{messages}}","sys":"{{system}}"}'
    with serving(handler) as server:
        model = made(
            f"{server.url}/v2/ask",
            body=body,
            answer="data.turns[-1].text",
            api_key_env="BOT_KEY",
            auth_header="X-Key",
            headers='{"X-Tenant":"seven"}',
        )
        answer = ask(model, Conversation.of("how hot", system="short"))[0]
    request = server.requests[0]
    assert answer.text == "to Q: how hot"
    assert (request.path, request.headers["x-key"], request.headers["x-tenant"]) == (
        "/v2/ask",
        "k-1",
        "seven",
    )
    assert request.json["opts"] == {"max": 256}
    assert request.json["messages"][1] == {"role": "user", "content": "how hot"}
    assert request.json["sys"] == "short"
    assert "k-1" not in repr(model.lineage) + model.name


def test_the_usual_names_are_found_and_others_said() -> None:
    async def handler(r: Request) -> None:
        bodies: list[object] = [
            {"reply": "a"},
            "b",
            {"choices": [{"message": {"content": "c"}}]},
            {"x": 1},
        ]
        await r.send(
            200, __import__("json").dumps(bodies[r.number % 4 if r.number < 4 else 3]).encode()
        )

    with serving(handler) as server:
        answers = ask(made(server.url, retries="0"), *[Conversation.of(str(i)) for i in range(4)])
    assert [a.text for a in answers] == ["a", "b", "c", ""]
    assert answers[3].failure is not None
    assert answers[3].failure.kind == "unparsable"
    assert "give answer=PATH" in answers[3].failure.message
    assert "the keys x" in answers[3].failure.message


def test_a_session_goes_on_over_the_turns_of_one_conversation() -> None:
    async def handler(r: Request) -> None:
        given = r.json["session"]
        sid = given if r.number in (1, 3) else f"S{r.number}"
        await r.send(200, {"answer": f"turn {r.number}", "meta": {"sid": sid}})

    with serving(handler) as server:
        model = made(
            server.url, body='{"session":"{{session}}","text":"{{prompt}}"}', session="meta.sid"
        )
        first = Conversation.of("one")
        second = first.then(Message("assistant", "turn 0")).then(Message("user", "two"))
        ask(model, first, second, Conversation.of("other"))
    sessions = [r.json["session"] for r in server.requests]
    assert sessions[1] == "S0"
    assert len({sessions[0], sessions[2], "S0"}) == 3


def test_several_answers_are_several_requests_with_seeds_of_their_own() -> None:
    async def handler(r: Request) -> None:
        await r.send(200, {"text": str(r.json["seed"])})

    with serving(handler) as server:
        texts = [
            a.text
            for a in ask(made(server.url, body='{"seed":"{{seed}}"}'), Conversation.of("x"), n=3)
        ]
    assert len(set(texts)) == 3


def test_walk_and_fill() -> None:
    value = {"a": [{"b": "x"}, 5]}
    assert read_path(value, "a[0].b") == "x"
    assert read_path(value, "a[-1]") == 5
    for path in ("a[9]", "b", "a.b", "a[0].c", "a[x"):
        with pytest.raises(KeyError):
            read_path(value, path)
    assert fill_template({"a": ["{{n}}", "n={{n}}", "{{other}}"]}, {"n": 3}) == {
        "a": [3, "n=3", "{{other}}"]
    }


def test_wrong_specs() -> None:
    faults = (
        ({"body": "{"}, "not JSON"),
        ({"headers": "[]"}, "no JSON object"),
        ({"method": "DROP"}, "none of"),
        ({"answr": "x"}, "did you mean 'answer'"),
    )
    for args, word in faults:
        with pytest.raises(SpecError, match=word):
            made("localhost:1/x", **args)
    assert made("localhost:1/x").name == "http:http://localhost:1/x"
