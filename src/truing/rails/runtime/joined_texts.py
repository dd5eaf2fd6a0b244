"""Joins the neighbouring texts of a conversation, so that rails see a text that is split over them.

A model reads all texts one after the other, a rail reads each alone. So a client can split a
harmful text: over several messages, over messages of one role with answers between them, around an
answer that it has the model give, over a variable and a message, over a message and its tool
calls, over names, keys and values of arguments, or over definitions of tools. This module collects
the runs of texts that belong together and joins the ends of neighbours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import pairwise

from msgspec import Struct

from truing.core.types import Tool, ToolCall
from truing.rails.runtime.chat_messages import ChatMessage
from truing.rails.runtime.client_texts import (
    WITHHELD_TEXT,
    context_texts,
    event_texts,
    readable_arguments,
)
from truing.rails.runtime.json_schema_words import SCHEMA_KEYS, SCHEMA_VALUES

# So many characters of a text are read before and after the place where it is joined to another.
WINDOW_CHARACTERS = 100
# Room for two shortened texts: the first and last window of each, and the separators.
JOINED_CHARACTERS = 4 * WINDOW_CHARACTERS + 20
# Of a text that rails object to by itself, ends of these lengths are joined to its neighbours.
_END_LENGTHS = (WINDOW_CHARACTERS, 50, 25, 12, 6, 3)
_SEPARATOR = "\n---\n"  # between texts, or forms of a text, that are read together
# A turn adds one answer and one message: at most four new joined texts in the order of the
# conversation (two, in two forms) and two of the user's texts. All six are read together.
TOGETHER_CHARACTERS = 6 * (JOINED_CHARACTERS + len(_SEPARATOR))
# A string in JSON, the last one perhaps cut off, and the colon after a key.
_JSON_STRING = re.compile(r'"((?:[^"\\]|\\.)*+)(?:"(\s*+:)?|\\?\Z)', re.DOTALL)


class TextPart(Struct, frozen=True):
    """One text of a run.

    `name` is the name of the tool if the text is a tool's result. `is_read_elsewhere` says that the
    rails of another stage have read the text alone and let it pass; `is_own_answer`, that it is
    such a text because the runtime itself has answered it.
    """

    text: str
    name: str = ""
    is_read_elsewhere: bool = False
    is_own_answer: bool = False


TextRun = tuple[TextPart, ...]
_PlacedPart = tuple[str, TextPart]  # the role of a text's sender, and the text


class RunSettings(Struct, frozen=True):
    """Which texts of a conversation are joined.

    Left out are the messages at the indexes `skipped` and the `trusted` roles. `is_own_answer` says
    of a text whether it is an answer of the runtime itself, which the output rails have read: it is
    joined to its neighbours, but is not by itself an objection of the input rails. Without
    `joins_turns`, runs end at such answers. `has_tool_rails` says that tool results have rails of
    their own.
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
    runs: list[TextRun] = []
    placed_parts: list[_PlacedPart] = []
    if "tool_definitions" not in settings.trusted:
        runs += _definition_runs(tools)
        placed_parts += [("definition", TextPart(text)) for text in _free_texts(tools)]
    read_messages = [
        message
        for index, message in enumerate(messages)
        if index not in settings.skipped and message.role not in settings.trusted
    ]
    for message in read_messages:
        placed_parts += _parts_of_message(message, settings)
    if settings.joins_turns:
        runs += [tuple(part for _, part in placed_parts), *_runs_of_roles(placed_parts)]
    else:
        runs += _split_at_answers(placed_parts)
    runs += _runs_of_calls(read_messages, tools, settings)
    return list(dict.fromkeys(run for run in runs if len(run) > 1))


def collect_tool_runs(
    messages: Sequence[ChatMessage], trusted: Collection[str], *, joins_turns: bool = True
) -> list[TextRun]:
    """Returns the runs of tool results, for the rails of tool results.

    Without `joins_turns`, only results that follow each other directly form a run.
    """
    runs: list[list[TextPart]] = [[]]
    for message in messages if "tool" not in trusted else ():
        if message.role != "tool":
            if not joins_turns:
                runs.append([])
        elif message.text:
            # Marked as read: a rail that rewrites every result would also rewrite the joined text,
            # and must not count as an objection to the run.
            name = message.name or "unknown"
            runs[-1].append(TextPart(message.text, name, is_read_elsewhere=True))
    return [tuple(run) for run in runs if len(run) > 1]


def join_parts(parts: Sequence[TextPart]) -> list[str]:
    """Returns the joined texts of a run (see `join_neighbours`)."""
    return join_neighbours([part.text for part in parts])


