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
_MAX_CLOSING_BRACES = 2  # those that are left out at the end of a call in doubled braces


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
    blocks_read, blocks_left = blocks[:_MAX_TEXT_CALLS], blocks[_MAX_TEXT_CALLS:]
    calls = [_read_block(block, f"text{index}") for index, block in enumerate(blocks_read)]
    if blocks_left:
        calls.append(ToolCall(f"text{len(blocks_read)}", "", "\n".join(blocks_left)))
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


def without_doubled_braces(text: str) -> str:
    """Returns a JSON object without the braces around it; a text without them as it is.

    The chat template of Qwen2.5-Coder shows calls as ``{{"name": ...}}``, and its models write
    them so, often with more braces at the end than at the beginning.
    """
    if not text.startswith("{{"):
        return text
    for n_left_out in range(_MAX_CLOSING_BRACES + 1):
        body = text[1 : len(text) - n_left_out]
        try:
            msgspec.json.decode(body, type=msgspec.Raw)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            if not body.endswith("}"):
                break
        else:
            return body
    return text


def _read_block(block: str, call_id: str) -> ToolCall:
    try:
        call = msgspec.json.decode(without_doubled_braces(block))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ToolCall(call_id, "", block)
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return ToolCall(call_id, "", block)
    arguments = call.get("arguments", {})
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
    return ToolCall(call_id, call["name"], text)
