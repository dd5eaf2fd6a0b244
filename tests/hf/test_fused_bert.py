"""The fused forward pass of BERT computes what transformers computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from truing.hf.fused_bert import FusedBert


def make_model(**settings: Any) -> Any:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 50,
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 40,
        "max_position_embeddings": 16,
    }
    return transformers.BertModel(transformers.BertConfig(**{**sizes, **settings})).eval()


@pytest.mark.parametrize("lengths", [(7,), (16, 1, 9)])
def test_hidden_states_are_those_of_transformers(lengths: tuple[int, ...]) -> None:
    model = make_model()
    ids = torch.randint(0, 50, (len(lengths), max(lengths)))
    mask = torch.tensor([[int(k < length) for k in range(max(lengths))] for length in lengths])
    is_padded = len(set(lengths)) > 1
    with torch.inference_mode():
        expected = model(input_ids=ids, attention_mask=mask).last_hidden_state
        hidden = FusedBert(model)(ids, mask if is_padded else None)
    # What stands in the place of padding nobody reads.
    torch.testing.assert_close(hidden[mask.bool()], expected[mask.bool()], atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("settings", [{"hidden_act": "relu"}, {"is_decoder": True}])
def test_models_of_another_form_are_left_to_transformers(settings: dict[str, Any]) -> None:
    assert FusedBert.fits(make_model())
    assert not FusedBert.fits(make_model(**settings))
