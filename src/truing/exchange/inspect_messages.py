"""Messages of Inspect AI's logs: conversations, and the calls and results of an agent's episode."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import UNSET

from truing.core.episodes import CallStatus
from truing.core.types import Conversation, Message, Response, ToolCall

# Status of a call -> the type of Inspect's error of a tool call; executed calls have none.
_ERROR_TYPES: dict[CallStatus, str] = {
    "error": "unknown",
    "invalid": "parsing",
    "unknown": "unknown",
    "timeout": "timeout",
    "limit": "limit",
    "denied": "approval",
}


def make_id(*parts: str) -> str:
    """Returns an id in Inspect's form (22 letters and digits), which depends only on `parts`."""
    # Deterministic instead of random: exporting a run twice gives the same log.
    raw = hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).digest()
    return base64.b64encode(raw, altchars=b"aB")[:22].decode()


def encode_message(message: Message, id_: str) -> dict[str, Any]:
    """Returns a message in Inspect's form."""
    row: dict[str, Any] = {"id": id_, "role": message.role, "content": message.content}
    if message.tool_calls:
        row["tool_calls"] = [
            {
                "id": c.id,
                "function": c.name,
                "arguments": _parse_arguments(c.arguments),
                "type": "function",
            }
            for c in message.tool_calls
        ]
    if message.tool_call_id is not None:
        row["tool_call_id"] = message.tool_call_id
    return row


def _parse_arguments(text: str) -> dict[str, Any]:
    # A model's text, of any depth; NaN and Infinity are no JSON.
    try:
        arguments = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return {"text": text}
    return arguments if isinstance(arguments, dict) else {"value": arguments}


def encode_input(conversation: Conversation, id_: str) -> str | list[dict[str, Any]]:
    """Returns a sample's input: a text, or messages if it is more than one of the user."""
    messages = conversation.messages
    if len(messages) == 1 and messages[0].role == "user":
        return messages[0].content
    return [encode_message(m, make_id(id_, str(k))) for k, m in enumerate(messages)]


def encode_episode(response: Response, id_: str) -> Iterator[dict[str, Any]]:
    """Yields what an agent wrote and read before its last answer: each turn with its calls, and
    each call's result. A call without a result in its trace has no message. Of a result that rails
    withheld the message says so, as the agent read; the result is in its metadata.
    """
    if response.episode is UNSET:
        return
    for number, turn in enumerate(response.episode.turns):
        if not turn.calls:
            continue  # the last answer, which is the response itself
        calls = tuple(ToolCall(call.id, call.name, call.arguments) for call in turn.calls)
        turn_id = f"{id_}/turn {number}"
        message = encode_message(Message("assistant", turn.text, calls), make_id(turn_id))
        yield message | {"source": "generate", "model": response.model}
        for call in turn.calls:
            if call.status == "missing":
                continue
            result = Message("tool", call.shown_result, (), call.id)
            row = encode_message(result, make_id(turn_id, call.id)) | {"function": call.name}
            if call.status in _ERROR_TYPES:
                error_type = _ERROR_TYPES[call.status]
                row["error"] = {"type": error_type, "message": result.content or call.status}
            if call.withheld:
                row["metadata"] = {"withheld_result": call.result}
            yield row
