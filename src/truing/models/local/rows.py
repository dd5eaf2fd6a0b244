"""Keys and values of the rows that are being written: one slot a row, live slots always first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from truing.models.local.attention import LOW, Block, How, attend, join, over_block

GRAIN = 64


class Rows:
    """`[slots, Hkv, capacity, D]` for each layer; capacity grows by need, slots are fixed."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.lengths: list[int] = []
        self.k: list[Tensor] = []
        self.v: list[Tensor] = []

    @property
    def capacity(self) -> int:
        """Tokens that a slot holds."""
        return int(self.k[0].shape[2]) if self.k else 0

    def add(
        self, k: Sequence[Tensor], v: Sequence[Tensor], spans: Sequence[tuple[int, int]]
    ) -> None:
        """New rows from packed keys and values (`[Hkv, T, D]` for each layer): row i takes the tokens of `spans[i]`."""
        first = len(self.lengths)
        self.grow(max(end - start for start, end in spans) + 1, like=(k, v))
        for layer in range(len(k)):
            for at, (start, end) in enumerate(spans, first):
                self.k[layer][at, :, : end - start] = k[layer][:, start:end]
                self.v[layer][at, :, : end - start] = v[layer][:, start:end]
        self.lengths += [end - start for start, end in spans]

    def grow(
        self, need: int, like: tuple[Sequence[Tensor], Sequence[Tensor]] | None = None
    ) -> None:
        """Makes room for rows of `need` tokens."""
        if need <= self.capacity:
            return
        size = max(need, self.capacity * 5 // 4)
        size = -(-size // GRAIN) * GRAIN
        if not self.k:
            if like is None:
                raise ValueError("the first rows must bring their shape")
            for old, rows in ((self.k, like[0]), (self.v, like[1])):
                old += [t.new_zeros(self.slots, t.shape[0], size, t.shape[2]) for t in rows]
            return
        live = len(self.lengths)
        for store in (self.k, self.v):
            for layer, old in enumerate(store):
                new = old.new_zeros(old.shape[0], old.shape[1], size, old.shape[3])
                new[:live, :, : old.shape[2]] = old[:live]
                store[layer] = new

    def drop(self, row: int) -> int:
        """Removes a row; the last one takes its slot. Gives the index of the row that moved."""
        last = len(self.lengths) - 1
        if row != last:
            n = self.lengths[last]
            for store in (self.k, self.v):
                for layer in store:
                    layer[row, :, :n] = layer[last, :, :n]
            self.lengths[row] = self.lengths[last]
        self.lengths.pop()
        return last


@dataclass
class Decode:
    """A pass over one new token for each live row, perhaps behind shared blocks (each with its rows; none = all)."""

    rows: Rows
    at: Tensor
    blocks: Sequence[tuple[Block, Tensor | None]] = ()

    def __post_init__(self) -> None:
        device = self.at.device
        self.count = len(self.rows.lengths)
        self.wide = max(self.rows.lengths) + 1
        self.rows.grow(self.wide)
        self._place = torch.tensor(self.rows.lengths, device=device)
        self._every = torch.arange(self.count, device=device)
        columns = torch.arange(self.wide, device=device)[None]
        self._hidden = (columns > self._place[:, None]) * LOW
        self._bias: dict[int | None, Tensor] = {}

    def bias(self, dtype: torch.dtype, window: int | None) -> Tensor:
        """Additive mask `[n, 1, 1, wide]`."""
        if window not in self._bias:
            made = self._hidden
            if window is not None and self.wide > window:
                columns = torch.arange(self.wide, device=self.at.device)[None]
                made = made + (self._place[:, None] - columns >= window) * LOW
            self._bias[window] = made.to(dtype)[:, None, None]
        return self._bias[window]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, how: How) -> Tensor:
        """See `Step`."""
        heads, n, dim = q.shape
        kv = k.shape[0]
        keys, values = self.rows.k[layer], self.rows.v[layer]
        keys[self._every, :, self._place] = k.transpose(0, 1)
        values[self._every, :, self._place] = v.transpose(0, 1)
        folded = q.reshape(kv, heads // kv, n, dim).permute(2, 0, 1, 3)
        bias = self.bias(q.dtype, how.window).expand(n, 1, heads // kv, self.wide)
        out, lse = attend(folded, keys[:n, :, : self.wide], values[:n, :, : self.wide], bias, how)
        made, mass = out.reshape(n, heads, dim), lse.reshape(n, heads)
        for block, rows in self.blocks:
            if rows is None:
                made = join(made, mass, *over_block(q, block, layer, how, self.at))
            else:
                other, other_lse = over_block(q[:, rows], block, layer, how, self.at[rows])
                made[rows] = join(made[rows], mass[rows], other, other_lse)
        return made

    def done(self) -> None:
        """The new tokens now belong to their rows."""
        self.rows.lengths = [n + 1 for n in self.rows.lengths]
