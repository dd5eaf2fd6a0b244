"""LangChain's messages as conversations that rails read, and back.

What rails do not read (images, audio, files) is not converted: `UncheckedContent`. Names, reasoning
and the provider's own fields of earlier messages are left out, also of what the model gets.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from truing.core.types import Conversation, Message, Role, Tool, ToolCall
from truing.integrations.hook_rails import UncheckedContent
from truing.integrations.readable_content import is_plain, read_parts
from truing.rails.runtime.call_ids import CallIds
from truing.rails.runtime.chat_messages import ChatMessage, messages_of_conversation
from truing.specs.extras import needs_extra

with needs_extra("truing.integrations.langchain", "langchain"):
    from langchain_core.messages import (
        AIMessage,
        BaseMessage,
        HumanMessage,
        SystemMessage,
        ToolMessage,
    )
    from langchain_core.utils.function_calling import convert_to_openai_tool

_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "system": "system",
    "developer": "system",
    "ai": "assistant",
    "assistant": "assistant",
    "AIMessageChunk": "assistant",
    "HumanMessageChunk": "user",
    "SystemMessageChunk": "system",
    "ToolMessageChunk": "tool",
    "tool": "tool",
    "function": "tool",
}
# In messages of a model: its calls stand in `tool_calls` too; its reasoning is no answer.
_MODEL_BLOCKS = {
    *("tool_use", "tool_call", "tool_call_chunk", "function_call", "invalid_tool_call"),
    *("reasoning", "thinking", "redacted_thinking"),
}


def read_messages(messages: Iterable[Any]) -> Conversation:
    """Returns messages as a conversation. Raises UncheckedContent for what no rail reads."""
    return Conversation(tuple(_read_message(message) for message in messages))


def _read_message(message: Any) -> Message:
    if not isinstance(message, BaseMessage):
        raise UncheckedContent(f"a {type(message).__name__} is no message")
    kind = str(message.type)
    role = _ROLES.get(str(getattr(message, "role", "")) if kind.startswith("chat") else kind)
    if role is None:
        raise UncheckedContent(f"a message of the role {kind!r} is not read")
    text = read_content(message.content, is_model=role == "assistant")
    call_id = getattr(message, "tool_call_id", None)
    return Message(role, text, read_calls(message), call_id if role == "tool" else None)


def read_content(content: Any, *, is_model: bool = False) -> str:
    """Returns the text of a content. Raises UncheckedContent for blocks that are no text."""
    return "".join(read_parts(content, ignored=_MODEL_BLOCKS if is_model else ()))


def read_calls(message: Any) -> tuple[ToolCall, ...]:
    """Returns the tool calls of a message, those with arguments that are no JSON too."""
    calls = [
        ToolCall(call.get("id") or "", call["name"], json.dumps(call["args"], ensure_ascii=False))
        for call in getattr(message, "tool_calls", None) or ()
    ]
    calls += [
        ToolCall(call.get("id") or "", call.get("name") or "", call.get("args") or "{}")
        for call in getattr(message, "invalid_tool_calls", None) or ()
    ]
    return tuple(calls)


def read_tools(tools: Iterable[Any]) -> tuple[Tool, ...]:
    """Returns the tools that a model is offered; of a provider's own tool, its whole definition."""
    definitions = []
    for tool in tools:
        row = convert_to_openai_tool(tool)
        function = row.get("function") if isinstance(row, Mapping) else None
        if not isinstance(function, Mapping):
            kind = str(row.get("type", "tool"))
            definitions.append(Tool(kind, json.dumps(row, ensure_ascii=False, default=str)))
            continue
        parameters = json.dumps(function.get("parameters") or {}, ensure_ascii=False)
        definitions.append(Tool(function["name"], function.get("description") or "", parameters))
    return tuple(definitions)


def _is_all_read(message: Any, tool_names: Collection[str]) -> bool:
    """Returns whether a message holds nothing that a model gets and rails do not read."""
    name = message.name
    is_name_read = not name or (message.type == "tool" and name in tool_names)
    is_content_read = is_plain(message.content) and not any(
        isinstance(block, Mapping) and block.get("type") in _MODEL_BLOCKS
        for block in (message.content if isinstance(message.content, list) else ())
    )
    return is_name_read and is_content_read and not message.additional_kwargs


class TurnMessages:
    """The messages of one call of a model, so that what the rails leave as it is goes on whole.

    A conversation holds texts and calls alone. A message that the rails have not changed goes to
    the model as LangChain's own object if it holds nothing that they do not read, or is an answer
    that `keeps` names; others are built from what the rails have read.
    """

    def __init__(
        self, originals: Sequence[Any], keeps: Callable[[Any], bool] = lambda message: False
    ) -> None:
        self.conversation = read_messages(originals)
        self._call_ids = CallIds()
        self._originals: dict[Message, list[Any]] = defaultdict(list)
        chat = messages_of_conversation(self.conversation)
        names = {call.name for message in self.conversation.messages for call in message.tool_calls}
        for original, message in zip(originals, chat, strict=True):
            # The runtime gives a model its own ids of tool calls.
            renamed = self._call_ids.rename(message).to_message()
            is_read = _is_all_read(original, names) or keeps(original)
            self._originals[renamed].append(original if is_read else None)

    def to_langchain(self, conversation: Conversation) -> list[Any]:
        """Returns a conversation of the runtime as messages for LangChain's model."""
        numbers: dict[Message, int] = defaultdict(int)
        messages = []
        for message in conversation.messages:
            originals = self._originals.get(message, [])
            number = numbers[message]
            numbers[message] += 1
            original = originals[number] if number < len(originals) else None
            messages.append(original if original is not None else self._build_message(message))
        return messages

    def _build_message(self, message: Message) -> Any:
        chat = self._call_ids.restore_message(
            ChatMessage(
                role=message.role,
                content=message.content,
                tool_calls=message.tool_calls,
                tool_call_id=message.tool_call_id,
            )
        )
        if message.role == "user":
            return HumanMessage(message.content)
        if message.role == "system":
            return SystemMessage(message.content)
        if message.role == "tool":
            return ToolMessage(message.content, tool_call_id=chat.tool_call_id or "")
        return build_answer(message.content, chat.tool_calls)


def build_answer(text: str, calls: Sequence[ToolCall] = (), **fields: Any) -> Any:
    """Returns an AIMessage; a call whose arguments are no JSON object is an invalid call."""
    valid, invalid = [], []
    for call in calls:
        arguments = read_arguments_object(call.arguments)
        if arguments is None:
            invalid.append(
                {"name": call.name, "args": call.arguments, "id": call.id, "error": None}
            )
        else:
            valid.append({"name": call.name, "args": arguments, "id": call.id})
    return AIMessage(text, tool_calls=valid, invalid_tool_calls=invalid, **fields)


def read_arguments_object(arguments: str) -> dict[str, Any] | None:
    """Returns the arguments of a call; None if they are no JSON object."""
    try:
        values = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None
