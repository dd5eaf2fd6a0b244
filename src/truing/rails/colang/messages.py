"""The bodies of ``define user`` and ``define bot``: examples of an intent, texts of a bot message."""

from __future__ import annotations

import re

from truing.rails.colang.ast import Parsed, Text
from truing.rails.colang.lexer import Line, split_outside
from truing.rails.colang.statements import ColangError

_PARAMETER_WORDS = frozenset(
    {"param", "parameter", "entity", "property", "attribute", "attr", "prop", "set", "context"}
)
_LINK = re.compile(r"\[(.*?)\]\((.*?)\)")
_VARIABLE = re.compile(r"\$([^ \"'!?\-,;</]*(?:\w|]))")


def _marked(text: str) -> str:
    """``[shown](name)`` becomes ``{name}``: the mark of a captured parameter in examples."""
    for shown, name in _LINK.findall(text):
        text = text.replace(f"[{shown}]({name})", "{" + name + "}")
    return text


def _quoted(part: str, line: Line) -> str:
    if len(part) < 2 or part[-1] != '"':
        raise ColangError(line.number, 'the quoted text is not closed: missing "')
    return part[1:-1]


def _first_line(text: str) -> list[str]:
    """A text over several lines counts by its first line; further lines that start with - or * are texts of their own."""
    first, *rest = text.split("\n")
    more = [r.strip()[1:].strip() for r in rest if r.strip()[:1] in ("-", "*")]
    return [t for t in (first.strip(), *more) if t or t == first.strip()]


def user_examples(name: str, lines: list[Line], into: Parsed) -> None:
    """Adds the examples of an intent; an intent without any has its own name as example."""
    found = into.users.setdefault(name, [])
    if not lines:
        found.append(name)
    for line in lines:
        words = split_outside(line.text, " ")
        if words and words[0] in _PARAMETER_WORDS:
            continue
        if words and words[0] == "bot":
            raise ColangError(
                line.number, "a bot message cannot stand in 'define user'; write a flow"
            )
        texts = []
        for part in split_outside(line.text, " and "):
            if part.startswith('"'):
                text = _quoted(part, line)
                for variable in dict.fromkeys(_VARIABLE.findall(text)):
                    text = text.replace(f"${variable}", "{" + variable + "}")
                texts.append(text)
            else:
                texts.append(part)
        found.extend(_marked(t) for t in _first_line(" and ".join(texts)))


def bot_texts(name: str, lines: list[Line], into: Parsed) -> None:
    """Adds the texts of a bot message, each with the conditions of the ``if`` / ``else`` above it."""
    found = into.bots.setdefault(name, [])
    conditions: list[
        tuple[int, list[str]]
    ] = []  # (indentation, expressions): earlier branches negated
    for line in lines:
        words = split_outside(line.text, " ")
        head = words[0].rstrip(":") if words else ""
        if head in _PARAMETER_WORDS:
            continue
        if head in ("if", "else"):
            _condition(line, conditions)
            continue
        while conditions and line.indent <= conditions[-1][0]:
            conditions.pop()
        if not line.text.startswith('"'):
            raise ColangError(line.number, f"expected a quoted text in 'define bot {name}'")
        text = re.sub(r"`(.*?)`", r"$\1", "\n".join(_first_line(_quoted(line.text, line))[:1]))
        found.append(Text(_marked(text), line.number, tuple(e for _, es in conditions for e in es)))


def _condition(line: Line, conditions: list[tuple[int, list[str]]]) -> None:
    text = line.text.removesuffix(":").strip()
    while conditions and conditions[-1][0] > line.indent:
        conditions.pop()
    if text.startswith("if "):
        if conditions and conditions[-1][0] == line.indent:
            conditions.pop()
        conditions.append((line.indent, [text[3:].strip()]))
        return
    if not conditions or conditions[-1][0] != line.indent:
        raise ColangError(line.number, "'else' without an 'if' above it")
    expressions = conditions[-1][1]
    expressions[-1] = f"not ({expressions[-1]})"
    if text.startswith("else if "):
        expressions.append(text[8:].strip())
