"""Search providers that the caller's code registers, with the methods of NeMo's `EmbeddingsIndex`.

A provider is a class that is called with the configuration's ``parameters``; its objects have
``add_items``, ``build`` and ``search``.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

_LOG = logging.getLogger("truing.rails")
T = TypeVar("T")


@dataclass(slots=True)
class IndexItem:
    """A text with its data, as NeMo Guardrails passes it to search providers."""

    text: str
    meta: dict[str, Any] = field(default_factory=dict)


class EmbeddingsIndex:
    """The base class of search providers written for NeMo Guardrails."""

    async def add_item(self, item: IndexItem) -> None:
        """Adds an item."""
        raise NotImplementedError

    async def add_items(self, items: list[IndexItem]) -> None:
        """Adds items."""
        for item in items:
            await self.add_item(item)

    async def build(self) -> None:
        """Is called after the last item."""

    async def search(
        self, text: str, max_results: int, threshold: float | None = None
    ) -> list[IndexItem]:
        """Returns the items nearest to a text, best first."""
        raise NotImplementedError


class SearchProviders:
    """The registered classes by name."""

    def __init__(self) -> None:
        self.classes: dict[str, Callable[..., Any]] = {}

    def create(self, name: str, parameters: Mapping[str, Any]) -> Any:
        """Returns a new index; None for a name that is not registered, as NeMo Guardrails does."""
        if name not in self.classes:
            _LOG.warning(
                "the search provider %r is not registered: prompts get no examples and no chunks",
                name,
            )
            return None
        return self.classes[name](**parameters)


class ProviderIndex(Generic[T]):
    """The items of one index of a registered provider."""

    def __init__(
        self, create: Callable[[], Any], items: Sequence[tuple[str, T]], threshold: float | None
    ) -> None:
        self._create, self._items, self._threshold = create, list(items), threshold
        self._index: Any = None
        self._is_built = False
        self._building = asyncio.Lock()

    async def search(self, text: str, k: int) -> list[tuple[float, str, T]]:
        """Returns at most k items as (1.0, text, value): the provider keeps its scores."""
        if not self._items:
            return []
        # Two first searches at the same time must not search what is half built.
        async with self._building:
            if not self._is_built:
                self._index = await self._build()
                self._is_built = True
        if self._index is None:
            return []
        search = self._index.search
        extra = {}
        if self._threshold is not None and "threshold" in inspect.signature(search).parameters:
            extra = {"threshold": self._threshold}
        results = await search(text=text, max_results=k, **extra)
        return [(1.0, *self._items[int(result.meta["position"])]) for result in results[:k]]

    async def _build(self) -> Any:
        """Returns an index with all items; None where the provider is not registered."""
        index = self._create()
        if index is not None:
            rows = [IndexItem(t, {"position": n}) for n, (t, _) in enumerate(self._items)]
            await index.add_items(rows)
            await index.build()
        return index
