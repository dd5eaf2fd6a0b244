"""Similarity search over the examples of a configuration: user messages, bot messages and flows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from truing.rails.colang.ast import BotText
from truing.rails.colang.compiler import CompiledFlow
from truing.rails.runtime.embeddings import EmbeddingCache
from truing.rails.runtime.intents import IntentClassifier
from truing.rails.runtime.search_providers import ProviderIndex

T = TypeVar("T")
CreateIndex = Callable[[], Any]
FLOW_LINES_SEARCHED = 10  # nearest lines of flows, of which several may be of one flow


class ExampleIndex(Generic[T]):
    """Texts with a value each, searched by exact cosine; embedded at the first search.

    `create_index` makes the index of a registered search provider, which then searches instead.
    """

    def __init__(
        self,
        embeddings: EmbeddingCache,
        items: Sequence[tuple[str, T]],
        create_index: CreateIndex | None = None,
        threshold: float | None = None,
    ) -> None:
        self.embeddings = embeddings
        self.items = list(items)
        self._provider = (
            ProviderIndex(create_index, items, threshold) if create_index is not None else None
        )
        self._matrix: Any = None

    async def search(self, text: str, k: int) -> list[tuple[float, str, T]]:
        """Returns the k nearest as (cosine, text, value); ties in order of definition."""
        if self._provider is not None:
            return await self._provider.search(text, k)
        if not self.items:
            return []
        import numpy as np

        if self._matrix is None:
            self._matrix = await self.embeddings.encode_in_thread([t for t, _ in self.items])
        # einsum instead of @: BLAS would wake its threads, which costs more than this small
        # product.
        cosines = np.einsum("ij,j->i", self._matrix, await self.embeddings.embed(text))
        order = np.argsort(-cosines, kind="stable")[:k]
        return [(float(cosines[index]), *self.items[index]) for index in order]


def nemo_similarity(cosine: float) -> float:
    """Returns NeMo's similarity: 1 - (Euclidean distance of the unit vectors) / 2."""
    distance: float = max(2.0 - 2.0 * cosine, 0.0) ** 0.5
    return 1.0 - distance / 2.0


class DialogExamples:
    """The example indexes of a configuration, from which prompts take their examples."""

    def __init__(
        self,
        user_messages: dict[str, list[str]],
        bot_messages: dict[str, list[BotText]],
        flows: Sequence[CompiledFlow],
        embeddings: EmbeddingCache,
        create_index: CreateIndex | None = None,
        threshold: float | None = None,
    ) -> None:
        self.intents = IntentClassifier(embeddings, user_messages)
        self.user_messages = ExampleIndex(
            embeddings,
            [(text, intent) for intent, texts in user_messages.items() for text in texts],
            create_index,
            threshold,
        )
        # Without user messages the model simply answers: no prompt shows bot messages.
        named_bot_messages = [(name, t.text) for name, texts in bot_messages.items() for t in texts]
        self.bot_messages = ExampleIndex(
            embeddings, named_bot_messages if user_messages else [], create_index
        )
        # A flow is found by any of its lines.
        flow_lines = [
            (line, flow.source)
            for flow in flows
            if flow.source
            for line in flow.source.split("\n")
            if line.strip()
        ]
        self.flows = ExampleIndex(embeddings, flow_lines, create_index)

    async def nearest_flows(self, text: str, k: int) -> list[str]:
        """Returns the source code of the k nearest flows, best first."""
        matches = await self.flows.search(text, FLOW_LINES_SEARCHED)
        return list(dict.fromkeys(source for _, _, source in matches))[:k]
