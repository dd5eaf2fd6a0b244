"""The parser of Colang 1.0: logical lines become tokens, a lark grammar gives the blocks, a transformer the nodes.

A line belongs to the innermost open block whose indentation it reaches. Only a line that opens a block (define, if, else,
while, when, any) can be followed by deeper lines, apart from the parameters and texts under a statement.
"""

from __future__ import annotations

import hashlib
import re
import textwrap
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedInput
from lark.lexer import Lexer

from truing.core.errors import PlanError, did_you_mean
from truing.rails.colang import ast as n
from truing.rails.colang.lexer import Line, keyword, logical_lines, without
from truing.rails.colang.messages import bot_texts, user_examples
from truing.rails.colang.statements import (
    SIMPLE,
    TAKES_LINES,
    ColangError,
    Statement,
    bot_parts,
    normalise,
    parse_meta,
    parse_step,
)

GRAMMAR = r"""
start: (define_user | define_bot | define_flow | SKIPPED | IMPORT)*
define_user: DEFINE_USER
define_bot: DEFINE_BOT
define_flow: DEFINE_FLOW _OPEN body _CLOSE
body: (STEP | META | if_ | while_ | when | any_)*
if_: IF _OPEN body _CLOSE (else_if | else_)?
else_if: ELSE_IF _OPEN body _CLOSE (else_if | else_)?
else_: ELSE _OPEN body _CLOSE
while_: WHILE _OPEN body _CLOSE
when: (branch)+ otherwise?
branch: WHEN _OPEN body _CLOSE
otherwise: ELSE _OPEN body _CLOSE
any_: ANY _OPEN body _CLOSE

%declare DEFINE_USER DEFINE_BOT DEFINE_FLOW SKIPPED IMPORT STEP META IF ELSE_IF ELSE WHILE WHEN ANY _OPEN _CLOSE
"""

