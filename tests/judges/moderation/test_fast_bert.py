"""The lean body gives the numbers of transformers' BertModel, with padding and without."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertModel

from truing.judges.moderation.fast_bert import FastBert, supports_fast_bert
from truing.judges.moderation.network_files import build_network


def _body(**more: object) -> BertModel:
    torch.manual_seed(0)
    made = BertModel(
        BertConfig(
            vocab_size=50,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            **more,
        )
    )
    return made.eval()  # type: ignore[no-any-return]


@pytest.mark.parametrize("padded", [False, True])
def test_hidden_states_are_transformers_own(padded: bool) -> None:
    body = _body()
    ids = torch.randint(0, 50, (4, 9))
    segments = (torch.arange(9) > 4).long().expand(4, 9)
    mask = torch.ones_like(ids)
    if padded:
        mask[1, 5:], mask[3, 7:] = 0, 0
    with torch.inference_mode():
        theirs = body(
            input_ids=ids, attention_mask=mask, token_type_ids=segments, output_hidden_states=True
        ).hidden_states
        ours = FastBert(body)(
            input_ids=ids, attention_mask=mask, token_type_ids=segments, output_hidden_states=True
        ).hidden_states
    assert len(ours) == len(theirs) == 4
    for one, two in zip(ours, theirs):
        assert torch.allclose(one[mask.bool()], two[mask.bool()], atol=1e-5)


def test_the_network_around_it_too() -> None:
    network = build_network(_body(), 2).eval()
    lean = build_network(_body(), 2).eval()
    lean.load_state_dict(network.state_dict())
    lean.body = FastBert(lean.body)
    ids, segments, mask = (
        torch.randint(0, 50, (2, 6)),
        torch.zeros(2, 6, dtype=torch.long),
        torch.ones(2, 6, dtype=torch.long),
    )
    with torch.inference_mode():
        assert torch.allclose(network(ids, segments, mask), lean(ids, segments, mask), atol=1e-5)


def test_other_bodies_are_left_alone() -> None:
    assert (
        supports_fast_bert(_body())
        and not supports_fast_bert(_body(hidden_act="relu"))
        and not supports_fast_bert(_body(is_decoder=True))
    )
