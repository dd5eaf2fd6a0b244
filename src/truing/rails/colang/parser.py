"""The parser of Colang 1.0: an LALR grammar over the tokens of `tokenizer`, and the tree builder.

`parse_colang` is the entry point. lark parses; `_TreeBuilder` (a lark transformer) turns each rule
of the grammar into nodes of `ast` from the bottom up.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedInput
from lark.lexer import Lexer

from truing.core.errors import PlanError
from truing.rails.colang import ast
from truing.rails.colang.lexer import (
    LogicalLine,
    leading_keyword,
    read_logical_lines,
    strip_keyword,
)
from truing.rails.colang.messages import add_bot_texts, add_user_examples
from truing.rails.colang.statements import (
    ColangSyntaxError,
    Statement,
    normalise_statement,
    parse_meta,
    parse_step,
    split_bot_message,
)
from truing.rails.colang.tokenizer import ANONYMOUS_PREFIX, Definition, Tokenizer

_MAX_FAULTS = 20

GRAMMAR = r"""
start: (define_user | define_bot | define_flow | SKIPPED | IMPORT)*
define_user: DEFINE_USER
define_bot: DEFINE_BOT
define_flow: DEFINE_FLOW _INDENT body _DEDENT
body: (STEP | META | if_ | while_ | when | any_)*
if_: IF _INDENT body _DEDENT (else_if | else_)?
else_if: ELSE_IF _INDENT body _DEDENT (else_if | else_)?
else_: ELSE _INDENT body _DEDENT
while_: WHILE _INDENT body _DEDENT
when: (branch)+ otherwise?
branch: WHEN _INDENT body _DEDENT
otherwise: ELSE _INDENT body _DEDENT
any_: ANY _INDENT body _DEDENT

%declare DEFINE_USER DEFINE_BOT DEFINE_FLOW SKIPPED IMPORT
%declare STEP META IF ELSE_IF ELSE WHILE WHEN ANY _INDENT _DEDENT
"""


class _LineSource:
    """The input that lark passes on to the lexer; lark asks it for its length."""

    def __init__(self, lines: list[LogicalLine]) -> None:
        self.lines = lines

    def __len__(self) -> int:
        return len(self.lines)


class _LarkLexer(Lexer):
    """Adapts `Tokenizer` to lark's interface for custom lexers."""

    def __init__(self, lexer_conf: Any) -> None:
        pass

    def lex(self, data: Any) -> Iterator[Token]:  # type: ignore[override]
        yield from Tokenizer(data.lines)


@lru_cache(maxsize=1)
def _grammar() -> Lark:
    return Lark(GRAMMAR, parser="lalr", lexer=_LarkLexer)


