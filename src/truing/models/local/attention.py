"""Attention over packed token rows: no padding in the model's matrix products, a shared prefix read once.

A forward pass gets one row of tokens, `[1, T]`, whatever sequences they belong to. The projections, norms and MLPs of
any transformers model work token by token, so they need nothing else; only attention must know who sees whom. It is
registered with transformers under the name ``truing`` and asks the current `Step`. Outside of a step it is
transformers' own scaled dot-product attention, so a model loaded this way still trains and has its own `generate`.

A prefix shared by many rows is one block of keys and values. Attention over it and over a row's own block are
computed apart and joined by their log-sum-exp, which is exact (Juravsky et al. 2024, Hydragen, arXiv:2402.05099).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

NAME = "truing"
LOW = -1e30  # finite: a wholly masked block must give no NaN, only no weight
_state = threading.local()


class Step(Protocol):
    """One forward pass over packed tokens."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, how: How) -> Tensor:
        """`q` `[H, T, D]`, `k` and `v` `[Hkv, T, D]` to `[T, H, D]`."""
        ...


@dataclass(frozen=True)
class How:
    """The layer's own settings."""

    scale: float
    window: int | None = None
    softcap: float | None = None


@dataclass
class Block:
    """Keys and values of a shared prefix, `[1, Hkv, P, D]` for each layer."""

    k: list[Tensor]
    v: list[Tensor]

    @property
    def length(self) -> int:
        """Tokens in the block."""
        return int(self.k[0].shape[2]) if self.k else 0

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        return sum(t.numel() * t.element_size() for t in (*self.k, *self.v))

    def then(self, k: Sequence[Tensor], v: Sequence[Tensor]) -> Block:
        """This block with more tokens after it (`[Hkv, T, D]` for each layer)."""
        return Block(
            [torch.cat((a, b.unsqueeze(0)), 2) for a, b in zip(self.k, k)],
            [torch.cat((a, b.unsqueeze(0)), 2) for a, b in zip(self.v, v)],
        )


def attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, how: How, *, causal: bool = False
) -> tuple[Tensor, Tensor]:
    """Attention of `[B, H, t, D]` on `[B, H, L, D]`, and the log-sum-exp of its scores `[B, H, t]` (float32)."""
    if q.device.type == "cpu" and how.softcap is None:
        out = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, causal, attn_mask=bias, scale=how.scale
        )
        return out[0], out[1]
    scores = torch.matmul(q, k.transpose(-1, -2)).float() * how.scale
    if how.softcap is not None:
        scores = how.softcap * torch.tanh(scores / how.softcap)
    if causal:
        t, width = scores.shape[-2:]
        scores = scores.masked_fill(
            torch.ones(t, width, dtype=torch.bool, device=q.device).triu(1), LOW
        )
    if bias is not None:
        scores = scores + bias
    lse = torch.logsumexp(scores, dim=-1)
    return torch.matmul((scores - lse.unsqueeze(-1)).exp().to(v.dtype), v), lse


