"""Linear layers whose bfloat16 weights are arranged once for the matrix unit of a CPU.

`F.linear` on a CPU arranges the weight anew in each call, which for the few rows of a decoding step
takes as long as the product. For a contiguous input the results are the same bit by bit, as a rule;
where torch multiplies without oneDNN (small layers, strided inputs) they differ by the rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from truing.hf.loading import cpu_flags

PACKED_ROWS = 128
"""Rows of input that the arrangement is chosen for; other numbers of rows work too."""


def can_pack(weight: Tensor) -> bool:
    """Whether a weight can be packed: a bfloat16 matrix on a CPU that multiplies these in hardware.

    Not in float32 or float16, and not where torch is built without oneDNN.
    """
    return (
        weight.device.type == "cpu"
        and weight.dtype is torch.bfloat16
        and weight.dim() == 2
        and bool(cpu_flags() & {"amx_bf16", "avx512_bf16"})
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


class PackedLinear(nn.Module):
    """A frozen linear layer with a packed weight; the plain weight is not kept."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        # torch's own compiler uses these two operators; they have no public name.
        self._packed: Any = torch.ops.mkldnn._reorder_linear_weight(
            linear.weight.detach().contiguous(), PACKED_ROWS
        )

    def forward(self, input: Tensor) -> Tensor:
        """Returns the product, as `nn.Linear`."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            input.contiguous(), self._packed, self.bias, "none", [], ""
        )
        return product


def pack_linear_layers(model: nn.Module) -> int:
    """Replaces the linear layers of a model that can be packed; returns their number.

    For inference: the model cannot be trained, saved or moved to another device afterwards.
    """
    count = 0
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and can_pack(child.weight):
                setattr(module, name, PackedLinear(child))
                count += 1
    return count