_OPENERS = {"if": "IF", "else if": "ELSE_IF", "else": "ELSE", "while": "WHILE", "any": "ANY"}
_MODIFIERS: dict[str, tuple[str, Any]] = {
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
_KINDS = ("user", "bot", "flow", "subflow", "action", "snippet", "topic", "template")
_KNOWN = (*SIMPLE, *_OPENERS, "when", "define", "execute", "create", "priority", "import", "meta")


class _Definition:
    """A ``define`` line: its kind, name and modifiers, and for messages the lines under it."""

    __slots__ = ("kind", "line", "lines", "meta", "name")

    def __init__(self, line: Line, text: str) -> None:
        self.line, self.meta, self.lines = line, dict[str, Any](), list[Line]()
        rest = without("define", text)
        while rest.split(" ", 1)[0] in _MODIFIERS:
            word = rest.split(" ", 1)[0]
            key, value = _MODIFIERS[word]
            self.meta[key] = value
            rest = without(word, rest)
        self.kind, _, self.name = rest.partition(" ")
        self.name = self.name.strip()
        if self.kind not in _KINDS:
            hint = did_you_mean(self.kind, (*_KINDS, *_MODIFIERS))
            raise ColangError(line.number, f"cannot define {self.kind!r}{hint}")
        if self.kind == "subflow":
            self.meta["subflow"] = True


class _Tokens:
    """Turns logical lines into tokens; the block structure becomes _OPEN and _CLOSE."""

    def __init__(self, lines: list[Line]) -> None:
        self.lines = lines
        self.at = 0
        self.blocks: list[int] = []

    def __iter__(self) -> Iterator[Token]:
        while self.at < len(self.lines):
            line = self.lines[self.at]
            text = normalise(line.text)
            word = keyword(text)
            if word in ("define", "import", "include"):
                yield from self._close(-1)
                yield from self._top(line, text, word)
                continue
            yield from self._close(line.indent)
            if not self.blocks:
                raise ColangError(line.number, f"expected 'define ...', got {line.text[:60]!r}")
            yield from self._statement(line, text, word)
        yield from self._close(-1)

    def _token(self, kind: str, value: Any, line: int) -> Token:
        token = Token(kind, "", line=line)
        token.value = value
        return token

    def _close(self, indent: int) -> Iterator[Token]:
        while self.blocks and indent < self.blocks[-1]:
            self.blocks.pop()
            yield self._token("_CLOSE", "", self.lines[min(self.at, len(self.lines) - 1)].number)

    def _deeper(self, indent: int) -> list[Line]:
        """The lines after this one that are deeper, consumed."""
        start = self.at
        while self.at < len(self.lines) and self.lines[self.at].indent > indent:
            self.at += 1
        return self.lines[start : self.at]

    def _top(self, line: Line, text: str, word: str) -> Iterator[Token]:
        self.at += 1
        if word != "define":
            yield self._token(
                "IMPORT", without(word, text).strip("\"'").removeprefix("bot/"), line.number
            )
            return
        made = _Definition(line, text)
        if made.kind in ("user", "bot", "template"):
            yield from self._message(made)
        elif made.kind in ("action", "snippet", "topic"):
            self._deeper(0)
            yield self._token("SKIPPED", made, line.number)
        else:
            if not made.name:
                made.name = "anonymous-" + self._hash(line)
            yield self._token("DEFINE_FLOW", made, line.number)
            yield self._open(line)

    def _hash(self, line: Line) -> str:
        at, text = self.at, ""
        while at < len(self.lines) and self.lines[at].indent > line.indent:
            text += self.lines[at].text
            at += 1
        return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:12]

    def _message(self, made: _Definition) -> Iterator[Token]:
        first = self.lines[self.at] if self.at < len(self.lines) else None
        if not made.name:
            raise ColangError(made.line.number, f"a name is missing after 'define {made.kind}'")
        if (
            first is not None
            and first.indent > made.line.indent
            and keyword(first.text) != "define"
        ):
            while (
                self.at < len(self.lines)
                and self.lines[self.at].indent >= first.indent
                and keyword(self.lines[self.at].text) not in ("define", "def")
            ):
                made.lines.append(self.lines[self.at])
                self.at += 1
        elif made.kind != "user":
            raise ColangError(made.line.number, "expected an indented block after 'define bot'")
        yield self._token(
            "DEFINE_USER" if made.kind == "user" else "DEFINE_BOT", made, made.line.number
        )

    def _open(self, line: Line) -> Token:
        following = self.lines[self.at] if self.at < len(self.lines) else None
        if following is None or following.indent <= line.indent:
            raise ColangError(line.number, f"expected an indented block after {line.text[:40]!r}")
        self.blocks.append(following.indent)
        return self._token("_OPEN", "", line.number)

    def _statement(self, line: Line, text: str, word: str) -> Iterator[Token]:
        self.at += 1
        if word in ("when", "else when"):
            yield from self._when(line, text, word)
        elif word in _OPENERS:
            condition = without(word, text)
            if word not in ("else", "any") and not condition:
                raise ColangError(line.number, f"a condition is missing after {word!r}")
            yield self._token(_OPENERS[word], (line, condition), line.number)
            yield self._open(line)
        elif word in SIMPLE or word == "meta":
            under = self._deeper(line.indent) if word in TAKES_LINES else []
            yield self._token(
                "META" if word == "meta" else "STEP",
                Statement(line, text, word, under),
                line.number,
            )
        else:
            raise ColangError(
                line.number, f"unknown statement {word!r}{did_you_mean(word, _KNOWN)}"
            )

    def _when(self, line: Line, text: str, word: str) -> Iterator[Token]:
        rest = without(word, text)
        negative = rest.startswith("no ")
        rest = without("no", rest) if negative else rest
        head = Statement(line, rest, keyword(rest))
        if head.word not in ("user", "bot", "event", "any"):
            raise ColangError(line.number, f"'when' cannot wait for {head.word!r}")
        ahead = self.at
        while ahead < len(self.lines) and self.lines[ahead].indent > line.indent:
            ahead += 1
        body = self.lines[self.at : ahead]
        lowest = min((b.indent for b in body), default=0)
        if (
            body and body[0].indent > lowest
        ):  # parameters stand two levels deeper than the branch's steps
            while self.lines[self.at].indent > lowest:
                head.under.append(self.lines[self.at])
                self.at += 1
        yield self._token("WHEN", (head, negative), line.number)
        if not body:
            raise ColangError(line.number, "expected an indented block after 'when'")
        self.blocks.append(lowest)
        yield self._token("_OPEN", "", line.number)


