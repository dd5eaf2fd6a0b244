"""The texts of a conversation that a client supplied, each with its place and its role.

Whatever role a message claims, its sender is the client: the contents of all messages, names,
the arguments of tool calls, context variables, the strings of events, and the definitions of
tools.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from truing.core.types import Tool
from truing.rails.runtime.conversation_state import content_text

ChatMessage = dict[str, Any]  # in the OpenAI form, or one of NeMo's: context, event, exception
TextStage = Literal["input", "tool_input"]
WITHHELD_TEXT = "<withheld: a rail objected to this message>"
# An escape in a JSON string: a character beyond ASCII in two halves, \\uXXXX, or a shorter one.
_JSON_ESCAPE = re.compile(
    r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})"
    r"|u([0-9a-fA-F]{4})|(.))",
    re.DOTALL,
)
_OPTIONS_VARIABLE = "generation_options"
_UTTERANCE_EVENT = "UtteranceUserActionFinished"


class ClientText(Struct, frozen=True):
    """One text of a client.

    `index` is its message (-1: a tool definition), `part` its place in it: content, name, call:N
    (the arguments of a tool call), call_name:N, a context variable or an event's field. `name` is
    the tool whose result the text is. Only where `can_rewrite` is true can a rail replace it.
    """

    index: int
    part: str
    role: str
    text: str
    stage: TextStage = "input"
    name: str = ""
    call_id: str = ""
    can_rewrite: bool = True


def is_read_by_flows(message: Mapping[str, Any]) -> bool:
    """Returns whether the flows themselves run the input rails on this message, if it is last."""
    if message.get("role") == "event":
        event = message.get("event")
        return isinstance(event, Mapping) and event.get("type") == _UTTERANCE_EVENT
    return message.get("role") == "user"


def collect_client_texts(
    messages: Sequence[ChatMessage],
    tools: Sequence[Tool],
    *,
    has_tool_rails: bool,
    trusted: Collection[str],
    includes_newest: bool = False,
) -> list[ClientText]:
    """Returns all texts of a conversation; that of a last message which the flows themselves read
    only with `includes_newest`.

    Texts of trusted roles are left out.
    """
    newest_index = -1 if includes_newest else len(messages) - 1
    texts: list[ClientText] = []
    if "tool_definitions" not in trusted:
        texts += [_definition_text(tool) for tool in tools]
    tool_names = {tool.name for tool in tools}
    call_names = _names_by_call_id(messages)
    stage: TextStage = "tool_input" if has_tool_rails else "input"
    for index, message in enumerate(messages):
        role = message_role(message)
        if role in trusted:
            continue
        if role == "context":
            texts += _context_texts(index, message.get("content"))
        elif role == "event":
            if index != newest_index or not is_read_by_flows(message):
                texts += _event_texts(index, message.get("event"))
        else:
            name = str(
                message.get("name") or call_names.get(message.get("tool_call_id")) or "unknown"
            )
            if index != newest_index or not is_read_by_flows(message):
                texts += _content_texts(
                    index, role, message, stage if role == "tool" else "input", name
                )
            texts += _other_texts(index, role, message, tool_names)
    return texts


def message_text(message: ChatMessage) -> str:
    """Returns the text of a message; of an event, the text of the user that it reports."""
    if message.get("role") == "event":
        event = message.get("event")
        spoken = event.get("final_transcript") if isinstance(event, Mapping) else None
        return content_text(spoken or "")
    return content_text(message.get("content") or "")


def message_role(message: ChatMessage) -> str:
    """Returns the role of a message; OpenAI's `developer` is its newer name of `system`."""
    role = str(message.get("role"))
    return "system" if role == "developer" else role


def _definition_text(tool: Tool) -> ClientText:
    parts = (tool.name, tool.description, readable_arguments(tool.parameters))
    text = "\n".join(part for part in parts if part)
    return ClientText(-1, "definition", "tool_definitions", text, can_rewrite=False)


def _names_by_call_id(messages: Sequence[ChatMessage]) -> dict[Any, str]:
    return {
        call.get("id"): str((call.get("function") or {}).get("name") or "")
        for message in messages
        for call in message.get("tool_calls") or ()
        if isinstance(call, dict)
    }


