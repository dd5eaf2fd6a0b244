"""Colang 1.0, the lexical part: logical lines (comments kept for the next line, doc strings and blank lines dropped,
strings over several lines joined), and ways to split a text that leave quoted parts alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Line:
    """One logical line: its text without the comment, its number in the file, its indentation, the comment above."""

    text: str
    number: int
    indent: int
    comment: str | None = None

    def with_text(self, text: str) -> Line:
        """The same place with another text."""
        return replace(self, text=text)


def split_outside(text: str, word: str) -> list[str]:
    """Splits by a word, but not inside double quotes; parts are stripped, empty ones left out."""
    if text == "":
        return [""]
    if word not in text:
        part = text.strip()
        return [part] if part else []
    parts: list[str] = []
    at = start = 0
    quoted = False
    size = len(word)
    while at < len(text) - size:
        if quoted:
            quoted = text[at] != '"'
            at += 1
            continue
        if text[at] == '"':
            quoted = True
        if text[at : at + size] == word:
            parts.append(text[start:at].strip())
            at += size
            start = at
        else:
            at += 1
    if start < len(text):
        parts.append(text[start:].strip().removesuffix(word))
    return [p for p in parts if p]


def split_arguments(text: str) -> list[str]:
    """Splits ``a=1, b=[1, 2], c="x, y"`` at the commas that stand outside brackets and quotes; ValueError if unbalanced."""
    closing = {"[": "]", "(": ")", "{": "}", "'": "'", '"': '"'}
    parts: list[str] = []
    stack: list[str] = []
    current: list[str] = []
    for char in text:
        if char in "([{" or (char in "\"'" and (not stack or stack[-1] != char)):
            stack.append(char)
        elif char in ")]}\"'":
            if not stack or char != closing[stack[-1]]:
                raise ValueError(f"unexpected {char!r} in {text!r}")
            stack.pop()
        elif char == "," and not stack:
            parts.append("".join(current).strip())
            current = []
            continue
        current.append(char)
    parts.append("".join(current).strip())
    return parts


def single_spaced(text: str) -> str:
    """One space between words, quoted parts untouched."""
    if '"' not in text:
        return " ".join(text.split())
    return " ".join(split_outside(text, " "))


def keyword(text: str) -> str:
    """The first word; for ``else`` and ``go`` with the word after it."""
    first, _, rest = text.partition(" ")
    if first in ("else", "go") and rest.strip():
        return f"{first} {rest.strip().split(' ', 1)[0]}"
    return first


def without(word: str, text: str) -> str:
    """The text after its first word(s)."""
    return text.strip()[len(word) :].strip()


class _Reader:
    """The state of the scan over the raw lines."""

    def __init__(self, content: str) -> None:
        self.raw = content.split("\n")
        self.lines: list[Line] = []
        self.comment: str | None = None

    def emit(self, text: str, number: int, indent: int) -> None:
        self.lines.append(Line(text, number, indent, self.comment))

    def string(self, at: int) -> int:
        """A string over several lines, from line `at`; gives the line after it."""
        first = self.raw[at]
        text = first.strip()
        indent = len(first) - len(text.lstrip())
        at += 1
        while at < len(self.raw):
            row = self.raw[at].strip()
            text += "\n" + row
            at += 1
            if row.endswith('"'):
                self.emit(text, at, indent)
                break
        return at

    def docstring(self, text: str, at: int) -> int:
        """A doc string from line `at`; its text counts as the comment of the next line."""
        if text != '"""' and text.endswith('"""'):
            self.comment = text[3:-3]
            return at + 1
        self.comment = text[3:]
        at += 1
        while at < len(self.raw):
            row = self.raw[at].strip()
            at += 1
            if not row or row.startswith("#"):
                continue
            row = split_outside(row, "#")[0]
            if row.endswith('"""'):
                self.comment += "\n" + row[:-3]
                break
            self.comment += "\n" + row
        return at

    def statement(self, text: str, at: int) -> int:
        """A statement, continued after a backslash or an open ``or``."""
        raw = self.raw[at]
        indent = len(raw) - len(raw.lstrip(" "))
        while at < len(self.raw) - 1 and text and (text[-1] == "\\" or text.endswith(" or")):
            at += 1
            text = text[:-1] if text[-1] == "\\" else text
            text = (text if text.endswith(" ") else text + " ") + self.raw[at].strip()
        self.emit(text, at + 1, indent)
        self.comment = None
        return at + 1


def logical_lines(content: str) -> list[Line]:
    """The logical lines of a file."""
    reader = _Reader(content.removeprefix("\ufeff").replace("\r\n", "\n"))
    at = 0
    while at < len(reader.raw):
        row = reader.raw[at].strip()
        if row.startswith('"') and not row.startswith('"""') and not row.endswith('"'):
            # a trailing comment after a closed string is no open string
            bare = split_outside(row, "#")[0]
            if not (bare != row and bare.endswith('"') and len(bare) > 1):
                at = reader.string(at)
                continue
        if row.startswith("#"):
            said = row[1:].strip()
            reader.comment = said if reader.comment is None else f"{reader.comment}\n{said}"
        if not row or row[0] == "#":
            at += 1
            continue
        parts = split_outside(row, "#")
        row = parts[0] if parts else row
        at = reader.docstring(row, at) if row.startswith('"""') else reader.statement(row, at)
    return reader.lines
