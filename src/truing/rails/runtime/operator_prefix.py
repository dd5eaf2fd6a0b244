"""The messages that an operator's wrapper (`prompted:`) puts before every conversation.

They are the operator's texts, not a client's, so the input stage does not read them. They count
only at the head of a conversation, in their order, and once: the same words of a client further on
are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from truing.core.types import Message
from truing.rails.runtime.chat_messages import MODEL_ROLES, ChatMessage

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

    def find(self, rows: Sequence[ChatMessage]) -> frozenset[int]:
        """Returns the indexes of the messages that are the operator's."""
        if not (self._systems or self._prefixes):
            return frozenset()
        indexes: set[int] = set()
        start = next((i for i, row in enumerate(rows) if row.role != "context"), len(rows))
        if start < len(rows) and rows[start].role == "system":
            # Merged with a client's system message it is another text, and read.
            if rows[start].content in self._systems:
                indexes.add(start)
            start += 1
        unused = list(self._prefixes)
        while prefix := self._match(rows, start, unused):
            unused.remove(prefix)
            indexes.update(range(start, start + len(prefix)))
            start += len(prefix)
        return frozenset(indexes)

    def _match(
        self, rows: Sequence[ChatMessage], start: int, prefixes: Sequence[tuple[_Turn, ...]]
    ) -> tuple[_Turn, ...] | None:
        for prefix in prefixes:
            messages = rows[start : start + len(prefix)]
            # Only messages that a model gets word by word: of others, `to_message` is a part.
            is_plain = all(m.role in MODEL_ROLES and isinstance(m.content, str) for m in messages)
            if is_plain and tuple(_turn_of_message(m.to_message()) for m in messages) == prefix:
                return prefix
        return None


def _turn_of_message(message: Message) -> _Turn:
    calls = tuple((call.name, call.arguments) for call in message.tool_calls)
    return message.role, message.content, calls
