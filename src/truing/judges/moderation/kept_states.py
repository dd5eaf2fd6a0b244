"""A KV cache for rows of tokens that grow at their end.

Under causal attention the state of a token depends only on the tokens before it. So for an answer
that is still being written, only the new tokens are run through the network; the keys, values and
mixed layer outputs of the earlier ones are cached. The logits equal those of the whole row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from truing.judges.moderation.inputs import EncodedInput

MAX_KEPT_ROWS = 4
"""One text may be encoded as several rows: a text without a prompt as an answer and as a prompt, a
disguised text once more for each of its decoded forms (`text_readings`)."""


class KeptKeys:
    """The keys and values `[1, heads, T, D]` of one row, for each layer.

    `update` has the signature of transformers' `Cache.update`, which its attention layers call.
    """

    def __init__(self) -> None:
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    @property
    def length(self) -> int:
        """The number of cached tokens."""
        return int(self._keys[0].shape[2]) if self._keys else 0

    def crop(self, length: int) -> None:
        """Drops all but the first `length` tokens."""
        self._keys = [tensor[:, :, :length] for tensor in self._keys]
        self._values = [tensor[:, :, :length] for tensor in self._values]

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Appends the keys and values of new tokens to a layer; returns those of all tokens."""
        if layer_idx == len(self._keys):
            self._keys.append(keys)
            self._values.append(values)
        else:
            self._keys[layer_idx] = torch.cat((self._keys[layer_idx], keys), 2)
            self._values[layer_idx] = torch.cat((self._values[layer_idx], values), 2)
        return self._keys[layer_idx], self._values[layer_idx]


def causal_mask(new: int, cached: int, device: torch.device) -> Tensor | None:
    """Returns the attention mask of new tokens over cached and new ones (True: attends).

    Its shape is `[1, 1, new, cached + new]`. None if nothing is cached: `is_causal` attention needs
    no mask and is faster.
    """
    if not cached:
        return None
    mask = torch.ones(new, cached + new, dtype=torch.bool, device=device)
    return mask.tril(cached)[None, None]


class _KeptRow:
    """One cached row: its token ids, keys and values, and mixed layer outputs."""

    def __init__(self) -> None:
        self.ids: tuple[int, ...] = ()
        self.keys = KeptKeys()
        self.hidden: Tensor | None = None  # [T, hidden], from `ModerationNetwork.mixed_states`


class KeptStatesEngine:
    """Computes the logits of the growing rows of one stream, with the network of a `TorchEngine`.

    `tokens_read` counts the tokens that were run through the network.
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
        cached_row, shared = self._find_row(row.ids)
        new_ids = torch.tensor([row.ids[shared:]], dtype=torch.long, device=self._device)
        cached_row.keys.crop(shared)
        try:
            new_hidden = self._network.mixed_states(new_ids, cached_row.keys)[0]
        except BaseException:
            # The forward pass stopped in some layer: the layers may hold different numbers of
            # tokens, and the row cannot be used again.
            self._rows.remove(cached_row)
            raise
        hidden = new_hidden
        if cached_row.hidden is not None:
            hidden = torch.cat((cached_row.hidden[:shared], new_hidden))
        cached_row.ids, cached_row.hidden = row.ids, hidden
        self.tokens_read += len(row.ids) - shared
        segments = torch.tensor([row.segments], device=self._device)
        logits = self._network.classify(hidden[None], segments, torch.ones_like(segments))
        values: npt.NDArray[np.float32] = logits[0].float().cpu().numpy()
        return values

    def _find_row(self, ids: tuple[int, ...]) -> tuple[_KeptRow, int]:
        """Returns the row to continue, and how many of its leading tokens are reused.

        It is the cached row with the longest common beginning, or a new one.
        """
        lengths = [common_length(row.ids, ids) for row in self._rows]
        longest = max(lengths, default=0)
        # Rows that share less than half (such as two windows with the same prompt) are different
        # rows: the older one may still grow, so it is not overwritten while there is space.
        if longest <= len(ids) // 2 and len(self._rows) < MAX_KEPT_ROWS:
            self._rows.append(_KeptRow())
            return self._rows[-1], 0
        row = self._rows.pop(lengths.index(longest))
        self._rows.append(row)
        # At least one token is run, also if all are cached: `mixed_states` needs an input.
        return row, min(longest, len(ids) - 1)


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Returns how many leading ids two rows have in common."""
    size = min(len(first), len(second))
    differs = np.flatnonzero(np.asarray(first[:size]) != np.asarray(second[:size]))
    return int(differs[0]) if differs.size else size
