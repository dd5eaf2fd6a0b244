"""Parses single Colang statements: every short form is rewritten to one form, which becomes a node.

A `Statement` is a logical line together with the deeper lines under it that belong to it: the
parameters of a call, or the texts of a bot message.
"""

from __future__ import annotations

import json
import re
from ast import literal_eval
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from truing.rails.colang.ast import (
    AnyOf,
    Assign,
    BotMessage,
    Break,
    CallFlow,
    CheckCondition,
    Continue,
    CreateEvent,
    ExecuteAction,
    FlowLabel,
    FlowStep,
    Goto,
    MatchEvent,
    Return,
    UserIntent,
)
from truing.rails.colang.flow_reference import parse_flow_name
from truing.rails.colang.lexer import (
    LogicalLine,
    collapse_spaces,
    leading_keyword,
    split_arguments,
    split_outside_quotes,
    strip_keyword,
)
from truing.rails.yaml_lines import safe_load

MAX_LITERAL = 10_000  # characters; `literal_eval` takes time and memory in proportion


class ColangSyntaxError(Exception):
    """A syntax error; `line` is the line number in the file."""

    def __init__(self, line: int, message: str) -> None:
        self.line = line
        super().__init__(message)


@dataclass(slots=True)
class Statement:
    """A statement in its normal form: `text` starts with `keyword`."""

    line: LogicalLine
    text: str
    keyword: str
    indented_lines: list[LogicalLine] = field(default_factory=list)


# (pattern, replacement), applied in this order. They follow the rewrites of NeMo's Colang 1.0
# parser, so that the same short forms are accepted.
_NORMAL_FORMS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r":$", r""),
        (r"^infer (?!user )(?!bot )(?!event )", "infer event "),
        (r"^when (?!user )(?!bot )(?!event )(?!flow )(?!no )(?!any)", "when event "),
        (r"^else when (?!user )(?!bot )(?!event )(?!flow )(?!no )(?!any)", "else when event "),
        (r"^def ", r"define "),
        (r"^((?:else )?(?:when )?)(user|bot) says(\b)", r"\1\2\3"),
        (r"^((?:else )?(?:when )?)(user|bot) something(?: else)?(\b)", r"\1\2 *\3"),
        (r'^((?:else )?(?:when )?(?:user|bot)\s[^"]*\s)something(?: else)?(\b)', r"\1...\2"),
        (r"^execute ", r"run "),
        (r"^exec ", r"run "),
        (r"^set ([^$]+) label (?:to )?(\$.*)", r"label \1 \2"),
        (r"^(\$[\w.]+) = (?:run|execute|exec) ", r"run \1 = "),
        (r"^(\$[\w.]+) = (?!run )(?!execute )(?!exec )", r"set \1 = "),
        (r"^\s*priority\s*([\.\d]+)\s*$", r'meta {"priority": \1}'),
        (r"^(\$[\w.]+)\s*\+=", r"set \1 = \1 +"),
        (r"^(\$[\w.]+)\s*\-=", r"set \1 = \1 -"),
        (r"^new( |$)", r"infer\1"),
        (r"^create( |$)", r"infer\1"),
    )
]


def normalise_statement(text: str) -> str:
    """Rewrites a statement to its normal form, e.g. ``$x = execute f`` to ``run $x = f``."""
    text = collapse_spaces(text)
    for pattern, replacement in _NORMAL_FORMS:
        text = pattern.sub(replacement, text)
    return text


# -- parameters ------------------------------------------------------------------------------------

_WITH_CLAUSES = (
    re.compile(r"(?P<name>.*?)(?: (?:with|for) (?P<arguments>\$.+)$)"),
    re.compile(r"(?P<name>.*?)(?: (?:with|for) (?P<arguments>\w+\s*=\s*.+)$)"),
)
# The value of a parameter without ``=``; NeMo's parser uses the same marker.
POSITIONAL = "<<IS NOT NONE>>"


def _with_clause_to_call(text: str) -> str:
    """Rewrites ``name with $x`` to ``name($x)``, and ``name for a=1`` to ``name(a=1)``."""
    for pattern in _WITH_CLAUSES:
        match = pattern.match(text)
        if match:
            return f"{match['name']}({match['arguments']})"
    return text


