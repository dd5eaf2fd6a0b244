"""Tool calls that a model writes into its text: ``<tool_call>{"name": ..., "arguments": ...}``.

Models that run here, or behind a server without a parser of its own, give their calls as text in
the form that their chat templates teach (Hermes, Qwen). Only this form is read: a JSON object in
prose is no call.

Behind rails the runtime reads them, so that the rails on tool calls do; an agent reads those of a
model without rails.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from truing.core.types import Message, ToolCall

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_MAX_TEXT_CALLS = 64


def read_text_calls(message: Message) -> Message:
    """Returns the message with the calls in its text as tool calls; itself if there are none.

    A block that is no call becomes a call with an empty name, so that it is recorded as unknown;
    so does all that follows the 64th block, as one call.
    """
    if message.tool_calls or _OPEN not in message.content:
        return message
    texts, blocks = [], []
    for text, block in _split_blocks(message.content):
        texts.append(text)
        blocks += [] if block is None else [block]
    read, rest = blocks[:_MAX_TEXT_CALLS], blocks[_MAX_TEXT_CALLS:]
    calls = [_read_block(block, f"text{index}") for index, block in enumerate(read)]
    if rest:
        calls.append(ToolCall(f"text{len(read)}", "", "\n".join(rest)))
    return Message("assistant", "".join(texts).strip(), tuple(calls))


def _split_blocks(content: str) -> Iterator[tuple[str, str | None]]:
    """Yields (text, the block after it): None at the end; an unclosed block ends with the text."""
    # By `find`, each character once: a regular expression takes quadratic time on spaces.
    place = 0
    while (start := content.find(_OPEN, place)) >= 0:
        end = content.find(_CLOSE, start)
        text, place = content[place:start], end + len(_CLOSE)
        if end < 0:
            yield text, content[start + len(_OPEN) :].strip()
            return
        yield text, content[start + len(_OPEN) : end].strip()
    yield content[place:], None


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
