"""Joins the neighbouring texts of a conversation, so that rails see a text that is split over them.

A model reads all texts one after the other, a rail reads each alone. So a client can split a
harmful text: over several messages, over messages of one role with answers between them, over a
message and the arguments of its tool calls, over two keys of the arguments, or over definitions of
tools. This module collects the runs of texts that belong together and joins the ends of neighbours.
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

# So many characters of a text are read before and after the place where it is joined to another.
WINDOW_CHARACTERS = 100
# Room for two shortened texts: the first and last window of each, and the separators.
MIN_JOINED_CHARACTERS = 4 * WINDOW_CHARACTERS + 20
_FORM_SEPARATOR = "\n---\n"  # between the form with line breaks and the form without
_NO_TEXT_ROLES = ("context", "exception")
# A string in JSON, the last one perhaps cut off, and the colon after a key.
_JSON_STRING = re.compile(r'"((?:[^"\\]|\\.)*+)(?:"(\s*+:)?|\\?\Z)', re.DOTALL)
# Keywords of JSON Schema whose values are types and names, not prose.
_SCHEMA_WORDS = frozenset({"type", "format", "required", "$ref"})


class TextPart(Struct, frozen=True):
    """One text of a run.

    `name` is the name of the tool if the text is a tool's result. `is_read_elsewhere` says that the
    rails of another stage have read the text alone and let it pass.
    """

    text: str
    name: str = ""
    is_read_elsewhere: bool = False


TextRun = tuple[TextPart, ...]


class RunSettings(Struct, frozen=True):
    """Which texts of a conversation are joined.

    Left out are the messages at the indexes `skipped`, the `trusted` roles, and the texts for which
    `is_own_answer` returns True: answers of the runtime itself, which the output rails have read.
    `joins_turns` also joins the texts of one role that have other texts between them.
    `has_tool_rails` says that tool results have rails of their own.
    """

    is_own_answer: Callable[[str], bool]
    skipped: Collection[int] = ()
    trusted: Collection[str] = ()
    has_tool_rails: bool = False
    joins_turns: bool = True


def collect_runs(
    messages: Sequence[ChatMessage], tools: Sequence[Tool], settings: RunSettings
) -> list[TextRun]:
    """Returns the runs of texts that the input rails read joined, each in order."""
    # (role, part) of each text; None stands for an answer of the runtime itself.
    placed_parts: list[tuple[str, TextPart] | None] = []
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
    # The values of arguments are parts of their messages; the keys are a run of their own.
    keys = [TextPart(key) for key in _keys_of_calls(messages, tools, settings)]
    return [run for run in (*runs, tuple(keys)) if len(run) > 1]


def collect_tool_runs(
    messages: Sequence[ChatMessage], trusted: Collection[str], *, joins_turns: bool = True
) -> list[TextRun]:
    """Returns the runs of tool results, for the rails of tool results.

    Without `joins_turns`, only results that follow each other directly form a run.
    """
    runs: list[list[TextPart]] = [[]]
    for message in messages if "tool" not in trusted else ():
        text = message_text(message)
        if message.get("role") != "tool":
            if not joins_turns:
                runs.append([])
        elif text:
            # Marked as read: a rail that rewrites every result would also rewrite the joined text,
            # and must not count as an objection to the run.
            name = str(message.get("name") or "unknown")
            runs[-1].append(TextPart(text, name, is_read_elsewhere=True))
    return [tuple(run) for run in runs if len(run) > 1]


def join_parts(parts: Sequence[TextPart]) -> list[str]:
    """Returns the joined texts of a run (see `join_neighbours`)."""
    return join_neighbours([part.text for part in parts])


# -- runs ------------------------------------------------------------------------------------------


def _split_at_answers(placed_parts: Iterable[tuple[str, TextPart] | None]) -> list[TextRun]:
    """Returns the texts between the runtime's own answers, as one run each."""
    runs: list[list[TextPart]] = [[]]
    for placed in placed_parts:
        if placed is None:
            runs.append([])
        else:
            runs[-1].append(placed[1])
    return [tuple(run) for run in runs]


def _runs_of_roles(placed_parts: Sequence[tuple[str, TextPart] | None]) -> list[TextRun]:
    """Returns a run of all texts of each role whose texts are not all neighbours.

    Tool results that have rails of their own are left out: `collect_tool_runs` joins them.
    """
    positions: dict[str, list[int]] = {}
    for position, placed in enumerate(placed_parts):
        if placed is not None and not placed[1].is_read_elsewhere:
            positions.setdefault(placed[0], []).append(position)
    runs: list[TextRun] = []
    for role_positions in positions.values():
        if any(after - before > 1 for before, after in pairwise(role_positions)):
            role_parts = (placed_parts[position] for position in role_positions)
            runs.append(tuple(placed[1] for placed in role_parts if placed is not None))
    return runs


