"""Splits Colang 2 text into flows of nested lines, and lines into items and arguments.

A line goes on where a bracket or a text is open, or where the next one begins with `or` or `and`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

QUOTED = r'"(?:[^"\\]|\\.)*"' r"|'(?:[^'\\]|\\.)*'"
_COMMENT = re.compile(rf"({QUOTED})|#.*$")
_DOCUMENTATION = re.compile(r'^([ \t]*)("""[\s\S]*?""")[ \t]*$', re.MULTILINE)
_CONTINUES = re.compile(r"(?:or(?!\s+when\b)|and)\s")
_PART = re.compile(rf"{QUOTED}|[\[({{]|[\])}}]|\s+|[^\s\"'\[\](){{}}]+|[\"']")
MAX_LINE = 2_000  # characters; the patterns of this module take quadratic time on some lines
MAX_DEPTH = 30  # of blocks inside of blocks


@dataclass(slots=True)
class Line:
    """A statement with its number in the file, and the lines of its block."""

    number: int
    text: str
    block: list[Line] = field(default_factory=list)


@dataclass(slots=True)
class FlowLines:
    """A flow as it stands in the file: `header` is what follows the word flow."""

    file: str
    number: int
    header: str
    decorators: list[str]
    block: list[Line] = field(default_factory=list)


@dataclass(slots=True)
class FileLines:
    """A Colang 2 file: its flows, the modules that it imports, and what is wrong with its form."""

    name: str
    flows: list[FlowLines] = field(default_factory=list)
    imports: list[tuple[int, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def read_lines(name: str, text: str) -> FileLines:
    """Returns the flows of a file; documentation texts and comments are left out."""
    file = FileLines(name)
    code = _DOCUMENTATION.sub(lambda match: match[1] + "\n" * match[2].count("\n"), text)
    flow: FlowLines | None = None
    decorators: list[str] = []
    blocks: list[tuple[int, list[Line]]] = []  # (indentation, lines) of the open blocks
    for number, line in _join_lines(file, code):
        statement, indentation = line.strip(), len(line) - len(line.lstrip())
        if indentation == 0:
            flow = None
            if statement.startswith("@"):
                decorators.append(statement)
                if statement != "@active" and not statement.startswith("@meta"):
                    reason = f"Colang 2: {statement} is not translated"
                    file.faults.append(f"{name}:{number}: {reason}")
            elif statement.startswith("import "):
                file.imports.append((number, statement.removeprefix("import ").strip()))
            elif re.match(r"flow\s", statement):
                flow = FlowLines(name, number, statement[5:].strip().rstrip(":"), decorators)
                file.flows.append(flow)
                decorators, blocks = [], []
            else:
                file.faults.append(f"{name}:{number}: Colang 2: {statement!r} is not translated")
            continue
        if flow is None:
            file.faults.append(f"{name}:{number}: Colang 2: a statement outside of a flow")
            continue
        _add_line(file, flow, blocks, indentation, Line(number, statement))
    return file


def _add_line(
    file: FileLines,
    flow: FlowLines,
    blocks: list[tuple[int, list[Line]]],
    indentation: int,
    line: Line,
) -> None:
    """Adds a line to the block of its indentation."""
    while blocks and blocks[-1][0] > indentation:
        blocks.pop()
    if not blocks or blocks[-1][0] < indentation:
        parent = blocks[-1][1][-1].block if blocks else flow.block
        if len(blocks) >= MAX_DEPTH or (not blocks and flow.block):
            file.faults.append(f"{file.name}:{line.number}: Colang 2: unexpected indentation")
            return
        blocks.append((indentation, parent))
    blocks[-1][1].append(line)


def _join_lines(file: FileLines, code: str) -> Iterator[tuple[int, str]]:
    """Yields (number of the first line, text) of each statement on one or several lines."""
    pending, number, depth = "", 0, 0
    for index, raw in enumerate(code.split("\n"), 1):
        if len(raw) > MAX_LINE or len(pending) > MAX_LINE:
            file.faults.append(f"{file.name}:{index}: Colang 2: more than {MAX_LINE} characters")
            pending, depth = "", 0
            continue
        line = _COMMENT.sub(lambda match: match[1] or "", raw.expandtabs(4)).rstrip()
        if not line.strip():
            continue
        if pending and (depth > 0 or _CONTINUES.match(line.strip())):
            pending += " " + line.strip()
        else:
            if pending:
                yield number, pending
            pending, number = line, index
        depth = _count_open_brackets(pending)
    if pending:
        yield number, pending


def _count_open_brackets(text: str) -> int:
    parts = _PART.findall(text)
    return sum(part in "([{" for part in parts) - sum(part in ")]}" for part in parts)


def split_at(text: str, separator: str) -> list[str]:
    """Splits a text at a word (or at ``,``) outside of brackets and quoted texts."""
    groups, group, depth = [], "", 0
    for part in _PART.findall(text):
        depth += (part in ("(", "[", "{")) - (part in (")", "]", "}"))
        if depth == 0 and separator == "," and "," in part and part[:1] not in "\"'":
            first, *middle, last = part.split(",")
            groups += [group + first, *middle]
            group = last
        elif depth == 0 and part == separator:
            groups.append(group)
            group = ""
        else:
            group += part
    return [stripped for p in (*groups, group) if (stripped := p.strip())]


def split_arguments(text: str) -> list[str]:
    """Splits simple arguments at white space outside of brackets and quoted texts."""
    arguments, argument, depth = [], "", 0
    for part in _PART.findall(text):
        depth += (part in ("(", "[", "{")) - (part in (")", "]", "}"))
        if depth == 0 and part.isspace():
            arguments.append(argument)
            argument = ""
        else:
            argument += part
    return [p for p in (*arguments, argument) if p]
