"""Colang 1.0, one statement at a time: the short forms are rewritten to one form, then each becomes a step.

A `Statement` is a logical line with the deeper lines under it that belong to it (parameters, texts of a bot message).
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
    Bot,
    Check,
    Create,
    Do,
    Event,
    Execute,
    Goto,
    Label,
    Leave,
    Set,
    Step,
    User,
)
from truing.rails.colang.lexer import (
    Line,
    keyword,
    single_spaced,
    split_arguments,
    split_outside,
    without,
)
from truing.rails.yaml_lines import safe_load


class ColangError(Exception):
    """A fault in one line; `line` is its number."""

    def __init__(self, line: int, what: str) -> None:
        self.line = line
        super().__init__(what)


@dataclass(slots=True)
class Statement:
    """A normalised line, its keyword, and the lines under it."""

    line: Line
    text: str
    word: str
    under: list[Line] = field(default_factory=list)


_REWRITE = [
    (re.compile(pattern), into)
    for pattern, into in (
        (r":$", r""),
        (r"^infer (?!user )(?!bot )(?!event )", "infer event "),
        (r"^when (?!user )(?!bot )(?!event )(?!flow )(?!no )(?!any)", "when event "),
        (r"^else when (?!user )(?!bot )(?!event )(?!flow )(?!no )(?!any)", "else when event "),
        (r"^def ", r"define "),
        (r"^((?:else )?(?:when )?)(user|bot) says(\b)", r"\1\2\3"),
        (r"^((?:else )?(?:when )?)(user|bot) something(?: else)?(\b)", r"\1\2 *\3"),
        (r'^((?:else )?(?:when )?(?:user|bot)\s+(?:[^"]*)\s+)something(?: else)?(\b)', r"\1...\2"),
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


def normalise(text: str) -> str:
    """The one form of a statement's text."""
    text = single_spaced(text)
    for pattern, into in _REWRITE:
        text = pattern.sub(into, text)
    return text


_WITH = (
    re.compile(r"(?P<name>.*?)(?: (?:with|for) (?P<vars>\$.+)$)"),
    re.compile(r"(?P<name>.*?)(?: (?:with|for) (?P<vars>\w+\s*=\s*.+)$)"),
)
EXISTS = "<<IS NOT NONE>>"


def _with_parameters(text: str) -> str:
    """``name with $x`` and ``name for a=1`` as ``name($x)``, ``name(a=1)``."""
    for pattern in _WITH:
        found = pattern.match(text)
        if found:
            return f"{found['name']}({found['vars']})"
    return text