def _content_texts(
    index: int, role: str, message: ChatMessage, stage: TextStage, name: str
) -> Iterator[ClientText]:
    content = message.get("content")
    if content is None or content == "" or role == "exception":
        return
    yield ClientText(
        index,
        "content",
        role,
        content_text(content),
        stage,
        name,
        str(message.get("tool_call_id") or ""),
        can_rewrite=isinstance(content, str),
    )


def _other_texts(
    index: int, role: str, message: ChatMessage, tool_names: Collection[str]
) -> Iterator[ClientText]:
    """Yields the message's name, and the names and arguments of its tool calls."""
    if message.get("name"):
        yield ClientText(index, "name", role, str(message["name"]), can_rewrite=False)
    for number, call in enumerate(message.get("tool_calls") or ()):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            yield ClientText(index, f"call_name:{number}", role, _as_text(call), can_rewrite=False)
            continue
        name, arguments = function.get("name"), function.get("arguments")
        # The names of offered tools stand in their definitions.
        if name and name not in tool_names:
            yield ClientText(index, f"call_name:{number}", role, str(name), can_rewrite=False)
        if arguments and arguments != "{}":
            can_rewrite = isinstance(arguments, str)
            text = readable_arguments(arguments)
            yield ClientText(index, f"call:{number}", role, text, can_rewrite=can_rewrite)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def readable_arguments(arguments: Any) -> str:
    r"""Returns the arguments of a tool call as a text in which no character is escaped as \uXXXX
    that can stand in JSON by itself.

    The program that calls the tool decodes the escapes, so rails must read the decoded text too.
    """
    if not isinstance(arguments, str):
        return _as_text(arguments)
    # Not by a JSON parser: it drops the first of two equal keys, and refuses what is cut off.
    return _JSON_ESCAPE.sub(_unescape, arguments) if "\\" in arguments else arguments


def _unescape(escape: re.Match[str]) -> str:
    """Returns the character of a JSON escape; the escape itself where JSON needs it."""
    high, low, code, short = escape.groups()
    if short is not None:
        return "/" if short == "/" else escape[0]
    if high is not None:
        return bytes.fromhex(high + low).decode("utf-16-be")
    character = chr(int(code, 16))
    is_needed = character in '"\\' or character < " " or "\ud800" <= character <= "\udfff"
    return escape[0] if is_needed else character


def _context_texts(index: int, content: Any) -> Iterator[ClientText]:
    for variable, value in content.items() if isinstance(content, Mapping) else ():
        if variable == _OPTIONS_VARIABLE:
            continue
        if isinstance(value, str):
            if value:
                yield ClientText(index, str(variable), "context", value)
            continue
        for text in _strings_in(value):
            yield ClientText(index, str(variable), "context", text, can_rewrite=False)


def _event_texts(index: int, event: Any) -> Iterator[ClientText]:
    for field, value in event.items() if isinstance(event, Mapping) else ():
        if field != "type":
            for text in _strings_in(value):
                yield ClientText(index, str(field), "event", text, can_rewrite=False)


def _strings_in(value: Any) -> Iterator[str]:
    """Yields the strings in nested lists and mappings, keys included."""
    pending = [value]
    while pending:
        current = pending.pop()
        if isinstance(current, str):
            if current:
                yield current
        elif isinstance(current, Mapping):
            pending += [*current.keys(), *current.values()]
        elif isinstance(current, (list, tuple, set, frozenset)):
            pending += current


# -- rewriting -------------------------------------------------------------------------------------


def with_text(message: ChatMessage, part: str, text: str) -> ChatMessage:
    """Returns a message with one of its texts replaced."""
    if part == "content":
        return {**message, "content": text}
    if part.startswith("call:"):
        calls = list(message["tool_calls"])
        number = int(part.removeprefix("call:"))
        function = {**calls[number]["function"], "arguments": text}
        calls[number] = {**calls[number], "function": function}
        return {**message, "tool_calls": calls}
    return {**message, "content": {**message["content"], part: text}}
