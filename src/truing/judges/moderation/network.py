"""The network of a moderation classifier: a transformer body, layer mix, pooling, a linear head.

The outputs of all layers are mixed by learned weights (Peters et al. 2018, ELMo, arXiv:1802.05365).
The mix is pooled three ways: at the first token (at the last one, for a language model), as the
mean over the prompt, and as the mean over the response. The layers of a language model are first
scaled to one size; those whose mix logit is `UNUSED_LAYER_LOGIT` are not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from truing.judges.moderation.causal_layers import (
    layer_states,
    rms_normalise,
    supports_layerwise_forward,
)
from truing.judges.moderation.kept_states import KeptKeys
from truing.judges.moderation.settings import MODERATION_QUESTIONS

UNUSED_LAYER_LOGIT = -1e4  # its softmax weight is exactly 0


class ModerationNetwork(nn.Module):
    """Returns the logits of the three questions, then those of the categories.

    The names of `body`, `mix` and `head` are keys of checkpoints and of `head.safetensors`.
    """

    def __init__(self, body: Any, categories: int, *, causal: bool = False) -> None:
        super().__init__()
        self.body = body
        self.causal = causal
        config = body.config
        if hasattr(config, "get_text_config"):
            config = config.get_text_config()
        size = int(config.hidden_size)
        self.mix = nn.Parameter(torch.zeros(int(config.num_hidden_layers) + 1))
        with torch.no_grad():
            self.mix[-1] = 2.0  # the last layer is the best single one, so training starts near it
        self.head = nn.Linear(3 * size, len(MODERATION_QUESTIONS) + categories)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, ids: Tensor, segments: Tensor, mask: Tensor, lower: Tensor | None = None
    ) -> Tensor:
        """Returns `[B, 3 + categories]` logits in float32; the arguments are those of `pooled`."""
        return self.classify(self._mixed_layers(ids, segments, mask, lower), segments, mask)

    def classify(self, hidden: Tensor, segments: Tensor, mask: Tensor) -> Tensor:
        """Returns `[B, 3 + categories]` logits in float32 of mixed layers `[B, T, hidden]`."""
        pooled = self._pool(hidden, segments, mask)
        # The head is small, and thresholds depend on its exact values: no autocast here.
        with torch.autocast(pooled.device.type, enabled=False):
            return nn.functional.linear(pooled, self.head.weight.float(), self.head.bias.float())

    @property
    def keeps_states(self) -> bool:
        """Whether `mixed_states` can be used: the body is causal and runs layer by layer."""
        is_fast = hasattr(self.body, "layer_states")
        return self.causal and (is_fast or supports_layerwise_forward(self.body))

    def mixed_states(self, ids: Tensor, kept_keys: KeptKeys) -> Tensor:
        """Returns the mixed layers `[1, T, hidden]` of `ids`, which follow the cached tokens.

        Only for networks with `keeps_states`. The keys and values of `ids` are added to the cache.
        """
        if hasattr(self.body, "layer_states"):  # a FastLlama
            states = self.body.layer_states(ids, kept_keys)
        else:
            states = layer_states(self.body, ids, kept_keys=kept_keys)
        first = self.first_used
        return self._mix(states[first:], torch.softmax(self.mix.float(), 0)[first:])

    def pooled(
        self, ids: Tensor, segments: Tensor, mask: Tensor, lower: Tensor | None = None
    ) -> Tensor:
        """Returns `[B, 3 * hidden]` features in float32.

        All of `ids`, `segments` (1 in the response) and `mask` (1 at real tokens) are `[B, T]`.
        `lower` is the output of the unused layers of a language model
        (`causal_layers.layer_states`), where it has been computed before.
        """
        return self._pool(self._mixed_layers(ids, segments, mask, lower), segments, mask)

    def _pool(self, hidden: Tensor, segments: Tensor, mask: Tensor) -> Tensor:
        """Returns the features `[B, 3 * hidden]`: a summary token and the mean of each segment."""
        is_real = mask.float()
        if self.causal:
            # Only the last token of a row has attended to all others.
            last = (is_real * torch.arange(mask.shape[1], device=mask.device)).argmax(1)
            summary = hidden[torch.arange(len(mask), device=mask.device), last]
        else:
            summary = hidden[:, 0]
        features = [summary]
        for segment in (0, 1):
            weight = is_real * (segments == segment)
            total = (hidden * weight.unsqueeze(-1)).sum(1)
            features.append(total / weight.sum(1, keepdim=True).clamp(min=1.0))
        return torch.cat(features, 1)

    @property
    def first_used(self) -> int:
        """The first layer whose output has a part in the mix."""
        return int((self.mix.detach() <= UNUSED_LAYER_LOGIT / 2).sum())

    def freeze(self, layers: int) -> None:
        """Takes the embeddings and the first layers' outputs out of the mix.

        What the first `layers` layers compute for a row can then be cached.
        """
        with torch.no_grad():
            self.mix[:layers] = UNUSED_LAYER_LOGIT

    def _mixed_layers(
        self, ids: Tensor, segments: Tensor, mask: Tensor, lower: Tensor | None
    ) -> Tensor:
        weights = torch.softmax(self.mix.float(), 0)
        layers: Sequence[Tensor]
        if self.causal:
            first = self.first_used
            weights = weights[first:]
            layers = self._causal_layers(ids, mask, lower, first)
        else:
            layers = self.body(
                input_ids=ids,
                attention_mask=mask,
                output_hidden_states=True,
                token_type_ids=segments,
            ).hidden_states
        return self._mix(layers, weights)

    def _mix(self, layers: Sequence[Tensor], weights: Tensor) -> Tensor:
        """Returns the weighted sum of the normalised layers."""
        normalise = rms_normalise if self.causal else torch.Tensor.float
        hidden = normalise(layers[0]) * weights[0]
        for weight, layer in zip(weights[1:], layers[1:]):
            hidden = torch.addcmul(hidden, normalise(layer), weight)
        return hidden

    def _causal_layers(
        self, ids: Tensor, mask: Tensor, lower: Tensor | None, first: int
    ) -> list[Tensor]:
        """Returns the outputs of the layers from `first` on."""
        if hasattr(self.body, "layer_states"):  # a FastLlama
            states: list[Tensor] = self.body.layer_states(ids)
            return states[first:]
        if supports_layerwise_forward(self.body):
            if lower is not None:
                return layer_states(self.body, ids, lower=lower, start=first)
            return layer_states(self.body, ids)[first:]
        output = self.body(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        return list(output.hidden_states[first:])