# -- the texts of a message, and of definitions ----------------------------------------------------


def _parts_of_message(
    message: ChatMessage, role: str, settings: RunSettings
) -> Iterator[TextPart | None]:
    """Yields the content, and the values in the arguments of tool calls.

    None stands for content that is an answer of the runtime itself.
    """
    text = message_text(message)
    if role == "assistant" and text and settings.is_own_answer(text):
        yield None
    elif text and text != WITHHELD_TEXT:
        yield TextPart(text, is_read_elsewhere=role == "tool" and settings.has_tool_rails)
    for arguments in _client_arguments(message, settings):
        strings = list(json_strings(arguments))
        values = [string for string, is_key in strings if not is_key] if strings else [arguments]
        yield from (TextPart(value) for value in values if value)


def _client_arguments(message: ChatMessage, settings: RunSettings) -> Iterator[str]:
    """Yields the arguments of tool calls, without those that the runtime itself returned."""
    for call in message.get("tool_calls") or ():
        function = call.get("function") if isinstance(call, dict) else None
        arguments = function.get("arguments") if isinstance(function, dict) else call
        if arguments and not settings.is_own_answer(readable_arguments(arguments)):
            yield readable_arguments(arguments)


def json_strings(json_text: str) -> Iterator[tuple[str, bool]]:
    """Yields (string, whether it is a key) in the order of a JSON text, which may be cut off.

    By a pattern, since a JSON parser drops the first of two equal keys and rejects a text that is
    cut off: both could hide a string.
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
    """Returns the distinct keys of all arguments, without those that a tool's definition names."""
    known = {string for tool in tools for string, is_key in json_strings(tool.parameters) if is_key}
    return list(
        dict.fromkeys(
            string
            for index, message in enumerate(messages)
            if message_role(message) not in settings.trusted and index not in settings.skipped
            for arguments in _client_arguments(message, settings)
            for string, is_key in json_strings(arguments)
            if is_key and string and string not in known
        )
    )


def _definition_parts(tools: Sequence[Tool]) -> list[TextPart]:
    """Returns the free texts of all definitions, and then the descriptions of the tools again.

    In the first list parameters may separate two descriptions; in the second they are neighbours.
    """
    texts: list[str] = []
    for tool in tools:
        texts += [tool.description, *_free_texts(tool.parameters)]
    descriptions = [tool.description for tool in tools]
    has_parameters = texts != descriptions and len(tools) > 1
    return [TextPart(text) for text in (*texts, *(descriptions if has_parameters else ())) if text]


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
    """Returns neighbouring texts joined in two forms; the middle of a long text is left out.

    The first form has a line break between two texts; the second has none where a word may continue
    in the next text. No returned text is longer than the longest of `texts` (or than
    `MIN_JOINED_CHARACTERS`), so that a rail that limits the length of a message does not object to
    the joined text.
    """
    if len(texts) < 2:
        return []
    # In steps of a factor 4: verdicts are cached by text. If the bound followed the longest text
    # exactly, one longer message would change all joined texts, and all would be read again.
    bound, longest = MIN_JOINED_CHARACTERS, max(len(text) for text in texts)
    while 4 * bound <= longest:
        bound *= 4
    shortened = [_without_middle(text) for text in texts]
    joined = _join_up_to(bound, shortened, glue_words=False)
    glued = _join_up_to(bound, shortened, glue_words=True)
    both = f"{joined[0]}{_FORM_SEPARATOR}{glued[0]}"
    if len(joined) == len(glued) == 1 and joined != glued and len(both) <= bound:
        return [both]  # one call of a check instead of two
    return list(dict.fromkeys([*joined, *glued]))


def _without_middle(text: str) -> str:
    """Returns the first and the last window of a text; a short text unchanged."""
    if len(text) <= 2 * WINDOW_CHARACTERS:
        return text
    # Cut at a space if there is one: a rail could take half of a number for other data.
    head, tail = text[:WINDOW_CHARACTERS], text[-WINDOW_CHARACTERS:]
    head = head.rpartition(" ")[0] or head
    tail = tail.partition(" ")[2] or tail
    return f"{head}\n{tail}"


def _join_up_to(bound: int, texts: Sequence[str], *, glue_words: bool) -> list[str]:
    """Joins texts into as few as fit the bound.

    If the next text does not fit, a new joined text begins with the previous one, so that each two
    neighbours are together in one joined text.
    """
    joined = [texts[0]]
    for previous, text in pairwise(texts):
        is_word = previous[-1:].isalnum() and text[:1].isalnum()
        separator = "" if glue_words and is_word else "\n"
        if len(joined[-1]) + len(separator) + len(text) > bound:
            joined.append(previous)
        joined[-1] += separator + text
    return joined
