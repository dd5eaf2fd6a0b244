"""The items of the Responses API, which the Agents SDK uses, as messages that rails read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from truing.core.types import Conversation, Message, Role, Tool, ToolCall
from truing.integrations.hook_rails import UncheckedContent

_ROLES: dict[str, Role] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
}
_TEXT_PARTS = {"input_text", "output_text", "text"}


def read_input(instructions: str | None, items: str | Iterable[Any]) -> Conversation:
    """Returns the input of a model as a conversation. Raises UncheckedContent for what no rail
    reads, such as images.
    """
    rows = [{"role": "user", "content": items}] if isinstance(items, str) else list(items)
    messages = [Message("system", instructions)] if instructions else []
    for row in rows:
        message = _read_item(as_mapping(row))
        if message is not None:
            messages.append(message)
    return Conversation(tuple(messages))


def as_mapping(item: Any) -> Mapping[str, Any]:
    """Returns an item as a mapping."""
    if isinstance(item, Mapping):
        return item
    dumped: Mapping[str, Any] = item.model_dump(exclude_unset=True)
    return dumped


def _read_item(item: Mapping[str, Any]) -> Message | None:
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
        return None  # of the model itself; read when it was written
    # Calls of the provider's own tools, and their results.
    return Message("user", json.dumps(item, ensure_ascii=False, default=str))


def read_text(content: Any) -> str:
    """Returns the text of a content. Raises UncheckedContent for parts that are no text."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, Iterable) or isinstance(content, Mapping):
        raise UncheckedContent(f"content of the type {type(content).__name__} is read by no rail")
    texts = []
    for part in content:
        row = as_mapping(part)
        kind = row.get("type", "text")
        if kind == "refusal":
            texts.append(str(row.get("refusal") or ""))
        elif kind in _TEXT_PARTS:
            texts.append(str(row.get("text") or ""))
        else:
            raise UncheckedContent(f"content of the type {str(kind)[:40]!r} is read by no rail")
    return "".join(texts)


def read_call(item: Any) -> ToolCall:
    """Returns a function call."""
    row = as_mapping(item)
    call_id, name = str(row.get("call_id") or ""), str(row.get("name") or "")
    return ToolCall(call_id, name, str(row.get("arguments") or "{}"))


def read_output(items: Iterable[Any]) -> Iterator[tuple[int, Message]]:
    """Yields the place of each item of a model's output, and what rails read of it."""
    for index, item in enumerate(items):
        kind = getattr(item, "type", "")
        if kind == "message":
            yield index, Message("assistant", read_text(item.content))
        elif kind == "function_call":
            yield index, Message("assistant", "", (read_call(item),))
        elif kind == "reasoning":
            parts = [*(item.summary or ()), *(getattr(item, "content", None) or ())]
            text = "\n".join(str(part.text) for part in parts)
            if text:
                yield index, Message("assistant", text)
        else:
            yield index, Message("assistant", item.model_dump_json(exclude_unset=True))


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
