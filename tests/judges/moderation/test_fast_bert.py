"""The fast BERT body gives the numbers of transformers' BertModel, with and without padding."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertModel

from truing.judges.moderation.fast_bert import FastBert, supports_fast_bert
from truing.judges.moderation.network_files import build_network


def make_bert(**fields: object) -> BertModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        **fields,
    )
    return BertModel(config).eval()


@pytest.mark.parametrize("padded", [False, True])
def test_hidden_states_are_those_of_transformers(padded: bool) -> None:
    body = make_bert()
    ids = torch.randint(0, 50, (4, 9))
    mask = torch.ones_like(ids)
    if padded:
        mask[1, 5:], mask[3, 7:] = 0, 0
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": (torch.arange(9) > 4).long().expand(4, 9),
        "output_hidden_states": True,
    }
    with torch.inference_mode():
        expected = body(**inputs).hidden_states
        states = FastBert(body)(**inputs).hidden_states
    assert len(states) == len(expected) == 4
    for ours, theirs in zip(states, expected):
        assert torch.allclose(ours[mask.bool()], theirs[mask.bool()], atol=1e-5)


def test_a_network_gives_the_same_logits_around_it() -> None:
    network = build_network(make_bert(), 2).eval()
    ids = torch.randint(0, 50, (2, 6))
    segments, mask = torch.zeros_like(ids), torch.ones_like(ids)
    with torch.inference_mode():
        expected = network(ids, segments, mask)
        network.body = FastBert(network.body)
        assert torch.allclose(network(ids, segments, mask), expected, atol=1e-5)


def test_other_bodies_are_not_supported() -> None:
    assert supports_fast_bert(make_bert())
    assert not supports_fast_bert(make_bert(hidden_act="relu"))
    assert not supports_fast_bert(make_bert(is_decoder=True))
