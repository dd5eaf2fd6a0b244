"""Expressions of Colang 2: those of Colang 1.0, with list and dictionary literals, a few
functions, and texts in which ``{expression}`` stands for its value.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from truing.core.linear_regex import LinearRegex, NotLinear
from truing.rails.colang.expressions import (
    MAX_LENGTH,
    MAX_SOURCE,
    Context,
    Evaluator,
    ExpressionCompiler,
    ExpressionError,
)

_STRING_OR_VARIABLE = re.compile(
    r'"""[\s\S]*?"""'
    r"|'''[\s\S]*?'''"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'(?:[^'\\\n]|\\.)*'"
    r"|\$([a-zA-Z_]\w*)"
)
_INSERT = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")


class TextPattern:
    """A regular expression for what the user says, matched in linear time."""

    def __init__(self, source: Any) -> None:
        try:
            self._regex = LinearRegex(str(source))
        except (NotLinear, re.error) as error:
            raise ExpressionError(f"the pattern {source!r} cannot be used: {error}") from error

    def search(self, text: str) -> bool:
        """Returns whether the pattern occurs in a text."""
        return self._regex.matches(text)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "len": len,
    "str": str,
    "int": int,
    "float": float,
    "regex": TextPattern,
    "search": lambda pattern, text: TextPattern(pattern).search(str(text)),
    "is_str": lambda value: isinstance(value, str),
    "is_int": lambda value: isinstance(value, int),
    "is_float": lambda value: isinstance(value, float),
    "is_bool": lambda value: isinstance(value, bool),
}


class _ScriptExpressionCompiler(ExpressionCompiler):
    def _visit_Constant(self, node: ast.Constant) -> Evaluator:
        constant = node.value
        if not isinstance(constant, str) or not _INSERT.search(constant):
            return super()._visit_Constant(node)
        text_parts: list[str | Evaluator] = []
        end = 0
        for match in _INSERT.finditer(constant):
            text_parts.append(constant[end : match.start()])
            if match[1] is not None:
                text_parts.append(compile_script_expression(match[1]))
            else:
                text_parts.append(match[0][0])
            end = match.end()
        text_parts.append(constant[end:])

        def join(context: Context) -> str:
            texts = [part if isinstance(part, str) else str(part(context)) for part in text_parts]
            if sum(map(len, texts)) > MAX_LENGTH:
                raise ExpressionError(f"the text is longer than {MAX_LENGTH}")
            return "".join(texts)

        return join

    def _visit_List(self, node: ast.List) -> Evaluator:
        items = [self.compile(item) for item in node.elts]
        return lambda context: [item(context) for item in items]

    def _visit_Dict(self, node: ast.Dict) -> Evaluator:
        keys = [self.compile(key) for key in node.keys if key is not None]
        if len(keys) != len(node.keys):
            raise ExpressionError("** is not allowed in a dictionary")
        values = [self.compile(value) for value in node.values]
        return lambda context: {
            key(context): value(context) for key, value in zip(keys, values, strict=True)
        }

    def _visit_Call(self, node: ast.Call) -> Evaluator:
        function = _FUNCTIONS.get(node.func.id) if isinstance(node.func, ast.Name) else None
        if function is None or node.keywords:
            return super()._visit_Call(node)
        arguments = [self.compile(argument) for argument in node.args]
        return lambda context: function(*(argument(context) for argument in arguments))


@lru_cache(maxsize=8192)
def compile_script_expression(text: str) -> Evaluator:
    """Compiles an expression to a function from the variables to its value.

    Raises ExpressionError for a malformed expression; the function raises it for one that fails.
    """
    if len(text) > MAX_SOURCE:
        raise ExpressionError("the expression is too long")
    # A `$` inside of a text is no variable, unless it stands in braces.
    source = _STRING_OR_VARIABLE.sub(
        lambda match: f"var_{match[1]}" if match[1] else match[0], text.strip()
    )
    try:
        tree = ast.parse(source, mode="eval")
        evaluate = _ScriptExpressionCompiler().compile(tree.body)
    except (SyntaxError, ValueError, KeyError, RecursionError, MemoryError) as error:
        raise ExpressionError(f"{text!r} is not an expression") from error

    def evaluate_expression(context: Context) -> Any:
        try:
            return evaluate(context)
        except ExpressionError:
            raise
        except Exception as error:
            raise ExpressionError(f"error evaluating {text!r}: {error}") from error

    return evaluate_expression
