"""A local model that replies to a finished assistant turn, for guards and judges.

`LocalModel.generate` continues a last assistant turn. Here the chat template closes the turn first,
so that a guard model replies with its verdict on it. With cached prefixes (`kept_prefix`), only the
new tokens of a growing text are run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from truing.core.types import Answer, Conversation, Lineage, Sampling
from truing.models.local.kept_prefix import KeptPrefixes

Generate = Callable[[Conversation, Sampling, KeptPrefixes | None], Awaitable[tuple[Answer, ...]]]


class TurnReader:
    """A `Model` whose prompts end with a closed turn.

    `generate_closed` is the method of the local model that generates after a closed turn. With
    `keep_prefix`, this reader caches the prefixes of its prompts.
    """

    def __init__(
        self, name: str, lineage: Lineage, generate_closed: Generate, *, keep_prefix: bool
    ) -> None:
        self.name, self.lineage = name, lineage
        self._generate = generate_closed
        self._prefixes = KeptPrefixes() if keep_prefix else None

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns `sampling.n` answers; `usage.cached_tokens` counts the reused prompt tokens."""
        return await self._generate(conversation, sampling, self._prefixes)
