"""Caches what the frozen layers of a language model compute for each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from truing.hf.loading import select_dtype
from truing.judges.moderation.causal_layers import layer_states
from truing.judges.moderation.inputs import EncodedInput

MAX_CACHE_BYTES = 4 * 2**30  # rows beyond are computed anew each time


class FrozenLayerCache:
    """Returns the residual stream before layer `layers`, the first one that is trained.

    The cache is in CPU memory, keyed by the token ids of a row.
    """

    def __init__(self, layers: int, *, dtype: str, device: torch.device) -> None:
        self.layers = layers
        self._dtype = select_dtype(dtype, device)
        self._device = device
        self._cache: dict[tuple[int, ...], Tensor] = {}
        self._bytes = 0

    def __call__(self, body: Any, rows: Sequence[EncodedInput], ids: Tensor) -> Tensor:
        """Returns `[B, T, hidden]`; `ids` are the padded ids of the rows.

        The values at padding are zeros.
        """
        missing = [index for index, row in enumerate(rows) if row.ids not in self._cache]
        computed: dict[int, Tensor] = {}
        if missing:
            computed = dict(zip(missing, self._compute(body, ids[missing])))
        states = [
            computed[index] if index in computed else self._cache[row.ids]
            for index, row in enumerate(rows)
        ]
        batch = torch.zeros(*ids.shape, states[0].shape[-1], dtype=states[0].dtype)
        for index, row in enumerate(rows):
            length = len(row.ids)
            batch[index, :length] = states[index][:length]
            if index in computed and self._bytes < MAX_CACHE_BYTES:
                # A clone: a slice would keep the whole padded batch in memory.
                state = states[index][:length].clone()
                self._cache[row.ids] = state
                self._bytes += state.nbytes
        return batch.to(self._device)

    def _compute(self, body: Any, ids: Tensor) -> Tensor:
        is_half = self._dtype is not torch.float32
        with (
            torch.no_grad(),
            torch.autocast(ids.device.type, dtype=torch.bfloat16, enabled=is_half),
        ):
            return layer_states(body, ids, stop=self.layers)[-1].to(self._dtype).cpu()