def join(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> Tensor:
    """Two attentions of the same queries over disjoint keys, as one: weights are the shares of the score mass."""
    share = torch.sigmoid(other_lse - lse).unsqueeze(-1)
    return torch.lerp(out.float(), other.float(), share).to(out.dtype)


def over_block(q: Tensor, block: Block, layer: int, how: How, at: Tensor) -> tuple[Tensor, Tensor]:
    """Attention of all queries `[H, n, D]` over a shared block: `[n, H, D]` and `[n, H]`.

    Heads that share keys are folded into the query length, so each key is read once. `at` holds the positions of the
    queries, for sliding windows.
    """
    heads, n, dim = q.shape
    k, v = block.k[layer], block.v[layer]
    kv = k.shape[1]
    folded = q.reshape(1, kv, (heads // kv) * n, dim)
    bias = None
    if how.window is not None and int(at.max()) >= how.window:
        far = at[:, None] - torch.arange(block.length, device=q.device)[None] >= how.window
        bias = (far * LOW).to(q.dtype).repeat(heads // kv, 1)[None, None]
    out, lse = attend(folded, k, v, bias, how)
    return out.reshape(heads, n, dim).transpose(0, 1), lse.reshape(heads, n).transpose(0, 1)


@dataclass
class Group:
    """Some segments of similar length: their token indexes `[B, t]`, which of them are real, and who sees whom."""

    index: Tensor
    real: Tensor
    sees: Tensor | None = None  # [B, t, t] bool; none = each token sees those before it

    def __post_init__(self) -> None:
        self._rows = self.index[self.real]
        self._bias: dict[tuple[torch.dtype, int | None], Tensor | None] = {}

    @property
    def rows(self) -> Tensor:
        """The real token indexes, flat."""
        return self._rows

    def bias(self, dtype: torch.dtype, at: Tensor, window: int | None) -> Tensor | None:
        """Additive mask `[B, 1, t, t]`; none where plain causal attention is meant."""
        limit = window if window is not None and self.index.shape[1] > window else None
        key = (dtype, limit)
        if key not in self._bias:
            if self.sees is None and limit is None:
                self._bias[key] = None
            else:
                t = self.index.shape[1]
                sees = self.sees
                if sees is None:
                    sees = torch.ones(t, t, dtype=torch.bool, device=self.index.device).tril()[None]
                if limit is not None:
                    where = at[self.index]
                    sees = sees & (where[:, :, None] - where[:, None, :] < limit)
                self._bias[key] = torch.where(sees, 0.0, LOW).to(dtype).unsqueeze(1)
        return self._bias[key]


@dataclass
class Packed:
    """A pass over new tokens: groups of segments, perhaps behind one shared block; keeps keys and values if asked."""

    groups: Sequence[Group]
    at: Tensor
    block: Block | None = None
    keep: bool = False
    k: list[Tensor] = field(default_factory=list)
    v: list[Tensor] = field(default_factory=list)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, how: How) -> Tensor:
        """See `Step`."""
        if self.keep:
            self.k.append(k)
            self.v.append(v)
        heads, total, dim = q.shape
        out = q.new_empty(total, heads, dim)
        lse = torch.empty(total, heads, dtype=torch.float32, device=q.device)
        for group in self.groups:
            bias = group.bias(q.dtype, self.at, how.window)
            qs, ks, vs = (_gather(x, group.index, heads) for x in (q, k, v))
            made, mass = attend(qs, ks, vs, bias, how, causal=bias is None)
            out[group.rows] = made.transpose(1, 2)[group.real]
            lse[group.rows] = mass.transpose(1, 2)[group.real]
        if self.block is not None and self.block.length:
            other, other_lse = over_block(q, self.block, layer, how, self.at)
            out = join(out, lse, other, other_lse)
        return out


def _gather(x: Tensor, index: Tensor, heads: int) -> Tensor:
    """`[Hx, T, D]` to `[B, heads, t, D]`."""
    rows = x[:, index].transpose(0, 1)
    return rows if rows.shape[1] == heads else rows.repeat_interleave(heads // rows.shape[1], dim=1)


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """The function that transformers calls in each layer."""
    step: Step | None = getattr(_state, "step", None)
    if step is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        made: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **kwargs
        )
        return made
    scaling = kwargs.get("scaling")
    how = How(
        scale=float(scaling) if scaling is not None else query.shape[-1] ** -0.5,
        window=kwargs.get("sliding_window"),
        softcap=kwargs.get("softcap"),
    )
    return step.attend(module.layer_idx, query[0], key[0], value[0], how).unsqueeze(0), None


def register() -> str:
    """Makes the attention known to transformers; gives its name."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME


@contextmanager
def during(step: Step) -> Iterator[None]:
    """Layers that run inside ask this step."""
    _state.step = step
    try:
        yield
    finally:
        _state.step = None
