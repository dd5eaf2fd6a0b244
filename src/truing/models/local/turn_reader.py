"""A local model as a reader of finished turns, for guards and judges.

The chat template closes a last assistant turn, so that a guard judges it; `LocalModel` by itself
goes on writing it. With kept prefixes a growing text is read once (`kept_prefix`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from truing.core.types import Answer, Conversation, Lineage, Sampling
from truing.models.local.kept_prefix import KeptPrefixes

Generate = Callable[[Conversation, Sampling, KeptPrefixes | None], Awaitable[tuple[Answer, ...]]]


class TurnReader:
    """A `Model`; `generate_closed` is that of the local model."""

    def __init__(
        self, name: str, lineage: Lineage, generate_closed: Generate, *, keep_prefix: bool
    ) -> None:
        self.name, self.lineage = name, lineage
        self._generate = generate_closed
        self._prefixes = KeptPrefixes() if keep_prefix else None

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns `sampling.n` answers; `usage.cached_tokens` counts what was not read again."""
        return await self._generate(conversation, sampling, self._prefixes)
