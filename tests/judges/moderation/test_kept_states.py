"""Rows that grow have the logits of whole rows, whatever the pieces, and each token is run once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, Qwen2Config, Qwen2Model

from truing.judges.moderation.engines import TorchEngine
from truing.judges.moderation.inputs import EncodedInput
from truing.judges.moderation.kept_states import KeptStatesEngine, common_length
from truing.judges.moderation.network import ModerationNetwork
from truing.judges.moderation.network_files import build_network

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}


def make_engine(kind: str, *, unused_layers: int = 0) -> TorchEngine:
    torch.manual_seed(0)
    bodies: dict[str, Callable[[], Any]] = {
        "llama": lambda: LlamaModel(LlamaConfig(**SIZES)),
        "qwen2": lambda: Qwen2Model(Qwen2Config(**SIZES)),
    }
    network: ModerationNetwork = build_network(bodies[kind](), 2)
    network.freeze(unused_layers)
    return TorchEngine(network, pad_id=0, dtype="float32", device="cpu")


ENGINES = {
    "llama": make_engine("llama"),
    "llama, upper layers": make_engine("llama", unused_layers=2),
    "qwen2": make_engine("qwen2"),
}


def make_row(prompt: list[int], answer: list[int]) -> EncodedInput:
    ids = (1, *prompt, 2, *answer, 2)
    segments = (0,) * (len(prompt) + 2) + (1,) * (len(answer) + 1)
    return EncodedInput(ids, segments)


@pytest.mark.parametrize("kind", ENGINES)
@settings(max_examples=25)
@given(
    prompt=st.lists(st.integers(3, 49), max_size=12),
    answer=st.lists(st.integers(3, 49), min_size=1, max_size=60),
    cuts=st.lists(st.integers(1, 60), max_size=6),
)
def test_growing_rows_have_the_logits_of_whole_rows(
    kind: str, prompt: list[int], answer: list[int], cuts: list[int]
) -> None:
    whole = ENGINES[kind]
    stream = whole.open_stream()
    for end in (*sorted(cuts), len(answer)):
        row = make_row(prompt, answer[:end])
        assert np.allclose(stream.logits([row]), whole.logits([row]), atol=1e-4)


def test_each_token_is_run_once_and_a_new_window_reads_its_own() -> None:
    stream = ENGINES["llama"].open_stream()
    assert isinstance(stream, KeptStatesEngine)
    prompt, answer = list(range(3, 13)), [3 + n % 40 for n in range(40)]
    for end in range(5, 41, 5):
        stream.logits([make_row(prompt, answer[:end])])
    # The end token of each reading is read again.
    assert stream.tokens_read == 1 + 10 + 1 + 40 + 8
    window = make_row(prompt, answer[30:])
    assert np.allclose(stream.logits([window]), ENGINES["llama"].logits([window]), atol=1e-4)


def test_rows_that_take_turns_are_kept_side_by_side() -> None:
    stream = ENGINES["llama"].open_stream()
    assert isinstance(stream, KeptStatesEngine)
    answer = [3 + n % 40 for n in range(40)]
    for end in (10, 20, 30, 40):
        rows = [make_row([], answer[:end]), make_row(answer[:end], []), make_row([7], answer[:end])]
        assert np.allclose(stream.logits(rows), ENGINES["llama"].logits(rows), atol=1e-4)
    assert stream.tokens_read < 3 * 60


def test_a_failure_forgets_the_row_and_the_next_reading_is_right() -> None:
    engine = make_engine("llama")
    stream = engine.open_stream()
    row, bad = make_row([5], [6, 7, 8]), make_row([5], [6, 7, 99])
    stream.logits([row])
    with pytest.raises(IndexError):
        stream.logits([bad])
    longer = make_row([5], [6, 7, 8, 9])
    assert np.allclose(stream.logits([longer]), engine.logits([longer]), atol=1e-4)


def test_an_encoder_reads_whole_rows() -> None:
    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    engine = TorchEngine(build_network(BertModel(config), 2), pad_id=0, dtype="float32")
    assert engine.open_stream() is engine


def test_common_beginnings() -> None:
    assert common_length((), (1,)) == 0
    assert common_length((1, 2, 3), (1, 2, 4, 5)) == 2
    assert common_length((1, 2), (1, 2, 3)) == 2
