"""The body of a causal language model as a text encoder: its first layers, run one by one.

Under causal attention a token attends to nothing on its right, so rows that are padded on the right
need no mask. And what the lower layers compute for a row does not change while only upper layers
are trained, so it can be computed once and cached.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from truing.hf.loading import cache_argument
from truing.judges.moderation.kept_states import KeptKeys, causal_mask

LAYERWISE_MODEL_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3"})


def unwrap_adapters(body: Any) -> Any:
    """Returns the body inside a peft wrapper; the adapters in its layers stay active."""
    return body.get_base_model() if hasattr(body, "get_base_model") else body


def supports_layerwise_forward(body: Any) -> bool:
    """Returns whether the layers can be called one by one.

    They can for models with rotary positions and the same attention in every layer.
    """
    model = unwrap_adapters(body)
    return (
        model.config.model_type in LAYERWISE_MODEL_TYPES
        and hasattr(model, "layers")
        and hasattr(model, "rotary_emb")
    )


def layer_states(
    body: Any,
    ids: Tensor,
    *,
    lower: Tensor | None = None,
    start: int = 0,
    stop: int | None = None,
    kept_keys: KeptKeys | None = None,
) -> list[Tensor]:
    """Returns the residual stream `[B, T, hidden]` before layer `start` and after each layer.

    `lower` is the stream before layer `start`, from an earlier call; without it `start` must be 0
    and the embeddings are computed. `stop` is the first layer that is not run. `kept_keys`
    is the cache of the tokens before `ids`; the keys and values of `ids` are appended to it.
    """
    model = unwrap_adapters(body)
    x = model.embed_tokens(ids) if lower is None else lower
    first = kept_keys.length if kept_keys is not None else 0  # position of the first new token
    positions = torch.arange(first, first + ids.shape[1], device=ids.device).unsqueeze(0)
    cos_and_sin = model.rotary_emb(x, positions)
    options: dict[str, Any] = {}
    if kept_keys is not None:
        options[cache_argument(model.layers[0])] = kept_keys
    mask = causal_mask(ids.shape[1], first, ids.device)
    states = [x]
    for layer in model.layers[start:stop]:
        output = layer(
            x,
            attention_mask=mask,
            position_ids=positions,
            position_embeddings=cos_and_sin,
            **options,
        )
        # Versions of transformers differ: a tensor, or a tuple that begins with it.
        x = output if isinstance(output, Tensor) else output[0]
        states.append(x)
    return states


def rms_normalise(x: Tensor) -> Tensor:
    """Scales each token's vector to a root mean square of 1, in float32.

    The residual stream grows from layer to layer; without this the last layers dominate a mix.
    """
    x = x.float()
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
