"""Turns the logical lines of a Colang file into the tokens of the grammar in `parser`.

A token is a whole line (DEFINE_FLOW, STEP, IF, ...); as in Python, the block structure becomes
_INDENT and _DEDENT tokens. A line belongs to the innermost open block whose indentation it reaches.
Only a line that opens a block (define, if, else, while, when, any) may be followed by deeper lines,
apart from the parameters and texts under a statement.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from lark import Token

from truing.core.errors import did_you_mean
from truing.rails.colang.lexer import LogicalLine, leading_keyword, strip_keyword
from truing.rails.colang.statements import (
    SIMPLE_STATEMENTS,
    STATEMENTS_WITH_INDENTED_LINES,
    ColangSyntaxError,
    Statement,
    normalise_statement,
)

_BLOCK_TOKENS = {"if": "IF", "else if": "ELSE_IF", "else": "ELSE", "while": "WHILE", "any": "ANY"}
# Modifiers before "flow" -> the flow property that they set, with NeMo's spelling.
_MODIFIERS: dict[str, tuple[str, bool]] = {
    "interruption": ("is_interruption_flow", True),
    "repair": ("is_interruption_flow", True),
    "test": ("is_test", True),
    "non-interruptable": ("interruptable", False),
    "noninterruptable": ("interruptable", False),
    "continuous": ("interruptable", False),
    "recursive": ("allow_multiple", True),
    "parallel": ("allow_multiple", True),
    "extension": ("is_extension", True),
    "sample": ("is_sample", True),
    "response": ("is_response", True),
}
_DEFINITION_KINDS = ("user", "bot", "flow", "subflow", "action", "snippet", "topic", "template")
# Candidates for "did you mean" after an unknown statement.
_KEYWORDS = (
    *SIMPLE_STATEMENTS,
    *_BLOCK_TOKENS,
    "when",
    "define",
    "execute",
    "create",
    "priority",
    "import",
    "meta",
)
ANONYMOUS_PREFIX = "anonymous-"


class Definition:
    """A ``define [MODIFIER...] KIND NAME`` line; for messages, `body` holds the lines under it."""

    __slots__ = ("body", "kind", "line", "meta", "name")

    def __init__(self, line: LogicalLine, text: str) -> None:
        self.line = line
        self.meta: dict[str, Any] = {}
        self.body: list[LogicalLine] = []
        text = strip_keyword("define", text)
        modifier = text.split(" ", 1)[0]
        while modifier in _MODIFIERS:
            name, value = _MODIFIERS[modifier]
            self.meta[name] = value
            text = strip_keyword(modifier, text)
            modifier = text.split(" ", 1)[0]
        self.kind, _, name = text.partition(" ")
        self.name = name.strip()
        if self.kind not in _DEFINITION_KINDS:
            hint = did_you_mean(self.kind, (*_DEFINITION_KINDS, *_MODIFIERS))
            raise ColangSyntaxError(line.number, f"cannot define {self.kind!r}{hint}")
        if self.kind == "subflow":
            self.meta["subflow"] = True


def _token(kind: str, value: Any, line: int) -> Token:
    # `Token(kind, value)` would call str() on the value.
    token = Token(kind, "", line=line)
    token.value = value
    return token


class Tokenizer:
    """Iterates over the tokens of a file; raises ColangSyntaxError."""

    def __init__(self, lines: list[LogicalLine]) -> None:
        self._lines = lines
        self._index = 0  # of the next line
        self._block_indents: list[int] = []

    def __iter__(self) -> Iterator[Token]:
        while self._index < len(self._lines):
            line = self._lines[self._index]
            text = normalise_statement(line.text)
            keyword = leading_keyword(text)
            if keyword in ("define", "import", "include"):
                yield from self._close_blocks(-1)
                self._index += 1
                if keyword == "define":
                    yield from self._definition(Definition(line, text))
                else:
                    path = strip_keyword(keyword, text).strip("\"'").removeprefix("bot/")
                    yield _token("IMPORT", path, line.number)
                continue
            yield from self._close_blocks(line.indent)
            if not self._block_indents:
                raise ColangSyntaxError(
                    line.number, f"expected 'define ...', got {line.text[:60]!r}"
                )
            self._index += 1
            yield from self._statement(line, text, keyword)
        yield from self._close_blocks(-1)

    # -- blocks ------------------------------------------------------------------------------------

    def _next_line(self) -> LogicalLine | None:
        return self._lines[self._index] if self._index < len(self._lines) else None

    def _count_deeper_lines(self, indent: int) -> int:
        end = self._index
        while end < len(self._lines) and self._lines[end].indent > indent:
            end += 1
        return end - self._index

    def _take_lines(self, count: int) -> list[LogicalLine]:
        start = self._index
        self._index += count
        return self._lines[start : self._index]

    def _open_block(self, line: LogicalLine) -> Token:
        first = self._next_line()
        if first is None or first.indent <= line.indent:
            raise ColangSyntaxError(
                line.number, f"expected an indented block after {line.text[:40]!r}"
            )
        self._block_indents.append(first.indent)
        return _token("_INDENT", "", line.number)

    def _close_blocks(self, indent: int) -> Iterator[Token]:
        """Closes the blocks that are deeper than the indentation of the next line."""
        while self._block_indents and indent < self._block_indents[-1]:
            self._block_indents.pop()
            line = self._next_line() or self._lines[-1]
            yield _token("_DEDENT", "", line.number)

    # -- definitions -------------------------------------------------------------------------------

    def _definition(self, definition: Definition) -> Iterator[Token]:
        line = definition.line
        if definition.kind in ("user", "bot", "template"):
            self._read_message_body(definition)
            kind = "DEFINE_USER" if definition.kind == "user" else "DEFINE_BOT"
            yield _token(kind, definition, line.number)
        elif definition.kind in ("action", "snippet", "topic"):
            self._take_lines(self._count_deeper_lines(0))
            yield _token("SKIPPED", definition, line.number)
        else:
            if not definition.name:
                definition.name = ANONYMOUS_PREFIX + self._hash_body(line)
            yield _token("DEFINE_FLOW", definition, line.number)
            yield self._open_block(line)

    def _hash_body(self, line: LogicalLine) -> str:
        count = self._count_deeper_lines(line.indent)
        body = self._lines[self._index : self._index + count]
        text = "".join(body_line.text for body_line in body)
        return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:12]

    def _read_message_body(self, definition: Definition) -> None:
        line = definition.line
        if not definition.name:
            raise ColangSyntaxError(
                line.number, f"a name is missing after 'define {definition.kind}'"
            )
        first = self._next_line()
        has_body = (
            first is not None
            and first.indent > line.indent
            and leading_keyword(first.text) != "define"
        )
        if first is None or not has_body:
            # An intent may have no examples; a bot message needs a text.
            if definition.kind != "user":
                raise ColangSyntaxError(
                    line.number, "expected an indented block after 'define bot'"
                )
            return
        next_line: LogicalLine | None = first
        while next_line is not None and next_line.indent >= first.indent:
            if leading_keyword(next_line.text) in ("define", "def"):
                break
            definition.body.append(next_line)
            self._index += 1
            next_line = self._next_line()

    # -- statements --------------------------------------------------------------------------------

    def _statement(self, line: LogicalLine, text: str, keyword: str) -> Iterator[Token]:
        if keyword in ("when", "else when"):
            yield from self._when(line, strip_keyword(keyword, text))
        elif keyword in _BLOCK_TOKENS:
            condition = strip_keyword(keyword, text)
            if keyword not in ("else", "any") and not condition:
                raise ColangSyntaxError(line.number, f"a condition is missing after {keyword!r}")
            yield _token(_BLOCK_TOKENS[keyword], (line, condition), line.number)
            yield self._open_block(line)
        elif keyword in SIMPLE_STATEMENTS or keyword == "meta":
            indented_lines: list[LogicalLine] = []
            if keyword in STATEMENTS_WITH_INDENTED_LINES:
                indented_lines = self._take_lines(self._count_deeper_lines(line.indent))
            statement = Statement(line, text, keyword, indented_lines)
            yield _token("META" if keyword == "meta" else "STEP", statement, line.number)
        else:
            hint = did_you_mean(keyword, _KEYWORDS)
            raise ColangSyntaxError(line.number, f"unknown statement {keyword!r}{hint}")

    def _when(self, line: LogicalLine, text: str) -> Iterator[Token]:
        """Yields WHEN with a pair: the statement to wait for, and whether it is negated."""
        is_negated = text.startswith("no ")
        if is_negated:
            text = strip_keyword("no", text)
        awaited = Statement(line, text, leading_keyword(text))
        if awaited.keyword not in ("user", "bot", "event", "any"):
            raise ColangSyntaxError(line.number, f"'when' cannot wait for {awaited.keyword!r}")
        count = self._count_deeper_lines(line.indent)
        body = self._lines[self._index : self._index + count]
        body_indent = min((body_line.indent for body_line in body), default=0)
        # Parameters of the awaited statement are deeper than the steps of the branch:
        #     when user ask price
        #         product: book
        #       bot tell price
        while body and self._lines[self._index].indent > body_indent:
            awaited.indented_lines += self._take_lines(1)
        yield _token("WHEN", (awaited, is_negated), line.number)
        if not body:
            raise ColangSyntaxError(line.number, "expected an indented block after 'when'")
        self._block_indents.append(body_indent)
        yield _token("_INDENT", "", line.number)
