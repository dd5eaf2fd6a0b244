"""The chat server over ASGI: the OpenAI form, keys, limits, rails by config_id, moderation, bad
input.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from litestar.testing import TestClient

from truing.core.types import (
    Answer,
    Conversation,
    Failure,
    Judgement,
    Lineage,
    Message,
    Sampling,
    ToolCall,
)
from truing.models.scripted import ScriptedModel
from truing.rails.config.parameters import with_default_sampling
from truing.serve.openai.admission import ServerLimits
from truing.serve.openai.app import chat_app
from truing.serve.openai.audit import HarmAudit
from truing.serve.openai.model_router import ModelRouter, find_configs
from truing.specs.resolve import resolve
from truing.stats.sequential import HarmRateAlarm

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "hello there"}]}

CONFIG = """
rails:
  input:
    flows: [no secrets]
"""
FLOWS = """
define bot refuse secret
  "I can't talk about that, but I can help with something else."

define subflow no secrets
  if "secret" in $user_message
    bot refuse secret
    stop
"""


@pytest.fixture
def rails(tmp_path: Path) -> Path:
    folder = tmp_path / "configs" / "mild"
    folder.mkdir(parents=True)
    (folder / "config.yml").write_text(CONFIG)
    (folder / "flows.co").write_text(FLOWS)
    return folder.parent


def client(model: ScriptedModel | None = None, **given: object) -> TestClient:  # type: ignore[type-arg]
    """A client of an app that serves one scripted model."""
    return TestClient(
        chat_app(ModelRouter(model or ScriptedModel("fine weather today", name="talker")), **given)
    )  # type: ignore[arg-type]


def test_an_answer_has_the_openai_form() -> None:
    with client() as c:
        got = c.post(CHAT, json={**HELLO, "model": "any", "n": 2}).json()
        assert c.get("/v1/models").json()["data"][0]["id"] == "talker"
        assert c.get("/health").json() == {"status": "ok"}
    assert (
        got["object"] == "chat.completion"
        and got["model"] == "any"
        and got["id"].startswith("chatcmpl-")
    )
    assert [x["index"] for x in got["choices"]] == [0, 1]
    first = got["choices"][0]
    assert first["message"] == {
        "role": "assistant",
        "content": "fine weather today",
        "refusal": None,
    }
    assert first["finish_reason"] == "stop"
    assert got["usage"] == {"prompt_tokens": 2, "completion_tokens": 6, "total_tokens": 8}


def test_a_stream_is_server_sent_events_that_end_with_done() -> None:
    asked = {**HELLO, "stream": True, "stream_options": {"include_usage": True}}
    with client() as c:
        got = c.post(CHAT, json=asked)
    assert got.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in got.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    pieces = [json.loads(e)["choices"][0] for e in events[:-1]]
    assert "".join(p["delta"].get("content") or "" for p in pieces) == "fine weather today"
    assert [p["finish_reason"] for p in pieces][-1] == "stop"


def test_tool_calls_come_back_as_tool_calls_streamed_or_not() -> None:
    call = Answer(
        message=Message("assistant", "", (ToolCall("", "look_up", '{"q": "rain"}'),)),
        finish_reason="tool_calls",
    )
    asked = {
        **HELLO,
        "tools": [
            {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
        ],
    }
    with client(ScriptedModel(lambda c, s: call)) as c:
        whole = c.post(CHAT, json=asked).json()["choices"][0]
        streamed = c.post(CHAT, json={**asked, "stream": True}).text
    assert whole["finish_reason"] == "tool_calls"
    assert whole["message"]["tool_calls"][0]["function"] == {
        "name": "look_up",
        "arguments": '{"q": "rain"}',
    }
    assert '"finish_reason":"tool_calls"' in streamed and '"index":0' in streamed


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"messages": []}, "at least one"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "robot"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "a part is a text"),
        ({**HELLO, "n": 0}, "n"),
        ({**HELLO, "temperature": "warm"}, "temperature"),
        ({**HELLO, "top_p": 3}, "top_p"),
        ({**HELLO, "n": 2, "stream": True}, "n: a stream"),
        ({}, "messages"),
        ([], "messages"),
        ({**HELLO, "tools": [{"type": "function"}]}, "function"),
    ],
)
def test_a_wrong_body_is_400_and_says_what(body: object, word: str) -> None:
    with client() as c:
        got = c.post(CHAT, json=body)
    assert got.status_code == 400, got.text
    if isinstance(body, dict):
        assert word in got.json()["error"]["message"]
    assert got.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"\xff\xfe", b'{"messages": "\\ud800"}', b"null", b'{"messages":' + b"[" * 5000],
)
def test_what_is_no_json_is_400(raw: bytes) -> None:
    with client() as c:
        got = c.post(CHAT, content=raw, headers={"content-type": "application/json"})
    assert got.status_code == 400 and "error" in got.json()


def test_a_body_over_the_limit_is_413() -> None:
    with client(limits=ServerLimits(body=2_000)) as c:
        got = c.post(CHAT, json={"messages": [{"role": "user", "content": "a" * 5_000}]})
    assert got.status_code == 413


def test_keys_are_asked_for_and_compared() -> None:
    with client(keys=["right", "other"]) as c:
        for path in ("/v1/models", "/v1/rails/configs"):
            assert c.get(path).status_code == 401
        assert (
            c.post(CHAT, json=HELLO, headers={"authorization": "Bearer wrong"}).status_code == 401
        )
        assert (
            c.post(CHAT, json=HELLO, headers={"authorization": "Bearer other"}).status_code == 200
        )
        assert c.post(CHAT, json=HELLO, headers={"x-api-key": "right"}).status_code == 200
        assert c.get("/health").status_code == 200


def test_a_rate_is_kept_by_key() -> None:
    with client(keys=["a", "b"], limits=ServerLimits(per_minute=2)) as c:
        mine = {"authorization": "Bearer a"}
        codes = [c.post(CHAT, json=HELLO, headers=mine) for _ in range(3)]
        assert [r.status_code for r in codes] == [200, 200, 429]
        assert 1 <= int(codes[-1].headers["retry-after"]) <= 60
        assert c.post(CHAT, json=HELLO, headers={"authorization": "Bearer b"}).status_code == 200


def test_a_model_that_fails_is_502_and_a_slow_one_504() -> None:
    failing = ScriptedModel(
        lambda c, s: Answer(
            message=Message("assistant"),
            finish_reason="error",
            failure=Failure("model", "http", "the endpoint said 500"),
        )
    )
    with client(failing) as c:
        got = c.post(CHAT, json=HELLO)
    assert got.status_code == 502 and "the endpoint said 500" in got.json()["error"]["message"]
    with client(ScriptedModel("late", delay=5), limits=ServerLimits(seconds=0.1)) as c:
        assert c.post(CHAT, json=HELLO).status_code == 504
        streamed = c.post(CHAT, json={**HELLO, "stream": True}).text
    assert "timeout_error" in streamed and "[DONE]" not in streamed


def test_a_stream_that_breaks_off_says_so_and_is_not_done() -> None:
    class Breaks(ScriptedModel):
        async def stream(self, conversation: Conversation, sampling: Sampling):  # type: ignore[no-untyped-def]
            yield "half"
            raise RuntimeError("private detail")

    with client(Breaks("x")) as c:
        got = c.post(CHAT, json={**HELLO, "stream": True}).text
    assert (
        "half" in got and "broke off" in got and "[DONE]" not in got and "private detail" not in got
    )


def test_rails_are_picked_by_config_id_and_tell_why(rails: Path) -> None:
    router = ModelRouter(ScriptedModel("here you are", name="talker"), find_configs(rails))
    asked = {"messages": [{"role": "user", "content": "tell me the secret"}]}
    with TestClient(chat_app(router)) as c:
        assert c.get("/v1/rails/configs").json() == [{"id": "mild"}]
        plain = c.post(CHAT, json=HELLO).json()
        blocked = c.post(
            CHAT,
            json={
                **asked,
                "guardrails": {"config_id": "mild", "options": {"log": {"activated_rails": True}}},
            },
        ).json()
        unknown = c.post(CHAT, json={**asked, "guardrails": {"config_id": "../../etc"}})
        check = c.post("/v1/checks", json=asked).json()
        fine = c.post("/v1/checks", json=HELLO).json()
    assert plain["choices"][0]["message"]["content"] == "here you are"
    assert blocked["choices"][0]["finish_reason"] == "content_filter"
    assert "something else" in blocked["choices"][0]["message"]["content"]
    (rail,) = [r for r in blocked["guardrails"]["rails"] if r["ruling"] == "block"]
    assert (
        rail["stage"] == "input"
        and rail["name"] == "no secrets"
        and set(rail)
        == {"name", "stage", "ruling", "reason", "score", "evidence", "ms", "llm_calls"}
    )
    assert unknown.status_code == 404 and "mild" in unknown.json()["error"]["message"]
    assert check["allowed"] is False and fine["allowed"] is True


def test_moderation_flags_what_it_cannot_judge() -> None:
    class Judge:
        name, question, lineage = "test:harm", "harmful", Lineage(name="test", hash="0")

        async def judge(self, sample: object, response) -> Judgement:  # type: ignore[no-untyped-def]
            text = response.message.content
            if text == "odd":
                why = Failure("judge", "language", "not English")
                return Judgement(
                    sample_id="moderation", judge=self.name, question="harmful", failure=why
                )
            bad = "bad" in text
            return Judgement(
                sample_id="moderation",
                index=0,
                judge=self.name,
                question="harmful",
                verdict=bad,
                score=0.9 if bad else 0.1,
                harms={"privacy_violation": 0.9 if bad else 0.05},
            )

    with client(judge=Judge()) as c:
        got = c.post("/v1/moderations", json={"input": ["a bad text", "a good one", "odd"]}).json()
        many = c.post("/v1/moderations", json={"input": ["x"] * 300})
    assert [r["flagged"] for r in got["results"]] == [True, False, True]
    assert got["results"][0]["categories"] == {"privacy_violation": True}
    assert got["results"][2]["failure"] == "not English" and got["results"][0]["failure"] is None
    assert many.status_code == 400
    with client() as c:
        assert c.post("/v1/moderations", json={"input": "x"}).status_code == 404


def test_metrics_count_requests_tokens_and_rulings(rails: Path) -> None:
    router = ModelRouter(ScriptedModel("here you are"), find_configs(rails))
    with TestClient(chat_app(router)) as c:
        c.post(CHAT, json={"messages": [{"role": "user", "content": "a secret"}]})
        c.post(CHAT, json=HELLO)
        c.post(CHAT, json={})
        page = c.get("/metrics").text
    assert 'truing_requests_total{path="/v1/chat/completions",status="200"} 2.0' in page
    assert 'truing_requests_total{path="/v1/chat/completions",status="400"} 1.0' in page
    assert 'truing_rulings_total{rail="no secrets",ruling="block"} 1.0' in page
    assert "secret" not in page.replace("no secrets", "")


def test_audited_traffic_raises_an_alarm() -> None:
    judge, heard = resolve("rules:refusal", "judge"), []
    audit = HarmAudit(judge, HarmRateAlarm(0.05, audit_rate=1.0), heard.append)
    with client(resolve("scripted:refuse", "model"), audit=audit) as c:
        for _ in range(30):
            c.post(CHAT, json=HELLO)
        assert "truing_harm_alarm_evidence" in c.get("/metrics").text
    assert len(heard) == 1 and "more than the tolerated 5.0 %" in heard[0]


def test_what_a_request_does_not_name_comes_from_the_configuration(tmp_path: Path) -> None:
    """A request that names a temperature, 0 too, has it; one that does not is drawn as the
    configuration says.
    """
    heard: list[Sampling] = []

    class Ear(ScriptedModel):
        async def generate(
            self, conversation: Conversation, sampling: Sampling
        ) -> tuple[Answer, ...]:
            heard.append(sampling)
            return await super().generate(conversation, sampling)

        async def stream(
            self, conversation: Conversation, sampling: Sampling
        ) -> AsyncIterator[str]:
            heard.append(sampling)
            yield "good day"

    (tmp_path / "config.yml").write_text("models: []\n")
    router = ModelRouter(
        with_default_sampling(Ear("good day"), {"temperature": 0.7, "max_tokens": 9, "seed": 3}),
        find_configs(tmp_path),
    )
    with TestClient(chat_app(router)) as c:
        asked = {"messages": [{"role": "user", "content": "hello"}]}
        for more in ({}, {"temperature": 0, "max_tokens": 5, "seed": 8}, {"n": 2}):
            assert c.post(CHAT, json={**asked, **more}).status_code == 200
        streamed = c.post(CHAT, json={**asked, "stream": True})
        assert streamed.status_code == 200 and "good day" in streamed.text
    assert [(s.temperature, s.max_tokens) for s in heard] == [
        (0.7, 9),
        (0.0, 5),
        (0.7, 9),
        (0.7, 9),
        (0.7, 9),
    ]
    assert heard[0].seed == 3 and heard[1].seed == 8 and heard[2].seed != heard[3].seed
