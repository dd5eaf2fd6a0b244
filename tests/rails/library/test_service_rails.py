"""Services of one's own, asked over HTTP: requests, verdicts, and everything that can go wrong."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.servers import Request, serving

from truing.core.errors import PlanError
from truing.core.types import Answer, Conversation, Sampling
from truing.http.limits import close_connections
from truing.models.scripted import ScriptedModel
from truing.rails.config.loader import RailsConfig
from truing.rails.config.service_addresses import find_service_addresses
from truing.rails.config.trust import find_code_uses
from truing.rails.guarded import GuardedModel
from truing.rails.library.service_rails import read_chunks
from truing.rails.runtime.app import RuntimeParts
from truing.rails.runtime.embeddings import LexicalEncoder
from truing.rails.static.check import check_rails_config

YAML = """\
rails:
  {stage}: {{flows: ["service check {stage} $service=guard"]}}
truing:
  services:
    guard: {settings}
"""
SETTINGS: dict[str, Any] = {
    "request": {"content": "{{ text }}", "limits": {"length": "{{ text | length }}"}},
    "blocked": "{{ reply.verdict == 'bad' }}",
    "reason": "{{ reply.why }}",
    "rewrite": "{{ reply.masked }}",
    "timeout": 2,
    "retries": 0,
}


def guard(url: str, stage: str = "input", /, **settings: Any) -> GuardedModel:
    fields = {"url": f"{url}/check", **SETTINGS, **settings}
    yaml = YAML.format(stage=stage, settings=json.dumps(fields))
    parts = RuntimeParts(encoder=LexicalEncoder())
    return GuardedModel(RailsConfig.from_text(yaml), ScriptedModel("Hello."), parts=parts)


def ask(model: GuardedModel, *texts: str) -> list[Answer]:
    async def run() -> list[Answer]:
        try:
            return [await model.answer(Conversation.of(text), Sampling()) for text in texts]
        finally:
            await close_connections()

    return asyncio.run(run())


def test_a_verdict_blocks_allows_and_rewrites() -> None:
    replies = {
        "fine": {"verdict": "good"},
        "FORBIDDEN": {"verdict": "bad", "why": "it says so"},
        "call 555": {"verdict": "good", "masked": "call ***"},
    }

    async def handler(request: Request) -> None:
        await request.send(200, replies[request.json["content"]])

    with serving(handler) as server:
        passed, blocked, rewritten = ask(guard(server.url), *replies)
    assert server.requests[0].json == {"content": "fine", "limits": {"length": 4}}
    assert passed.text == "Hello." and passed.rulings[0].ruling == "allow"
    assert blocked.finish_reason == "blocked"
    assert blocked.rulings[0].reason == "the service 'guard' objects"
    assert blocked.rulings[0].evidence == "it says so"
    assert (rewritten.rulings[0].ruling, rewritten.rulings[0].text) == ("rewrite", "call ***")


def test_a_message_of_parts_is_sent_as_its_text() -> None:
    async def handler(request: Request) -> None:
        await request.send(200, {"verdict": "good"})

    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    parts = [{"type": "text", "text": "it's\nhere"}, image]

    async def run(model: GuardedModel) -> None:
        try:
            await model.runtime.run_turn([{"role": "user", "content": parts}])
        finally:
            await close_connections()

    request = {"content": "{{ text }}", "question": "{{ user_message }}"}
    with serving(handler) as server:
        asyncio.run(run(guard(server.url, request=request)))
    text = "it's\nhere [+ image]"
    assert server.requests[0].json == {"content": text, "question": text}


def test_an_answer_is_rewritten_before_it_is_shown() -> None:
    async def handler(request: Request) -> None:
        await request.send(200, {"verdict": "good", "masked": "Hello, ***."})

    with serving(handler) as server:
        (answer,) = ask(guard(server.url, "output"), "hi")
    assert answer.text == "Hello, ***."


@pytest.mark.parametrize(
    ("status", "body", "evidence"),
    [
        (200, b"<html>Welcome</html>", "of type text/html"),
        (200, b'{"verdict": null', "truncated"),
        (200, b'{"why": "x"}', "neither true nor false"),
        (200, b'{"masked": {"a": 1}, "verdict": "good"}', "the rewritten text is no text"),
        (503, b"{}", "503"),
        (401, b"{}", "401"),
    ],
)
def test_a_service_that_cannot_tell_blocks(status: int, body: bytes, evidence: str) -> None:
    async def handler(request: Request) -> None:
        kind = "text/html" if body.startswith(b"<") else "application/json"
        await request.send(status, body, kind=kind)

    with serving(handler) as server:
        (answer,) = ask(guard(server.url, blocked="{{ reply.verdict and reply.bad }}"), "hi")
    assert answer.finish_reason == "blocked"
    reason = "the service 'guard' could not tell, which counts as an objection"
    assert answer.rulings[0].reason == reason
    assert evidence in (answer.rulings[0].evidence or "")


def test_a_reply_without_the_field_that_allows_is_an_objection() -> None:
    async def handler(request: Request) -> None:
        await request.send(200, b"[]")

    with serving(handler) as server:
        (answer,) = ask(guard(server.url, blocked="{{ reply.verdict != 'good' }}"), "hi")
    assert answer.rulings[0].reason == "the service 'guard' objects"


@pytest.mark.parametrize("blocked", ["{{ reply.nothing }}", "perhaps", "{{ 1 }}", "{{ reply }}"])
def test_a_verdict_is_true_or_false(blocked: str) -> None:
    async def handler(request: Request) -> None:
        await request.send(200, {"verdict": "good"})

    with serving(handler) as server:
        (answer,) = ask(guard(server.url, blocked=blocked), "hi")
    assert answer.finish_reason == "blocked"
    assert "could not tell" in (answer.rulings[0].reason or "")


def test_a_service_that_hangs_or_is_not_there_blocks() -> None:
    async def hang(request: Request) -> None:
        await asyncio.sleep(5)

    with serving(hang) as server:
        (answer,) = ask(guard(server.url, timeout=0.05), "hi")
    assert answer.finish_reason == "blocked"
    (answer,) = ask(guard("http://127.0.0.1:9"), "hi")
    assert answer.finish_reason == "blocked"


def test_clear_verdicts_are_cached_and_failures_are_not() -> None:
    async def handler(request: Request) -> None:
        await request.send(200 if request.number else 500, {"verdict": "good"})

    with serving(handler) as server:
        answers = ask(guard(server.url, cache=10), "hi", "hi", "hi")
    assert [a.finish_reason for a in answers] == ["blocked", "stop", "stop"]
    assert len(server.requests) == 2


def test_a_cached_verdict_is_of_all_that_its_template_reads() -> None:
    async def handler(request: Request) -> None:
        await request.send(200, {})

    with serving(handler) as server:
        model = guard(
            server.url,
            "output",
            request={"text": "{{ text }}"},
            blocked="{{ 'FORBIDDEN' in user_message }}",
            reason="",
            rewrite="",
            cache=10,
        )
        answers = ask(model, "hi", "FORBIDDEN", "hi")
    assert [a.finish_reason for a in answers] == ["stop", "blocked", "stop"]
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("chunks", "separate", "expected"),
    [
        ("a\nb", ["a", "b"], ("a", "b")),
        ("a\n***", ["a", "b"], ("a\n***",)),
        ("", ["a", "b"], ()),
        (None, ["a", "b"], ()),
        ("\n", [], ()),
        ("from the caller\n", [], ("from the caller\n",)),
        (["a", 1], ["a", "b"], ("a", "1")),
    ],
)
def test_chunks_are_those_that_the_retrieval_rails_left(
    chunks: Any, separate: list[str], expected: tuple[str, ...]
) -> None:
    context = {"relevant_chunks": chunks, "relevant_chunks_sep": separate}
    assert read_chunks(context) == expected


@pytest.mark.parametrize(
    ("censored", "expected"),
    [
        ('$relevant_chunks.replace("noon", "***")', "The lions eat at ***."),
        ('""', None),
    ],
)
def test_a_service_gets_no_chunk_that_the_retrieval_rails_took_out(
    censored: str, expected: str | None, tmp_path: Path
) -> None:
    (tmp_path / "kb").mkdir()
    (tmp_path / "kb" / "zoo.md").write_text("# Zoo\n\n## Lions\n\nThe lions eat at noon.\n")
    (tmp_path / "rails.co").write_text(
        'define user ask\n  "when do the lions eat"\n\ndefine flow\n  user ask\n  bot answer\n\n'
        f"define subflow censor\n  $relevant_chunks = {censored}\n"
    )

    async def handler(request: Request) -> None:
        await request.send(200, {"verdict": "good"})

    with serving(handler) as server:
        fields = {**SETTINGS, "url": server.url, "request": {"chunks": "{{ relevant_chunks }}"}}
        (tmp_path / "config.yml").write_text(
            "rails:\n  retrieval: {flows: [censor]}\n"
            "  output: {flows: [service check output $service=guard]}\n"
            f"truing: {{services: {{guard: {json.dumps(fields)}}}}}\n"
        )
        parts = RuntimeParts(encoder=LexicalEncoder())
        model = ScriptedModel('  ask\n  "They eat."')
        (answer,) = ask(GuardedModel(tmp_path, model, parts=parts), "when do the lions eat")
    assert answer.rulings[-1].ruling == "allow", answer
    sent = json.dumps(server.requests[0].json)
    assert "noon" not in sent
    assert (expected or '"chunks": []') in sent


OWN_RAIL = """
define subflow my check
  do inner check

