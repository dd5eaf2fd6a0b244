"""The messages that an operator's wrapper (`prompted:`) puts before every conversation.

They are the operator's texts, not a client's, so the input stage does not read them. They count
only at the head of a conversation, in their order, and once: the same words of a client further on
are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from truing.core.types import Message

_Turn = tuple[str, str, tuple[tuple[str, str], ...]]  # role, content, (name, arguments) of calls


class OperatorPrefixes:
    """The prefixes that wrappers of a model have announced."""

    def __init__(self) -> None:
        self._systems: set[str] = set()
        self._prefixes: list[tuple[_Turn, ...]] = []

    def add(self, messages: Iterable[Message]) -> None:
        """Adds a prefix; a system message counts apart, since a conversation has only one."""
        turns = [_turn_of_message(message) for message in messages]
        if turns and turns[0][0] == "system":
            self._systems.add(turns.pop(0)[1])
        if turns and tuple(turns) not in self._prefixes:
            self._prefixes.append(tuple(turns))

    def find(self, rows: Sequence[Mapping[str, Any]]) -> frozenset[int]:
        """Returns the indexes of the messages that are the operator's."""
        if not (self._systems or self._prefixes):
            return frozenset()
        indexes: set[int] = set()
        start = next((i for i, row in enumerate(rows) if row.get("role") != "context"), len(rows))
        if start < len(rows) and rows[start].get("role") == "system":
            # Merged with a client's system message it is another text, and read.
            if rows[start].get("content") in self._systems:
                indexes.add(start)
            start += 1
        unused = list(self._prefixes)
        while prefix := self._match(rows, start, unused):
            unused.remove(prefix)
            indexes.update(range(start, start + len(prefix)))
            start += len(prefix)
        return frozenset(indexes)

    def _match(
        self, rows: Sequence[Mapping[str, Any]], start: int, prefixes: Sequence[tuple[_Turn, ...]]
    ) -> tuple[_Turn, ...] | None:
        for prefix in prefixes:
            turns = tuple(_turn_of_row(row) for row in rows[start : start + len(prefix)])
            if turns == prefix:
                return prefix
        return None


def _turn_of_message(message: Message) -> _Turn:
    calls = tuple((call.name, call.arguments) for call in message.tool_calls)
    return message.role, message.content, calls


def _turn_of_row(row: Mapping[str, Any]) -> _Turn:
    functions = [call.get("function") or {} for call in row.get("tool_calls") or ()]
    calls = tuple((str(f.get("name")), str(f.get("arguments"))) for f in functions)
    content = row.get("content")
    return str(row.get("role")), content if isinstance(content, str) else repr(content), calls
