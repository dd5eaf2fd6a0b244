"""The network: an encoder (or the body of a language model), pooled over layers and tokens, and one linear head.

The layers' outputs are mixed by learned weights (Peters et al. 2018, ELMo, arXiv:1802.05365), the mix is pooled three
ways: at the first token (the last of a language model), as the mean of the prompt, as the mean of the response.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

EXTRA = ("harmful", "harmful_prompt", "refused")


class Network(nn.Module):
    """`outputs` logits of a batch: harmful, harmful_prompt, refused, then the categories."""

    def __init__(self, body: Any, categories: int, *, causal: bool = False) -> None:
        super().__init__()
        self.body = body
        self.causal = causal
        config = body.config.get_text_config() if hasattr(body.config, "get_text_config") else body.config
        size = int(config.hidden_size)
        self.mix = nn.Parameter(torch.zeros(int(config.num_hidden_layers) + 1))
        with torch.no_grad():
            self.mix[-1] = 2.0
        self.head = nn.Linear(3 * size, len(EXTRA) + categories)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def pooled(self, ids: Tensor, segments: Tensor, mask: Tensor) -> Tensor:
        """`[B, 3 * hidden]` features in float32; `mask` is 1 at real tokens, `segments` 1 in the response."""
        given: dict[str, Any] = {} if self.causal else {"token_type_ids": segments}
        out = self.body(input_ids=ids, attention_mask=mask, output_hidden_states=True, **given)
        weights = torch.softmax(self.mix.float(), 0)
        layers: tuple[Tensor, ...] = out.hidden_states
        hidden = layers[0].float() * weights[0]
        for weight, layer in zip(weights[1:], layers[1:]):
            hidden = torch.addcmul(hidden, layer.float(), weight)
        real = mask.float()
        if self.causal:
            last = (real * torch.arange(ids.shape[1], device=ids.device)).argmax(1)
            first = hidden[torch.arange(len(ids), device=ids.device), last]
        else:
            first = hidden[:, 0]
        parts = [first]
        for segment in (0, 1):
            weight = real * (segments == segment)
            parts.append((hidden * weight.unsqueeze(-1)).sum(1) / weight.sum(1, keepdim=True).clamp(min=1.0))
        return torch.cat(parts, 1)

    def forward(self, ids: Tensor, segments: Tensor, mask: Tensor) -> Tensor:
        """`[B, 3 + categories]` logits in float32."""
        pooled = self.pooled(ids, segments, mask)
        with torch.autocast(pooled.device.type, enabled=False):  # the head is small, and thresholds hang on it
            return nn.functional.linear(pooled, self.head.weight.float(), self.head.bias.float())