define subflow inner check
  if $user_message
    do service check input
"""


def test_an_own_rail_may_run_the_rail_of_a_service() -> None:
    async def handler(request: Request) -> None:
        await request.send(200, {"verdict": "bad"})

    with serving(handler) as server:
        settings = json.dumps({"url": server.url, **SETTINGS})
        yaml = YAML.format(stage="input", settings=settings).replace(
            "service check input $service", "my check $service"
        )
        parts = RuntimeParts(encoder=LexicalEncoder())
        config = RailsConfig.from_text(yaml, OWN_RAIL)
        (answer,) = ask(GuardedModel(config, ScriptedModel("Hello."), parts=parts), "hi")
    assert answer.finish_reason == "blocked"
    assert answer.rulings[0].reason == "the service 'guard' objects"


def test_an_own_rail_that_names_no_service_is_a_fault() -> None:
    config = RailsConfig.from_text("rails: {input: {flows: [my check]}}\n", OWN_RAIL)
    with pytest.raises(PlanError, match="config.yml:1: there is no service ''"):
        find_service_addresses(config)


def test_replies_of_lines() -> None:
    async def handler(request: Request) -> None:
        await request.send(200, b'{"bad": false}\n\n{"bad": true}\n')

    with serving(handler) as server:
        model = guard(server.url, reply="lines", blocked="{{ reply[-1].bad }}")
        (answer,) = ask(model, "hi")
    assert answer.rulings[0].reason == "the service 'guard' objects"


def test_a_key_goes_where_the_operator_lets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARD_KEY", "s3cret-s3cret")

    async def handler(request: Request) -> None:
        await request.send(200, {"verdict": "good"})

    with serving(handler) as server:
        settings = {"api_key_env": "GUARD_KEY", "api_key_header": "X-Key", "api_key_prefix": ""}
        fields = {"url": server.url, **SETTINGS, **settings}
        config = RailsConfig.from_text(YAML.format(stage="input", settings=json.dumps(fields)))
        (use,) = find_code_uses(config)
        assert "sends the environment variable GUARD_KEY to 127.0.0.1" in use.what
        with pytest.raises(PlanError, match="--allow-key-env GUARD_KEY"):
            GuardedModel(config, ScriptedModel("Hello."))
        config.key_variables = ("GUARD_KEY",)
        parts = RuntimeParts(encoder=LexicalEncoder())
        ask(GuardedModel(config, ScriptedModel("Hello."), parts=parts), "hi")
    assert server.requests[0].headers["x-key"] == "s3cret-s3cret"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "ftp://x"}, "no http or https address"),
        ({"blocked": ""}, "blocked is missing"),
        ({"time_out": 3}, "unknown key 'time_out'"),
        ({"reply": "xml"}, "reply is json or lines"),
        ({"headers": {"Authorization": "Bearer abc"}}, "headers: Authorization may hold a secret"),
    ],
)
def test_faults_of_a_service(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message) as caught:
        guard("http://localhost", **settings)
    assert caught.value.faults[0].startswith("config.yml:5: the service 'guard'")


def test_rails_check_reports_services(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(
        "rails:\n  input: {flows: [fiddler user safety, service check input $service=x]}\n"
        "  output: {flows: [jailbreak detection model]}\n"
    )
    errors = [str(finding) for finding in check_rails_config(tmp_path).errors]
    assert len(errors) == 3
    assert all(error.startswith("config.yml:") for error in errors)
    assert any("fiddler_endpoint" in error for error in errors)
    assert any("no service 'x'" in error for error in errors)
    assert any("jailbreak: {judge: SPEC}" in error for error in errors)


def test_a_rail_names_its_service() -> None:
    yaml = "rails: {input: {flows: [service check input $service=other]}}\n"
    with pytest.raises(PlanError, match="config.yml:1: there is no service 'other'"):
        GuardedModel(RailsConfig.from_text(yaml), ScriptedModel("x"))


def test_the_service_of_the_documentation() -> None:
    async def handler(request: Request) -> None:
        rows = [{"category": "x", "severity": 2 * request.number}, {"severity": 0}]
        await request.send(200, {"categoriesAnalysis": rows})

    blocked = "{{ (reply.categoriesAnalysis | map(attribute='severity') | max) >= 4 }}"
    with serving(handler) as server:
        model = guard(server.url, request={"text": "{{ text }}"}, blocked=blocked)
        answers = ask(model, "a", "b", "c")
    assert [answer.finish_reason for answer in answers] == ["stop", "stop", "blocked"]
    assert server.requests[0].json == {"text": "a"}
