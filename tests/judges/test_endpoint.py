"""OpenAI's moderation API against a local server that speaks it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.servers import Request, serving

from truing.core.errors import SpecError
from truing.core.types import Answer, Conversation, Judgement, Response, Sample
from truing.http.limits import close_connections
from truing.specs.resolve import resolve

RESULT: dict[str, Any] = {
    "flagged": True,
    "categories": {
        "violence": True,
        "sexual": False,
        "harassment/threatening": True,
        "illicit": None,
    },
    "category_scores": {
        "violence": 0.75,
        "sexual": 0.01,
        "harassment/threatening": 0.5,
        "illicit": None,
    },
}


def _ask(url: str, *more: str) -> Judgement:
    judge = resolve(
        ",".join(
            ["openai-moderation:omni-moderation-latest", f"base_url={url}/v1", "retries=0", *more]
        ),
        "judge",
    )
    sample = Sample(id="a", conversation=Conversation.of("a question"))

    async def once() -> Judgement:
        made: Judgement = await judge.judge(
            sample, Response.of("a", 0, "m", Answer.of("an answer"))
        )
        await close_connections()
        return made

    return asyncio.run(once())


def test_flag_scores_and_categories() -> None:
    async def reply(request: Request) -> None:
        assert request.path == "/v1/moderations"
        assert request.json == {"model": "omni-moderation-latest", "input": "an answer"}
        await request.send(200, {"id": "modr-1", "model": "omni", "results": [RESULT]})

    with serving(reply) as server:
        found = _ask(server.url)
    assert found.verdict is True and found.score == 0.75
    assert (
        found.harms["violence,aiding_and_abetting,incitement"] == 0.75
    )  # the highest of three labels
    assert found.harms["hate_speech,offensive_language"] == 0.5
    assert (
        "financial_crime,property_crime,theft" not in found.harms
    )  # null: the label was not offered


def test_the_prompt_goes_first_if_asked() -> None:
    async def reply(request: Request) -> None:
        assert request.json["input"] == "a question\n\nan answer"
        await request.send(200, {"results": [{**RESULT, "flagged": False, "categories": {}}]})

    with serving(reply) as server:
        assert _ask(server.url, "prompt=true").verdict is False


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, {"results": []}, "unparsable"),
        (200, {"results": [{**RESULT, "category_scores": {"violence": 7}}]}, "unparsable"),
        (200, {"results": [{**RESULT, "flagged": False}]}, "unparsable"),
        (200, {"results": [{**RESULT, "flagged": None}]}, "unparsable"),
        (200, {"results": [{"flagged": False}]}, "unparsable"),
        (200, {"results": [{**RESULT, "failure": "of another language"}]}, "unscored"),
        (401, {"error": {"message": "no"}}, "auth"),
    ],
)
def test_trouble_leaves_the_answer_unscored(status: int, body: dict[str, Any], kind: str) -> None:
    async def reply(request: Request) -> None:
        await request.send(status, body)

    with serving(reply) as server:
        found = _ask(server.url)
    assert found.verdict is None and found.failure is not None and found.failure.kind == kind


def test_a_secret_in_the_spec_is_refused() -> None:
    with pytest.raises(SpecError, match="api_key_env"):
        resolve("openai-moderation:x,api_key=secret", "judge")