def _parse_value(text: Any) -> Any:
    """Evaluates a literal; a reference to a variable stays a string."""
    if not isinstance(text, str) or re.match(r"\$([a-zA-Z_][a-zA-Z0-9_]*)", text):
        return text
    if len(text) > MAX_LITERAL:
        raise ValueError("the literal is too long")
    try:
        return literal_eval(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{text!r} is neither a literal nor a $variable") from error


def _parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """Splits ``name(a=1, $b)`` into the name and the parameters."""
    if "(" not in text:
        return text, {}
    name, _, arguments = text.partition("(")
    arguments = arguments.strip()
    if not arguments.endswith(")"):
        raise ValueError(f"the parenthesis in {text!r} is not closed")
    params: dict[str, Any] = {}
    for argument in split_arguments(arguments[:-1]):
        if argument == "":
            continue
        parts = split_outside_quotes(argument, "=")
        if len(parts) > 2:
            raise ValueError(f"{argument!r} is not of the form name=value")
        if len(parts) == 2:
            params[parts[0].strip()] = _parse_value(parts[1].strip())
        else:
            params[str(_parse_value(argument))] = POSITIONAL
    return name.strip(), params


def _tokenize_parameter_line(text: str) -> list[str]:
    """Splits a parameter line into words, quoted texts and the marks ``- : , =``."""
    tokens: list[str] = []
    token_start = 0
    in_quotes = False
    for position, char in enumerate(text):
        if in_quotes:
            in_quotes = char != '"'
        elif char == '"':
            in_quotes = True
        elif char in " -:,=":
            token = text[token_start:position].strip()
            if token:
                tokens.append(token)
            if char != " ":
                tokens.append(char)
            token_start = position + 1
    if text[token_start:].strip():
        tokens.append(text[token_start:].strip())
    return tokens


def _parameter_line_to_yaml(line: LogicalLine, next_line: LogicalLine | None) -> str:
    """Rewrites one indented parameter line as a line of YAML."""
    text = re.sub(r"^set \$?([\w.]+) (?:to|=)", r"_\1:", line.text)
    text = re.sub(r'^(".*")', r"_text: \1", text)
    tokens = _tokenize_parameter_line(text)
    if len(tokens) > 3 and tokens[1] == ":" and tokens[3] == ",":
        # name: a, b
        tokens = [*tokens[:2], "[", *tokens[2:], "]"]
    elif len(tokens) > 2 and tokens[1] != ":" and tokens[2] == ",":
        # name a, b
        tokens = [tokens[0], ":", "[", *tokens[1:], "]"]
    elif len(tokens) == 2 and tokens[1] != ":" and tokens[0] != "-":
        # name value
        tokens = [tokens[0], ":", tokens[1]]
    elif len(tokens) == 3 and tokens[1] == "=":
        # name = value
        tokens[1] = ":"
    elif len(tokens) == 1:
        # a mapping if deeper lines follow, else an item of a list
        has_children = next_line is not None and next_line.indent > line.indent
        tokens = [tokens[0], ":"] if has_children else ["-", tokens[0]]
    return " ".join(tokens)


def parse_indented_parameters(lines: list[LogicalLine]) -> dict[str, Any]:
    """Parses the indented parameter lines of a statement; ValueError if they are not a mapping."""
    if not lines:
        return {}
    # Lines with flow collections ({...}, [...]) are taken as YAML as they stand.
    is_yaml = any(mark in line.text for line in lines for mark in "{[")
    yaml_lines = []
    for index, line in enumerate(lines):
        next_line = lines[index + 1] if index + 1 < len(lines) else None
        text = line.text if is_yaml else _parameter_line_to_yaml(line, next_line)
        indent = max(line.indent - lines[0].indent, 0)
        yaml_lines.append(" " * indent + text)
    try:
        parameters = safe_load("\n".join(yaml_lines))
    except Exception as error:
        raise ValueError("the indented parameters cannot be read") from error
    if isinstance(parameters, str):
        parameters = {"$0": parameters}
    if not isinstance(parameters, dict):
        raise ValueError("expected parameters (name: value) in the indented lines")
    return {str(name).removeprefix("$"): param for name, param in parameters.items()}


def _parse_indented_values(statement: Statement) -> dict[str, Any]:
    params = parse_indented_parameters(statement.indented_lines)
    return {name: _parse_value(value) for name, value in params.items()}


# -- statements ------------------------------------------------------------------------------------


def _parse_user(statement: Statement) -> FlowStep:
    alternatives = split_outside_quotes(statement.text, " or ")
    if " or " in statement.text and len(alternatives) > 1:
        for alternative in alternatives:
            if not alternative.startswith("user "):
                raise ValueError(f"expected 'user {alternative}' after 'or'")
        return AnyOf(
            steps=[
                _parse_user(Statement(statement.line, alternative, "user"))
                for alternative in alternatives
            ]
        )
    intent = strip_keyword("user", statement.text)
    variable = None
    match = re.match(r"(?P<intent>.*?)(?: as \$(?P<variable>.+)$)", intent)
    if match:
        intent, variable = match["intent"], match["variable"]
    intent = _with_clause_to_call(intent)
    if not intent:
        raise ValueError("an intent is missing after 'user'")
    if intent[0] in "'\"":
        parse_indented_parameters(statement.indented_lines)
        return UserIntent(intent=intent[1:-1], variable=variable)
    # As in NeMo, the parameters of an intent have no effect; they are parsed for their errors.
    name, _ = _parse_call(intent)
    _parse_indented_values(statement)
    return UserIntent(intent=name, variable=variable)


_VALUE = r'(?:"[^"]*"|\$[\w.]+|[-\d.]+)'
_FIRST_ARGUMENT = rf"(?:\$[\w.]+|\$?[\w.]+\s*=\s*{_VALUE})"
_NEXT_ARGUMENT = rf"\$?[\w.]+\s*(?:=\s*{_VALUE})?"
_BOT_WITH_CLAUSE = re.compile(rf"^.* ((?:with|for) {_FIRST_ARGUMENT}(?:\s*,\s*{_NEXT_ARGUMENT})*)$")


def split_bot_message(text: str) -> tuple[str, str | None]:
    """Splits ``NAME "text"`` into the name (may be empty) and the quoted text (None without one).

    A ``with`` clause after the name is dropped.
    """
    match = _BOT_WITH_CLAUSE.match(text)
    if match:
        text = text[: -len(match[1])].strip()
    quoted = re.findall(r'"[^"]*"', text)
    if len(quoted) > 1:
        raise ValueError("only one quoted text can follow a bot message's name")
    if not quoted:
        return text, None
    return text.replace(quoted[0], "").strip(), quoted[0]


def _parse_bot(statement: Statement) -> FlowStep:
    text = strip_keyword("bot", statement.text)
    if not text:
        raise ValueError("a name, a $variable or a text is missing after 'bot'")
    if text.startswith("{"):
        raise ValueError("rich bot messages ({...}) are not supported")
    name, quoted = split_bot_message(text)
    if not name:
        return BotMessage(text=(quoted or '""')[1:-1])
    return BotMessage(intent=_parse_call(name)[0])


def _parse_event(statement: Statement) -> FlowStep:
    name, fields = _parse_call(_with_clause_to_call(strip_keyword("event", statement.text)))
    if not name:
        raise ValueError("an event's name is missing")
    return MatchEvent(type=name, fields={**_parse_indented_values(statement), **fields})


def _parse_create(statement: Statement) -> FlowStep:
    text = strip_keyword("infer", statement.text)
    indented_lines = statement.indented_lines
    if not text:
        # ``create`` alone: the event stands on the next line.
        if not indented_lines:
            raise ValueError("an event is missing after 'create'")
        text = normalise_statement(indented_lines[0].text)
        indented_lines = indented_lines[1:]
    event = parse_step(Statement(statement.line, text, leading_keyword(text), indented_lines))
    if not isinstance(event, (MatchEvent, UserIntent, BotMessage)):
        raise ValueError("expected 'create event NAME(...)'")
    return CreateEvent(event=event)


def _parse_assigned_call(statement: Statement) -> tuple[str, str | None, dict[str, Any]]:
    """Parses ``[$result =] NAME(arguments)`` into the name, the result and the parameters.

    Positional parameters are named $1, $2, ...
    """
    text = _with_clause_to_call(strip_keyword(statement.keyword, statement.text))
    name, parenthesis, arguments = text.partition("(")
    result_variable = None
    if "=" in name:
        target, _, name = name.partition("=")
        result_variable = target.strip().removeprefix("$")
    name, params = _parse_call(name.strip() + parenthesis + arguments)
    positional = [value for value, marker in params.items() if marker == POSITIONAL]
    named = {key: value for key, value in params.items() if value != POSITIONAL}
    numbered = {f"${number}": value for number, value in enumerate(positional, 1)}
    return name, result_variable, {**_parse_indented_values(statement), **named, **numbered}


def _parse_run(statement: Statement) -> FlowStep:
    name, result, params = _parse_assigned_call(statement)
    if not name:
        raise ValueError("an action's name is missing")
    return ExecuteAction(action=name, params=params, result=result)


def _parse_do(statement: Statement) -> FlowStep:
    text = strip_keyword("do", statement.text)
    if text.startswith("$") and "=" not in text:
        return CallFlow(flow=text)
    target = text.partition("(")[0].partition("=")[0].strip()
    if "=" in text.partition("(")[0] and not re.fullmatch(r"\$\w+", target):
        # Read as an assignment, `do NAME $x=y` would run the flow y instead.
        flow = parse_flow_name(target) or "NAME"
        raise ValueError(f"parameters of 'do' stand in parentheses: do {flow}(name=value)")
    name, _, params = _parse_assigned_call(statement)
    if not name:
        raise ValueError("a subflow's name is missing after 'do'")
    return CallFlow(flow=name, params=params)


def _parse_set(statement: Statement) -> FlowStep:
    variable, equals, expression = strip_keyword("set", statement.text).partition("=")
    variable, expression = variable.strip(), expression.strip()
    if not equals or not variable or not expression:
        raise ValueError("expected $name = expression")
    return Assign(variable=variable.removeprefix("$"), expression=expression)


def _parse_check(statement: Statement) -> FlowStep:
    return CheckCondition(expression=strip_keyword("check", statement.text))


def _parse_label(statement: Statement) -> FlowStep:
    _, _, text = statement.text.partition(" ")
    # A name, optionally followed by a value, which has no effect.
    names = re.findall(r'([^$"]+)(\$.*|".*")?', text.strip())
    if len(names) != 1:
        raise ValueError("expected a label's name")
    return FlowLabel(name=names[0][0].strip())


def _parse_goto(statement: Statement) -> FlowStep:
    label = strip_keyword(statement.keyword, statement.text)
    if not label:
        raise ValueError("a label's name is missing after 'goto'")
    return Goto(label=label)


_PARSERS: dict[str, Callable[[Statement], FlowStep]] = {
    "user": _parse_user,
    "bot": _parse_bot,
    "event": _parse_event,
    "infer": _parse_create,
    "run": _parse_run,
    "do": _parse_do,
    "set": _parse_set,
    "check": _parse_check,
    "label": _parse_label,
    "checkpoint": _parse_label,
    "goto": _parse_goto,
    "go to": _parse_goto,
    "break": lambda statement: Break(),
    "continue": lambda statement: Continue(),
    "pass": lambda statement: Continue(),
    "return": lambda statement: Return(),
    "done": lambda statement: Return(),
    "stop": lambda statement: BotMessage(intent="stop"),
    "abort": lambda statement: BotMessage(intent="stop"),
}
SIMPLE_STATEMENTS = frozenset(_PARSERS)
STATEMENTS_WITH_INDENTED_LINES = frozenset(
    {"user", "bot", "event", "infer", "run", "do", "set", "check", "label", "checkpoint", "meta"}
)


def parse_step(statement: Statement) -> FlowStep:
    """Parses a simple statement (one without a block); raises ColangSyntaxError."""
    line = statement.line
    try:
        step = _PARSERS[statement.keyword](statement)
    except KeyError as error:
        raise ColangSyntaxError(line.number, f"unknown statement {statement.keyword!r}") from error
    except ValueError as error:
        raise ColangSyntaxError(line.number, str(error)) from error
    step.line, step.comment = line.number, line.comment
    return step


def parse_meta(statement: Statement) -> dict[str, Any]:
    """Parses a ``meta`` statement (``priority 2`` is one) into its keys and values."""
    text = strip_keyword("meta", statement.text)
    try:
        inline = json.loads(text) if text.startswith("{") else {}
        return {**inline, **parse_indented_parameters(statement.indented_lines)}
    except ValueError as error:
        raise ColangSyntaxError(
            statement.line.number, f"the meta value {text!r} cannot be read"
        ) from error