def group_texts(texts: Iterable[str]) -> list[list[str]]:
    """Returns the texts in groups that are read together: `join_group` makes each one text."""
    groups: list[list[str]] = []
    for text in texts:
        if groups and len(join_group([*groups[-1], text])) <= TOGETHER_CHARACTERS:
            groups[-1].append(text)
        else:
            groups.append([text])
    return groups


def join_group(texts: Sequence[str]) -> str:
    """Returns joined texts as one text, in which a line of its own stands between them."""
    return _SEPARATOR.join(texts)


class RefusedEnd(Struct, frozen=True):
    """One side of a text that rails object to by itself, in a run without it.

    `ends` are its first or its last characters, the most first; `before` or `after` are its nearest
    neighbours on that side.
    """

    ends: list[TextPart]
    before: list[TextPart] = []
    after: list[TextPart] = []


def ends_of_refused(run: TextRun, refused: Collection[TextPart]) -> Iterator[RefusedEnd]:
    """Yields both sides of each refused text that has a neighbour there.

    Such a text cannot be joined as a whole; but another text may be split between its end and its
    neighbour.
    """
    unrefused = [part for part in run if part not in refused]
    n_before = 0
    for part in run:
        if part not in refused:
            n_before += 1
            continue
        before = _take_near(unrefused[index] for index in range(n_before - 1, -1, -1))
        if before:
            heads = [part.text[:length] for length in _END_LENGTHS]
            yield RefusedEnd(_as_parts(heads, part), before=before[::-1])
        after = _take_near(unrefused[index] for index in range(n_before, len(unrefused)))
        if after:
            tails = [part.text[-length:] for length in _END_LENGTHS]
            yield RefusedEnd(_as_parts(tails, part), after=after)


def _take_near(parts: Iterable[TextPart]) -> list[TextPart]:
    """Returns the first of the parts, and as many more as fit into one joined text with an end."""
    near: list[TextPart] = []
    length = WINDOW_CHARACTERS
    for part in parts:
        length += len(shorten_text(part.text)) + 1
        if near and length > JOINED_CHARACTERS:
            break
        near.append(part)
    return near


def _as_parts(texts: Iterable[str], part: TextPart) -> list[TextPart]:
    return [TextPart(text, part.name) for text in dict.fromkeys(texts) if text != part.text]


# -- runs ------------------------------------------------------------------------------------------


def _split_at_answers(placed_parts: Iterable[_PlacedPart]) -> list[TextRun]:
    """Returns the texts between the runtime's own answers, as one run each."""
    runs: list[list[TextPart]] = [[]]
    for _, part in placed_parts:
        if part.is_own_answer:
            runs.append([])
        else:
            runs[-1].append(part)
    return [tuple(run) for run in runs]


def _runs_of_roles(placed_parts: Sequence[_PlacedPart]) -> list[TextRun]:
    """Returns a run of all texts of each role whose texts are not all neighbours.

    Tool results that have rails of their own are left out: `collect_tool_runs` joins them. A
    client's texts of an assistant are one run without the runtime's own answers, and one with them.
    """
    positions: dict[tuple[str, bool], list[int]] = {}  # (role, with own answers) -> positions
    for position, (role, part) in enumerate(placed_parts):
        if part.is_own_answer or not part.is_read_elsewhere:
            positions.setdefault((role, True), []).append(position)
        if not part.is_read_elsewhere:
            positions.setdefault((role, False), []).append(position)
    return [
        tuple(placed_parts[position][1] for position in role_positions)
        for (role, _), role_positions in positions.items()
        # Not a run of own answers alone: they would be read once more in every turn.
        if (role, False) in positions
        and any(after - before > 1 for before, after in pairwise(role_positions))
    ]


def _runs_of_calls(
    messages: Sequence[ChatMessage], tools: Sequence[Tool], settings: RunSettings
) -> Iterator[TextRun]:
    """Yields runs of what tool calls hold beside the values of arguments: names and keys.

    Names of offered tools, and keys that their definitions name, are read there.
    """
    known = {string for tool in tools for string, is_key in json_strings(tool.parameters) if is_key}
    known |= {tool.name for tool in tools}
    names: list[str] = []
    keys: list[str] = []
    for message in messages:
        in_order = [] if message.text == WITHHELD_TEXT else [(message.text, False)]
        unknown_before = len(names) + len(keys)
        for call in message.tool_calls:
            if _is_own_call(call, settings):
                continue
            if call.name not in known:
                names.append(call.name)
                in_order.append((call.name, False))
            strings = json_strings(readable_arguments(call.arguments))
            unknown = [(text, is_key) for text, is_key in strings if not (is_key and text in known)]
            keys += [text for text, is_key in unknown if is_key]
            in_order += unknown
        if len(names) + len(keys) > unknown_before:
            yield _run_of_texts(text for text, _ in in_order)
            yield _run_of_texts(text for text, is_key in in_order if not is_key)
    yield _run_of_texts(names)
    yield _run_of_texts(keys)


