"""A model that caches its answers, so that two variants which ask the same thing generate once.

Correct only for models whose k-th answer depends on conversation, settings, seed and k alone
(`local:`): then the plain model's answer is the first of the four that best-of-4 chooses from.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator

from msgspec.structs import replace

from truing.core.protocols import Closeable, Model, StreamingModel, TurnReadingModel
from truing.core.types import Answer, Conversation, Lineage, Sampling


class CachedModel:
    """Wraps `model` and caches the answers of the last `size` requests; failures are not cached."""

    def __init__(self, model: Model, size: int = 20_000) -> None:
        self.model = model
        self._size = size
        self._cache: OrderedDict[tuple[Conversation, bytes], tuple[Answer, ...]] = OrderedDict()

    @property
    def name(self) -> str:
        """That of the wrapped model."""
        return self.model.name

    @property
    def lineage(self) -> Lineage:
        """That of the wrapped model."""
        return self.model.lineage

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns `sampling.n` answers, from the cache if it holds as many."""
        # `n` is not part of the key: the answers to n=4 begin with the answer to n=1 (see above).
        key = (conversation, repr(replace(sampling, n=1)).encode())
        cached = self._cache.get(key)
        if cached is not None and len(cached) >= sampling.n:
            self._cache.move_to_end(key)
            return cached[: sampling.n]
        answers = await self.model.generate(conversation, sampling)
        if all(a.failure is None for a in answers):
            self._cache[key] = answers
            # Drops the least recently used entry; hits move to the end.
            if len(self._cache) > self._size:
                self._cache.popitem(last=False)
        return answers

    async def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        """Yields the stream of the wrapped model, or its whole answer at once."""
        if isinstance(self.model, StreamingModel):
            async for text in self.model.stream(conversation, sampling):
                yield text
            return
        yield (await self.generate(conversation, sampling))[0].text

    async def logprobs(
        self, prefix: Conversation | str, continuations: list[str]
    ) -> list[list[float]]:
        """Returns those of the wrapped model. Raises AttributeError if it has none."""
        logprobs: list[list[float]] = await self.model.logprobs(prefix, continuations)  # type: ignore[attr-defined]
        return logprobs

    def turn_reader(self, *, keep_prefix: bool = False) -> Model:
        """Returns the turn reader of the wrapped model, or this model if that has none."""
        if not isinstance(self.model, TurnReadingModel):
            return self
        reader = self.model.turn_reader(keep_prefix=keep_prefix)
        # The prompts of a growing text are all different: their answers are not worth a cache.
        return reader if keep_prefix else CachedModel(reader, self._size)

    async def close(self) -> None:
        """Closes the wrapped model."""
        if isinstance(self.model, Closeable):
            await self.model.close()
