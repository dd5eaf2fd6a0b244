"""The bodies of ``define user`` (examples of an intent) and ``define bot`` (texts of a message)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from truing.rails.colang.ast import BotText, ColangFile
from truing.rails.colang.lexer import LogicalLine, split_outside_quotes
from truing.rails.colang.statements import ColangSyntaxError

# Lines that declare parameters of a message; they have no effect on its texts.
_PARAMETER_KEYWORDS = frozenset(
    {"param", "parameter", "entity", "property", "attribute", "attr", "prop", "set", "context"}
)
_MARKED_PARAMETER = re.compile(r"\[(.{0,500}?)\]\((.{0,500}?)\)")
_VARIABLE = re.compile(r"\$([^ \"'!?\-,;</]{0,200}(?:\w|]))")


def _replace_marked_parameters(text: str) -> str:
    """Replaces ``[Oslo](city)``, an example value of a parameter, by ``{city}``."""
    for value, name in _MARKED_PARAMETER.findall(text):
        text = text.replace(f"[{value}]({name})", "{" + name + "}")
    return text


def _unquote(text: str, line: LogicalLine) -> str:
    if len(text) < 2 or text[-1] != '"':
        raise ColangSyntaxError(line.number, 'the quoted text is not closed: missing "')
    return text[1:-1]


def _split_multiline_text(text: str) -> list[str]:
    """Returns the first line of a text, and each further line that starts with ``-`` or ``*``.

    As in NeMo, other further lines are dropped.
    """
    first, *further = text.split("\n")
    texts = [first.strip()]
    for line in further:
        line = line.strip()
        if line[:1] in ("-", "*") and line[1:].strip():
            texts.append(line[1:].strip())
    return texts


def add_user_examples(name: str, lines: list[LogicalLine], tree: ColangFile) -> None:
    """Adds the examples of an intent; one without examples has its name as its only example."""
    examples = tree.user_messages.setdefault(name, [])
    if not lines:
        examples.append(name)
    for line in lines:
        words = split_outside_quotes(line.text, " ")
        if words and words[0] in _PARAMETER_KEYWORDS:
            continue
        if words and words[0] == "bot":
            raise ColangSyntaxError(
                line.number, "a bot message is not allowed in 'define user'; write a flow"
            )
        parts = []
        for part in split_outside_quotes(line.text, " and "):
            if part.startswith('"'):
                part = _unquote(part, line)
                for variable in dict.fromkeys(_VARIABLE.findall(part)):
                    part = part.replace(f"${variable}", "{" + variable + "}")
            parts.append(part)
        for text in _split_multiline_text(" and ".join(parts)):
            examples.append(_replace_marked_parameters(text))


@dataclass(slots=True)
class _Condition:
    """An open ``if``; the last expression is the current branch, earlier ones are negated."""

    indent: int
    expressions: list[str]


def add_bot_texts(name: str, lines: list[LogicalLine], tree: ColangFile) -> None:
    """Adds the texts of a bot message, each with the conditions of the ``if``/``else`` above it."""
    texts = tree.bot_messages.setdefault(name, [])
    open_conditions: list[_Condition] = []
    for line in lines:
        words = split_outside_quotes(line.text, " ")
        keyword = words[0].rstrip(":") if words else ""
        if keyword in _PARAMETER_KEYWORDS:
            continue
        if keyword in ("if", "else"):
            _update_conditions(line, open_conditions)
            continue
        while open_conditions and line.indent <= open_conditions[-1].indent:
            open_conditions.pop()
        if not line.text.startswith('"'):
            raise ColangSyntaxError(line.number, f"expected a quoted text in 'define bot {name}'")
        first_line = _split_multiline_text(_unquote(line.text, line))[0]
        text = re.sub(r"`(.*?)`", r"$\1", first_line)
        expressions = tuple(
            expression for condition in open_conditions for expression in condition.expressions
        )
        texts.append(BotText(_replace_marked_parameters(text), line.number, expressions))


def _update_conditions(line: LogicalLine, open_conditions: list[_Condition]) -> None:
    """Opens a condition for ``if``; for ``else`` and ``else if`` moves on to the next branch."""
    text = line.text.removesuffix(":").strip()
    while open_conditions and open_conditions[-1].indent > line.indent:
        open_conditions.pop()
    if text.startswith("if "):
        if open_conditions and open_conditions[-1].indent == line.indent:
            open_conditions.pop()
        condition = text.removeprefix("if ").strip()
        open_conditions.append(_Condition(line.indent, [condition]))
        return
    if not open_conditions or open_conditions[-1].indent != line.indent:
        raise ColangSyntaxError(line.number, "'else' without an 'if' above it")
    expressions = open_conditions[-1].expressions
    expressions[-1] = f"not ({expressions[-1]})"
    if text.startswith("else if "):
        expressions.append(text.removeprefix("else if ").strip())