def _run_of_texts(texts: Iterable[str]) -> TextRun:
    return tuple(TextPart(text) for text in texts if text)


# -- the texts of a message, and of definitions ----------------------------------------------------


def _parts_of_message(message: ChatMessage, settings: RunSettings) -> Iterator[_PlacedPart]:
    """Yields the content, or variables, and the values in the arguments of tool calls."""
    if message.role == "context":
        yield from (("context", TextPart(t.text)) for t in context_texts(0, message.variables))
    elif message.role == "event" and not message.is_read_by_flows and message.event is not None:
        yield from (("event", TextPart(t.text)) for t in event_texts(0, message.event))
    elif message.text and message.text != WITHHELD_TEXT:
        role, text = "user" if message.role == "event" else message.role, message.text
        if role == "assistant" and settings.is_own_answer(text):
            yield role, TextPart(text, is_read_elsewhere=True, is_own_answer=True)
        else:
            is_read_elsewhere = role == "tool" and settings.has_tool_rails
            yield role, TextPart(text, is_read_elsewhere=is_read_elsewhere)
    for call in message.tool_calls:
        arguments = readable_arguments(call.arguments)
        is_own = _is_own_call(call, settings)
        strings = list(json_strings(arguments))
        values = [string for string, is_key in strings if not is_key] if strings else [arguments]
        for value in values:
            if value and arguments != "{}":
                part = TextPart(value, is_read_elsewhere=is_own, is_own_answer=is_own)
                yield message.role, part


def _is_own_call(call: ToolCall, settings: RunSettings) -> bool:
    """Returns whether the runtime itself has returned a call with these arguments."""
    return settings.is_own_answer(readable_arguments(call.arguments))


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


def _free_texts(tools: Sequence[Tool]) -> list[str]:
    """Returns the descriptions and the values of all definitions, in their order."""
    texts: list[str] = []
    for tool in tools:
        values = (string for string, is_key in json_strings(tool.parameters) if not is_key)
        texts += [tool.description, *(value for value in values if value not in SCHEMA_VALUES)]
    return [text for text in texts if text]


def _definition_runs(tools: Sequence[Tool]) -> Iterator[TextRun]:
    """Yields runs over what stands apart in definitions: names, descriptions, keys, all in order.

    The words of JSON Schema are left out: they would stand between the pieces of a split text.
    """
    in_order: list[tuple[str, bool]] = []  # (text, whether it is a key)
    for tool in tools:
        in_order += [(tool.name, False), (tool.description, False)]
        for text, is_key in json_strings(tool.parameters):
            if text not in (SCHEMA_KEYS if is_key else SCHEMA_VALUES):
                in_order.append((text, is_key))
    yield _run_of_texts(tool.name for tool in tools)
    yield _run_of_texts(tool.description for tool in tools)
    yield _run_of_texts(text for text, is_key in in_order if is_key)
    yield _run_of_texts(text for text, is_key in in_order if not is_key)
    yield _run_of_texts(text for text, _ in in_order)


# -- joining -------------------------------------------------------------------------------------


def join_neighbours(texts: Sequence[str]) -> list[str]:
    """Returns neighbouring texts joined in two forms; the middle of a long text is left out.

    The first form has a line break between two texts; the second has none where a word may continue
    in the next text. No returned text is longer than `JOINED_CHARACTERS`. Verdicts are cached by
    text: a text that is added at the end of the run changes only the last joined texts.
    """
    if len(texts) < 2:
        return []
    shortened = [shorten_text(text) for text in texts]
    joined = _join_up_to(JOINED_CHARACTERS, shortened, glue_words=False)
    glued = _join_up_to(JOINED_CHARACTERS, shortened, glue_words=True)
    both = join_group([joined[0], glued[0]])
    if len(joined) == len(glued) == 1 and joined != glued and len(both) <= JOINED_CHARACTERS:
        return [both]
    return list(dict.fromkeys([*joined, *glued]))


def shorten_text(text: str) -> str:
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
