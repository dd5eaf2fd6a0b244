"""Attention over packed token rows: no padding in the model's matrix products, a shared prefix
computed once.

A forward pass gets one row of tokens, `[1, T]`, whatever sequences they belong to. The projections,
norms and MLPs of any transformers model work token by token, so they need nothing else; only
attention must know which tokens see which. It is registered with transformers under the name
``truing`` and calls the current `AttentionStep`. Outside of a step it is transformers' own scaled
dot-product attention, so a model loaded this way still trains and has its own `generate`.

A prefix shared by many rows is one block of keys and values. Attention over it and over a row's own
block are computed separately and joined by their log-sum-exp, which is exact (Juravsky et al. 2024,
Hydragen, arXiv:2402.05099).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

ATTENTION_NAME = "truing"
MASK_VALUE = -1e30  # finite: a wholly masked block must give no NaN, only no weight
# Thread-local: two models may run in two threads, and the step reaches the layers through here
# because transformers passes the attention function no arguments of ours.
_state = threading.local()


class AttentionStep(Protocol):
    """One forward pass over packed tokens."""

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions
    ) -> Tensor:
        """`q` `[H, T, D]`, `k` and `v` `[Hkv, T, D]` to `[T, H, D]`."""
        ...


@dataclass(frozen=True)
class AttentionOptions:
    """The settings of a layer."""

    scale: float
    window: int | None = None
    softcap: float | None = None


@dataclass
class PrefixBlock:
    """Keys and values of a shared prefix, `[1, Hkv, P, D]` for each layer."""

    k: list[Tensor]
    v: list[Tensor]

    @property
    def length(self) -> int:
        """Tokens in the block."""
        return int(self.k[0].shape[2]) if self.k else 0

    @property
    def bytes(self) -> int:
        """Its size in bytes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (*self.k, *self.v))

    def then(self, k: Sequence[Tensor], v: Sequence[Tensor]) -> PrefixBlock:
        """Returns this block with more tokens after it (`[Hkv, T, D]` for each layer)."""
        return PrefixBlock(
            [torch.cat((a, b.unsqueeze(0)), 2) for a, b in zip(self.k, k)],
            [torch.cat((a, b.unsqueeze(0)), 2) for a, b in zip(self.v, v)],
        )


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    options: AttentionOptions,
    *,
    causal: bool = False,
) -> tuple[Tensor, Tensor]:
    """Returns the attention of `[B, H, t, D]` on `[B, H, L, D]` and the log-sum-exp of its scores
    `[B, H, t]`.
    """
    # The public scaled_dot_product_attention returns no log-sum-exp; this operator does.
    # Soft-capping comes between scores and softmax, so it needs the explicit form.
    if q.device.type == "cpu" and options.softcap is None:
        out = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, causal, attn_mask=bias, scale=options.scale
        )
        return out[0], out[1]
    scores = torch.matmul(q, k.transpose(-1, -2)).float() * options.scale
    if options.softcap is not None:
        # Before the mask: tanh would bring a masked score back to -softcap.
        scores = options.softcap * torch.tanh(scores / options.softcap)
    if causal:
        length, width = scores.shape[-2:]
        scores = scores.masked_fill(
            torch.ones(length, width, dtype=torch.bool, device=q.device).triu(1), MASK_VALUE
        )
    if bias is not None:
        scores = scores + bias
    lse = torch.logsumexp(scores, dim=-1)
    return torch.matmul((scores - lse.unsqueeze(-1)).exp().to(v.dtype), v), lse


def merge_attention(out: Tensor, lse: Tensor, prefix_output: Tensor, prefix_lse: Tensor) -> Tensor:
    """Merges attentions of the same queries over disjoint keys, weighted by their shares of the
    score mass.
    """
    # e^b / (e^a + e^b) = sigmoid(b - a), which cannot overflow.
    share = torch.sigmoid(prefix_lse - lse).unsqueeze(-1)
    return torch.lerp(out.float(), prefix_output.float(), share).to(out.dtype)


