"""Canonical forms by embedding: against a slow computation of the same formula, and in a configuration."""

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


def test_scores_are_the_formula() -> None:
    vectors = EmbeddingCache(LexicalEncoder())
    intents = IntentClassifier(vectors, EXAMPLES)
    q = vectors.encode(["my new card please"])[0]
    rows = {n: vectors.encode(ts) for n, ts in EXAMPLES.items()}
    names = vectors.encode(list(EXAMPLES))
    center = np.concatenate([*rows.values(), names]).mean(0)

    def unit(v: np.ndarray) -> np.ndarray:
        return v / np.linalg.norm(v)

    for at, (name, examples) in enumerate(rows.items()):
        ex = [unit(r - center) for r in examples]
        prototype = unit(sum(ex) + NAME_WEIGHT * unit(names[at] - center))
        cosines = [float(e @ unit(q - center)) for e in ex]
        smooth = math.log(sum(math.exp(SHARPNESS * (c - 1)) for c in cosines)) / SHARPNESS + 1
        w = len(ex) / (len(ex) + EXAMPLES_FOR_HALF_WEIGHT)
        expected = (1 - w) * float(prototype @ unit(q - center)) + w * smooth
        assert float(intents.scores(q)[0][at]) == pytest.approx(expected, abs=1e-5), name


def test_the_best_form_comes_first_and_nothing_is_found_in_nothing() -> None:
    intents = IntentClassifier(EmbeddingCache(LexicalEncoder()), EXAMPLES)
    ranked = asyncio.run(intents.rank("has my card arrived"))
    assert ranked[0][1] == "ask about card arrival" and [s for s, _ in ranked] == sorted(
        (s for s, _ in ranked), reverse=True
    )
    assert asyncio.run(IntentClassifier(EmbeddingCache(LexicalEncoder()), {}).rank("hello")) == []
    alone = asyncio.run(
        IntentClassifier(EmbeddingCache(LexicalEncoder()), {"greet": ["hello"]}).rank("hello")
    )
    assert alone[0][1] == "greet" and math.isfinite(alone[0][0])


def test_a_margin_keeps_the_llm_out_where_the_form_is_certain(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("models: []\ntruing:\n  intent_margin: 0.1\n")
    (tmp_path / "flows.co").write_text(
        'define user ask card\n  "when does my card come"\n  "my card has not arrived"\n\n'
        'define user greet\n  "hello there"\n\ndefine bot tell card\n  "In five days."\n\n'
        "define flow card\n  user ask card\n  bot tell card\n"
    )
    llm = ScriptedModel("user greet", name="llm")
    one = GuardedModel(tmp_path, llm, parts=RuntimeParts(encoder=LexicalEncoder()))
    answer = asyncio.run(one.generate(Conversation.of("my card has not arrived yet"), Sampling()))[
        0
    ]
    assert answer.text == "In five days." and llm.calls == 0
    asyncio.run(one.generate(Conversation.of("blue whales sing"), Sampling()))
    assert llm.calls > 0
