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
from msgspec.structs import replace

from truing.core.types import Tool
from truing.rails.runtime.chat_messages import ChatMessage
from truing.rails.runtime.event_types import Event

TextStage = Literal["input", "tool_input"]
WITHHELD_TEXT = "<withheld: a rail objected to this message>"
# An escape in a JSON string: a character beyond ASCII in two halves, \\uXXXX, or a shorter one.
_JSON_ESCAPE = re.compile(
    r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})"
    r"|u([0-9a-fA-F]{4})|(.))",
    re.DOTALL,
)
PLACES_OF_ROLES = {
    "tool_definitions": "the definition of a tool",
    "system": "the system message",
    "assistant": "an earlier answer",
    "tool": "the result of a tool",
    "context": "a variable of the context",
    "joined": "several texts, read together",
}
"""Where a text stands that is not the newest message, as the reasons of blocks say it."""
_OPTIONS_VARIABLE = "generation_options"


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
    result_names = name_results(messages)
    stage: TextStage = "tool_input" if has_tool_rails else "input"
    for index, message in enumerate(messages):
        role = message.role
        if role in trusted:
            continue
        is_left_out = index == newest_index and message.is_read_by_flows
        if role == "context":
            texts += context_texts(index, message.variables)
        elif role == "event":
            if message.event is not None and not is_left_out:
                texts += event_texts(index, message.event)
        elif role != "exception":
            name = message.name or result_names[index] or "unknown"
            if not is_left_out:
                text_stage = stage if role == "tool" else "input"
                texts += _content_texts(index, message, text_stage, name)
            texts += _other_texts(index, message, tool_names)
    return texts


def _definition_text(tool: Tool) -> ClientText:
    parts = (tool.name, tool.description, readable_arguments(tool.parameters))
    text = "\n".join(part for part in parts if part)
    return ClientText(-1, "definition", "tool_definitions", text, can_rewrite=False)


def name_results(messages: Sequence[ChatMessage]) -> list[str]:
    """Returns for each message the name of the tool whose result it is, by the calls before it.

    "" for all other messages, for a result without an earlier call, and where earlier calls of its
    id name different tools: nobody can say which of them it answers.
    """
    names: list[str] = []
    tool_of_call: dict[str, str] = {}
    for message in messages:
        is_result = message.role == "tool"
        names.append(tool_of_call.get(message.tool_call_id or "", "") if is_result else "")
        for call in message.tool_calls:
            if call.id:
                is_same = tool_of_call.setdefault(call.id, call.name) == call.name
                tool_of_call[call.id] = call.name if is_same else ""
    return names


def _content_texts(
    index: int, message: ChatMessage, stage: TextStage, name: str
) -> Iterator[ClientText]:
    if message.content:
        yield ClientText(
            index,
            "content",
            message.role,
            message.text,
            stage,
            name,
            message.tool_call_id or "",
            can_rewrite=isinstance(message.content, str),
        )


def _other_texts(
    index: int, message: ChatMessage, tool_names: Collection[str]
) -> Iterator[ClientText]:
    """Yields the message's name, and the names and arguments of its tool calls."""
    role = message.role
    if message.name:
        yield ClientText(index, "name", role, message.name, can_rewrite=False)
    for number, call in enumerate(message.tool_calls):
        # The names of offered tools stand in their definitions.
        if call.name and call.name not in tool_names:
            yield ClientText(index, f"call_name:{number}", role, call.name, can_rewrite=False)
        if call.arguments not in ("", "{}"):
            yield ClientText(index, f"call:{number}", role, readable_arguments(call.arguments))


def readable_arguments(arguments: Any) -> str:
    r"""Returns the arguments of a tool call as a text in which no character is escaped as \uXXXX
    that can stand in JSON by itself.

    The program that calls the tool decodes the escapes, so rails must read the decoded text too.
    """
    if not isinstance(arguments, str):  # flows may put anything into a call
        return json.dumps(arguments, default=str, ensure_ascii=False)
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


def context_texts(index: int, variables: Mapping[str, Any]) -> Iterator[ClientText]:
    """Yields the texts of context variables, without the generation options."""
    for variable, value in variables.items():
        if variable == _OPTIONS_VARIABLE:
            continue
        if isinstance(value, str):
            if value:
                yield ClientText(index, variable, "context", value)
            continue
        for text in _strings_in(value):
            yield ClientText(index, variable, "context", text, can_rewrite=False)


def event_texts(index: int, event: Event) -> Iterator[ClientText]:
    """Yields the texts in the fields of an event."""
    for field, value in event.to_nemo().items():
        if field != "type":
            for text in _strings_in(value):
                yield ClientText(index, str(field), "event", text, can_rewrite=False)


def _strings_in(value: Any) -> Iterator[str]:
    """Yields the strings in nested lists and mappings in their order, keys included."""
    pending = [value]  # a stack, not recursion: clients choose the depth
    while pending:
        current = pending.pop()
        if isinstance(current, str):
            if current:
                yield current
        elif isinstance(current, Mapping):
            pending += reversed([part for item in current.items() for part in item])
        elif isinstance(current, (list, tuple, set, frozenset)):
            pending += reversed(list(current))


# -- rewriting -------------------------------------------------------------------------------------


def with_text(message: ChatMessage, part: str, text: str) -> ChatMessage:
    """Returns a message with one of its texts replaced.

    Raises ValueError for the texts of an event, which no rail can rewrite.
    """
    # By the role first: clients choose the names of variables, "content" and "call:0" too.
    if message.role == "context":
        return replace(message, variables={**message.variables, part: text})
    if message.role in ("event", "exception"):
        raise ValueError(f"the texts of an {message.role} cannot be rewritten")
    if part == "content":
        return replace(message, content=text)
    if part.startswith("call:"):
        calls = list(message.tool_calls)
        number = int(part.removeprefix("call:"))
        calls[number] = replace(calls[number], arguments=text)
        return replace(message, tool_calls=tuple(calls))
    raise ValueError(f"{part!r} is no text of a message that can be rewritten")
