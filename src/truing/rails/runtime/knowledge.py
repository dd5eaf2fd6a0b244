"""The example indexes of a configuration: user messages, bot messages and flows, each searched by similarity."""

from __future__ import annotations

from collections.abc import Sequence

from truing.rails.colang.ast import BotText
from truing.rails.colang.compiler import CompiledFlow
from truing.rails.runtime.example_index import Index, Vectors
from truing.rails.runtime.intents import Intents


class Knowledge:
    """The indexes of a configuration; each is computed when it is first asked."""

    def __init__(
        self,
        users: dict[str, list[str]],
        bots: dict[str, list[BotText]],
        flows: Sequence[CompiledFlow],
        vectors: Vectors,
    ) -> None:
        self.users = Index(vectors, [(t, intent) for intent, texts in users.items() for t in texts])
        self.intents = Intents(vectors, users)
        self.bots = Index(
            vectors,
            [(name, t.text) for name, texts in bots.items() for t in texts] if users else [],
        )
        rows = [
            (row, f.source)
            for f in flows
            if f.source
            for row in f.source.split("\n")
            if row.strip()
        ]
        self.flows = Index(vectors, rows)

    async def near_flows(self, text: str, k: int) -> list[str]:
        """The code of the nearest flows, best first."""
        found = dict.fromkeys(code for _, _, code in await self.flows.search(text, 10))
        return list(found)[:k]
