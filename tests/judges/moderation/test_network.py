"""Pooling and layer mix by hand, on a body that returns given states."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from truing.judges.moderation.network import UNUSED_LAYER_LOGIT, ModerationNetwork


class FixedStates(nn.Module):
    """Returns the same hidden states whatever the input."""

    def __init__(self, states: list[Tensor]) -> None:
        super().__init__()
        self.states = states
        self.config = SimpleNamespace(
            hidden_size=states[0].shape[-1], num_hidden_layers=len(states) - 1, model_type="x"
        )

    def forward(self, **_: Any) -> Any:
        return SimpleNamespace(hidden_states=tuple(self.states))


IDS = torch.zeros(1, 4, dtype=torch.long)
SEGMENTS = torch.tensor([[0, 0, 1, 1]])
MASK = torch.tensor([[1, 1, 1, 0]])


def test_pooling_by_hand() -> None:
    states = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [9.0, 9.0]]])
    network = ModerationNetwork(FixedStates([states, states]), 1)
    pooled = network.pooled(IDS, SEGMENTS, MASK)
    # first token; mean of the prompt's two tokens; the response's one real token
    assert pooled[0].tolist() == pytest.approx([1.0, 2.0, 2.0, 3.0, 5.0, 6.0])


def test_layers_are_mixed_by_softmax_weights() -> None:
    low, high = torch.zeros(1, 4, 2), torch.ones(1, 4, 2)
    network = ModerationNetwork(FixedStates([low, high]), 1)
    with torch.no_grad():
        network.mix.copy_(torch.log(torch.tensor([0.25, 0.75])))
    assert network.pooled(IDS, SEGMENTS, MASK)[0, 0].item() == pytest.approx(0.75)


def test_a_causal_network_reads_the_last_real_token_and_scales_layers() -> None:
    states = torch.tensor([[[1.0, 1.0], [2.0, -2.0], [30.0, 40.0], [9.0, 9.0]]])
    network = ModerationNetwork(FixedStates([states, states]), 1, causal=True)
    pooled = network.pooled(IDS, SEGMENTS, MASK)
    scale = ((30.0**2 + 40.0**2) / 2) ** 0.5
    assert pooled[0, :2].tolist() == pytest.approx([30 / scale, 40 / scale], rel=1e-5)
    assert pooled[0, 2:4].tolist() == pytest.approx([1.0, 0.0], abs=1e-5)  # of (1, 1) and (1, -1)


def test_frozen_layers_have_no_part_in_the_mix() -> None:
    states = [torch.full((1, 4, 2), float(k + 1)) for k in range(3)]
    states[0] *= torch.nan  # would show in the result
    network = ModerationNetwork(FixedStates(states), 1, causal=True)
    network.freeze(1)
    assert network.first_used == 1 and network.mix[0].item() == UNUSED_LAYER_LOGIT
    assert bool(torch.isfinite(network.pooled(IDS, SEGMENTS, MASK)).all())


def test_the_head_stays_in_float32_under_autocast() -> None:
    states = torch.rand(1, 4, 2)
    network = ModerationNetwork(FixedStates([states, states]), 1)
    expected = network(IDS, SEGMENTS, MASK)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(IDS, SEGMENTS, MASK)
    assert logits.dtype is torch.float32 and torch.equal(logits, expected)
