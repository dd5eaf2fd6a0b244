"""Parses the Colang 2 flows that react to exact words into a `Script`.

Only the flows that the conversation can reach are parsed; each statement that is not supported is
a fault with its file, line and reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from truing.core.errors import PlanError, did_you_mean
from truing.rails.colang.expressions import ExpressionError
from truing.rails.colang.script_ast import (
    Activate,
    Argument,
    Assign,
    Await,
    CallAction,
    CallFlow,
    Group,
    Hear,
    If,
    Item,
    Leave,
    NeverHappens,
    Parameter,
    Say,
    Script,
    ScriptFlow,
    Start,
    Statement,
    UseGlobal,
    When,
    While,
    groups_of,
    walk_statements,
)
from truing.rails.colang.script_expressions import compile_script_expression
from truing.rails.colang.script_lines import (
    FileLines,
    FlowLines,
    Line,
    split_arguments,
    split_at,
)

CONTINUATION = "llm continuation"
REFUSAL = "I'm sorry, I can't respond to that."  # `bot refuse to respond` of NeMo's core library
_VERBS = ("say", "inform", "ask", "express", "respond", "clarify", "suggest")
_SAYING = frozenset(f"bot {verb}" for verb in _VERBS)
_IGNORED = re.compile(r"(?:log|print)\b|pass$")
_HEADER = re.compile(r"([A-Za-z_][\w ]*?)\s*((?:\$|\().*?)?\s*(?:->.*)?")
_NAME = re.compile(r"[A-Za-z_]\w*(?: +[A-Za-z_]\w*)*")
_ASSIGNMENT = re.compile(r"\$(\w+)\s*(\+?=)(?!=)\s*(.*)")
_REFERENCE = re.compile(r"\s+as\s+\$(\w+)$")
_SPACED_NAME = re.compile(r"(\$\w+)\s*=\s*(?!=)")
_NAMED = re.compile(r"\$?([A-Za-z_]\w*)\s*=(?!=)\s*(.+)")
_USER_EVENT = re.compile(
    r"UtteranceUserAction(?:(?:\(\))?\.Finished|Finished)\s*(?:\((.*)\))?", re.DOTALL
)
_SAY_EVENT = re.compile(r"(?:Start)?UtteranceBotAction\s*\((.*)\)", re.DOTALL)
_ACTION = re.compile(r"([A-Z]\w*Action)\s*(?:\((.*)\))?", re.DOTALL)
_EVENT = re.compile(r"([A-Z]\w*)\s*(?:\(.*\))?")
# Events of Colang 2's own runtime, and actions of avatars and timers.
_RUNTIME_EVENTS = re.compile(r"UnhandledEvent|ColangError|ContextUpdate|(?:Start|Finish|Stop)?Flow")
_INTERFACE_ACTION = re.compile(r"\w*(?:BotAction|UserAction|SceneAction)|Timer\w*|Visual\w*")


class _Refused(Exception):
    """A statement that is not supported; the message says why."""


def parse_script(files: Sequence[FileLines], skipped: frozenset[str]) -> Script:
    """Returns the flows that `main` and the `@active` flows lead to.

    `skipped` names the flows that are no part of the dialog (the stages of rails). Raises PlanError
    with every statement that is not supported.
    """
    imports = {module for file in files for _, module in file.imports}
    parser = _ScriptParser(files, skipped, has_core=bool(imports))
    return parser.parse()


class _ScriptParser:
    def __init__(
        self, files: Sequence[FileLines], skipped: frozenset[str], *, has_core: bool
    ) -> None:
        self.has_core = has_core  # every module of NeMo's library imports the core
        self.first_file = files[0].name
        self.faults: list[str] = [fault for file in files for fault in file.faults]
        self.headers: dict[str, FlowLines] = {}
        self.parameters: dict[str, tuple[Parameter, ...]] = {}
        self.continues = False
        for file in files:
            for flow in file.flows:
                self._read_header(flow, skipped)

    def parse(self) -> Script:
        flows: dict[str, ScriptFlow] = {}
        waiting = [
            name
            for name, lines in self.headers.items()
            if name == "main" or "@active" in lines.decorators
        ]
        if "main" not in self.headers:
            self._refuse(self.first_file, 1, "there is no flow main")
        while waiting:
            name = waiting.pop()
            if name in flows:
                continue
            flows[name] = flow = self._parse_flow(name, self.headers[name])
            waiting += [call.flow for call in _calls_of(flow) if call.flow not in flows]
        if self.faults:
            raise PlanError(*dict.fromkeys(self.faults))
        return Script(flows, self.continues)

    def _read_header(self, flow: FlowLines, skipped: frozenset[str]) -> None:
        match = _HEADER.fullmatch(flow.header)
        if match is None:
            self._refuse(flow.file, flow.number, f"flow {flow.header!r} is not translated")
            return
        name = match[1].strip()
        if name in skipped:
            return
        try:
            self.parameters[name] = tuple(_read_parameters(match[2] or ""))
            self.headers[name] = flow
        except _Refused as reason:
            self._refuse(flow.file, flow.number, str(reason))

    def _refuse(self, file: str, number: int, reason: str) -> None:
        self.faults.append(f"{file}:{number}: Colang 2: {reason}")

    def _parse_flow(self, name: str, lines: FlowLines) -> ScriptFlow:
        body = self._parse_block(lines.file, lines.block)
        is_active = "@active" in lines.decorators
        return ScriptFlow(name, lines.file, lines.number, self.parameters[name], body, is_active)

    def _parse_block(self, file: str, lines: Sequence[Line]) -> tuple[Statement, ...]:
        statements: list[Statement] = []
        index = 0
        while index < len(lines):
            line = lines[index]
            # `elif`, `else` and `or when` belong to the statement before them.
            end = index + 1
            while end < len(lines) and re.match(r"elif\b|else\b|or ?when\b", lines[end].text):
                end += 1
            try:
                statements += self._parse_statement(file, lines[index:end])
            except (_Refused, ExpressionError) as reason:
                self._refuse(file, line.number, f"{line.text[:80]!r} is not translated: {reason}")
            index = end
        return tuple(statements)

    def _parse_statement(self, file: str, lines: Sequence[Line]) -> Iterator[Statement]:
        line = lines[0]
        text, number = line.text, line.number
        word, _, after_word = text.partition(" ")
        if word in ("if", "when"):
            yield (self._parse_if if word == "if" else self._parse_when)(file, lines)
        elif word == "while":
            condition = _expression(after_word.rstrip(":"))
            yield While(number, condition, self._parse_block(file, line.block))
        elif len(lines) > 1 or line.block:
            raise _Refused("no block may follow this statement")
        elif _IGNORED.match(text):
            return
        elif word in ("break", "continue", "abort", "return"):
            expression = _expression(after_word) if word == "return" and after_word else ""
            yield Leave(number, word, expression)  # type: ignore[arg-type]  # one of these words
        elif word == "global":
            yield UseGlobal(number, after_word.strip().removeprefix("$"))
        elif match := _ASSIGNMENT.fullmatch(text):
            yield self._parse_assignment(number, match[1], match[2], match[3])
        elif word in ("activate", "start"):
            yield from self._parse_start(number, word, after_word)
        else:
            yield Await(number, self._parse_group(text))

    def _parse_if(self, file: str, lines: Sequence[Line]) -> If:
        branches = []
        for line in lines:
            word, _, condition = line.text.rstrip(":").partition(" ")
            if (word == "else") == bool(condition) or (word == "if") != (line is lines[0]):
                raise _Refused("expected if, elif and else")
            expression = _expression(condition) if condition else ""
            branches.append((expression, self._parse_block(file, line.block)))
        return If(lines[0].number, tuple(branches))

    def _parse_when(self, file: str, lines: Sequence[Line]) -> When:
        cases, otherwise = [], None
        for line in lines:
            text = line.text.rstrip(":").strip()
            if text == "else":
                otherwise = self._parse_block(file, line.block)
                continue
            match = re.match(r"(?:or ?)?when\s+", text)
            if match is None:
                raise _Refused("expected when, or when and else")
            group = self._parse_group(text[match.end() :])
            if any(isinstance(item, Say | CallAction) for item in group.items):
                raise _Refused("when waits for what the user says or for flows")
            cases.append((group, self._parse_block(file, line.block)))
        return When(lines[0].number, tuple(cases), otherwise)

    def _parse_assignment(
        self, number: int, variable: str, sign: str, right_side: str
    ) -> Statement:
        if sign == "+=":
            return Assign(number, variable, _expression(f"${variable} + ({right_side})"))
        if right_side.startswith("..."):
            raise _Refused("a value by the LLM needs Colang 2's runtime")
        is_call = re.match(r"(?:await|match)\s", right_side) or (
            _NAME.match(right_side) and not re.match(r"(?:True|False|None|not)\b|\w+\(", right_side)
        )
        if not is_call and not _ACTION.fullmatch(right_side):
            return Assign(number, variable, _expression(right_side))
        return Await(number, self._parse_group(right_side), variable)

    def _parse_start(self, number: int, word: str, text: str) -> Iterator[Statement]:
        pieces = split_at(text, "and")
        if word == "activate":
            self.continues = self.continues or CONTINUATION in pieces
            pieces = [piece for piece in pieces if piece != CONTINUATION]
        if not pieces:
            return
        items = [self._parse_item(piece) for piece in pieces]
        calls = tuple(item for item in items if isinstance(item, CallFlow))
        if len(calls) == len(items):
            yield (Activate if word == "activate" else Start)(number, calls)
        elif word == "start" and all(isinstance(item, Say) for item in items):
            yield Await(number, Group(tuple(items), needs_all=True))
        else:
            raise _Refused(f"{word} may name flows of the configuration")

    def _parse_group(self, text: str) -> Group:
        verb = re.match(r"(?:(await|match|send)\s+)?", text)
        assert verb is not None, "the pattern matches every text"
        group = self._parse_items(text[verb.end() :])
        allowed = {"match": Hear | NeverHappens, "send": Say}.get(verb[1], Item)
        if not all(isinstance(item, allowed) for item in group.items):
            raise _Refused(f"{verb[1]} of this event needs Colang 2's runtime")
        return group

    def _parse_items(self, text: str) -> Group:
        pieces, needs_all = split_at(text, "or"), False
        if len(pieces) == 1:
            pieces = split_at(text, "and")
            needs_all = len(pieces) > 1
        if len(pieces) == 1 and pieces[0].startswith("(") and pieces[0].endswith(")"):
            return self._parse_items(pieces[0][1:-1])
        items = tuple(self._parse_item(re.sub(r"^await\s+", "", piece)) for piece in pieces)
        if len({isinstance(item, Say) for item in items}) > 1:
            raise _Refused("a group may hold what the bot says or what it waits for, not both")
        if len(items) > 1 and any(isinstance(item, CallAction) for item in items):
            raise _Refused("actions run one after the other: give each a line of its own")
        return Group(items, needs_all)

    def _parse_item(self, text: str) -> Item:
        reference = ""
        if match := _REFERENCE.search(text):
            reference, text = match[1], text[: match.start()]
        if text[:1] == "(" and text[-1:] == ")":
            raise _Refused("a group inside of a group is not supported")
        if match := _USER_EVENT.fullmatch(text):
            arguments = {a.name: a.expression for a in _read_arguments(match[1] or "")}
            if set(arguments) - {"final_transcript"}:
                raise _Refused("of the user's utterance only final_transcript is compared")
            return Hear(arguments.get("final_transcript", ""), "final_transcript", reference)
        if match := _SAY_EVENT.fullmatch(text):
            arguments = {a.name: a.expression for a in _read_arguments(match[1])}
            if set(arguments) != {"script"}:
                raise _Refused("the bot's utterance has a script and nothing else")
            return Say(arguments["script"])
        if (match := _ACTION.fullmatch(text)) and not _INTERFACE_ACTION.fullmatch(match[1]):
            return CallAction(match[1], tuple(_read_arguments(match[2] or "")), reference)
        if match := _EVENT.fullmatch(text):
            if _RUNTIME_EVENTS.match(match[1]) or match[1].endswith("Action"):
                raise _Refused(f"{match[1]} needs Colang 2's runtime")
            return NeverHappens()
        return self._parse_flow_call(text, reference)

    def _parse_flow_call(self, text: str, reference: str) -> Item:
        match = _NAME.match(text)
        if match is None:
            raise _Refused("expected a flow")
        name, arguments_text = match[0], text[match.end() :].strip()
        arguments = tuple(
            _read_arguments(arguments_text[1:-1])
            if arguments_text[:1] == "(" and arguments_text[-1:] == ")"
            else (_read_argument(piece) for piece in _split_simple(arguments_text))
        )
        if name in self.headers and name != "main":
            names = [parameter.name for parameter in self.parameters[name]]
            is_wrong = any(a.name and a.name not in names for a in arguments)
            if is_wrong or len(arguments) > len(names):
                raise _Refused(f"flow {name} takes the parameters {names}")
            return CallFlow(name, arguments, reference)
        if self.has_core and (item := _library_item(name, arguments, reference)) is not None:
            return item
        hint = did_you_mean(name, set(self.headers) - {"main"})
        missing = "" if self.has_core else " (NeMo's own flows need `import core`)"
        raise _Refused(f"there is no flow {name!r} that truing knows{hint}{missing}")


def _library_item(name: str, arguments: tuple[Argument, ...], reference: str) -> Item | None:
    """Returns what a flow of NeMo's core library does."""
    argument_values = [argument.expression for argument in arguments]
    if name == "user said" and len(argument_values) == 1:
        return Hear(argument_values[0], reference=reference)
    if name == "user said something" and not argument_values:
        return Hear(reference=reference)
    if name in _SAYING and len(argument_values) == 1:
        return Say(argument_values[0])
    if name == "bot refuse to respond" and not argument_values:
        return Say(repr(REFUSAL))
    return NeverHappens() if name == "wait indefinitely" and not argument_values else None


