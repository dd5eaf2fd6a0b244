"""The key/value cache of the running requests: one slot for each, live slots first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from truing.models.local.attention import (
    MASK_VALUE,
    AttentionOptions,
    PrefixBlock,
    attend,
    attend_prefix,
    merge_attention,
)

CAPACITY_MULTIPLE = 64


class KVCache:
    """Tensors `[slots, Hkv, capacity, D]` for each layer; the capacity grows as needed."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.lengths: list[int] = []
        self.k: list[Tensor] = []
        self.v: list[Tensor] = []

    @property
    def capacity(self) -> int:
        """The number of tokens that a slot holds."""
        return int(self.k[0].shape[2]) if self.k else 0

    def add(
        self, k: Sequence[Tensor], v: Sequence[Tensor], spans: Sequence[tuple[int, int]]
    ) -> None:
        """Adds rows from packed keys and values (`[Hkv, T, D]` for each layer): row i takes the
        tokens `spans[i]`.
        """
        first = len(self.lengths)
        # One more than the longest prompt: room for the first generated token.
        self.grow(max(end - start for start, end in spans) + 1, like=(k, v))
        for layer in range(len(k)):
            for slot, (start, end) in enumerate(spans, first):
                self.k[layer][slot, :, : end - start] = k[layer][:, start:end]
                self.v[layer][slot, :, : end - start] = v[layer][:, start:end]
        self.lengths += [end - start for start, end in spans]

    def grow(
        self, need: int, like: tuple[Sequence[Tensor], Sequence[Tensor]] | None = None
    ) -> None:
        """Grows the capacity to at least `need` tokens (by a quarter, so that growing is rare)."""
        if need <= self.capacity:
            return
        capacity = max(need, self.capacity * 5 // 4)
        capacity = -(-capacity // CAPACITY_MULTIPLE) * CAPACITY_MULTIPLE
        if not self.k:
            if like is None:
                raise ValueError("an empty cache needs `like` to know the shape")
            for store, rows in ((self.k, like[0]), (self.v, like[1])):
                store += [t.new_zeros(self.slots, t.shape[0], capacity, t.shape[2]) for t in rows]
            return
        live_rows = len(self.lengths)
        for store in (self.k, self.v):
            for layer, tensors in enumerate(store):
                grown = tensors.new_zeros(
                    tensors.shape[0], tensors.shape[1], capacity, tensors.shape[3]
                )
                grown[:live_rows, :, : tensors.shape[2]] = tensors[:live_rows]
                store[layer] = grown

    def drop(self, row: int) -> int:
        """Removes a row; the last row moves into its slot. Returns the former index of the row that
        moved.
        """
        last = len(self.lengths) - 1
        # Live slots stay contiguous, so that a step can slice `[:n]` instead of gathering rows.
        if row != last:
            n = self.lengths[last]
            for store in (self.k, self.v):
                for layer in store:
                    layer[row, :, :n] = layer[last, :, :n]
            self.lengths[row] = self.lengths[last]
        self.lengths.pop()
        return last


@dataclass
class DecodeStep:
    """A forward pass over one new token for each live row.

    `blocks` are shared prefixes with the rows behind them (None = all rows).
    """

    rows: KVCache
    positions: Tensor
    blocks: Sequence[tuple[PrefixBlock, Tensor | None]] = ()

    def __post_init__(self) -> None:
        device = self.positions.device
        self.count = len(self.rows.lengths)
        # The new token is written into the cache before the attention, hence one column more.
        self.width = max(self.rows.lengths) + 1
        self.rows.grow(self.width)
        self._next_columns = torch.tensor(self.rows.lengths, device=device)
        self._row_indexes = torch.arange(self.count, device=device)
        columns = torch.arange(self.width, device=device)[None]
        # Columns behind a row's new token hold zeros or a former row's keys.
        self._future_mask = (columns > self._next_columns[:, None]) * MASK_VALUE
        self._bias: dict[int | None, Tensor] = {}

    def bias(self, dtype: torch.dtype, window: int | None) -> Tensor:
        """Returns the additive mask `[n, 1, 1, width]`."""
        if window not in self._bias:
            output = self._future_mask
            # Columns count a row's own tokens; the distance within a row is the same without the
            # prefix.
            if window is not None and self.width > window:
                columns = torch.arange(self.width, device=self.positions.device)[None]
                output = output + (self._next_columns[:, None] - columns >= window) * MASK_VALUE
            self._bias[window] = output.to(dtype)[:, None, None]
        return self._bias[window]

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions
    ) -> Tensor:
        """See `AttentionStep`."""
        heads, n, dim = q.shape
        kv = k.shape[0]
        keys, values = self.rows.k[layer], self.rows.v[layer]
        keys[self._row_indexes, :, self._next_columns] = k.transpose(0, 1)
        values[self._row_indexes, :, self._next_columns] = v.transpose(0, 1)
        # One query token a row: the heads that share a key head take the place of the query
        # length, and keys need no repetition.
        folded = q.reshape(kv, heads // kv, n, dim).permute(2, 0, 1, 3)
        bias = self.bias(q.dtype, options.window).expand(n, 1, heads // kv, self.width)
        out, lse = attend(
            folded, keys[:n, :, : self.width], values[:n, :, : self.width], bias, options
        )
        output, output_lse = out.reshape(n, heads, dim), lse.reshape(n, heads)
        for block, rows in self.blocks:
            if rows is None:
                output = merge_attention(
                    output, output_lse, *attend_prefix(q, block, layer, options, self.positions)
                )
            else:
                prefix_output, prefix_lse = attend_prefix(
                    q[:, rows], block, layer, options, self.positions[rows]
                )
                output[rows] = merge_attention(
                    output[rows], output_lse[rows], prefix_output, prefix_lse
                )
        return output

    def commit_tokens(self) -> None:
        """Counts the new tokens as part of their rows."""
        self.rows.lengths = [n + 1 for n in self.rows.lengths]
