"""Reads TOML texts that people write, and names the lines of their faults.

    table = parse_toml(text, "plan.toml")
    ...
    raise PlanError(*add_lines(text, "plan.toml", ["plan.toml: run.limt: unknown key"]))
    # plan.toml:4: run.limt: unknown key

tomllib keeps no positions, so the lines of keys are found by a second, lenient pass over the text.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from typing import Any

from truing.core.errors import PlanError

_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"""|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\''
    r"|#[^\n]*|\n|[\[\]{},.=]|[^\s\[\]{},.=#\"']+|[^\S\n]+|.",
    re.DOTALL,
)
_PLACE_IN_MESSAGE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Returns the table of a TOML text; raises PlanError `where:LINE: problem` if it is none."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = _PLACE_IN_MESSAGE.search(str(error))
        line = (place and place[1]) or text.count("\n") + 1
        raise PlanError(f"{where}:{line}: {_PLACE_IN_MESSAGE.sub('', str(error))}") from error
    except RecursionError as error:
        raise PlanError(f"{where}: nested too deeply") from error


def add_lines(text: str, where: str, faults: Iterable[str]) -> list[str]:
    """Returns each fault `WHERE: KEY.PATH...` as `WHERE:LINE: KEY.PATH...`.

    The line is that of the key or, if it is not in the text, of the nearest table around it. A
    fault that begins with no key of the text stays as it is.
    """
    lines = find_key_lines(text)
    located = []
    for fault in faults:
        message = fault.removeprefix(f"{where}: ")
        line = None if message == fault else _find_line(lines, message)
        located.append(fault if line is None else f"{where}:{line}: {message}")
    return located


def _find_line(lines: dict[str, int], message: str) -> int | None:
    """Returns the line of the longest key path that a message begins with."""
    paths = (path for path in lines if message.startswith(path))
    whole = [path for path in paths if message[len(path) : len(path) + 1] in ("", *".:[ =")]
    return lines[max(whole, key=len)] if whole else None


def find_key_lines(text: str) -> dict[str, int]:
    """Returns the line of each table, key and list item, by its path, such as `rule[0].check`."""
    return _KeyScanner(text).scan()


class _KeyScanner:
    """Walks over the tokens of a text; a text that is no TOML gives fewer lines, never an error."""

    def __init__(self, text: str) -> None:
        self._tokens = _numbered_tokens(text)
        self._lines: dict[str, int] = {}
        self._table = ""
        # How many tables a [[path]] has so far.
        self._counts: dict[str, int] = {}

    def scan(self) -> dict[str, int]:
        """Returns the lines."""
        statement: list[str] = []
        for token, line in self._tokens:
            if token == "\n":
                self._read_header(statement, line)
                statement = []
            elif token == "=":
                path = _join(self._table, _key_path(statement))
                self._lines.setdefault(path, line)
                self._read_value(path)
                statement = []
            elif not token.startswith("#"):
                statement.append(token)
        return self._lines

    def _read_header(self, statement: list[str], line: int) -> None:
        """Enters the table of a `[path]` or `[[path]]` line."""
        brackets = sum(token == "[" for token in statement)
        if not brackets:
            return
        path = ""
        *parents, name = _key_segments([token for token in statement if token not in "[]"]) or [""]
        for parent in parents:
            path = self._newest(_join(path, parent))
        path = _join(path, name)
        if brackets > 1:
            self._lines.setdefault(path, line)
            self._counts[path] = self._counts.get(path, 0) + 1
            path = self._newest(path)
        self._table = path
        self._lines.setdefault(path, line)

    def _newest(self, path: str) -> str:
        """Returns the path of the last table of a list of tables; any other path as it is."""
        count = self._counts.get(path)
        return path if count is None else f"{path}[{count - 1}]"

    def _read_value(self, path: str) -> None:
        """Reads on to the end of a value; notes the lines of the items of a list."""
        depth = index = 0
        is_list = awaits_item = False
        for token, line in self._tokens:
            if token == "\n" and depth == 0:
                return
            if token == "\n" or token.startswith("#"):
                continue
            if depth == 1 and awaits_item and token != "]":
                self._lines.setdefault(f"{path}[{index}]", line)
                awaits_item = False
            if token in "[{":
                is_list = is_list or (depth == 0 and token == "[")
                awaits_item = awaits_item or (depth == 0 and token == "[")
                depth += 1
            elif token in "]}":
                depth -= 1
            elif token == "," and depth == 1 and is_list:
                index, awaits_item = index + 1, True


def _numbered_tokens(text: str) -> Iterator[tuple[str, int]]:
    """Yields the tokens with their lines, without white space; the last one ends a line."""
    line = 1
    for match in _TOKEN.finditer(f"{text}\n"):
        token = match[0]
        if token == "\n" or token.strip():
            yield token, line
        line += token.count("\n")


def _key_segments(tokens: list[str]) -> list[str]:
    """Returns the names of a dotted key, without their quotes."""
    return [token.strip("\"'") for token in tokens if token != "."]


def _key_path(tokens: list[str]) -> str:
    return ".".join(_key_segments(tokens))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
