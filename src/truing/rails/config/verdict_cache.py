"""Caches the replies of a guard model: NeMo's ``models: cache: {enabled, maxsize}``."""

from __future__ import annotations

from collections import OrderedDict

from truing.core.protocols import Closeable, Model
from truing.core.types import Answer, Conversation, Lineage, Sampling

_Key = tuple[Conversation, int, tuple[str, ...], float, float]


class VerdictCache:
    """A model that caches the answers to the last `size` prompts, whatever the seed.

    Only for models that judge: their answer to a prompt should not depend on the seed of the
    request. Failures are not cached. Models that read turns or stream are asked without those
    methods, so that every verdict comes through the cache.
    """

    def __init__(self, model: Model, size: int) -> None:
        self.model = model
        self.name, self.lineage = model.name, model.lineage
        self._size = size
        self._answers: OrderedDict[_Key, tuple[Answer, ...]] = OrderedDict()

    name: str
    lineage: Lineage

    @property
    def reads_images(self) -> bool:
        """Whether the model is sent images."""
        return bool(getattr(self.model, "reads_images", False))

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns the cached answers to a prompt, or calls the model."""
        if sampling.n != 1 or sampling.tools or sampling.logprobs is not None:
            return await self.model.generate(conversation, sampling)
        key = (
            conversation,
            sampling.max_tokens,
            tuple(sampling.stop),
            sampling.temperature,
            sampling.top_p,
        )
        cached = self._answers.get(key)
        if cached is not None:
            self._answers.move_to_end(key)
            return cached
        answers = await self.model.generate(conversation, sampling)
        if answers and all(answer.failure is None for answer in answers):
            self._answers[key] = answers
            if len(self._answers) > self._size:
                self._answers.popitem(last=False)
        return answers

    async def close(self) -> None:
        """Closes the model."""
        if isinstance(self.model, Closeable):
            await self.model.close()
