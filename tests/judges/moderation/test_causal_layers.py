"""A language model as a reader: its layers one by one, and the lean body, give transformers' numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2Model, LlamaConfig, LlamaModel

from truing.judges.moderation import fast_llama
from truing.judges.moderation.causal_layers import (
    layer_states,
    supports_layerwise_forward,
    truncate_layers,
)
from truing.judges.moderation.engines import TorchEngine
from truing.judges.moderation.inputs import EncodedInput
from truing.judges.moderation.network import ModerationNetwork
from truing.judges.moderation.network_files import build_network


def _body(**more: object) -> LlamaModel:
    torch.manual_seed(0)
    config = {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, **more}
    made = LlamaModel(LlamaConfig(vocab_size=50, hidden_size=32, intermediate_size=48, **config))
    return made.eval()


def _rows() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(0, 50, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 5:], mask[2, 7:] = 0, 0
    return ids, mask


@pytest.mark.parametrize("groups", [2, 4])
def test_layers_one_by_one_are_transformers_own(groups: int) -> None:
    body = _body(num_key_value_heads=groups)
    ids, mask = _rows()
    with torch.inference_mode():
        theirs = body(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        one_by_one = layer_states(body, ids)
        lean = fast_llama.FastLlama(body, torch.float32).states(ids)
    assert len(one_by_one) == len(lean) == 5
    for ours in (one_by_one, lean):
        for made, want in zip(ours[:-1], theirs[:-1]):  # transformers norms its last one
            assert torch.allclose(made[mask.bool()], want[mask.bool()], atol=1e-5)
        assert torch.allclose(body.norm(ours[-1])[mask.bool()], theirs[-1][mask.bool()], atol=1e-5)


def test_a_shorter_body_is_the_lower_part_of_the_whole() -> None:
    ids, _ = _rows()
    with torch.inference_mode():
        whole = layer_states(_body(), ids)
        short = layer_states(truncate_layers(_body(), 2), ids)
    assert len(short) == 3 and all(torch.equal(a, b) for a, b in zip(short, whole))
    assert truncate_layers(_body(), 2).config.num_hidden_layers == 2
    assert len(truncate_layers(_body(), 0).layers) == len(truncate_layers(_body(), 9).layers) == 4


def test_kept_lower_states_change_nothing() -> None:
    network = build_network(_body(), 3).eval()
    network.freeze(2)
    ids, mask = _rows()
    segments = (torch.arange(9) > 4).long().expand(3, 9)
    with torch.inference_mode():
        lower = layer_states(network.body, ids, stop=2)[-1]
        assert network.first_used == 2
        assert torch.allclose(
            network(ids, segments, mask, lower), network(ids, segments, mask), atol=1e-6
        )


def _encoded(rng: torch.Generator, n: int) -> EncodedInput:
    ids = tuple(torch.randint(1, 50, (n,), generator=rng).tolist())
    return EncodedInput(ids, tuple(int(k > n // 2) for k in range(n)))


def test_the_engine_gives_the_same_whatever_the_batch() -> None:
    network: ModerationNetwork = build_network(_body(), 3)
    rng = torch.Generator().manual_seed(2)
    rows = [_encoded(rng, n) for n in (4, 30, 9, 17, 2, 30)]
    engine = TorchEngine(network, pad=0, dtype="float32", device="cpu")
    together = engine.logits(rows)
    apart = [
        TorchEngine(network, pad=0, dtype="float32", device="cpu", tokens=1).logits([row])[0]
        for row in rows
    ]
    assert abs(together - np.stack(apart)).max() < 1e-5
    half = TorchEngine(network, pad=0, dtype="bfloat16", device="cpu").logits(rows)
    assert abs(half - together).max() < 0.05
    assert (
        next(network.body.parameters()).dtype is torch.float32
    )  # the caller's network is left as it is


def test_other_bodies_go_through_transformers() -> None:
    torch.manual_seed(0)
    body = GPT2Model(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2)).eval()
    assert not supports_layerwise_forward(body) and not fast_llama.supports_fast_llama(body)
    assert not fast_llama.supports_fast_llama(
        _body(attention_bias=True)
    ) and not fast_llama.supports_fast_llama(_body(hidden_act="gelu"))
    network = build_network(body, 3).eval()
    ids, mask = _rows()
    with torch.inference_mode():
        assert network(ids, torch.zeros_like(ids), mask).shape == (3, 6)
