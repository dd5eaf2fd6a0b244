"""Similarity search, NeMo's similarity, and the example indexes of a configuration."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest

from truing.rails.colang.ast import BotText
from truing.rails.colang.compiler import compile_flow
from truing.rails.colang.parser import parse_colang
from truing.rails.runtime.embeddings import EmbeddingCache, LexicalEncoder
from truing.rails.runtime.example_index import DialogExamples, ExampleIndex, nemo_similarity


def make_cache() -> EmbeddingCache:
    return EmbeddingCache(LexicalEncoder())


def test_the_nearest_come_first_and_ties_keep_their_order() -> None:
    index = ExampleIndex(make_cache(), [("red car", 1), ("blue car", 2), ("red red car", 3)])
    matches = asyncio.run(index.search("red car", 3))
    assert [value for _, _, value in matches] == [1, 3, 2]
    assert matches[0][0] == pytest.approx(1.0)
    assert matches[2][0] == pytest.approx(0.5)
    tied = ExampleIndex(make_cache(), [("x", 1), ("y", 2)])
    assert [value for _, _, value in asyncio.run(tied.search("other", 2))] == [1, 2]
    assert asyncio.run(ExampleIndex[int](make_cache(), []).search("a", 3)) == []


def test_nemos_similarity_is_that_of_the_distance() -> None:
    a, b = np.array([1.0, 0.0]), np.array([math.cos(1.0), math.sin(1.0)])
    assert nemo_similarity(float(a @ b)) == pytest.approx(1 - np.linalg.norm(a - b) / 2)
    assert nemo_similarity(1.0) == 1.0
    assert nemo_similarity(-1.0) == 0.0
    assert nemo_similarity(1.0000001) == 1.0


def test_a_configuration_has_indexes_of_messages_and_flows() -> None:
    code = "define flow prices\n  user ask price\n  bot tell price\n"
    flow = compile_flow(parse_colang("main.co", code).flows[0])
    bot_messages = {"tell price": [BotText("Four coins.", 1)]}
    examples = DialogExamples({"ask price": ["how much"]}, bot_messages, [flow], make_cache())
    assert examples.user_messages.items == [("how much", "ask price")]
    assert examples.bot_messages.items == [("tell price", "Four coins.")]
    (source,) = asyncio.run(examples.nearest_flows("ask price", 5))
    assert "user ask price" in source
    without_intents = DialogExamples({}, bot_messages, [], make_cache())
    assert without_intents.bot_messages.items == []
