"""A BERT body for inference: the numbers of transformers' BertModel with a third of the calls.

Queries, keys and values come from one matrix product, no mask is built where there is no padding,
and nothing is recorded for gradients. After Devlin et al. 2019 (BERT, arXiv:1810.04805), with
absolute positions and GELU, which is what all-MiniLM-L6-v2 has.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class HiddenStates(tuple[Tensor, ...]):
    """The embeddings and the output of each layer, also under transformers' attribute name."""

    @property
    def hidden_states(self) -> tuple[Tensor, ...]:
        """The tuple itself."""
        return self


def supports_fast_bert(body: Any) -> bool:
    """Returns whether a body is the plain encoder that `FastBert` computes."""
    config = body.config
    return (
        config.model_type == "bert"
        and config.hidden_act == "gelu"
        and not getattr(config, "is_decoder", False)
        and getattr(config, "position_embedding_type", "absolute") == "absolute"
        and hasattr(body, "encoder")
    )


class FastBert(nn.Module):
    """Takes over the weights of a `BertModel` and is called like it."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.config = body.config
        embeddings = body.embeddings
        self.word_embeddings = embeddings.word_embeddings
        self.position_embeddings = embeddings.position_embeddings
        self.segment_embeddings = embeddings.token_type_embeddings
        self.norm = embeddings.LayerNorm
        heads = int(body.config.num_attention_heads)
        self.layers = nn.ModuleList(_FastBertLayer(layer, heads) for layer in body.encoder.layer)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, **_: Any
    ) -> HiddenStates:
        """Returns the hidden states of `[B, T]` ids, mask (1 = real token) and segments."""
        width = input_ids.shape[1]
        x = self.word_embeddings(input_ids)
        x = x + self.position_embeddings.weight[:width] + self.segment_embeddings(token_type_ids)
        x = self.norm(x)
        # Without a mask scaled_dot_product_attention takes its fastest kernel.
        mask = None
        if not bool(attention_mask.all()):
            mask = torch.zeros(attention_mask.shape, dtype=x.dtype, device=x.device)
            mask = mask.masked_fill(attention_mask == 0, torch.finfo(x.dtype).min)
            mask = mask[:, None, None, :]
        states = [x]
        for layer in self.layers:
            x = layer(x, mask)
            states.append(x)
        return HiddenStates(states)


class _FastBertLayer(nn.Module):
    def __init__(self, layer: Any, heads: int) -> None:
        super().__init__()
        attention = layer.attention.self
        projections = (attention.query, attention.key, attention.value)
        self.heads = heads
        self.qkv_weight = nn.Parameter(torch.cat([p.weight for p in projections]).detach())
        self.qkv_bias = nn.Parameter(torch.cat([p.bias for p in projections]).detach())
        self.attention_output = layer.attention.output.dense
        self.attention_norm = layer.attention.output.LayerNorm
        self.mlp_up = layer.intermediate.dense
        self.mlp_down = layer.output.dense
        self.mlp_norm = layer.output.LayerNorm

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        batch, length, size = x.shape
        qkv = F.linear(x, self.qkv_weight, self.qkv_bias)
        qkv = qkv.view(batch, length, 3, self.heads, size // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, heads, T, head size]
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        attended = attended.transpose(1, 2).reshape(batch, length, size)
        x = self.attention_norm(self.attention_output(attended) + x)
        output: Tensor = self.mlp_norm(self.mlp_down(F.gelu(self.mlp_up(x))) + x)
        return output
