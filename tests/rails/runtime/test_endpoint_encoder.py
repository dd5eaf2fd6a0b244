"""Embeddings behind an endpoint, and search providers that code registers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.servers import Request, serving

from truing.http.limits import close_connections
from truing.models.scripted import ScriptedModel
from truing.rails.config.embedding_models import EmbeddingModel, find_embedding_model
from truing.rails.config.loader import RailsConfig
from truing.rails.guarded import GuardedModel
from truing.rails.runtime.endpoint_encoder import EndpointEncoder, _read_vectors
from truing.rails.runtime.search_providers import EmbeddingsIndex, IndexItem

COLANG = """\
define user greet
  "hello there"
define user ask price
  "what does it cost"
define bot greet
  "Hello!"
define bot tell price
  "Ten."
define flow
  user greet
  bot greet
define flow
  user ask price
  bot tell price
"""
EMBEDDINGS_ONLY = "rails: {dialog: {user_messages: {embeddings_only: true}}}\n"


def _vector(text: str) -> list[float]:
    return [float("cost" in text or "expensive" in text), float("hell" in text or "hi" in text), 1]


def _ask(bot: GuardedModel, *texts: str) -> list[str]:
    async def run() -> list[str]:
        try:
            rows = [[{"role": "user", "content": text}] for text in texts]
            return [(await bot.runtime.run_turn(row)).text for row in rows]
        finally:
            await close_connections()

    return asyncio.run(run())


def test_the_configured_model_decides_on_intents() -> None:
    bodies: list[Any] = []

    async def handler(request: Request) -> None:
        bodies.append(request.json)
        rows = [
            {"index": index, "embedding": _vector(text)}
            for index, text in enumerate(request.json["input"])
        ]
        await request.send(200, {"data": rows[::-1]})

    with serving(handler) as server:
        yaml = EMBEDDINGS_ONLY + (
            "models:\n  - type: embeddings\n    engine: vllm_openai\n    model: my-embedder\n"
            f"    parameters: {{base_url: '{server.url}/v1'}}\n"
        )
        bot = GuardedModel(RailsConfig.from_text(yaml, COLANG), ScriptedModel("x"))
        assert _ask(bot, "is it expensive?", "hi you") == ["Ten.", "Hello!"]
    assert {body["model"] for body in bodies} == {"my-embedder"}
    assert ["hello there", "what does it cost"] in [body["input"] for body in bodies]


def test_an_endpoint_that_fails_ends_the_turn() -> None:
    async def handler(request: Request) -> None:
        await request.send(200, {"data": "<html>"})

    with serving(handler) as server:
        encoder = EndpointEncoder(EmbeddingModel("m", f"{server.url}/embeddings"))
        with pytest.raises(ConnectionError, match="embeddings of m"):
            encoder.encode(["a"])


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ({"data": []}, "expected 2 embeddings"),
        (
            {"data": [{"embedding": [1.0]}, {"embedding": []}]},
            "an embedding is no list of numbers",
        ),
        (
            {"data": [{"embedding": ["x"]}, {"embedding": [1.0]}]},
            "an embedding is no list of numbers",
        ),
        (
            {"data": [{"embedding": [1.0], "index": 1}, {"embedding": [1.0], "index": 1}]},
            "the embeddings are not those of the texts",
        ),
        ({"data": [[1.0], [2.0]]}, "an embedding is no list of numbers"),
        ([1, 2], "expected 2 embeddings"),
    ],
)
def test_replies_in_another_form(reply: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _read_vectors(json.dumps(reply).encode(), 2)


@pytest.mark.parametrize(
    ("yaml", "core", "kb"),
    [
        ("", None, None),
        ("models: [{type: embeddings, engine: FastEmbed, model: all-MiniLM-L6-v2}]", None, None),
        ("models: [{type: embeddings, engine: FastEmbed, model: bge}]", None, None),
        ("models: [{type: embeddings, engine: openai, model: ada}]", "ada", "ada"),
        (
            "knowledge_base: {embedding_search_provider: {parameters: "
            "{embedding_engine: openai, embedding_model: ada}}}",
            None,
            "ada",
        ),
        ("models: [{type: embeddings, engine: vllm_openai, model: m}]", None, None),
        (
            "models: [{type: embeddings, engine: openai, model: ada}]\n"
            "core: {embedding_search_provider: {name: own}}",
            None,
            "ada",
        ),
    ],
)
def test_which_model_encodes(yaml: str, core: str | None, kb: str | None) -> None:
    config = RailsConfig.from_text(yaml, COLANG)
    found = [find_embedding_model(config, place) for place in ("core", "knowledge_base")]
    assert [model and model.model for model in found] == [core, kb]


class WordIndex(EmbeddingsIndex):
    """A search provider: the item that shares most words."""

    def __init__(self, minimum: int = 1) -> None:
        self.minimum = minimum
        self.items: list[IndexItem] = []

    async def add_item(self, item: IndexItem) -> None:
        self.items.append(item)

    async def search(
        self, text: str, max_results: int, threshold: float | None = None
    ) -> list[IndexItem]:
        def shared(item: IndexItem) -> int:
            return len(set(item.text.split()) & set(text.split()))

        ranked = sorted(self.items, key=shared, reverse=True)
        return [item for item in ranked if shared(item) >= self.minimum][:max_results]


PROVIDER = "core: {embedding_search_provider: {name: words, parameters: {minimum: 2}}}\n"


def test_a_registered_search_provider_finds_the_examples() -> None:
    bot = GuardedModel(
        RailsConfig.from_text(EMBEDDINGS_ONLY + PROVIDER, COLANG), ScriptedModel("ask price")
    )
    bot.runtime.register_embedding_search_provider("words", WordIndex)
    assert _ask(bot, "hello there you", "what does she do") == ["Hello!", "Ten."]
    # Below the provider's own minimum nothing is found, and the LLM is asked.
    assert _ask(bot, "hello") == ["Ten."]


def test_without_a_registered_provider_the_llm_gets_no_examples() -> None:
    config = RailsConfig.from_text(EMBEDDINGS_ONLY + PROVIDER, COLANG)
    assert _ask(GuardedModel(config, ScriptedModel("ask price")), "hello there") == ["Ten."]
