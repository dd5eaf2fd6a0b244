"""A BERT body for inference alone: the same numbers as transformers' with a third of the calls.

Queries, keys and values come from one matrix product, no mask is made where there is no padding, nothing is recorded.
After Devlin et al. 2019 (BERT, arXiv:1810.04805); absolute positions and GELU, which is what all-MiniLM-L6-v2 has.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class HiddenStates(tuple[Tensor, ...]):
    """The outputs of all layers, the embeddings' first; also under the name that transformers gives them."""

    @property
    def hidden_states(self) -> tuple[Tensor, ...]:
        """Itself."""
        return self


def supports_fast_bert(body: Any) -> bool:
    """Whether a body is the plain encoder that this module knows."""
    config = body.config
    return (
        config.model_type == "bert"
        and config.hidden_act == "gelu"
        and not getattr(config, "is_decoder", False)
        and getattr(config, "position_embedding_type", "absolute") == "absolute"
        and hasattr(body, "encoder")
    )


class FastBert(nn.Module):
    """Takes over the weights of a `BertModel`; call it as that."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.config = body.config
        self.heads = int(body.config.num_attention_heads)
        self.eps = float(body.config.layer_norm_eps)
        e = body.embeddings
        self.words, self.places, self.kinds = (
            e.word_embeddings,
            e.position_embeddings,
            e.token_type_embeddings,
        )
        self.norm = e.LayerNorm
        self.layers = nn.ModuleList(_Layer(layer, self.heads) for layer in body.encoder.layer)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, **_: Any
    ) -> HiddenStates:
        """`[B, T]` ids, mask (1 = real) and segments to the hidden states of every layer."""
        width = input_ids.shape[1]
        x = self.words(input_ids) + self.places.weight[:width] + self.kinds(token_type_ids)
        x = self.norm(x)
        mask = None
        if not bool(attention_mask.all()):
            mask = torch.zeros(attention_mask.shape, dtype=x.dtype, device=x.device)
            mask = mask.masked_fill(attention_mask == 0, torch.finfo(x.dtype).min)[:, None, None, :]
        made = [x]
        for layer in self.layers:
            x = layer(x, mask)
            made.append(x)
        return HiddenStates(made)


class _Layer(nn.Module):
    def __init__(self, layer: Any, heads: int) -> None:
        super().__init__()
        own = layer.attention.self
        self.heads = heads
        self.weight = nn.Parameter(
            torch.cat([own.query.weight, own.key.weight, own.value.weight]).detach()
        )
        self.bias = nn.Parameter(torch.cat([own.query.bias, own.key.bias, own.value.bias]).detach())
        self.out, self.norm = layer.attention.output.dense, layer.attention.output.LayerNorm
        self.up, self.down, self.last = (
            layer.intermediate.dense,
            layer.output.dense,
            layer.output.LayerNorm,
        )

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        b, t, size = x.shape
        q, k, v = (
            F.linear(x, self.weight, self.bias)
            .view(b, t, 3, self.heads, size // self.heads)
            .permute(2, 0, 3, 1, 4)
        )
        seen = (
            F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            .transpose(1, 2)
            .reshape(b, t, size)
        )
        x = self.norm(self.out(seen) + x)
        made: Tensor = self.last(self.down(F.gelu(self.up(x))) + x)
        return made
