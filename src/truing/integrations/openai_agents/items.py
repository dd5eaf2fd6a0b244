"""The items of the Responses API, which the Agents SDK uses, as messages that rails read.

Types of items and their fields are an allow list: what it does not name no rail reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from truing.core.types import Conversation, Message, Role, Tool, ToolCall
from truing.integrations.hook_rails import UncheckedContent
from truing.integrations.readable_content import read_parts

_ROLES: dict[str, Role] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
}
# Calls of a provider's own tools whose fields are all texts.
_HOSTED_ITEMS: dict[str, frozenset[str]] = {
    "web_search_call": frozenset({"id", "type", "status", "action"}),
    "file_search_call": frozenset({"id", "type", "status", "queries", "results"}),
    "mcp_call": frozenset(
        {"id", "type", "status", "server_label", "name", "arguments", "output", "error"}
        | {"approval_request_id"}
    ),
}


class OutputReading(Struct, frozen=True, kw_only=True):
    """What rails read of a model's output: one message of all its texts and calls, and apart from
    it the texts that can only be refused: of reasoning, and of a provider's own tools.
    """

    answer: Message | None
    others: tuple[Message, ...] = ()


def read_input(instructions: str | None, items: str | Iterable[Any]) -> Conversation:
    """Returns the input of a model as a conversation, a message for each item but reasoning, which
    models get back only as they wrote it. Raises UncheckedContent for what no rail reads.
    """
    rows = [{"role": "user", "content": items}] if isinstance(items, str) else list(items)
    messages = [Message("system", instructions)] if instructions else []
    for row in rows:
        message = read_item(as_mapping(row))
        if message is not None:
            messages.append(message)
    return Conversation(tuple(messages))


def as_mapping(item: Any) -> Mapping[str, Any]:
    """Returns an item as a mapping."""
    if isinstance(item, Mapping):
        return item
    dumped: Mapping[str, Any] = item.model_dump(exclude_unset=True)
    return dumped


def read_item(item: Mapping[str, Any]) -> Message | None:
    """Returns an item as a message; None of reasoning. Raises UncheckedContent."""
    kind = item.get("type") or "message"
    if kind == "message":
        role = _ROLES.get(str(item.get("role")))
        if role is None:
            raise UncheckedContent(f"a message of the role {str(item.get('role'))[:40]!r}")
        return Message(role, read_text(item.get("content")))
    if kind == "function_call":
        return Message("assistant", "", (read_call(item),))
    if kind == "function_call_output":
        call_id = str(item.get("call_id") or "")
        return Message("tool", read_text(item.get("output")), tool_call_id=call_id)
    if kind == "reasoning":
        return None
    return Message("user", _read_hosted(item))


def _read_hosted(item: Mapping[str, Any]) -> str:
    """Returns the call of a provider's own tool as JSON. Raises UncheckedContent."""
    kind = str(item.get("type"))
    fields = _HOSTED_ITEMS.get(kind)
    values = {key: value for key, value in item.items() if value is not None}
    if fields is None or not fields.issuperset(values):
        raise UncheckedContent(f"an item of the type {kind[:40]!r} is read by no rail")
    return json.dumps(values, ensure_ascii=False, default=str)


def read_text(content: Any) -> str:
    """Returns the text of a content. Raises UncheckedContent for parts that are no text."""
    return "".join(read_parts(content))


def read_call(item: Any) -> ToolCall:
    """Returns a function call."""
    row = as_mapping(item)
    call_id, name = str(row.get("call_id") or ""), str(row.get("name") or "")
    return ToolCall(call_id, name, str(row.get("arguments") or "{}"))


def read_output(items: Sequence[Any]) -> OutputReading:
    """Returns what rails read of a model's output. Raises UncheckedContent."""
    texts: list[str] = []
    calls: list[ToolCall] = []
    others: list[Message] = []
    for output_item in items:
        kind = getattr(output_item, "type", "")
        if kind == "message":
            texts.append(read_text(output_item.content))
        elif kind == "function_call":
            calls.append(read_call(output_item))
        elif kind == "reasoning":
            parts = [*(output_item.summary or ()), *(getattr(output_item, "content", None) or ())]
            others.append(Message("assistant", "\n".join(str(part.text) for part in parts)))
        else:
            others.append(Message("assistant", _read_hosted(as_mapping(output_item))))
    answer = Message("assistant", "".join(texts), tuple(calls)) if texts or calls else None
    return OutputReading(answer=answer, others=tuple(m for m in others if m.content))


def read_tools(tools: Iterable[Any], handoffs: Iterable[Any] = ()) -> tuple[Tool, ...]:
    """Returns the tools and handoffs that a model is offered."""
    definitions = [
        Tool(
            str(getattr(tool, "name", type(tool).__name__)),
            str(getattr(tool, "description", "") or ""),
            json.dumps(getattr(tool, "params_json_schema", None) or {}, default=str),
        )
        for tool in tools
    ]
    definitions += [Tool(handoff.tool_name, handoff.tool_description or "") for handoff in handoffs]
    return tuple(definitions)
