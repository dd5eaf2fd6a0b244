"""Encoders and the cache of embeddings: batching, caching, errors."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from truing.rails.config.loader import RailsConfig
from truing.rails.runtime import embeddings
from truing.rails.runtime.embeddings import (
    EmbeddingCache,
    LexicalEncoder,
    SharedSentenceEncoder,
    choose_encoder,
)


class RecordingEncoder:
    """Vectors of text lengths; records its batches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.error: Exception | None = None

    def encode(self, texts: list[str]) -> Any:
        self.batches.append(list(texts))
        if self.error is not None:
            raise self.error
        return np.array([[len(text), 1.0] for text in texts])


def test_the_lexical_encoder_counts_words() -> None:
    a, b, c = LexicalEncoder().encode(["Hello, hello you", "you hello hello", "something else"])
    assert np.array_equal(a, b)
    assert a.sum() == 3
    assert a @ c == 0


def test_vectors_are_unit_vectors_and_zero_stays_zero() -> None:
    vectors = EmbeddingCache(LexicalEncoder()).encode(["one two", ""])
    assert np.linalg.norm(vectors[0]) == pytest.approx(1.0)
    assert np.linalg.norm(vectors[1]) == 0
    assert EmbeddingCache(LexicalEncoder()).encode([]).shape == (0, 1)


def test_concurrent_requests_are_one_batch_and_then_cached() -> None:
    encoder = RecordingEncoder()
    cache = EmbeddingCache(encoder)

    async def run() -> None:
        await asyncio.gather(*(cache.embed(text) for text in ("a", "bb", "a")))
        await cache.embed("bb")

    asyncio.run(run())
    assert encoder.batches == [["a", "bb"]]


def test_an_error_reaches_the_caller_and_is_not_cached() -> None:
    encoder = RecordingEncoder()
    cache = EmbeddingCache(encoder)

    async def run() -> Any:
        encoder.error = RuntimeError("no weights")
        with pytest.raises(RuntimeError, match="no weights"):
            await cache.embed("a")
        encoder.error = None
        return await cache.embed("a")

    assert asyncio.run(run()) == pytest.approx(np.array([1.0, 1.0]) / 2**0.5)


def test_the_least_recently_used_vector_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "MAX_CACHED_EMBEDDINGS", 2)
    encoder = RecordingEncoder()
    cache = EmbeddingCache(encoder)

    async def run() -> None:
        for text in ("a", "b", "a", "c", "a", "b"):
            await cache.embed(text)

    asyncio.run(run())
    assert encoder.batches == [["a"], ["b"], ["c"], ["b"]]


def test_one_cancelled_caller_does_not_cancel_the_others() -> None:
    encoder = RecordingEncoder()
    cache = EmbeddingCache(encoder)

    async def run() -> Any:
        first = asyncio.create_task(cache.embed("a"))
        second = asyncio.create_task(cache.embed("a"))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert asyncio.run(run()) == pytest.approx(np.array([1.0, 1.0]) / np.sqrt(2))
    assert encoder.batches == [["a"]]


@pytest.mark.parametrize(
    ("yaml", "encoder"),
    [
        ("truing: {encoder: words}", LexicalEncoder),
        ("truing: {encoder: minilm}", SharedSentenceEncoder),
        ("truing: {intent_margin: 0.1}", SharedSentenceEncoder),
        ("rails: {dialog: {user_messages: {embeddings_only: true}}}", SharedSentenceEncoder),
        ("models: []", LexicalEncoder),  # nothing to choose examples from
    ],
)
def test_the_encoder_follows_the_configuration(yaml: str, encoder: type) -> None:
    assert isinstance(choose_encoder(RailsConfig.from_text(yaml)), encoder)


def test_vectors_of_another_encoder_are_not_kept() -> None:
    class ConstantEncoder:
        def __init__(self, size: int) -> None:
            self.size = size

        def encode(self, texts: list[str]) -> list[list[float]]:
            return [[1.0] * self.size for _ in texts]

    async def embed_twice() -> tuple[int, int]:
        cache = EmbeddingCache(ConstantEncoder(2))
        before = await cache.embed("x")
        cache.replace_encoder(ConstantEncoder(3))
        return len(before), len(await cache.embed("x"))

    assert asyncio.run(embed_twice()) == (2, 3)