class _ColangLexer(Lexer):
    """Hands the tokens to lark."""

    def __init__(self, lexer_conf: Any) -> None:
        pass

    def lex(self, data: Any) -> Iterator[Token]:  # type: ignore[override]
        yield from _Tokens(data.lines)


class _Source:
    """What lark is given as its text."""

    def __init__(self, lines: list[Line]) -> None:
        self.lines = lines

    def __len__(self) -> int:
        return len(self.lines)


@lru_cache(maxsize=1)
def _grammar() -> Lark:
    return Lark(GRAMMAR, parser="lalr", lexer=_ColangLexer)


class _Build(Transformer[Token, Any]):
    """Tree to nodes."""

    def __init__(self, parsed: n.Parsed, content: str) -> None:
        super().__init__()
        self.parsed = parsed
        self.rows = content.split("\n")

    def start(self, items: list[Any]) -> n.Parsed:
        for item in items:
            if (
                isinstance(item, Token)
                and item.type == "IMPORT"
                and item.value not in self.parsed.imports
            ):
                self.parsed.imports.append(item.value)
        return self.parsed

    def define_user(self, items: list[Any]) -> None:
        made: _Definition = items[0].value
        self.parsed.places.setdefault(("user", made.name), made.line.number)
        user_examples(made.name, made.lines, self.parsed)

    def define_bot(self, items: list[Any]) -> None:
        made: _Definition = items[0].value
        self.parsed.places.setdefault(("bot", made.name), made.line.number)
        bot_texts(made.name, made.lines, self.parsed)

    def define_flow(self, items: list[Any]) -> None:
        made: _Definition = items[0].value
        meta, steps = items[1]
        if not steps:
            raise ColangError(made.line.number, f"the flow {made.name!r} has no steps")
        flow = n.Flow(made.name, steps, self.parsed.file, made.line.number, {**meta, **made.meta})
        flow.source = self._code(steps)
        same = next((f for f in self.parsed.flows if f.name == flow.name), None)
        if same is None:
            self.parsed.flows.append(flow)
        elif not flow.name.startswith("anonymous-"):
            raise ColangError(
                made.line.number, f"the flow {flow.name!r} is already defined in line {same.line}"
            )

    def _code(self, steps: list[n.Step]) -> str | None:
        numbers = [s.line for s in walk(steps) if s.line]
        if not numbers:
            return None
        rows = [r for r in self.rows[min(numbers) - 1 : max(numbers)] if r.strip()]
        return textwrap.dedent("\n".join(rows))

    def body(self, items: list[Any]) -> tuple[dict[str, Any], list[n.Step]]:
        meta: dict[str, Any] = {}
        steps: list[n.Step] = []
        for item in items:
            if isinstance(item, Token) and item.type == "META":
                meta.update(parse_meta(item.value))
            elif isinstance(item, Token):
                steps.append(self._step(item.value))
            else:
                steps.append(item)
        return meta, steps

    def _step(self, statement: Statement) -> n.Step:
        if statement.word != "bot":
            return parse_step(statement)
        under = statement.under
        first = next(
            (i for i, u in enumerate(under) if u.text.startswith('"') or keyword(u.text) == "if"),
            len(under),
        )
        statement.under = under[:first]
        step = parse_step(statement)
        if isinstance(step, n.Bot) and step.text is None:
            _, quoted = bot_parts(without("bot", statement.text))
            texts = under[first:]
            if quoted is not None:
                texts = [statement.line.with_text(quoted), *texts]
            if texts:
                bot_texts(step.intent, texts, self.parsed)
        return step

    def if_(self, items: list[Any]) -> n.If:
        line, condition = items[0].value
        other = items[2] if len(items) > 2 else []
        return n.If(line.number, line.comment, condition, items[1][1], other)

    def else_if(self, items: list[Any]) -> list[n.Step]:
        return [self.if_(items)]

    def else_(self, items: list[Any]) -> list[n.Step]:
        return list(items[1][1])

    otherwise = else_

    def while_(self, items: list[Any]) -> n.While:
        line, condition = items[0].value
        return n.While(line.number, line.comment, condition, items[1][1])

    def branch(self, items: list[Any]) -> tuple[list[n.Step], bool]:
        head, negative = items[0].value
        first: n.Step
        if head.word == "any":
            first = n.AnyOf(head.line.number)
        else:
            first = self._step(head)
        return [first, *items[1][1]], negative

    def when(self, items: list[Any]) -> n.When:
        branches = [b for b in items if isinstance(b, tuple)]
        other = next((b for b in items if isinstance(b, list)), None)
        made = [steps for steps, _ in branches]
        if any(negative for _, negative in branches):
            # ``when no X``: on X go on after the whole, on anything else do the steps
            if len(branches) > 1 or other is not None:
                raise ColangError(made[0][0].line, "'when no ...' takes no other branch")
            made, other = [[made[0][0]]], made[0][1:]
        return n.When(made[0][0].line, None, made, other)

    def any_(self, items: list[Any]) -> n.AnyOf:
        return n.AnyOf(items[0].value[0].number, None, items[1][1])


