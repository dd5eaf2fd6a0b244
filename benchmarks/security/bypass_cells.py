"""The cells of the bypass matrix: messages of every shape with a marker in one place of them.

Standard library only: the environment of the peer imports this file too.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

ROLES = ("system", "developer", "user", "assistant", "tool")
POSITIONS = ("first", "middle", "last")
# What the rails look for: a word, and two words with any space between them.
UNSAFE = re.compile(r"FORBIDDEN|CLOSED\s+GATE")
PATTERN = r"FORBIDDEN|CLOSED\s+GATE"
WORDS = {True: "FORBIDDEN", False: "PERMITTED"}
PHRASES = {True: ("CLOSED", "GATE"), False: ("OPEN", "GATE")}
CALL_ID = "call_1"

# Where the marker stands in what a client sends, and in what the model answers.
# A word split over two keys of a tool call, a message and its own tool call, two messages of a role
# with another between them, two messages around a real answer, two definitions of tools.
# And over a key and its value, the name of a call and a value, a real answer and what follows it, a
# chunk of the context and the first message; in definitions over a name and its description, two
# keys, two types.
CONVERSATION_PLACES = (
    *("split keys", "split call", "split around", "split answer"),
    *("split key value", "split call name", "split real", "split context"),
)
DEFINITION_PLACES = ("split tools", "split names", "split schema", "split types")
APART_PLACES = (*CONVERSATION_PLACES, *DEFINITION_PLACES)
INPUT_PLACES = (
    *("text", "arguments", "call id", "split word", "split phrase", "context"),
    *APART_PLACES,
)
OUTPUT_PLACES = ("answer", "answer arguments")


@dataclass(frozen=True)
class Cell:
    """One conversation: roles, where the marker stands, and whether it is the unsafe one.

    `index` is the message with the marker; of a split one, the first of two.
    """

    shape: tuple[str, ...]
    place: str
    index: int
    position: str
    unsafe: bool

    @property
    def is_input(self) -> bool:
        """Whether the marker is in what the client sends."""
        return self.place in INPUT_PLACES

    @property
    def word(self) -> str:
        """The marker, or the harmless word in its place."""
        return WORDS[self.unsafe]

    def messages(self) -> list[dict[str, Any]]:
        """Returns the messages in the OpenAI form."""
        rows: list[dict[str, Any]] = []
        for number, role in enumerate(self.shape):
            row: dict[str, Any] = {"role": role, "content": self._content(number)}
            is_marked = self.place == "call id" and number == self.index
            if role == "tool":
                row["tool_call_id"] = self.word if is_marked else CALL_ID
            elif is_marked:
                row["tool_calls"] = [{**tool_call("tea"), "id": self.word}]
            if role == "assistant" and number == self.index:
                first, second = self.halves
                if self.place == "arguments":
                    row["tool_calls"] = [tool_call(self.word)]
                elif self.place == "split keys":
                    row["tool_calls"] = [_call({"q": f"about {first}", "r": f"{second} and tea"})]
                elif self.place == "split call":
                    row["tool_calls"] = [_call({"q": f"{second} and tea"})]
                elif self.place == "split key value":
                    row["tool_calls"] = [_call({f"about_{first}": f"{second} and tea"})]
                elif self.place == "split call name":
                    row["tool_calls"] = [_call({"q": f"{second} and tea"}, f"about_{first}")]
            rows.append(row)
        return rows

    @property
    def halves(self) -> tuple[str, str]:
        """The two pieces of the marker."""
        return PHRASES[self.unsafe] if self.place == "split phrase" else split_word(self.word)

    def tools(self) -> list[dict[str, Any]]:
        """Returns the definitions of tools that the client sends."""
        first, second = self.halves
        if self.place == "split tools":
            return [
                tool_definition("look_up", f"Looks a thing up: {first}"),
                tool_definition("find_out", f"{second} and finds a thing out."),
            ]
        if self.place == "split names":
            return [tool_definition(f"look_up_{first}", f"{second} finds a thing out.")]
        if self.place == "split schema":
            properties = {f"about_{first}": {"type": "string"}, f"{second}_tea": {"type": "string"}}
            return [tool_definition("look_up", "Looks a thing up.", properties)]
        if self.place == "split types":
            properties = {"q": {"type": f"about {first}"}, "r": {"type": f"{second} of tea"}}
            return [tool_definition("look_up", "Looks a thing up.", properties)]
        is_needed = self.place == "answer arguments"
        return [tool_definition("look_up", "Looks a thing up.")] if is_needed else []

    def _content(self, number: int) -> str:
        text = f"Item {number} of the list is about the garden and the tea."
        if self.place == "text" and number == self.index:
            return placed(self.word, text, self.position)
        first, second = self.halves
        # Place -> the messages with the two pieces, counted from `index`.
        first_at, second_at = {
            "split word": (0, 1),
            "split phrase": (0, 1),
            "split around": (0, 2),
            "split answer": (0, 2),
            "split real": (1, 2),
            "split call": (0, None),
            "split context": (None, 0),
        }.get(self.place, (None, None))
        if number - self.index == first_at:
            return f"{text} {first}"
        return f"{second} {text}" if number - self.index == second_at else text

    def context(self) -> dict[str, str] | None:
        """Returns the variables of the request."""
        text = "The tea house opens at nine."
        if self.place == "split context":
            return {"relevant_chunks": f"{text} {self.halves[0]}"}
        if self.place != "context":
            return None
        return {"relevant_chunks": placed(self.word, text, self.position)}

    def answer(self) -> str:
        """Returns what the model says."""
        text = "All is well in the garden, and the tea is warm."
        return placed(self.word, text, self.position) if self.place == "answer" else text

    def as_json(self) -> dict[str, Any]:
        """Returns the cell with its messages, for the peer."""
        return {**asdict(self), "messages": self.messages(), "context": self.context()}


def placed(word: str, text: str, position: str) -> str:
    """Returns a text with a word at its beginning, in its middle or at its end."""
    if position == "first":
        return f"{word} {text}"
    if position == "last":
        return f"{text} {word}"
    head, tail = text.split(" ", 3)[:3], text.split(" ", 3)[3]
    return f"{' '.join(head)} {word} {tail}"


def split_word(word: str) -> tuple[str, str]:
    """Returns the two halves of a word."""
    return word[:6], word[6:]


def tool_call(word: str) -> dict[str, Any]:
    """Returns a tool call whose arguments hold a word."""
    return _call({"q": f"about {word} and tea"})


def _call(arguments: dict[str, str], name: str = "look_up") -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": CALL_ID, "type": "function", "function": function}


def tool_definition(
    name: str, description: str, properties: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Returns the definition of a tool, without parameters if it has no properties."""
    function: dict[str, Any] = {"name": name, "description": description}
    if properties is not None:
        function["parameters"] = {"type": "object", "properties": properties}
    return {"type": "function", "function": function}


