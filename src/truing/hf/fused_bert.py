"""The forward pass of a BERT encoder with few calls: the speed of a short text is that of calls.

The same sums as `BertModel` of transformers: query, key and value of a layer are one product, and
modules, hooks and dropout are left out. In bfloat16 results differ by its rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class FusedBert:
    """The hidden states of a BERT encoder; shares the weights of `model` but those of attention."""

    def __init__(self, model: Any) -> None:
        embeddings, config = model.embeddings, model.config
        self._words: Tensor = embeddings.word_embeddings.weight
        positions = embeddings.position_embeddings.weight
        # Of one segment: sentence encoders get no second one.
        self._positions: Tensor = positions + embeddings.token_type_embeddings.weight[0]
        self._first_norm = _weights(embeddings.LayerNorm)
        self._heads, self._epsilon = config.num_attention_heads, config.layer_norm_eps
        self._layers = [_layer_weights(layer) for layer in model.encoder.layer]

    @staticmethod
    def fits(model: Any) -> bool:
        """Returns whether a model is of the form that is computed here."""
        config = model.config
        return (
            type(model).__name__ == "BertModel"
            and config.hidden_act == "gelu"
            and not config.is_decoder
            and getattr(config, "position_embedding_type", "absolute") in (None, "absolute")
        )

    def __call__(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        """Returns the last hidden states, `[B, T, D]`, of token ids and their mask, `[B, T]`."""
        rows, length = ids.shape
        hidden = self._normalize(
            functional.embedding(ids, self._words) + self._positions[:length], *self._first_norm
        )
        size = hidden.shape[-1]
        attention_mask = None if mask is None else mask.bool()[:, None, None, :]
        for projection, output, first_norm, inner, outer, second_norm in self._layers:
            parts = functional.linear(hidden, *projection)
            query, key, value = parts.view(rows, length, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
            attended = functional.scaled_dot_product_attention(
                query, key, value, attn_mask=attention_mask
            )
            attended = attended.transpose(1, 2).reshape(rows, length, size)
            hidden = self._normalize(hidden + functional.linear(attended, *output), *first_norm)
            expanded = functional.gelu(functional.linear(hidden, *inner))
            hidden = self._normalize(hidden + functional.linear(expanded, *outer), *second_norm)
        return hidden

    def _normalize(self, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.layer_norm(hidden, weight.shape, weight, bias, self._epsilon)


def _weights(module: Any) -> tuple[Tensor, Tensor]:
    return module.weight, module.bias


def _layer_weights(layer: Any) -> tuple[tuple[Tensor, Tensor], ...]:
    """Returns the weights and biases of a layer's products and norms, in their order."""
    attention = layer.attention
    projections = [getattr(attention.self, name) for name in ("query", "key", "value")]
    return (
        (
            torch.cat([module.weight for module in projections]),
            torch.cat([module.bias for module in projections]),
        ),
        _weights(attention.output.dense),
        _weights(attention.output.LayerNorm),
        _weights(layer.intermediate.dense),
        _weights(layer.output.dense),
        _weights(layer.output.LayerNorm),
    )
