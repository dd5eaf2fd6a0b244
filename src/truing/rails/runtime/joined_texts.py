"""The texts that follow each other in a conversation, joined as a reader of all of them may.

A text may be split so that no rail sees the whole of it: over messages, over the messages of one
role with answers between them, over a message and the arguments of its tool calls, over two keys
of the arguments, or over definitions of tools. Here, and nowhere else, such pieces are joined.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import pairwise

from msgspec import Struct

from truing.core.types import Tool
from truing.rails.runtime.client_texts import (
    WITHHELD_TEXT,
    ChatMessage,
    message_role,
    message_text,
    readable_arguments,
)

WINDOW_CHARACTERS = 100  # of each text, at either side of the place where two are joined
MIN_JOINED_CHARACTERS = 4 * WINDOW_CHARACTERS + 20  # two shortened texts fit
_BETWEEN_FORMS = "\n---\n"
_NO_TEXT_ROLES = ("context", "exception")
# A string in JSON, the last one perhaps cut off, and the colon after a key.
_JSON_STRING = re.compile(r'"((?:[^"\\]|\\.)*+)(?:"(\s*+:)?|\\?\Z)', re.DOTALL)
# Keywords of JSON schema whose values are no free text.
_SCHEMA_WORDS = frozenset({"type", "format", "required", "$ref"})


class TextPart(Struct, frozen=True):
    """A text beside others; `is_read_elsewhere`: rails of a stage of its own have let it pass.

    `name` is the tool whose result it is.
    """

    text: str
    name: str = ""
    is_read_elsewhere: bool = False


TextRun = tuple[TextPart, ...]


class RunSettings(Struct, frozen=True):
    """Which texts of a conversation are joined.

    The messages at the indexes `skipped` and trusted roles are left out, and so is what
    `is_own_answer` says that the runtime answered itself. `joins_turns` also joins the texts of one
    role that have others between them.
    """

    is_own_answer: Callable[[str], bool]
    skipped: Collection[int] = ()
    trusted: Collection[str] = ()
    has_tool_rails: bool = False
    joins_turns: bool = True


def collect_runs(
    messages: Sequence[ChatMessage], tools: Sequence[Tool], settings: RunSettings
) -> list[TextRun]:
    """Returns the texts that the input rails read joined, run by run, each in order."""
    placed_parts: list[tuple[str, TextPart] | None] = []  # (role, part); None: an own answer
    if "tool_definitions" not in settings.trusted:
        placed_parts += [("definition", part) for part in _definition_parts(tools)]
    for index, message in enumerate(messages):
        role = message_role(message)
        if role in _NO_TEXT_ROLES or role in settings.trusted or index in settings.skipped:
            continue
        placed_parts += [
            None if part is None else (role, part)
            for part in _parts_of_message(message, role, settings)
        ]
    runs = _split_at_answers(placed_parts)
    if settings.joins_turns:
        runs += _runs_of_roles(placed_parts)
    keys = [TextPart(key) for key in _keys_of_calls(messages, tools, settings)]
    return [run for run in (*runs, tuple(keys)) if len(run) > 1]


def collect_tool_runs(
    messages: Sequence[ChatMessage], trusted: Collection[str], *, joins_turns: bool = True
) -> list[TextRun]:
    """Returns the results of tools in order, for the rails of tool results.

    Without `joins_turns` only results that follow each other directly.
    """
    runs: list[list[TextPart]] = [[]]
    for message in messages if "tool" not in trusted else ():
        text = message_text(message)
        if message.get("role") != "tool":
            if not joins_turns:
                runs.append([])
        elif text:
            # A rail that always rewrites would also rewrite what it has let pass.
            name = str(message.get("name") or "unknown")
            runs[-1].append(TextPart(text, name, is_read_elsewhere=True))
    return [tuple(run) for run in runs if len(run) > 1]


def join_parts(parts: Sequence[TextPart]) -> list[str]:
    """Returns the texts to read for a run."""
    return join_neighbours([part.text for part in parts])


# -- runs ------------------------------------------------------------------------------------------


def _split_at_answers(placed_parts: Iterable[tuple[str, TextPart] | None]) -> list[TextRun]:
    runs: list[list[TextPart]] = [[]]
    for placed in placed_parts:
        if placed is None:
            runs.append([])
        else:
            runs[-1].append(placed[1])
    return [tuple(run) for run in runs]


def _runs_of_roles(placed_parts: Sequence[tuple[str, TextPart] | None]) -> list[TextRun]:
    """Returns the texts of each role that has texts with others between them.

    The results of tools with rails of their own are joined by those rails.
    """
    positions: dict[str, list[int]] = {}
    for position, placed in enumerate(placed_parts):
        if placed is not None and not placed[1].is_read_elsewhere:
            positions.setdefault(placed[0], []).append(position)
    runs: list[TextRun] = []
    for of_role in positions.values():
        if any(after - before > 1 for before, after in pairwise(of_role)):
            placed_of_role = (placed_parts[position] for position in of_role)
            runs.append(tuple(placed[1] for placed in placed_of_role if placed is not None))
    return runs


# -- the texts of a message, and of definitions ----------------------------------------------------


def _parts_of_message(
    message: ChatMessage, role: str, settings: RunSettings
) -> Iterator[TextPart | None]:
    """Yields the content and the values in the arguments of tool calls; None for an own answer."""
    text = message_text(message)
    if role == "assistant" and text and settings.is_own_answer(text):
        yield None
    elif text and text != WITHHELD_TEXT:
        yield TextPart(text, is_read_elsewhere=role == "tool" and settings.has_tool_rails)
    for arguments in _foreign_arguments(message, settings):
        strings = list(json_strings(arguments))
        values = [string for string, is_key in strings if not is_key] if strings else [arguments]
        yield from (TextPart(value) for value in values if value)


def _foreign_arguments(message: ChatMessage, settings: RunSettings) -> Iterator[str]:
    """Yields the arguments of the tool calls that the runtime has not answered itself."""
    for call in message.get("tool_calls") or ():
        function = call.get("function") if isinstance(call, dict) else None
        arguments = function.get("arguments") if isinstance(function, dict) else call
        if arguments and not settings.is_own_answer(readable_arguments(arguments)):
            yield readable_arguments(arguments)


def json_strings(json_text: str) -> Iterator[tuple[str, bool]]:
    """Yields (string, whether it is a key) in the order of a JSON text, which may be cut off.

    Not by a JSON parser: it drops the first of two equal keys, and refuses what is cut off.
    """
    for match in _JSON_STRING.finditer(json_text):
        literal, colon = match.groups()
        yield _decode_string(literal), colon is not None


def _decode_string(literal: str) -> str:
    if "\\" not in literal:
        return literal
    try:
        return str(json.loads(f'"{literal}"', strict=False))
    except ValueError:
        return literal


def _keys_of_calls(
    messages: Sequence[ChatMessage], tools: Sequence[Tool], settings: RunSettings
) -> list[str]:
    """Returns the different keys of all arguments that no definition of a tool names."""
    known = {string for tool in tools for string, is_key in json_strings(tool.parameters) if is_key}
    return list(
        dict.fromkeys(
            string
            for index, message in enumerate(messages)
            if message_role(message) not in settings.trusted and index not in settings.skipped
            for arguments in _foreign_arguments(message, settings)
            for string, is_key in json_strings(arguments)
            if is_key and string and string not in known
        )
    )


def _definition_parts(tools: Sequence[Tool]) -> list[TextPart]:
    """Returns the free texts of all definitions, and once more the descriptions of the tools.

    So neither two descriptions nor two parameters have others between them.
    """
    texts: list[str] = []
    for tool in tools:
        texts += [tool.description, *_free_texts(tool.parameters)]
    descriptions = [tool.description for tool in tools]
    has_others = texts != descriptions and len(tools) > 1
    return [TextPart(text) for text in (*texts, *(descriptions if has_others else ())) if text]


def _free_texts(schema: str) -> Iterator[str]:
    """Yields the strings of a JSON schema, in its order, that a tool's author words freely."""
    last_key = ""
    for string, is_key in json_strings(schema):
        if is_key:
            last_key = string
        elif last_key not in _SCHEMA_WORDS:
            yield string