def _value(text: Any) -> Any:
    """A literal; a reference to a variable stays as it is."""
    if not isinstance(text, str) or re.match(r"\$([a-zA-Z_][a-zA-Z0-9_]*)", text):
        return text
    if len(text) > 10_000:
        raise ValueError("the literal is too long")
    try:
        return literal_eval(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{text!r} is neither a literal nor a $variable") from error


def _inline(text: str) -> tuple[str, dict[str, Any]]:
    """``name(a=1, $b)`` as name and parameters."""
    if "(" not in text:
        return text, {}
    name, _, rest = text.partition("(")
    rest = rest.strip()
    if not rest.endswith(")"):
        raise ValueError(f"the parenthesis in {text!r} is not closed")
    params: dict[str, Any] = {}
    for pair in split_arguments(rest[:-1]):
        if pair == "":
            continue
        parts = split_outside(pair, "=")
        if len(parts) > 2:
            raise ValueError(f"{pair!r} is no name=value")
        if len(parts) == 2:
            params[parts[0].strip()] = _value(parts[1].strip())
        else:
            params[str(_value(pair))] = EXISTS
    return name.strip(), params


def _tokens(text: str) -> list[str]:
    """The tokens of a parameter line: words, quoted texts and the marks - : , =."""
    found: list[str] = []
    at = start = 0
    quoted = False
    while at < len(text):
        if quoted:
            quoted = text[at] != '"'
        elif text[at] == '"':
            quoted = True
        elif text[at] in " -:,=":
            if text[start:at].strip():
                found.append(text[start:at].strip())
            if text[at] != " ":
                found.append(text[at])
            start = at + 1
        at += 1
    if text[start:].strip():
        found.append(text[start:].strip())
    return found


def _parameter(line: Line, following: Line | None) -> str:
    """One indented parameter line as YAML."""
    text = line.text
    for pattern, into in ((r"^set \$?([\w.]+) (?:to|=)", r"_\1:"), (r'^(".*")', r"_text: \1")):
        text = re.sub(pattern, into, text)
    tokens = _tokens(text)
    if len(tokens) > 3 and tokens[1] == ":" and tokens[3] == ",":
        tokens = [*tokens[:2], "[", *tokens[2:], "]"]
    elif len(tokens) > 2 and tokens[1] != ":" and tokens[2] == ",":
        tokens = [tokens[0], ":", "[", *tokens[1:], "]"]
    elif len(tokens) == 2 and tokens[1] != ":" and tokens[0] != "-":
        tokens = [tokens[0], ":", tokens[1]]
    elif len(tokens) == 3 and tokens[1] == "=":
        tokens[1] = ":"
    elif len(tokens) == 1:
        deeper = following is not None and following.indent > line.indent
        tokens = [tokens[0], ":"] if deeper else ["-", tokens[0]]
    return " ".join(tokens)


def parameters(under: list[Line]) -> dict[str, Any]:
    """The indented parameter lines of a statement as a dictionary; ValueError if they are none."""
    if not under:
        return {}
    plain = not any(mark in line.text for line in under for mark in "{[")
    rows = [
        " " * max(line.indent - under[0].indent, 0)
        + (_parameter(line, under[i + 1] if i + 1 < len(under) else None) if plain else line.text)
        for i, line in enumerate(under)
    ]
    try:
        value = safe_load("\n".join(rows))
    except Exception as error:
        raise ValueError("the indented parameters cannot be read") from error
    if isinstance(value, str):
        value = {"$0": value}
    if not isinstance(value, dict):
        raise ValueError("expected parameters (name: value) in the indented lines")
    return {str(k).removeprefix("$"): v for k, v in value.items()}


def _user(s: Statement) -> Step:
    parts = split_outside(s.text, " or ")
    if " or " in s.text and len(parts) > 1:
        wrong = next((p for p in parts if not p.startswith("user ")), None)
        if wrong is not None:
            raise ValueError(f"expected 'user {wrong}' after 'or'")
        return AnyOf(steps=[_user(Statement(s.line, p, "user")) for p in parts])
    value = without("user", s.text)
    variable = None
    found = re.match(r"(?P<intent>.*?)(?: as \$(?P<var>.+)$)", value)
    if found:
        value, variable = found["intent"], found["var"]
    value = _with_parameters(value)
    if not value:
        raise ValueError("an intent is missing after 'user'")
    if value[0] in "'\"":
        parameters(s.under)
        return User(intent=value[1:-1], variable=variable)
    name, _ = _inline(value)
    for extra in parameters(s.under).values():
        _value(extra)
    return User(intent=name, variable=variable)


def bot_parts(text: str) -> tuple[str, str | None]:
    """``NAME "text"``: the name (may be empty) and the quoted text."""
    one = r"\$[\w.]+"
    given = r'\$?[\w.]+\s*=\s*(?:"[^"]*"|\$[\w.]+|[-\d.]+)'
    more = r'\$?[\w.]+\s*(?:=\s*(?:"[^"]*"|\$[\w.]+|[-\d.]+))?'
    found = re.match(rf"^.* ((?:with|for) (?:{one}|{given})(?:\s*,\s*{more})*)$", text)
    if found:
        text = text[: -len(found[1])].strip()
    quoted = re.findall(r'"[^"]*"', text)
    if len(quoted) > 1:
        raise ValueError("only one quoted text can follow a bot message's name")
    if not quoted:
        return text, None
    return text.replace(quoted[0], "").strip(), quoted[0]


def _bot(s: Statement) -> Step:
    text = without("bot", s.text)
    if not text:
        raise ValueError("a name, a $variable or a text is missing after 'bot'")
    if text.startswith("{"):
        raise ValueError("rich bot messages ({...}) are not supported")
    name, quoted = bot_parts(text)
    if not name:
        return Bot(text=(quoted or '""')[1:-1])
    return Bot(intent=_inline(name)[0])


def _event(s: Statement) -> Step:
    name, fields = _inline(_with_parameters(without("event", s.text)))
    if not name:
        raise ValueError("an event's name is missing")
    fields = {**{k: _value(v) for k, v in parameters(s.under).items()}, **fields}
    return Event(type=name, fields=fields)


def _create(s: Statement) -> Step:
    rest = without("infer", s.text)
    under = s.under
    if not rest:
        if not under:
            raise ValueError("an event is missing after 'create'")
        rest, under = normalise(under[0].text), under[1:]
    made = parse_step(Statement(s.line, rest, keyword(rest), under))
    if not isinstance(made, (Event, User, Bot)):
        raise ValueError("expected 'create event NAME(...)'")
    return Create(event=made)


def _name_and_parameters(s: Statement, word: str) -> tuple[str, str | None, dict[str, Any]]:
    value = _with_parameters(without(word, s.text))
    name, _, rest = value.partition("(")
    result = None
    if "=" in name:
        left, _, name = name.partition("=")
        result, name = left.strip().removeprefix("$"), name.strip()
    name, params = _inline(name.strip() + ("(" + rest if "(" in value else ""))
    positional = [k for k, v in params.items() if v == EXISTS]
    params = {k: v for k, v in params.items() if v != EXISTS}
    params.update({f"${i}": k for i, k in enumerate(positional, 1)})
    return name, result, {**{k: _value(v) for k, v in parameters(s.under).items()}, **params}


def _run(s: Statement) -> Step:
    name, result, params = _name_and_parameters(s, "run")
    if not name:
        raise ValueError("an action's name is missing")
    return Execute(action=name, params=params, result=result)


def _do(s: Statement) -> Step:
    value = without("do", s.text)
    if value.startswith("$") and "=" not in value:
        return Do(flow=value)
    name, _, params = _name_and_parameters(s, "do")
    if not name:
        raise ValueError("a subflow's name is missing after 'do'")
    return Do(flow=name, params=params)


def _set(s: Statement) -> Step:
    value = without("set", s.text)
    left, sign, right = value.partition("=")
    if not sign or not left.strip() or not right.strip():
        raise ValueError("expected $name = expression")
    return Set(name=left.strip().removeprefix("$"), expression=right.strip())


def _label(s: Statement) -> Step:
    found = re.findall(
        r'([^$"]+)(\$.*|".*")?', s.text.split(" ", 1)[1].strip() if " " in s.text else ""
    )
    if len(found) != 1:
        raise ValueError("expected a label's name")
    return Label(name=found[0][0].strip())


def _goto(s: Statement) -> Step:
    name = without(s.word, s.text)
    if not name:
        raise ValueError("a label's name is missing after 'goto'")
    return Goto(name=name)


_STEPS: dict[str, Callable[[Statement], Step]] = {
    "user": _user,
    "bot": _bot,
    "event": _event,
    "infer": _create,
    "run": _run,
    "do": _do,
    "set": _set,
    "check": lambda s: Check(expression=without("check", s.text)),
    "label": _label,
    "checkpoint": _label,
    "goto": _goto,
    "go to": _goto,
    "break": lambda s: Leave(kind="break"),
    "continue": lambda s: Leave(kind="continue"),
    "pass": lambda s: Leave(kind="continue"),
    "return": lambda s: Leave(kind="return"),
    "done": lambda s: Leave(kind="return"),
    "stop": lambda s: Bot(intent="stop"),
    "abort": lambda s: Bot(intent="stop"),
}
SIMPLE = frozenset(_STEPS)
TAKES_LINES = frozenset(
    {"user", "bot", "event", "infer", "run", "do", "set", "check", "label", "checkpoint", "meta"}
)


def parse_step(s: Statement) -> Step:
    """The step of a simple statement; ColangError with its line."""
    try:
        step = _STEPS[s.word](s)
    except KeyError as error:
        raise ColangError(s.line.number, f"unknown statement {s.word!r}") from error
    except ValueError as error:
        raise ColangError(s.line.number, str(error)) from error
    step.line, step.comment = s.line.number, s.line.comment
    return step


def parse_meta(s: Statement) -> dict[str, Any]:
    """The keys of a ``meta`` statement (``priority 2`` is one)."""
    text = without("meta", s.text)
    try:
        inline = json.loads(text) if text.startswith("{") else {}
        return {**inline, **parameters(s.under)}
    except ValueError as error:
        raise ColangError(s.line.number, f"the meta value {text!r} cannot be read") from error
