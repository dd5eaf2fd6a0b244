"""A Llama body for inference: fused projections, the residual stream in float32.

After Touvron et al. 2023 (arXiv:2302.13971). Only the matrix products run in the narrow dtype:
sums over 24 layers in bfloat16 would move probabilities by more than a hundredth.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from truing.judges.moderation.causal_layers import unwrap_adapters
from truing.judges.moderation.kept_states import KeptKeys, causal_mask


def supports_fast_llama(body: Any) -> bool:
    """Returns whether a body is a plain Llama: SiLU, no biases, no adapters."""
    config = unwrap_adapters(body).config
    return (
        config.model_type == "llama"
        and config.hidden_act == "silu"
        and not hasattr(body, "get_base_model")
        and not getattr(config, "attention_bias", False)
        and not getattr(config, "mlp_bias", False)
    )


class FastLlama(nn.Module):
    """Takes over the weights of a `LlamaModel`, with its matrix products in `dtype`."""

    def __init__(self, body: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.config = body.config
        self.embed_tokens, self.rotary_emb = body.embed_tokens, body.rotary_emb
        self.layers = nn.ModuleList(
            _FastLlamaLayer(layer, body.config, dtype) for layer in body.layers
        )

    def layer_states(self, ids: Tensor, kept_keys: KeptKeys | None = None) -> list[Tensor]:
        """Returns the embeddings and the residual stream after each layer.

        Each is float32 `[B, T, hidden]`. Rows must be padded on the right: padding is not
        masked. `kept_keys` is the cache of the tokens before `ids` (only for B = 1); the keys and
        values of `ids` are appended to it.
        """
        x = self.embed_tokens(ids).float()
        first = kept_keys.length if kept_keys is not None else 0  # position of the first new token
        positions = torch.arange(first, first + ids.shape[1], device=ids.device).unsqueeze(0)
        cos, sin = self.rotary_emb(x, positions)
        mask = causal_mask(ids.shape[1], first, ids.device)
        states = [x]
        for index, layer in enumerate(self.layers):
            update = None if kept_keys is None else partial(kept_keys.update, layer_idx=index)
            x = layer(x, cos.unsqueeze(1), sin.unsqueeze(1), update, mask)
            states.append(x)
        return states


def _rotate_half(x: Tensor) -> Tensor:
    left, right = x.chunk(2, -1)
    return torch.cat((-right, left), -1)


def _frozen_float(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach().float(), requires_grad=False)


class _FastLlamaLayer(nn.Module):
    def __init__(self, layer: Any, config: Any, dtype: torch.dtype) -> None:
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        self.head_dim = int(attention.head_dim)
        self.heads, self.kv_heads = int(config.num_attention_heads), int(config.num_key_value_heads)
        self.eps = float(config.rms_norm_eps)

        def fuse(*projections: nn.Linear) -> nn.Parameter:
            weight = torch.cat([p.weight for p in projections])
            return nn.Parameter(weight.detach().to(dtype), requires_grad=False)

        self.qkv = fuse(attention.q_proj, attention.k_proj, attention.v_proj)
        self.attention_output = fuse(attention.o_proj)
        self.gate_and_up = fuse(mlp.gate_proj, mlp.up_proj)
        self.down = fuse(mlp.down_proj)
        self.attention_norm = _frozen_float(layer.input_layernorm.weight)
        self.mlp_norm = _frozen_float(layer.post_attention_layernorm.weight)

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        update_cache: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        batch, length, size = x.shape
        dtype = self.qkv.dtype

        normalised = F.rms_norm(x, (size,), self.attention_norm, self.eps).to(dtype)
        qkv = F.linear(normalised, self.qkv).view(batch, length, -1, self.head_dim).transpose(1, 2)
        q, k, v = qkv.split((self.heads, self.kv_heads, self.kv_heads), 1)
        q, k = ((y.float() * cos + _rotate_half(y.float()) * sin).to(dtype) for y in (q, k))
        if update_cache is not None:
            k, v = update_cache(k, v)  # those of the cached and the new tokens
        attended = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=mask is None,
            enable_gqa=self.kv_heads != self.heads,
        )
        attended = attended.transpose(1, 2).reshape(batch, length, -1)
        x = x + F.linear(attended, self.attention_output)

        normalised = F.rms_norm(x, (size,), self.mlp_norm, self.eps).to(dtype)
        gate, up = F.linear(normalised, self.gate_and_up).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.down)
