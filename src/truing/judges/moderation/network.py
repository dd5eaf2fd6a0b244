"""The network: an encoder (or the body of a language model), pooled over layers and tokens, and one linear head.

The layers' outputs are mixed by learned weights (Peters et al. 2018, ELMo, arXiv:1802.05365), the mix is pooled three
ways: at the first token (the last of a language model), as the mean of the prompt, as the mean of the response.
A language model's layers are brought to one scale first; those with a mix of `UNUSED` have no part.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from truing.judges.moderation import causal_layers as reader

QUESTION_OUTPUTS = ("harmful", "harmful_prompt", "refused")
UNUSED_LAYER_LOGIT = -1e4  # softmax makes exactly nothing of it


class ModerationNetwork(nn.Module):
    """`outputs` logits of a batch: harmful, harmful_prompt, refused, then the categories."""

    def __init__(self, body: Any, categories: int, *, causal: bool = False) -> None:
        super().__init__()
        self.body = body
        self.causal = causal
        config = (
            body.config.get_text_config()
            if hasattr(body.config, "get_text_config")
            else body.config
        )
        size = int(config.hidden_size)
        self.mix = nn.Parameter(torch.zeros(int(config.num_hidden_layers) + 1))
        with torch.no_grad():
            self.mix[-1] = 2.0
        self.head = nn.Linear(3 * size, len(QUESTION_OUTPUTS) + categories)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def pooled(
        self, ids: Tensor, segments: Tensor, mask: Tensor, lower: Tensor | None = None
    ) -> Tensor:
        """`[B, 3 * hidden]` features in float32; `mask` is 1 at real tokens, `segments` 1 in the response.

        `lower`: what the layers without a part made of the rows (`causal.states`), of a language model alone.
        """
        hidden = self._hidden(ids, segments, mask, lower)
        real = mask.float()
        if self.causal:
            last = (real * torch.arange(ids.shape[1], device=ids.device)).argmax(1)
            first = hidden[torch.arange(len(ids), device=ids.device), last]
        else:
            first = hidden[:, 0]
        parts = [first]
        for segment in (0, 1):
            weight = real * (segments == segment)
            parts.append(
                (hidden * weight.unsqueeze(-1)).sum(1) / weight.sum(1, keepdim=True).clamp(min=1.0)
            )
        return torch.cat(parts, 1)

    def _hidden(self, ids: Tensor, segments: Tensor, mask: Tensor, lower: Tensor | None) -> Tensor:
        weights = torch.softmax(self.mix.float(), 0)
        if self.causal:
            return self._read(ids, mask, lower, weights)
        layers: tuple[Tensor, ...] = self.body(
            input_ids=ids, attention_mask=mask, output_hidden_states=True, token_type_ids=segments
        ).hidden_states
        hidden = layers[0].float() * weights[0]
        for weight, layer in zip(weights[1:], layers[1:]):
            hidden = torch.addcmul(hidden, layer.float(), weight)
        return hidden

    def _read(self, ids: Tensor, mask: Tensor, lower: Tensor | None, weights: Tensor) -> Tensor:
        used = self.first_used
        if hasattr(self.body, "states"):
            layers = self.body.states(ids)[used:]
        elif reader.supports_layerwise_forward(self.body):
            layers = reader.layer_states(
                self.body, ids, lower=lower, start=used if lower is not None else 0
            )
            layers = layers if lower is not None else layers[used:]
        else:
            layers = self.body(
                input_ids=ids, attention_mask=mask, output_hidden_states=True
            ).hidden_states[used:]
        hidden = reader.rms_normalise(layers[0]) * weights[used]
        for weight, layer in zip(weights[used + 1 :], layers[1:]):
            hidden = torch.addcmul(hidden, reader.rms_normalise(layer), weight)
        return hidden

    @property
    def first_used(self) -> int:
        """The first layer whose output has a part in the mix."""
        return int((self.mix.detach() <= UNUSED_LAYER_LOGIT / 2).sum())

    def freeze(self, layers: int) -> None:
        """Leaves the first `layers` layers' inputs out of the mix: what they make of a row can then be kept."""
        with torch.no_grad():
            self.mix[:layers] = UNUSED_LAYER_LOGIT

    def forward(
        self, ids: Tensor, segments: Tensor, mask: Tensor, lower: Tensor | None = None
    ) -> Tensor:
        """`[B, 3 + categories]` logits in float32."""
        pooled = self.pooled(ids, segments, mask, lower)
        with torch.autocast(
            pooled.device.type, enabled=False
        ):  # the head is small, and thresholds hang on it
            return nn.functional.linear(pooled, self.head.weight.float(), self.head.bias.float())
