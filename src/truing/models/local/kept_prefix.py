"""A KV cache of the newest prompt of a growing conversation.

The next prompt is compared with it token by token, and only the tokens after their common prefix
are run through the model. A judge's prompt is a text that grows at its end, followed by the same
closing words each time: every token of the text is run once, the closing words with each prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from truing.models.local.attention import PrefixBlock

_FIRST_CAPACITY = 256  # tokens: a short prompt fits without a copy


class KeptPrefix:
    """The tokens of one prompt with their keys and values.

    Only the model's thread writes to it.
    """

    def __init__(self) -> None:
        self.ids: tuple[int, ...] = ()
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._viewed = 0  # the length of the longest view of these tensors

    def match(self, ids: tuple[int, ...]) -> int:
        """Returns how many leading tokens of a prompt are cached, at most all but the last.

        The last token is always run: its hidden state predicts the first token of the reply.
        """
        size = min(len(ids) - 1, len(self.ids))
        if size <= 0:
            return 0
        differs = np.flatnonzero(np.asarray(ids[:size]) != np.asarray(self.ids[:size]))
        return int(differs[0]) if differs.size else size

    def block(self, length: int) -> PrefixBlock:
        """Returns a view of the first `length` tokens, which no later prompt changes."""
        self._viewed = max(self._viewed, length)
        return PrefixBlock(
            [tensor[:, :, :length] for tensor in self._keys],
            [tensor[:, :, :length] for tensor in self._values],
        )

    def store(
        self, ids: tuple[int, ...], start: int, keys: Sequence[Tensor], values: Sequence[Tensor]
    ) -> None:
        """Stores a prompt whose first `start` tokens are cached already.

        `keys` and `values` are those of the other tokens, `[heads, T, D]` for each layer. Raises
        ValueError if the first `start` tokens are not those of the cached prompt.
        """
        if ids[:start] != self.ids[:start]:
            raise ValueError(f"the first {start} tokens of the prompt are not cached")
        self._make_room(len(ids), start, keys)
        for tensors, new_tensors in ((self._keys, keys), (self._values, values)):
            for tensor, new in zip(tensors, new_tensors, strict=True):
                tensor[0, :, start : len(ids)] = new
        self.ids = ids

    def _make_room(self, length: int, start: int, like: Sequence[Tensor]) -> None:
        """Makes room for `length` tokens of which those from `start` on are written.

        New tensors get the first `start` tokens. `like` holds one tensor for each layer with the
        heads, head size and dtype to use.
        """
        capacity = int(self._keys[0].shape[2]) if self._keys else 0
        # What is behind the longest view may be written in place: no running request reads it.
        if length <= capacity and start >= self._viewed:
            return
        if length > capacity:
            # Doubling: over all growth steps, no more tokens are copied than the final text has.
            capacity = max(_FIRST_CAPACITY, length, 2 * capacity)
        old = self._keys, self._values
        self._viewed = 0
        self._keys, self._values = (
            [t.new_empty(1, t.shape[0], capacity, t.shape[2]) for t in like] for _ in range(2)
        )
        for tensors, old_tensors in zip((self._keys, self._values), old, strict=True):
            for tensor, old_tensor in zip(tensors, old_tensors):
                tensor[:, :, :start] = old_tensor[:, :, :start]


class KeptPrefixes:
    """The cached prefixes of one session; each prompt that is running has one of its own.

    At most `size` idle ones are kept: a guard may send several prompts for one text.
    """

    def __init__(self, size: int = 8) -> None:
        self._size = size
        self._idle: list[KeptPrefix] = []  # least recently used first

    def take(self, ids: tuple[int, ...]) -> KeptPrefix:
        """Returns the idle prefix that shares most tokens with a prompt, or an empty one.

        A prefix that shares less than half of the prompt is probably that of another prompt: it is
        only taken if there are `size` idle ones already.
        """
        best = max(self._idle, key=lambda prefix: prefix.match(ids), default=None)
        if best is None or (2 * best.match(ids) < len(ids) and len(self._idle) < self._size):
            return KeptPrefix()
        self._idle.remove(best)
        return best

    def give_back(self, prefix: KeptPrefix) -> None:
        """Makes a prefix idle again; drops the least recently used ones beyond `size`."""
        self._idle.append(prefix)
        del self._idle[: -self._size]
