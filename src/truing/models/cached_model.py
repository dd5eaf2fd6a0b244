"""A model that remembers its answers, so that two variants which ask the same thing pay once.

Right only for models whose k-th answer depends on conversation, settings, seed and k alone (`local:`): then the plain
model's answer *is* the first of the four that best-of-4 chooses from, and needs no second generation.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator

from msgspec.structs import replace

from truing.core.protocols import Closeable, Model, StreamingModel
from truing.core.types import Answer, Conversation, Lineage, Sampling


class CachedModel:
    """Wraps `model`; keeps the answers of the last `size` questions. Failures are not kept."""

    def __init__(self, model: Model, size: int = 20_000) -> None:
        self.inner = model
        self._size = size
        self._kept: OrderedDict[tuple[Conversation, bytes], tuple[Answer, ...]] = OrderedDict()

    @property
    def name(self) -> str:
        """The wrapped model's."""
        return self.inner.name

    @property
    def lineage(self) -> Lineage:
        """The wrapped model's."""
        return self.inner.lineage

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """The first `sampling.n` answers, from memory where there are as many."""
        key = (conversation, repr(replace(sampling, n=1)).encode())
        known = self._kept.get(key)
        if known is not None and len(known) >= sampling.n:
            self._kept.move_to_end(key)
            return known[: sampling.n]
        answers = await self.inner.generate(conversation, sampling)
        if all(a.failure is None for a in answers):
            self._kept[key] = answers
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)
        return answers

    async def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        """The wrapped model's stream, or its whole answer at once."""
        if isinstance(self.inner, StreamingModel):
            async for piece in self.inner.stream(conversation, sampling):
                yield piece
            return
        yield (await self.generate(conversation, sampling))[0].text

    async def logprobs(
        self, prefix: Conversation | str, continuations: list[str]
    ) -> list[list[float]]:
        """The wrapped model's; AttributeError where it has none."""
        found: list[list[float]] = await self.inner.logprobs(prefix, continuations)  # type: ignore[attr-defined]
        return found

    async def close(self) -> None:
        """Closes the wrapped model."""
        if isinstance(self.inner, Closeable):
            await self.inner.close()