def attend_prefix(
    q: Tensor, block: PrefixBlock, layer: int, options: AttentionOptions, at: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the attention of all queries `[H, n, D]` over a shared block: `[n, H, D]` and `[n,
    H]`.

    Heads that share keys are folded into the query length, so each key is read once. `at` holds the
    positions of the queries, for sliding windows.
    """
    heads, n, dim = q.shape
    k, v = block.k[layer], block.v[layer]
    kv = k.shape[1]
    # Grouped-query heads that share a key head are consecutive, so a reshape groups them.
    folded = q.reshape(1, kv, (heads // kv) * n, dim)
    bias = None
    if options.window is not None and int(at.max()) >= options.window:
        out_of_window = (
            at[:, None] - torch.arange(block.length, device=q.device)[None] >= options.window
        )
        bias = (out_of_window * MASK_VALUE).to(q.dtype).repeat(heads // kv, 1)[None, None]
    out, lse = attend(folded, k, v, bias, options)
    return out.reshape(heads, n, dim).transpose(0, 1), lse.reshape(heads, n).transpose(0, 1)


@dataclass
class SegmentGroup:
    """Segments of similar length: token indexes `[B, t]`, which of them are real, and which see
    which.
    """

    index: Tensor
    real: Tensor
    sees: Tensor | None = None  # [B, t, t] bool; none = each token sees those before it

    def __post_init__(self) -> None:
        self._rows = self.index[self.real]
        self._bias: dict[tuple[torch.dtype, int | None], Tensor | None] = {}

    @property
    def rows(self) -> Tensor:
        """The indexes of the real tokens, flat."""
        return self._rows

    def bias(self, dtype: torch.dtype, at: Tensor, window: int | None) -> Tensor | None:
        """Returns the additive mask `[B, 1, t, t]`; None for plain causal attention."""
        # A window that no pair of tokens exceeds needs no mask; plain causal attention is faster.
        limit = window if window is not None and self.index.shape[1] > window else None
        key = (dtype, limit)
        if key not in self._bias:
            if self.sees is None and limit is None:
                self._bias[key] = None
            else:
                length = self.index.shape[1]
                sees = self.sees
                if sees is None:
                    sees = torch.ones(
                        length, length, dtype=torch.bool, device=self.index.device
                    ).tril()[None]
                if limit is not None:
                    # Distances between positions, not between columns: in a token tree they
                    # differ.
                    positions = at[self.index]
                    sees = sees & (positions[:, :, None] - positions[:, None, :] < limit)
                self._bias[key] = torch.where(sees, 0.0, MASK_VALUE).to(dtype).unsqueeze(1)
        return self._bias[key]


@dataclass
class PackedStep:
    """A forward pass over new tokens: groups of segments, optionally behind one shared block.

    With `keep` it collects the keys and values of the new tokens in `k` and `v`.
    """

    groups: Sequence[SegmentGroup]
    at: Tensor
    block: PrefixBlock | None = None
    keep: bool = False
    k: list[Tensor] = field(default_factory=list)
    v: list[Tensor] = field(default_factory=list)

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions
    ) -> Tensor:
        """See `AttentionStep`."""
        if self.keep:
            self.k.append(k)
            self.v.append(v)
        heads, total, dim = q.shape
        out = q.new_empty(total, heads, dim)
        lse = torch.empty(total, heads, dtype=torch.float32, device=q.device)
        for group in self.groups:
            bias = group.bias(q.dtype, self.at, options.window)
            qs, ks, vs = (_gather(x, group.index, heads) for x in (q, k, v))
            # The mask already holds causality, so the two are never combined.
            output, group_lse = attend(qs, ks, vs, bias, options, causal=bias is None)
            out[group.rows] = output.transpose(1, 2)[group.real]
            lse[group.rows] = group_lse.transpose(1, 2)[group.real]
        if self.block is not None and self.block.length:
            prefix_output, prefix_lse = attend_prefix(q, self.block, layer, options, self.at)
            out = merge_attention(out, lse, prefix_output, prefix_lse)
        return out


def _gather(x: Tensor, index: Tensor, heads: int) -> Tensor:
    """`[Hx, T, D]` to `[B, heads, t, D]`."""
    rows = x[:, index].transpose(0, 1)
    # Grouped-query attention: each key head is repeated for the query heads that share it.
    return rows if rows.shape[1] == heads else rows.repeat_interleave(heads // rows.shape[1], dim=1)


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """The attention function that transformers calls in each layer."""
    step: AttentionStep | None = getattr(_state, "step", None)
    if step is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        output: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **kwargs
        )
        return output
    scaling = kwargs.get("scaling")
    options = AttentionOptions(
        scale=float(scaling) if scaling is not None else query.shape[-1] ** -0.5,
        window=kwargs.get("sliding_window"),
        softcap=kwargs.get("softcap"),
    )
    return step.attend(module.layer_idx, query[0], key[0], value[0], options).unsqueeze(0), None


def register_attention() -> str:
    """Registers the attention with transformers; returns its name."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(ATTENTION_NAME, attention)
    # Without a mask function of the same name transformers would build no mask for the calls
    # outside of a step.
    AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
    return ATTENTION_NAME


@contextmanager
def use_step(step: AttentionStep) -> Iterator[None]:
    """Context in which the attention layers call `step`."""
    _state.step = step
    try:
        yield
    finally:
        _state.step = None
