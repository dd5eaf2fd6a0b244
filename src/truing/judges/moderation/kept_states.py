"""Rows that grow at their end: what a row shares with an earlier one is not computed again.

Under causal attention a token's state depends on nothing on its right. So of an answer that is
being written only the new tokens are run through the network; the keys and values of the others,
and their mixed layer outputs, are kept. The logits are those of the whole row.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from truing.judges.moderation.inputs import EncodedInput

MAX_KEPT_ROWS = 4
"""A text without a prompt is read as an answer and as a prompt, and a disguised one in readings."""


class KeptKeys:
    """The keys and values `[1, heads, T, D]` of one row, by layer.

    Has the method `update` of transformers' caches, so that its layers can fill it.
    """

    def __init__(self) -> None:
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    @property
    def length(self) -> int:
        """The number of tokens that are kept."""
        return int(self._keys[0].shape[2]) if self._keys else 0

    def crop(self, length: int) -> None:
        """Forgets all but the first `length` tokens."""
        self._keys = [tensor[:, :, :length] for tensor in self._keys]
        self._values = [tensor[:, :, :length] for tensor in self._values]

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Adds the keys and values of new tokens in a layer; returns those of all tokens."""
        if layer_idx == len(self._keys):
            self._keys.append(keys)
            self._values.append(values)
        else:
            self._keys[layer_idx] = torch.cat((self._keys[layer_idx], keys), 2)
            self._values[layer_idx] = torch.cat((self._values[layer_idx], values), 2)
        return self._keys[layer_idx], self._values[layer_idx]


def cache_argument(layer: Any) -> str:
    """Returns the name of a transformers layer's argument for its cache; versions differ."""
    return "cache" if "cache" in inspect.signature(layer.forward).parameters else "past_key_values"


def causal_mask(new: int, kept: int, device: torch.device) -> Tensor | None:
    """Returns which of `kept + new` tokens each of `new` tokens sees, `[1, 1, new, kept + new]`.

    None without kept tokens: plain causal attention, which is faster.
    """
    if not kept:
        return None
    sees = torch.ones(new, kept + new, dtype=torch.bool, device=device)
    return sees.tril(kept)[None, None]


class _KeptRow:
    def __init__(self) -> None:
        self.ids: tuple[int, ...] = ()
        self.keys = KeptKeys()
        self.hidden: Tensor | None = None  # [T, hidden]: the mixed layers


class KeptStatesEngine:
    """Computes logits of rows that grow, with the network of a `TorchEngine`; for one stream.

    `tokens_read` counts the tokens that went through the network.
    """

    def __init__(self, network: Any, device: torch.device) -> None:
        self._network, self._device = network, device
        self._rows: list[_KeptRow] = []  # least recently used first
        self.tokens_read = 0
        self.name = "torch, kept states"

    def logits(self, rows: Sequence[EncodedInput]) -> npt.NDArray[np.float32]:
        """Returns `[len(rows), outputs]`, in the order of the rows."""
        with torch.inference_mode():
            return np.stack([self._row_logits(row) for row in rows])

    def _row_logits(self, row: EncodedInput) -> npt.NDArray[np.float32]:
        kept, shared = self._find_row(row.ids)
        new_ids = torch.tensor([row.ids[shared:]], dtype=torch.long, device=self._device)
        kept.keys.crop(shared)
        try:
            new_hidden = self._network.mixed_states(new_ids, kept.keys)[0]
        except BaseException:
            # The layers may hold different numbers of tokens now.
            self._rows.remove(kept)
            raise
        hidden = (
            new_hidden if kept.hidden is None else torch.cat((kept.hidden[:shared], new_hidden))
        )
        kept.ids, kept.hidden = row.ids, hidden
        self.tokens_read += len(row.ids) - shared
        segments = torch.tensor([row.segments], device=self._device)
        logits = self._network.classify(hidden[None], segments, torch.ones_like(segments))
        values: npt.NDArray[np.float32] = logits[0].float().cpu().numpy()
        return values

    def _find_row(self, ids: tuple[int, ...]) -> tuple[_KeptRow, int]:
        """Returns the kept row with the longest common beginning, and its length."""
        lengths = [common_length(row.ids, ids) for row in self._rows]
        longest = max(lengths, default=0)
        # Two windows that share only the prompt: the older one may still be continued.
        if longest <= len(ids) // 2 and len(self._rows) < MAX_KEPT_ROWS:
            self._rows.append(_KeptRow())
            return self._rows[-1], 0
        row = self._rows.pop(lengths.index(longest))
        self._rows.append(row)
        # At least one token is run: the logits are those at the end.
        return row, min(longest, len(ids) - 1)


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Returns how many leading ids two rows have in common."""
    size = min(len(first), len(second))
    differs = np.flatnonzero(np.asarray(first[:size]) != np.asarray(second[:size]))
    return int(differs[0]) if differs.size else size
