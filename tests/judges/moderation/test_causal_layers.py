"""The layers of a language model, one by one: the numbers of transformers, truncated and cached."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2Model, LlamaConfig, LlamaModel

from truing.hf.loading import truncate_layers
from truing.judges.moderation.causal_layers import (
    layer_states,
    rms_normalise,
    supports_layerwise_forward,
)
from truing.judges.moderation.fast_llama import FastLlama, supports_fast_llama
from truing.judges.moderation.network_files import build_network


def make_llama(**fields: object) -> LlamaModel:
    torch.manual_seed(0)
    options = {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, **{**options, **fields}
    )
    return LlamaModel(config).eval()


def make_batch() -> tuple[Tensor, Tensor]:
    """Returns ids and mask of three rows, two of them padded."""
    ids = torch.randint(0, 50, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 5:], mask[2, 7:] = 0, 0
    return ids, mask


@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("is_fast", [False, True])
def test_the_states_are_those_of_transformers(kv_heads: int, is_fast: bool) -> None:
    body = make_llama(num_key_value_heads=kv_heads)
    ids, mask = make_batch()
    real = mask.bool()
    with torch.inference_mode():
        output = body(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        expected = output.hidden_states
        if is_fast:
            states = FastLlama(body, torch.float32).layer_states(ids)
        else:
            states = layer_states(body, ids)
    assert len(states) == len(expected) == 5
    for ours, theirs in zip(states[:-1], expected[:-1]):
        assert torch.allclose(ours[real], theirs[real], atol=1e-5)
    # transformers applies the final norm to its last state.
    assert torch.allclose(body.norm(states[-1])[real], expected[-1][real], atol=1e-5)


def test_a_truncated_body_is_the_lower_part() -> None:
    ids, _ = make_batch()
    with torch.inference_mode():
        whole = layer_states(make_llama(), ids)
        truncated = layer_states(truncate_layers(make_llama(), 2), ids)
    assert len(truncated) == 3
    assert all(torch.equal(a, b) for a, b in zip(truncated, whole))
    assert truncate_layers(make_llama(), 2).config.num_hidden_layers == 2
    assert len(truncate_layers(make_llama(), 0).layers) == 4
    assert len(truncate_layers(make_llama(), 9).layers) == 4


def test_cached_lower_states_change_nothing() -> None:
    network = build_network(make_llama(), 3).eval()
    network.freeze(2)
    ids, mask = make_batch()
    segments = (torch.arange(9) > 4).long().expand(3, 9)
    with torch.inference_mode():
        lower = layer_states(network.body, ids, stop=2)[-1]
        assert network.first_used == 2
        cached = network(ids, segments, mask, lower)
        assert torch.allclose(cached, network(ids, segments, mask), atol=1e-6)


def test_vectors_are_normalised_to_a_root_mean_square_of_1() -> None:
    normalised = rms_normalise(torch.tensor([[3.0, -4.0]], dtype=torch.bfloat16))
    assert normalised.dtype is torch.float32
    assert normalised.tolist()[0] == pytest.approx([3 / 12.5**0.5, -4 / 12.5**0.5])


def test_other_bodies_go_through_transformers() -> None:
    torch.manual_seed(0)
    body = GPT2Model(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2)).eval()
    assert not supports_layerwise_forward(body) and not supports_fast_llama(body)
    assert not supports_fast_llama(make_llama(attention_bias=True))
    assert not supports_fast_llama(make_llama(hidden_act="gelu"))
    network = build_network(body, 3).eval()
    ids, mask = make_batch()
    with torch.inference_mode():
        assert network(ids, torch.zeros_like(ids), mask).shape == (3, 6)
