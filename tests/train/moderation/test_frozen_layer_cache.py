"""Cached states of frozen layers are those of a fresh computation."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from truing.judges.moderation.causal_layers import layer_states
from truing.judges.moderation.inputs import EncodedInput
from truing.train.moderation import frozen_layer_cache
from truing.train.moderation.frozen_layer_cache import FrozenLayerCache

CPU = torch.device("cpu")
ROWS = [EncodedInput((1, 5, 6, 7), (0,) * 4), EncodedInput((1, 8), (0, 0))]
IDS = torch.tensor([[1, 5, 6, 7], [1, 8, 0, 0]])


@pytest.fixture
def body() -> LlamaModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
    )
    return LlamaModel(config).eval()


def test_the_second_pass_comes_from_the_cache(
    body: LlamaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FrozenLayerCache(2, dtype="float32", device=CPU)
    with torch.no_grad():
        expected = layer_states(body, IDS, stop=2)[-1]
    first = cache(body, ROWS, IDS)
    torch.testing.assert_close(first[0], expected[0])
    torch.testing.assert_close(first[1, :2], expected[1, :2])
    assert not first[1, 2:].any()  # zeros at the padding

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("was computed again")

    monkeypatch.setattr(frozen_layer_cache, "layer_states", fail)
    # The rows in another order and padded more.
    wider = torch.tensor([[1, 8, 0, 0, 0], [1, 5, 6, 7, 0]])
    again = cache(body, ROWS[::-1], wider)
    assert torch.equal(again[1, :4], first[0]) and torch.equal(again[0, :2], first[1, :2])


def test_a_full_cache_computes_anew(body: LlamaModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_layer_cache, "MAX_CACHE_BYTES", 0)
    cache = FrozenLayerCache(2, dtype="float32", device=CPU)
    assert torch.equal(cache(body, ROWS, IDS), cache(body, ROWS, IDS))