class _TreeBuilder(Transformer[Token, Any]):
    """Builds the syntax tree: each method receives the children of the rule of its name.

    `body` returns a pair (flow properties, steps); the blocks around it only use the steps, as
    ``meta`` counts at the top level of a flow.
    """

    def __init__(self, tree: ast.ColangFile, content: str) -> None:
        super().__init__()
        self.tree = tree
        self.source_lines = content.split("\n")

    def start(self, children: list[Any]) -> ast.ColangFile:
        for child in children:
            is_import = isinstance(child, Token) and child.type == "IMPORT"
            if is_import and child.value not in self.tree.imports:
                self.tree.imports.append(child.value)
        return self.tree

    def define_user(self, children: list[Any]) -> None:
        definition: Definition = children[0].value
        key = ("user", definition.name)
        self.tree.definition_lines.setdefault(key, definition.line.number)
        add_user_examples(definition.name, definition.body, self.tree)

    def define_bot(self, children: list[Any]) -> None:
        definition: Definition = children[0].value
        key = ("bot", definition.name)
        self.tree.definition_lines.setdefault(key, definition.line.number)
        add_bot_texts(definition.name, definition.body, self.tree)

    def define_flow(self, children: list[Any]) -> None:
        definition: Definition = children[0].value
        name, line = definition.name, definition.line.number
        meta, steps = children[1]
        if not steps:
            raise ColangSyntaxError(line, f"the flow {name!r} has no steps")
        flow = ast.Flow(name, steps, self.tree.file, line, {**meta, **definition.meta})
        flow.source = self._source_of(steps)
        first = next((known for known in self.tree.flows if known.name == name), None)
        if first is None:
            self.tree.flows.append(flow)
        elif not name.startswith(ANONYMOUS_PREFIX):
            # Anonymous flows are named by a hash of their body: two equal ones are one flow.
            raise ColangSyntaxError(
                line, f"the flow {name!r} is already defined in line {first.line}"
            )

    def _source_of(self, steps: list[ast.FlowStep]) -> str | None:
        numbers = [step.line for step in walk_steps(steps) if step.line]
        if not numbers:
            return None
        lines = self.source_lines[min(numbers) - 1 : max(numbers)]
        return textwrap.dedent("\n".join(line for line in lines if line.strip()))

    def body(self, children: list[Any]) -> tuple[dict[str, Any], list[ast.FlowStep]]:
        meta: dict[str, Any] = {}
        steps: list[ast.FlowStep] = []
        for child in children:
            if isinstance(child, Token) and child.type == "META":
                meta.update(parse_meta(child.value))
            elif isinstance(child, Token):
                steps.append(self._simple_step(child.value))
            else:
                steps.append(child)
        return meta, steps

    def _simple_step(self, statement: Statement) -> ast.FlowStep:
        """Parses a statement; texts under or after ``bot NAME`` also define that message."""
        if statement.keyword != "bot":
            return parse_step(statement)
        # Parameters come first, then the texts.
        lines = statement.indented_lines
        first_text = len(lines)
        for index, line in enumerate(lines):
            if line.text.startswith('"') or leading_keyword(line.text) == "if":
                first_text = index
                break
        statement.indented_lines = lines[:first_text]
        text_lines = lines[first_text:]
        step = parse_step(statement)
        if isinstance(step, ast.BotMessage) and step.text is None:
            _, quoted = split_bot_message(strip_keyword("bot", statement.text))
            if quoted is not None:
                text_lines = [statement.line.with_text(quoted), *text_lines]
            if text_lines:
                add_bot_texts(step.intent, text_lines, self.tree)
        return step

    def if_(self, children: list[Any]) -> ast.If:
        line, condition = children[0].value
        _, body = children[1]
        orelse = children[2] if len(children) > 2 else []
        return ast.If(line.number, line.comment, condition, body, orelse)

    def else_if(self, children: list[Any]) -> list[ast.FlowStep]:
        return [self.if_(children)]

    def else_(self, children: list[Any]) -> list[ast.FlowStep]:
        _, body = children[1]
        return list(body)

    otherwise = else_

    def while_(self, children: list[Any]) -> ast.While:
        line, condition = children[0].value
        _, body = children[1]
        return ast.While(line.number, line.comment, condition, body)

    def branch(self, children: list[Any]) -> tuple[list[ast.FlowStep], bool]:
        awaited, is_negated = children[0].value
        _, body = children[1]
        first: ast.FlowStep
        if awaited.keyword == "any":
            first = ast.AnyOf(awaited.line.number)
        else:
            first = self._simple_step(awaited)
        return [first, *body], is_negated

    def when(self, children: list[Any]) -> ast.When:
        branches: list[list[ast.FlowStep]] = []
        any_negated = False
        orelse: list[ast.FlowStep] | None = None
        for child in children:
            if isinstance(child, tuple):
                branch, is_negated = child
                branches.append(branch)
                any_negated = any_negated or is_negated
            else:
                orelse = child
        awaited = branches[0][0]
        if any_negated:
            # ``when no X`` with a body: X continues after the block, anything else runs the body.
            if len(branches) > 1 or orelse is not None:
                raise ColangSyntaxError(awaited.line, "'when no ...' takes no other branch")
            branches, orelse = [[awaited]], branches[0][1:]
        return ast.When(awaited.line, None, branches, orelse)

    def any_(self, children: list[Any]) -> ast.AnyOf:
        line, _ = children[0].value
        _, body = children[1]
        return ast.AnyOf(line.number, None, body)


