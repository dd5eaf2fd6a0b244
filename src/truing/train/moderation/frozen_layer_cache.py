"""What the frozen layers of a language model make of a row, computed once and kept for all later passes over it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from truing.hf.loading import select_dtype
from truing.judges.moderation.causal_layers import layer_states
from truing.judges.moderation.inputs import EncodedInput

MAX_CACHE_BYTES = 4 * 2**30  # bytes that are kept; rows beyond are computed anew each time


class FrozenLayerCache:
    """The residual stream before layer `layers` of a network's body, for rows of tokens."""

    def __init__(self, layers: int, *, dtype: str, device: Any) -> None:
        self.layers = layers
        self._kind = select_dtype(dtype, device)
        self._device = device
        self._kept: dict[tuple[int, ...], Tensor] = {}
        self._bytes = 0

    def __call__(self, body: Any, rows: Sequence[EncodedInput], ids: Tensor) -> Tensor:
        """`[B, T, hidden]` for the rows whose padded ids are given; what stands at padding is nobody's."""
        missing = [at for at, row in enumerate(rows) if row.ids not in self._kept]
        fresh: dict[int, Tensor] = {}
        if missing:
            fresh = dict(zip(missing, self._compute(body, ids[missing])))
        parts = [fresh[at] if at in fresh else self._kept[row.ids] for at, row in enumerate(rows)]
        made = torch.zeros(*ids.shape, parts[0].shape[-1], dtype=parts[0].dtype)
        for at, row in enumerate(rows):
            made[at, : len(row.ids)] = parts[at][: len(row.ids)]
            if at in fresh and self._bytes < MAX_CACHE_BYTES:
                kept = parts[at][: len(row.ids)].clone()
                self._kept[row.ids] = kept
                self._bytes += kept.nbytes
        return made.to(self._device)

    def _compute(self, body: Any, ids: Tensor) -> Tensor:
        half = self._kind is not torch.float32
        with torch.no_grad(), torch.autocast(ids.device.type, dtype=torch.bfloat16, enabled=half):
            return layer_states(body, ids, stop=self.layers)[-1].to(self._kind).cpu()
