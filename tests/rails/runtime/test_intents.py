"""The intent classifier: against a slow computation of the same formula, and in a configuration."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import numpy as np
import pytest

from truing.core.types import Conversation, Sampling
from truing.models.scripted import ScriptedModel
from truing.rails.guarded import GuardedModel
from truing.rails.runtime.app import RuntimeParts
from truing.rails.runtime.embeddings import EmbeddingCache, LexicalEncoder
from truing.rails.runtime.intents import (
    EXAMPLES_FOR_HALF_WEIGHT,
    NAME_WEIGHT,
    SHARPNESS,
    IntentClassifier,
)

EXAMPLES = {
    "ask about card arrival": [
        "when does my card come",
        "my card has not arrived",
        "where is the new card",
    ],
    "ask about exchange rate": ["what is the rate for euros"],
    "greet": ["hello there", "good morning"],
}


def make_classifier(examples: dict[str, list[str]]) -> IntentClassifier:
    return IntentClassifier(EmbeddingCache(LexicalEncoder()), examples)


def normalise(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def test_scores_are_those_of_the_formula() -> None:
    embeddings = EmbeddingCache(LexicalEncoder())
    query = embeddings.encode(["my new card please"])[0]
    vectors = {name: embeddings.encode(texts) for name, texts in EXAMPLES.items()}
    names = embeddings.encode(list(EXAMPLES))
    center = np.concatenate([*vectors.values(), names]).mean(0)
    scores = IntentClassifier(embeddings, EXAMPLES).scores(query)[0]
    for index, (name, rows) in enumerate(vectors.items()):
        examples = [normalise(row - center) for row in rows]
        prototype = normalise(sum(examples) + NAME_WEIGHT * normalise(names[index] - center))
        cosines = [float(example @ normalise(query - center)) for example in examples]
        smooth_max = math.log(sum(math.exp(SHARPNESS * (c - 1)) for c in cosines)) / SHARPNESS + 1
        weight = len(examples) / (len(examples) + EXAMPLES_FOR_HALF_WEIGHT)
        similarity = float(prototype @ normalise(query - center))
        expected = (1 - weight) * similarity + weight * smooth_max
        assert float(scores[index]) == pytest.approx(expected, abs=1e-5), name


def test_the_best_intent_comes_first() -> None:
    ranked = asyncio.run(make_classifier(EXAMPLES).rank("has my card arrived"))
    assert ranked[0][1] == "ask about card arrival"
    scores = [score for score, _ in ranked]
    assert scores == sorted(scores, reverse=True)


def test_without_intents_the_ranking_is_empty_and_one_alone_is_finite() -> None:
    assert asyncio.run(make_classifier({}).rank("hello")) == []
    assert asyncio.run(make_classifier({"greet": []}).rank("hello")) == []
    ((score, name),) = asyncio.run(make_classifier({"greet": ["hello"]}).rank("hello"))
    assert name == "greet"
    assert math.isfinite(score)


def test_a_margin_spares_the_llm_where_the_intent_is_certain(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("models: []\ntruing:\n  intent_margin: 0.1\n")
    (tmp_path / "flows.co").write_text(
        'define user ask card\n  "when does my card come"\n  "my card has not arrived"\n\n'
        'define user greet\n  "hello there"\n\ndefine bot tell card\n  "In five days."\n\n'
        "define flow card\n  user ask card\n  bot tell card\n"
    )
    llm = ScriptedModel("user greet", name="llm")
    guarded = GuardedModel(tmp_path, llm, parts=RuntimeParts(encoder=LexicalEncoder()))

    def answer(text: str) -> str:
        return asyncio.run(guarded.generate(Conversation.of(text), Sampling()))[0].text

    assert answer("my card has not arrived yet") == "In five days."
    assert llm.calls == 0
    answer("blue whales sing")
    assert llm.calls > 0


def test_many_first_messages_compute_the_examples_once(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = make_classifier(EXAMPLES)
    compute, calls = classifier._compute_vectors, []

    def count() -> object:
        calls.append(1)
        return compute()

    monkeypatch.setattr(classifier, "_compute_vectors", count)

    async def rank_all() -> None:
        await asyncio.gather(*(classifier.rank(f"good morning {k}") for k in range(50)))

    asyncio.run(rank_all())
    assert len(calls) == 1
