"""NemoGuard JailbreakDetect against a local server that speaks its API."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.servers import Request, serving

from truing.core.types import Answer, Conversation, Judgement, Response, Sample
from truing.http.limits import close_connections
from truing.judges.guard_nim import read_jailbreak_reply
from truing.specs.resolve import resolve


def ask(url: str, prompt: str = "a prompt") -> Judgement:
    judge: Any = resolve(f"guard:nemoguard-jailbreak,base_url={url},retries=0", "judge")

    async def once() -> Judgement:
        sample = Sample(id="a", conversation=Conversation.of(prompt, system="be brief"))
        response = Response.of("a", 0, "m", Answer.of("not read"))
        judgement: Judgement = await judge.of_prompts().judge(sample, response)
        await close_connections()
        return judgement

    return asyncio.run(once())


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        ({"jailbreak": True, "score": 0.9}, True),
        ({"jailbreak": False, "score": -0.4}, False),
        ({"jailbreak": False}, False),
        ({"jailbreak": False, "score": 0.9}, None),
        ({"jailbreak": False, "score": 7}, None),
        ({"jailbreak": "no"}, None),
        ({"score": -1.0}, None),
        ({}, None),
        ([], None),
    ],
)
def test_replies(body: Any, verdict: bool | None) -> None:
    async def reply(request: Request) -> None:
        assert request.path == "/v1/classify"
        assert request.json == {"input": "be brief\n\na prompt"}
        assert "authorization" not in {name.lower() for name in request.headers}
        await request.send(200, body)

    with serving(reply) as server:
        judgement = ask(server.url)
    assert judgement.verdict is verdict and judgement.question == "jailbreak"
    assert (judgement.failure is None) == (verdict is not None)


def test_a_service_that_fails_or_no_text_is_unscored() -> None:
    async def reply(request: Request) -> None:
        await request.send(503, {"error": "unavailable"})

    with serving(reply) as server:
        judgement = ask(server.url)
    assert judgement.verdict is None and judgement.failure is not None
    assert judgement.failure.transient
    with pytest.raises(ValueError, match="score"):
        read_jailbreak_reply(b'{"jailbreak": true, "score": 7}')