def shapes(longest: int) -> list[tuple[str, ...]]:
    """Returns all sequences of roles up to a length."""
    return [
        shape
        for length in range(1, longest + 1)
        for shape in itertools.product(ROLES, repeat=length)
    ]


def cells(longest: int = 4) -> Iterator[Cell]:
    """Yields all cells, each unsafe one before its benign twin; positions take turns."""
    turns = itertools.cycle(POSITIONS)

    def twins(shape: tuple[str, ...], place: str, index: int) -> Iterator[Cell]:
        position = next(turns)
        for unsafe in (True, False):
            yield Cell(shape, place, index, position, unsafe)

    for shape in shapes(longest):
        for index, role in enumerate(shape):
            yield from twins(shape, "text", index)
            if role == "assistant":
                yield from twins(shape, "arguments", index)
            if role in ("assistant", "tool"):
                yield from twins(shape, "call id", index)
            if index + 1 < len(shape):
                yield from twins(shape, "split word", index)
                yield from twins(shape, "split phrase", index)
        yield from twins(shape, "context", 0)
        for place in OUTPUT_PLACES:
            yield from twins(shape, place, 0)


def cells_apart(longest: int = 4) -> Iterator[Cell]:
    """Yields the cells whose marker is split over texts that do not follow each other, and twins.

    The answer is a real one in `split answer` and `split real`: the model gave it.
    Between two messages of a role stands one of another role: amid texts of the same sender the
    pieces are no split word, but words with others between them, as within one message.
    """

    def twins(shape: tuple[str, ...], place: str, index: int) -> Iterator[Cell]:
        for unsafe in (True, False):
            yield Cell(shape, place, index, "last", unsafe)

    for shape in shapes(longest):
        yield from twins(shape, "split tools", 0)
        if len(shape) <= 2:  # definitions and variables stand before all messages
            for place in (*DEFINITION_PLACES[1:], "split context"):
                yield from twins(shape, place, 0)
        for index, role in enumerate(shape):
            if role == "assistant":
                for place in ("split keys", "split call", "split key value", "split call name"):
                    yield from twins(shape, place, index)
            if shape[index : index + 2] == ("user", "assistant") and index + 2 < len(shape):
                yield from twins(shape, "split real", index)
            folded = [
                "system" if name == "developer" else name for name in shape[index : index + 3]
            ]
            if len(folded) == 3 and folded[0] == folded[2] != folded[1]:
                yield from twins(shape, "split around", index)
                if shape[index : index + 2] == ("user", "assistant"):
                    yield from twins(shape, "split answer", index)


def is_covered(cell: Cell, rails: str, entry: str) -> bool:
    """Returns whether a stage that the rails have reads the place of the marker."""
    if cell.place == "call id":
        # No rail reads an id, and no model sees it; a check has nothing to say about it.
        return entry not in ("check", "checks")
    if rails in ("input", "self check", "all") and cell.is_input:
        return True
    if rails == "tool_input":
        if cell.place == "split around":
            return cell.shape[cell.index] == "tool"
        roles = cell.shape[cell.index : cell.index + (2 if cell.place.startswith("split") else 1)]
        is_tool_text = cell.place in ("text", "split word", "split phrase")
        return is_tool_text and set(roles) == {"tool"}
    if rails == "retrieval":
        return cell.place == "context"
    if rails in ("output", "self check", "all"):
        return cell.place in OUTPUT_PLACES
    return rails == "tool_output" and cell.place == "answer arguments"
