"""A plain copy of the actor that draws answers: adapters merged, in the arithmetic of the run.

One token a row at a time, a model with adapters in float32 spends its time on reading weights and on the adapters'
many small products; the copy costs half of the backbone's memory and draws several times as fast on a CPU. What it
draws is read again by the actor itself, and the difference is in the log (`drift`).
"""

from __future__ import annotations

import copy
from typing import Any

import torch

from truing.hf.loading import make_lm_head_contiguous


class Writer:
    """The copy; `refreshed` brings it up to the actor as it is now."""

    def __init__(self, peft: Any, half: torch.dtype) -> None:
        self.base = peft.get_base_model()
        config = copy.deepcopy(self.base.config)
        device = next(self.base.parameters()).device
        self.model = (
            type(self.base)(config).to(device=device, dtype=half).eval().requires_grad_(False)
        )
        self.model.generation_config = self.base.generation_config
        make_lm_head_contiguous(self.model)
        self._copy(
            {
                k: p
                for k, p in self.base.named_parameters()
                if ".base_layer." not in k and ".lora_" not in k
            }
        )

    @torch.no_grad()
    def _copy(self, given: dict[str, Any]) -> None:
        own = dict(self.model.named_parameters())
        for key, value in given.items():
            own[key].copy_(value)

    @torch.no_grad()
    def refreshed(self, adapter: str) -> Any:
        """The copy, with the adapter of that name merged in."""
        own = dict(self.model.named_parameters())
        for name, layer in self.base.named_modules():
            if not hasattr(layer, "get_delta_weight"):
                continue
            weight = layer.base_layer.weight
            if adapter in layer.lora_A:
                weight = weight + layer.get_delta_weight(adapter)
            own[f"{name}.weight"].copy_(weight)
            if layer.base_layer.bias is not None:
                own[f"{name}.bias"].copy_(layer.base_layer.bias)
        return self.model
