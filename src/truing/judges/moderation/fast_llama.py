"""A Llama body for inference alone: queries, keys and values from one product, the residual stream in float32.

After Touvron et al. 2023 (arXiv:2302.13971). Only matrix products run in the narrow type; sums of 24 layers in bfloat16 would
move probabilities by more than a hundredth.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from truing.judges.moderation.causal_layers import unwrap_adapters


def supports_fast_llama(body: Any) -> bool:
    """Whether a body is the plain Llama that this module knows: SiLU, no biases, no adapters."""
    config = unwrap_adapters(body).config
    return (
        config.model_type == "llama"
        and config.hidden_act == "silu"
        and not hasattr(body, "get_base_model")
        and not getattr(config, "attention_bias", False)
        and not getattr(config, "mlp_bias", False)
    )


class FastLlama(nn.Module):
    """Takes over the weights of a `LlamaModel`, its products in `dtype`."""

    def __init__(self, body: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.config = body.config
        self.words, self.turn = body.embed_tokens, body.rotary_emb
        self.layers = nn.ModuleList(_Layer(layer, body.config, dtype) for layer in body.layers)

    def states(self, ids: Tensor) -> list[Tensor]:
        """The embeddings and the residual stream after each layer, float32 `[B, T, hidden]`; rows are padded on the right."""
        x = self.words(ids).float()
        cos, sin = self.turn(x, torch.arange(ids.shape[1], device=ids.device).unsqueeze(0))
        made = [x]
        for layer in self.layers:
            x = layer(x, cos.unsqueeze(1), sin.unsqueeze(1))
            made.append(x)
        return made


def _half_turned(x: Tensor) -> Tensor:
    left, right = x.chunk(2, -1)
    return torch.cat((-right, left), -1)


class _Layer(nn.Module):
    def __init__(self, layer: Any, config: Any, dtype: torch.dtype) -> None:
        super().__init__()
        a, m = layer.self_attn, layer.mlp
        self.size = int(a.head_dim)
        self.heads, self.groups = int(config.num_attention_heads), int(config.num_key_value_heads)
        self.eps = float(config.rms_norm_eps)

        def joined(*parts: nn.Linear) -> nn.Parameter:
            return nn.Parameter(
                torch.cat([p.weight for p in parts]).detach().to(dtype), requires_grad=False
            )

        self.reads, self.out = joined(a.q_proj, a.k_proj, a.v_proj), joined(a.o_proj)
        self.up, self.down = joined(m.gate_proj, m.up_proj), joined(m.down_proj)
        self.before = nn.Parameter(
            layer.input_layernorm.weight.detach().float(), requires_grad=False
        )
        self.between = nn.Parameter(
            layer.post_attention_layernorm.weight.detach().float(), requires_grad=False
        )

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        b, t, wide = x.shape
        kind = self.reads.dtype
        read = F.linear(F.rms_norm(x, (wide,), self.before, self.eps).to(kind), self.reads)
        q, k, v = (
            read.view(b, t, -1, self.size)
            .transpose(1, 2)
            .split((self.heads, self.groups, self.groups), 1)
        )
        q, k = ((y.float() * cos + _half_turned(y.float()) * sin).to(kind) for y in (q, k))
        seen = F.scaled_dot_product_attention(
            q, k, v, is_causal=True, enable_gqa=self.groups != self.heads
        )
        x = x + F.linear(seen.transpose(1, 2).reshape(b, t, -1), self.out)
        gate, up = F.linear(F.rms_norm(x, (wide,), self.between, self.eps).to(kind), self.up).chunk(
            2, -1
        )
        return x + F.linear(F.silu(gate) * up, self.down)