def walk(steps: list[n.Step]) -> Iterator[n.Step]:
    """Every step, nested ones included."""
    for step in steps:
        yield step
        if isinstance(step, n.If):
            yield from walk(step.then)
            yield from walk(step.other)
        elif isinstance(step, n.While):
            yield from walk(step.body)
        elif isinstance(step, n.When):
            for branch in step.branches:
                yield from walk(branch)
            yield from walk(step.other or [])
        elif isinstance(step, n.AnyOf):
            yield from walk(step.steps)


def is_colang_2(content: str) -> bool:
    """Whether a file is in Colang 2: it has statements, and none of them is a ``define``."""
    bare = re.sub(r'""".*?"""', "", content, flags=re.DOTALL)
    bare = re.sub(r"#.*$", "", bare, flags=re.MULTILINE)
    rows = [r for r in bare.split("\n") if r.strip()]
    if not rows or any(re.match(r"^\s*def(ine)?\b", r) for r in rows):
        return False
    return any(
        re.match(r"^(flow |@|import |  +(match|await|send|start|activate)\b)", r) for r in rows
    )


def parse_colang(name: str, content: str) -> n.Parsed:
    """Parses a file; PlanError names file and line of the fault."""
    parsed = n.Parsed(file=name)
    if is_colang_2(content):
        raise PlanError(
            f"{name}:1: this is Colang 2; truing reads Colang 1.0 (define user, define bot, define flow)"
        )
    try:
        _Build(parsed, content).transform(_grammar().parse(_Source(logical_lines(content))))
    except ColangError as error:
        raise PlanError(f"{name}:{error.line}: {error}") from error
    except UnexpectedInput as error:
        raise PlanError(
            f"{name}:{max(getattr(error, 'line', 1), 1)}: {_unexpected(error)}"
        ) from error
    except RecursionError as error:
        raise PlanError(f"{name}:1: nested too deeply") from error
    except Exception as error:
        cause = getattr(error, "orig_exc", None)
        if isinstance(cause, ColangError):
            raise PlanError(f"{name}:{cause.line}: {cause}") from error
        if isinstance(cause, RecursionError):
            raise PlanError(f"{name}:1: nested too deeply") from error
        raise
    return parsed


def _unexpected(error: UnexpectedInput) -> str:
    kind = getattr(getattr(error, "token", None), "type", "")
    words = {
        "ELSE": "'else' without an 'if' or 'when' above it",
        "ELSE_IF": "'else if' without an 'if' above it",
    }
    return words.get(kind, "this cannot stand here")
