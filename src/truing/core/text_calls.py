"""Tool calls that a model writes into its text: ``<tool_call>{"name": ..., "arguments": ...}``.

Models that run here, or behind a server without a parser of its own, give their calls as text in
the form that their chat templates teach (Hermes, Qwen). Only this form is read: a JSON object in
prose is no call.

Behind rails the runtime reads them, so that the rails on tool calls do; an agent reads those of a
model without rails.
"""

from __future__ import annotations

import re

import msgspec

from truing.core.types import Message, ToolCall

_BLOCK = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)
_MAX_TEXT_CALLS = 64


def read_text_calls(message: Message) -> Message:
    """Returns the message with the calls in its text as tool calls; itself if there are none.

    A block that is no call becomes a call with an empty name, so that it is recorded as unknown.
    """
    if message.tool_calls or "<tool_call>" not in message.content:
        return message
    calls = tuple(
        _read_block(block, f"text{index}")
        for index, block in enumerate(_BLOCK.findall(message.content)[:_MAX_TEXT_CALLS])
    )
    return Message("assistant", _BLOCK.sub("", message.content).strip(), calls)


def _read_block(block: str, call_id: str) -> ToolCall:
    try:
        value = msgspec.json.decode(block)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ToolCall(call_id, "", block)
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return ToolCall(call_id, "", block)
    arguments = value.get("arguments", {})
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
    return ToolCall(call_id, value["name"], text)