# -- joining -------------------------------------------------------------------------------------


def join_neighbours(texts: Sequence[str]) -> list[str]:
    """Returns the ends and beginnings of texts that follow each other, joined as a reader may.

    Once with line breaks and, where a word may go on in the next text, once without. The middle of
    a long text is left out. No returned text is longer than the longest given one (or
    `MIN_JOINED_CHARACTERS`), so that a rail that limits the length of a message does not object to
    the sum of them.
    """
    if len(texts) < 2:
        return []
    # In coarse steps: a longer message later on would otherwise change all joined texts, and what
    # has been read of them would be read again.
    bound, longest = MIN_JOINED_CHARACTERS, max(len(text) for text in texts)
    while 4 * bound <= longest:
        bound *= 4
    shortened = [_without_middle(text) for text in texts]
    joined = _join_up_to(bound, shortened, glue_words=False)
    glued = _join_up_to(bound, shortened, glue_words=True)
    both = f"{joined[0]}{_BETWEEN_FORMS}{glued[0]}"
    if len(joined) == len(glued) == 1 and joined != glued and len(both) <= bound:
        return [both]  # one call of a check instead of two
    return list(dict.fromkeys([*joined, *glued]))


def _without_middle(text: str) -> str:
    if len(text) <= 2 * WINDOW_CHARACTERS:
        return text
    # At a blank where there is one: half a number or address must not look like another kind.
    head, tail = text[:WINDOW_CHARACTERS], text[-WINDOW_CHARACTERS:]
    head = head.rpartition(" ")[0] or head
    tail = tail.partition(" ")[2] or tail
    return f"{head}\n{tail}"


def _join_up_to(bound: int, texts: Sequence[str], *, glue_words: bool) -> list[str]:
    """Joins texts; where the bound is reached a new text begins with the last one again."""
    joined = [texts[0]]
    for previous, text in pairwise(texts):
        is_word = previous[-1:].isalnum() and text[:1].isalnum()
        separator = "" if glue_words and is_word else "\n"
        if len(joined[-1]) + len(separator) + len(text) > bound:
            joined.append(previous)
        joined[-1] += separator + text
    return joined
