"""Keys and values of the newest prompt of a growing conversation.

The next prompt is compared with it token by token; what the two share at their beginning is not
read again. So of a text that grows at its end, and is followed by the same words each time, every
token is read once, and those words with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from truing.models.local.attention import PrefixBlock

_FIRST_CAPACITY = 256


class KeptPrefix:
    """The tokens of a prompt with their keys and values; written by the model's thread only."""

    def __init__(self) -> None:
        self.ids: tuple[int, ...] = ()
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    def match(self, ids: tuple[int, ...]) -> int:
        """Returns how many leading tokens of a prompt are kept, at most all but the last.

        The last token is read in any case: its state predicts the reply.
        """
        size = min(len(ids) - 1, len(self.ids))
        if size <= 0:
            return 0
        differs = np.flatnonzero(np.asarray(ids[:size]) != np.asarray(self.ids[:size]))
        return int(differs[0]) if differs.size else size

    def block(self, length: int) -> PrefixBlock:
        """Returns the first `length` tokens as a block; it stays valid while the prompt grows."""
        return PrefixBlock(
            [tensor[:, :, :length] for tensor in self._keys],
            [tensor[:, :, :length] for tensor in self._values],
        )

    def store(
        self, ids: tuple[int, ...], start: int, keys: Sequence[Tensor], values: Sequence[Tensor]
    ) -> None:
        """Keeps a prompt whose first `start` tokens are kept already.

        `keys` and `values` are those of the others, `[heads, T, D]` for each layer.
        """
        self._grow(len(ids), start, keys)
        for tensors, new in ((self._keys, keys), (self._values, values)):
            for tensor, rows in zip(tensors, new, strict=True):
                tensor[0, :, start : len(ids)] = rows
        self.ids = ids

    def _grow(self, need: int, start: int, like: Sequence[Tensor]) -> None:
        capacity = int(self._keys[0].shape[2]) if self._keys else 0
        if need <= capacity:
            return
        # Doubling: the copies of a growing text are together as long as the text.
        capacity = max(_FIRST_CAPACITY, need, 2 * capacity)
        old = self._keys, self._values
        self._keys, self._values = (
            [rows.new_empty(1, rows.shape[0], capacity, rows.shape[2]) for rows in like]
            for _ in range(2)
        )
        for tensors, old_tensors in zip((self._keys, self._values), old, strict=True):
            for tensor, old_tensor in zip(tensors, old_tensors):
                tensor[:, :, :start] = old_tensor[:, :, :start]


class KeptPrefixes:
    """The kept prefixes of one session; prompts that are asked at the same time get one each."""

    def __init__(self, size: int = 8) -> None:
        self._size = size
        self._idle: list[KeptPrefix] = []  # least recently used first

    def take(self, ids: tuple[int, ...]) -> KeptPrefix:
        """Returns the idle prefix that shares most with a prompt, or an empty one.

        One that shares less than half is left to the prompt that it belongs to.
        """
        best = max(self._idle, key=lambda prefix: prefix.match(ids), default=None)
        if best is None or (2 * best.match(ids) < len(ids) and len(self._idle) < self._size):
            return KeptPrefix()
        self._idle.remove(best)
        return best

    def give_back(self, prefix: KeptPrefix) -> None:
        """Makes a prefix idle again; drops the least recently used beyond the size."""
        self._idle.append(prefix)
        del self._idle[: -self._size]
