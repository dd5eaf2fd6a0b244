"""A copy of the policy for sampling: LoRA adapters merged in, in the compute dtype of the run.

Token-by-token decoding with adapters in float32 is bound by reading the weights and by the many
small matrix products of the adapters. The copy costs half of the backbone's memory and decodes
several times as fast on a CPU. The policy itself computes the log-probabilities of the sampled
answers again; the mean difference is logged as `drift`.
"""

from __future__ import annotations

import copy
from typing import Any

import torch

from truing.hf.loading import make_lm_head_contiguous
from truing.train.frozen_base import dense_weight


class RolloutModel:
    """A plain copy of a PEFT model's base; `sync` merges the current adapter weights into it."""

    def __init__(self, peft_model: Any, dtype: torch.dtype) -> None:
        self.base = peft_model.get_base_model()
        config = copy.deepcopy(self.base.config)
        device = next(self.base.parameters()).device
        self.model = type(self.base)(config).to(device=device, dtype=dtype)
        self.model.eval().requires_grad_(False)
        self.model.generation_config = self.base.generation_config
        make_lm_head_contiguous(self.model)
        self._copy_unadapted_weights()
        self._restore_buffers()

    def _restore_buffers(self) -> None:
        """Gives the copy the buffers of the base in their own dtype.

        Above all the frequencies of rotary embeddings: in bfloat16 they have 3 digits, and
        positions are multiplied by them.
        """
        named_buffers = self.base.named_buffers(remove_duplicate=False)
        buffers = {name: buffer.clone() for name, buffer in named_buffers}
        for name, module in self.model.named_modules():
            for key in list(module._buffers):
                full_name = f"{name}.{key}" if name else key
                if full_name in buffers:
                    module._buffers[key] = buffers[full_name]

    @torch.no_grad()
    def _copy_unadapted_weights(self) -> None:
        """Copies the weights without an adapter (embeddings, norms); they never change."""
        targets = dict(self.model.named_parameters())
        for name, parameter in self.base.named_parameters():
            if ".base_layer." not in name and ".lora_" not in name:
                targets[name].copy_(parameter)

    @torch.no_grad()
    def sync(self, adapter: str) -> Any:
        """Writes W + ΔW of the named adapter into the copy, and returns the copy."""
        targets = dict(self.model.named_parameters())
        for name, layer in self.base.named_modules():
            if not hasattr(layer, "get_delta_weight"):
                continue
            weight = dense_weight(layer.base_layer)
            if adapter in layer.lora_A:
                weight = weight + layer.get_delta_weight(adapter)
            targets[f"{name}.weight"].copy_(weight)
            if layer.base_layer.bias is not None:
                targets[f"{name}.bias"].copy_(layer.base_layer.bias)
        return self.model
