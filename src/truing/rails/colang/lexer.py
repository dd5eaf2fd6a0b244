"""The lexical level of Colang 1.0: logical lines, and splitting text outside of quotes.

As in Python's tokenizer, a logical line may span several physical lines (a trailing backslash, a
trailing ``or``, an open string). Blank lines and comments are dropped, but a comment is kept with
the next line: Colang passes it to the LLM as an instruction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

_CLOSING = {"[": "]", "(": ")", "{": "}", "'": "'", '"': '"'}


@dataclass(frozen=True, slots=True)
class LogicalLine:
    """A logical line without its comment; `indent` in columns, `comment` the one above it."""

    text: str
    number: int
    indent: int
    comment: str | None = None

    def with_text(self, text: str) -> LogicalLine:
        """Returns a line at the same place with another text."""
        return replace(self, text=text)


def split_outside_quotes(text: str, separator: str) -> list[str]:
    """Splits at a separator that is not inside double quotes.

    The parts are stripped, and empty parts are dropped.
    """
    if text == "":
        return [""]
    if separator not in text:
        stripped = text.strip()
        return [stripped] if stripped else []
    parts: list[str] = []
    position = part_start = 0
    in_quotes = False
    size = len(separator)
    # The last `size` characters are not searched: a separator there ends the last part (below).
    while position < len(text) - size:
        if in_quotes:
            in_quotes = text[position] != '"'
            position += 1
            continue
        if text[position] == '"':
            in_quotes = True
        if text[position : position + size] == separator:
            parts.append(text[part_start:position].strip())
            position += size
            part_start = position
        else:
            position += 1
    if part_start < len(text):
        parts.append(text[part_start:].strip().removesuffix(separator))
    return [part for part in parts if part]


def split_arguments(text: str) -> list[str]:
    """Splits ``a=1, b=[1, 2], c="x, y"`` at the commas outside of brackets and quotes.

    Raises ValueError if the brackets or quotes are not balanced.
    """
    arguments: list[str] = []
    open_brackets: list[str] = []
    current: list[str] = []
    for char in text:
        is_quote = char in "\"'"
        opens_quote = is_quote and (not open_brackets or open_brackets[-1] != char)
        if char in "([{" or opens_quote:
            open_brackets.append(char)
        elif char in ")]}" or is_quote:
            if not open_brackets or char != _CLOSING[open_brackets[-1]]:
                raise ValueError(f"unexpected {char!r} in {text!r}")
            open_brackets.pop()
        elif char == "," and not open_brackets:
            arguments.append("".join(current).strip())
            current = []
            continue
        current.append(char)
    arguments.append("".join(current).strip())
    return arguments


def collapse_spaces(text: str) -> str:
    """Reduces runs of white space to one space, except inside double quotes."""
    if '"' not in text:
        return " ".join(text.split())
    return " ".join(split_outside_quotes(text, " "))


def leading_keyword(text: str) -> str:
    """Returns the keyword of a statement: its first word, or two for ``else if`` and ``go to``."""
    first, _, remainder = text.partition(" ")
    if first in ("else", "go") and remainder.strip():
        second = remainder.strip().split(" ", 1)[0]
        return f"{first} {second}"
    return first


def strip_keyword(keyword: str, text: str) -> str:
    """Returns the text after its leading keyword."""
    return text.strip()[len(keyword) :].strip()


class _LineReader:
    """Groups the physical lines of a file into logical lines.

    Each ``_read_X`` method starts at a physical line and returns the index of the first line after
    what it has read.
    """

    def __init__(self, content: str) -> None:
        self.physical = content.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
        self.logical: list[LogicalLine] = []
        self.comment: str | None = None

    def read(self) -> list[LogicalLine]:
        index = 0
        while index < len(self.physical):
            text = self.physical[index].strip()
            if _starts_open_string(text):
                index = self._read_string(index)
            elif not text or text.startswith("#"):
                self._read_comment(text)
                index += 1
            else:
                code = _strip_comment(text)
                if code.startswith('"""'):
                    index = self._read_docstring(code, index)
                else:
                    index = self._read_statement(code, index)
        return self.logical

    def _append(self, text: str, number: int, indent: int) -> None:
        self.logical.append(LogicalLine(text, number, indent, self.comment))

    def _read_comment(self, text: str) -> None:
        if text:
            comment = text[1:].strip()
            self.comment = comment if self.comment is None else f"{self.comment}\n{comment}"

    def _read_string(self, index: int) -> int:
        first = self.physical[index]
        text = first.strip()
        indent = len(first) - len(text.lstrip())
        index += 1
        while index < len(self.physical):
            line = self.physical[index].strip()
            text += "\n" + line
            index += 1
            if line.endswith('"'):
                self._append(text, index, indent)
                break
        return index

    def _read_docstring(self, text: str, index: int) -> int:
        """Reads a doc string; like a comment, it belongs to the next line."""
        if text != '"""' and text.endswith('"""'):
            self.comment = text[3:-3]
            return index + 1
        self.comment = text[3:]
        index += 1
        while index < len(self.physical):
            line = self.physical[index].strip()
            index += 1
            if not line or line.startswith("#"):
                continue
            line = split_outside_quotes(line, "#")[0]
            if line.endswith('"""'):
                self.comment += "\n" + line[:-3]
                break
            self.comment += "\n" + line
        return index

    def _read_statement(self, text: str, index: int) -> int:
        first = self.physical[index]
        indent = len(first) - len(first.lstrip(" "))
        while index < len(self.physical) - 1 and text.endswith(("\\", " or")):
            index += 1
            text = text.removesuffix("\\")
            separator = "" if text.endswith(" ") else " "
            text += separator + self.physical[index].strip()
        self._append(text, index + 1, indent)
        self.comment = None
        return index + 1


def _strip_comment(text: str) -> str:
    parts = split_outside_quotes(text, "#")
    return parts[0] if parts else text


def _starts_open_string(text: str) -> bool:
    """Whether a line starts a string that is closed on a later line."""
    if not text.startswith('"') or text.startswith('"""') or text.endswith('"'):
        return False
    # `"text"  # comment` does not end with a quote, but its string is closed.
    code = split_outside_quotes(text, "#")[0]
    has_comment = code != text
    return not (has_comment and code.endswith('"') and len(code) > 1)


def read_logical_lines(content: str) -> list[LogicalLine]:
    """Returns the logical lines of a file."""
    return _LineReader(content).read()
