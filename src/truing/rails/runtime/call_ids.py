"""The runtime's own ids in place of the tool call ids of a client.

An id is free text of the client that no rail reads. Rails and models see `call00001`, `call00002`,
... in the order of appearance, so that an id can tell them nothing; the client keeps its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from truing.core.types import ToolCall
from truing.rails.runtime.client_texts import ChatMessage


class CallIds:
    """The ids of one conversation: equal ids of the client become equal ids of the runtime."""

    def __init__(self) -> None:
        self._own_ids: dict[str, str] = {}

    def _own_id(self, client_id: Any) -> Any:
        if client_id is None or client_id == "":
            return client_id
        # Exactly nine letters and digits: Mistral's templates and endpoint accept no other form.
        return self._own_ids.setdefault(str(client_id), f"call{len(self._own_ids) + 1:05}")

    def rename(self, message: Mapping[str, Any]) -> ChatMessage:
        """Returns a message with the runtime's ids; called in the order of the conversation."""
        renamed = dict(message)
        if renamed.get("tool_calls"):
            renamed["tool_calls"] = [
                {**call, "id": self._own_id(call["id"])}
                if isinstance(call, Mapping) and "id" in call
                else call
                for call in renamed["tool_calls"]
            ]
        if "tool_call_id" in renamed:
            renamed["tool_call_id"] = self._own_id(renamed["tool_call_id"])
        return renamed

    def restore(self, calls: tuple[ToolCall, ...]) -> tuple[ToolCall, ...]:
        """Returns calls of the client, as a check of them left them, with the client's ids."""
        client_ids = {own: client for client, own in self._own_ids.items()}
        return tuple(replace(call, id=client_ids.get(call.id, call.id)) for call in calls)