def walk_steps(steps: list[ast.FlowStep]) -> Iterator[ast.FlowStep]:
    """Yields every step, including nested ones, in the order of the source."""
    for step in steps:
        yield step
        if isinstance(step, ast.If):
            yield from walk_steps(step.body)
            yield from walk_steps(step.orelse)
        elif isinstance(step, ast.While):
            yield from walk_steps(step.body)
        elif isinstance(step, ast.When):
            for branch in step.branches:
                yield from walk_steps(branch)
            yield from walk_steps(step.orelse or [])
        elif isinstance(step, ast.AnyOf):
            yield from walk_steps(step.steps)


def is_colang_2(content: str) -> bool:
    """Whether a file is in Colang 2: it has statements, and none of them is a ``define``."""
    code = re.sub(r'""".*?"""', "", content, flags=re.DOTALL)
    code = re.sub(r"#.*$", "", code, flags=re.MULTILINE)
    lines = [line for line in code.split("\n") if line.strip()]
    if not lines or any(re.match(r"^\s*def(ine)?\b", line) for line in lines):
        return False
    colang_2_statement = r"^(flow |@|import |  +(match|await|send|start|activate)\b)"
    return any(re.match(colang_2_statement, line) for line in lines)


def parse_colang(name: str, content: str) -> ast.ColangFile:
    """Parses a file; raises PlanError with ``name:line: message`` for each definition that has a
    syntax error.
    """
    if is_colang_2(content):
        raise PlanError(
            f"{name}:1: this is Colang 2; "
            "truing reads Colang 1.0 (define user, define bot, define flow)"
        )
    lines = read_logical_lines(content)
    tree = ast.ColangFile(file=name)
    try:
        _parse_lines(lines, _TreeBuilder(tree, content), name)
    except PlanError:
        raise PlanError(*_find_faults(lines, content, name)) from None
    return tree


def _find_faults(lines: list[LogicalLine], content: str, name: str) -> list[str]:
    """Returns the first fault of each definition of a file, at most `_MAX_FAULTS`.

    A definition ends where the next one begins, however that is indented, so that each can be
    parsed for itself.
    """
    definitions: list[list[LogicalLine]] = [[]]
    for line in lines:
        if leading_keyword(normalise_statement(line.text)) in ("define", "import", "include"):
            definitions.append([])
        definitions[-1].append(line)
    builder = _TreeBuilder(ast.ColangFile(file=name), content)
    faults: list[str] = []
    for definition in filter(None, definitions):
        try:
            _parse_lines(definition, builder, name)
        except PlanError as error:
            faults += error.faults
            if len(faults) == _MAX_FAULTS:
                break
    return faults


def _parse_lines(lines: list[LogicalLine], builder: _TreeBuilder, name: str) -> None:
    """Adds the definitions of some lines to the tree; raises PlanError with the first fault."""
    try:
        builder.transform(_grammar().parse(_LineSource(lines)))
    except ColangSyntaxError as error:
        raise PlanError(f"{name}:{error.line}: {error}") from error
    except UnexpectedInput as error:
        line = max(getattr(error, "line", 1), 1)
        raise PlanError(f"{name}:{line}: {_describe_unexpected(error)}") from error
    except RecursionError as error:
        raise PlanError(f"{name}:1: nested too deeply") from error
    except Exception as error:
        # lark wraps what a transformer method raises in a VisitError.
        cause = getattr(error, "orig_exc", None)
        if isinstance(cause, ColangSyntaxError):
            raise PlanError(f"{name}:{cause.line}: {cause}") from error
        if isinstance(cause, RecursionError):
            raise PlanError(f"{name}:1: nested too deeply") from error
        raise


def _describe_unexpected(error: UnexpectedInput) -> str:
    token_type = getattr(getattr(error, "token", None), "type", "")
    if token_type == "ELSE":
        return "'else' without an 'if' or 'when' above it"
    if token_type == "ELSE_IF":
        return "'else if' without an 'if' above it"
    return "unexpected statement"
