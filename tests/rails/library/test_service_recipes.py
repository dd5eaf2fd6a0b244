"""The recipes of docs/how-to/service-rails.md against recorded replies of the services."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.servers import Request, serving

from truing.core.types import Answer, Conversation, Sampling
from truing.http.limits import close_connections
from truing.models.scripted import ScriptedModel
from truing.rails.config.loader import RailsConfig
from truing.rails.guarded import GuardedModel
from truing.rails.runtime.app import RuntimeParts
from truing.rails.runtime.embeddings import LexicalEncoder

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "service-rails.md"
RECIPES: dict[str, dict[str, Any]] = {}
for _block in re.findall(r"(?ms)^```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8")):
    RECIPES.update(yaml.safe_load(_block))


def _azure(*severities: int) -> dict[str, Any]:
    names = ("Hate", "SelfHarm", "Sexual", "Violence")
    rows = [{"category": n, "severity": s} for n, s in zip(names, severities, strict=False)]
    return {"blocklistsMatch": [], "categoriesAnalysis": rows}


def _shields(attack: Any) -> dict[str, Any]:
    return {"userPromptAnalysis": {"attackDetected": attack}, "documentsAnalysis": []}


def _openai(flagged: Any) -> dict[str, Any]:
    result = {"flagged": flagged, "categories": {"violence": flagged}, "category_scores": {}}
    return {"id": "modr-1", "model": "omni-moderation-latest", "results": [result]}


def _guardrails(passed: Any, output: Any) -> dict[str, Any]:
    return {
        "callId": "1",
        "rawLlmOutput": "Hello.",
        "validatedOutput": output,
        "validationPassed": passed,
    }


# Recipe, reply, and the ruling.
CASES: list[tuple[str, Any, str]] = [
    ("azure", _azure(0, 2, 0, 0), "allow"),
    ("azure", _azure(0, 0, 0, 4), "block"),
    ("azure", _azure(), "unclear"),
    ("azure", {"error": {"code": "InvalidRequestBody"}}, "unclear"),
    ("azure_shields", _shields(False), "allow"),
    ("azure_shields", _shields(True), "block"),
    ("azure_shields", {"documentsAnalysis": []}, "unclear"),
    ("openai_moderation", _openai(False), "allow"),
    ("openai_moderation", _openai(True), "block"),
    ("openai_moderation", {"results": []}, "unclear"),
    ("openai_moderation", _openai(None), "unclear"),
    ("guardrails_ai", _guardrails(True, "Hello."), "allow"),
    ("guardrails_ai", _guardrails(True, "Hello, ***."), "rewrite"),
    ("guardrails_ai", _guardrails(False, None), "block"),
    ("guardrails_ai", {"callId": "1"}, "block"),
    ("nli", {"entailment": 0.9}, "allow"),
    ("nli", {"entailment": 0.1}, "block"),
    ("nli", {"label": "entailment"}, "unclear"),
]


def _ask(recipe: str, url: str) -> Answer:
    settings = {**RECIPES[recipe], "url": url, "retries": 0, "timeout": 2}
    config = {
        "rails": {"output": {"flows": [f"service check output $service={recipe}"]}},
        "truing": {"services": {recipe: settings}},
    }
    loaded = RailsConfig.from_text(json.dumps(config), trust_code=True)
    parts = RuntimeParts(encoder=LexicalEncoder())
    model = GuardedModel(loaded, ScriptedModel("Hello."), parts=parts)

    async def run() -> Answer:
        try:
            return await model.answer(Conversation.of("hi"), Sampling())
        finally:
            await close_connections()

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_CONTENT_SAFETY_KEY", "key-of-azure")
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-openai")


@pytest.mark.parametrize(("recipe", "reply", "expected"), CASES)
def test_the_verdict_of_a_recipe(recipe: str, reply: Any, expected: str) -> None:
    async def handler(request: Request) -> None:
        await request.send(200, reply)

    with serving(handler) as server:
        answer = _ask(recipe, server.url)
    ruling = answer.rulings[-1]
    if expected == "unclear":
        assert ruling.ruling == "block" and "could not tell" in (ruling.reason or "")
    else:
        assert ruling.ruling == expected, ruling
    assert (answer.text == "Hello.") is (expected == "allow")


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_a_recipe_sends_the_text_and_fails_closed(recipe: str) -> None:
    async def handler(request: Request) -> None:
        if request.number == 0:
            await request.send(200, b"<html>busy</html>")
        else:
            await request.send(500, {"error": "down"})

    with serving(handler) as server:
        for _ in range(2):
            assert _ask(recipe, server.url).finish_reason == "blocked"
    assert "Hello." in json.dumps(server.requests[0].json)
    if recipe.startswith("azure"):
        assert server.requests[0].headers["ocp-apim-subscription-key"] == "key-of-azure"
    if recipe.startswith("openai"):
        assert server.requests[0].headers["authorization"] == "Bearer key-of-openai"


def test_every_recipe_is_tested() -> None:
    assert {recipe for recipe, _, _ in CASES} == set(RECIPES)
