"""A language model's body as a reader: its first layers alone, one by one, without the masks of generation.

Under causal attention a token sees nothing to its right, so rows padded on the right need no mask; and what the lower
layers make of a row does not change while only upper layers learn, so that it can be computed once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

LAYERWISE_MODEL_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3"})


def unwrap_adapters(body: Any) -> Any:
    """The body under its adapters, if it has any; they stay where they are."""
    return body.get_base_model() if hasattr(body, "get_base_model") else body


def supports_layerwise_forward(body: Any) -> bool:
    """Whether the layers can be called one by one: rotary positions, the same attention in every layer."""
    found = unwrap_adapters(body)
    return (
        found.config.model_type in LAYERWISE_MODEL_TYPES
        and hasattr(found, "layers")
        and hasattr(found, "rotary_emb")
    )


def truncate_layers(body: Any, layers: int) -> Any:
    """The body with its first `layers` layers alone (0 = all)."""
    if layers and layers < len(body.layers):
        body.layers = nn.ModuleList(body.layers[:layers])
        body.config.num_hidden_layers = layers
        if getattr(body.config, "layer_types", None):
            body.config.layer_types = body.config.layer_types[:layers]
    return body


def layer_states(
    body: Any, ids: Tensor, *, lower: Tensor | None = None, start: int = 0, stop: int | None = None
) -> list[Tensor]:
    """The residual stream `[B, T, hidden]` before layer `start` and after each layer up to `stop`.

    `lower` is the stream before layer `start`, as an earlier call gave it; without it the embeddings stand there.
    """
    found = unwrap_adapters(body)
    x = found.embed_tokens(ids) if lower is None else lower
    places = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0)
    turn = found.rotary_emb(x, places)
    made = [x]
    for layer in found.layers[start:stop]:
        out = layer(x, attention_mask=None, position_ids=places, position_embeddings=turn)
        x = out if isinstance(out, Tensor) else out[0]
        made.append(x)
    return made


def rms_normalise(x: Tensor) -> Tensor:
    """Each token's vector at a root mean square of 1, in float32: the residual stream grows from layer to layer."""
    wide = x.float()
    return wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