def _split_simple(text: str) -> list[str]:
    """Returns the arguments without brackets; an expression with operators is one argument."""
    text = _SPACED_NAME.sub(r"\1=", text)
    pieces = split_arguments(text)
    has_operator = any(re.fullmatch(r"[-+*/%<>=!]+", piece) for piece in pieces)
    return [text] if has_operator else pieces


def _read_arguments(text: str) -> Iterator[Argument]:
    for piece in split_at(text, ","):
        yield _read_argument(piece)


def _read_argument(text: str) -> Argument:
    match = _NAMED.fullmatch(text)
    if match is None:
        return Argument(_expression(text))
    return Argument(_expression(match[2]), match[1])


def _read_parameters(text: str) -> Iterator[Parameter]:
    in_brackets = text[:1] == "(" and text[-1:] == ")"
    text = _SPACED_NAME.sub(r"\1=", text)
    pieces = split_at(text[1:-1], ",") if in_brackets else split_arguments(text)
    for piece in pieces:
        match = re.fullmatch(r"\$(\w+)(?:\s*=\s*(.+))?", piece)
        if match is None:
            raise _Refused(f"{piece!r} is no parameter")
        try:
            yield Parameter(match[1], _expression(match[2]) if match[2] else "")
        except ExpressionError as error:
            raise _Refused(str(error)) from error


def _expression(text: str) -> str:
    """Returns an expression; ExpressionError if it is malformed or not allowed."""
    compile_script_expression(text)
    return text.strip()


def _calls_of(flow: ScriptFlow) -> Iterator[CallFlow]:
    for statement in walk_statements(flow.body):
        for group in groups_of(statement):
            yield from (item for item in group.items if isinstance(item, CallFlow))
