"""The runtime's own ids in place of the tool call ids of a client.

An id is free text of the client that no rail reads. Rails and models see `call00001`, `call00002`,
... in the order of appearance, so that an id can tell them nothing; the client keeps its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import UNSET
from msgspec.structs import replace

from truing.core.types import Ruling, ToolCall
from truing.rails.runtime.chat_messages import ChatMessage


class CallIds:
    """The ids of one conversation: equal ids of the client become equal ids of the runtime."""

    def __init__(self) -> None:
        self._own_ids: dict[str, str] = {}

    def _own_id(self, client_id: str) -> str:
        if not client_id:
            return client_id
        # Exactly nine letters and digits: Mistral's templates and endpoint accept no other form.
        return self._own_ids.setdefault(client_id, f"call{len(self._own_ids) + 1:05}")

    def rename(self, message: ChatMessage) -> ChatMessage:
        """Returns a message with the runtime's ids; called in the order of the conversation."""
        if not message.tool_calls and message.tool_call_id is None:
            return message
        calls = tuple(replace(call, id=self._own_id(call.id)) for call in message.tool_calls)
        result_id = message.tool_call_id
        own_id = None if result_id is None else self._own_id(result_id)
        return replace(message, tool_calls=calls, tool_call_id=own_id)

    def restore(self, calls: tuple[ToolCall, ...]) -> tuple[ToolCall, ...]:
        """Returns calls of the client, as a check of them left them, with the client's ids."""
        client_ids = {own: client for client, own in self._own_ids.items()}
        return tuple(replace(call, id=client_ids.get(call.id, call.id)) for call in calls)

    def restore_rulings(self, rulings: Iterable[Ruling]) -> tuple[Ruling, ...]:
        """Returns rulings on calls of the client with the client's ids."""
        client_ids = {own: client for client, own in self._own_ids.items()}
        return tuple(
            ruling
            if ruling.call_ids is UNSET
            else replace(ruling, call_ids=tuple(client_ids.get(i, i) for i in ruling.call_ids))
            for ruling in rulings
        )

    def restore_message(self, message: ChatMessage) -> ChatMessage:
        """Returns a message with the client's ids in its calls and of the call that it answers."""
        if not message.tool_calls and message.tool_call_id is None:
            return message
        client_ids = {own: client for client, own in self._own_ids.items()}
        result_id = message.tool_call_id
        client_id = None if result_id is None else client_ids.get(result_id, result_id)
        calls = self.restore(message.tool_calls)
        return replace(message, tool_calls=calls, tool_call_id=client_id)
