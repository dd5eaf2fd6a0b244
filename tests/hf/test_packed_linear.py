"""Packed linear layers give bit by bit the results of plain ones, and leave other layers alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from truing.hf.packed_linear import PackedLinear, can_pack, pack_linear_layers

needs_bfloat16 = pytest.mark.skipif(
    not can_pack(torch.zeros(2, 2, dtype=torch.bfloat16)),
    reason="this CPU does not multiply bfloat16 in hardware",
)


def bfloat16_layer(inputs: int, outputs: int, *, bias: bool) -> nn.Linear:
    torch.manual_seed(inputs + outputs)
    return nn.Linear(inputs, outputs, bias=bias).to(torch.bfloat16).requires_grad_(False)


@needs_bfloat16
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("inputs", "outputs"), [(33, 50), (64, 96), (128, 2000)])
@pytest.mark.parametrize("shape", [(1,), (7,), (129,), (1, 300), (2, 5)])
def test_a_packed_layer_computes_the_same_bits(
    inputs: int, outputs: int, shape: tuple[int, ...], bias: bool
) -> None:
    plain = bfloat16_layer(inputs, outputs, bias=bias)
    packed = PackedLinear(plain)
    rows = torch.randn(*shape, inputs, dtype=torch.bfloat16)
    with torch.inference_mode():
        assert torch.equal(packed(rows), plain(rows))
        # A slice of the hidden states, such as the last tokens, is not contiguous.
        strided = torch.randn(3, *shape, inputs, dtype=torch.bfloat16).transpose(0, -2)
        assert torch.equal(packed(strided), plain(strided.contiguous()))


@needs_bfloat16
def test_only_bfloat16_layers_are_packed() -> None:
    model = nn.ModuleDict(
        {
            "packed": bfloat16_layer(8, 8, bias=True),
            "plain": nn.Linear(8, 8),
            "inner": nn.Sequential(bfloat16_layer(8, 4, bias=False), nn.ReLU()),
        }
    )
    assert pack_linear_layers(model) == 2
    assert isinstance(model["packed"], PackedLinear) and type(model["plain"]) is nn.Linear
    assert pack_linear_layers(model) == 0


def test_float32_weights_are_left_as_they_are() -> None:
    assert not can_pack(torch.zeros(2, 2))
    assert pack_linear_layers(nn.Sequential(nn.Linear(2, 2))) == 0
