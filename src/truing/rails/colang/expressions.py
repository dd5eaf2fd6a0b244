"""Colang expressions, evaluated safely: an own evaluator over a white list of Python's syntax, bounded in time and size.

An expression is compiled once into nested closures. Nothing of Python's own evaluation is used; a variable is looked up
in the conversation's context, an unset one is none. There are no list or dictionary literals, as in Colang 1.0.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import ModuleType
from typing import Any

from truing.core.errors import TruingError

MAX_TEXT = 100_000
MAX_NODES = 400
MAX_SOURCE = 8_000
MAX_BITS = 20_000

Context = Mapping[str, Any]
Evaluate = Callable[[Context], Any]

VARIABLE = re.compile(r"\$([a-zA-Z_][a-zA-Z0-9_]*)")


class ExpressionError(TruingError):
    """An expression is malformed, uses something that is not allowed, or failed when it was evaluated."""


class Fields(dict[str, Any]):
    """A dictionary whose keys can also be read as attributes; a missing key is none."""

    def __getattr__(self, name: str) -> Any:
        value = self.get(name)
        if isinstance(value, dict):
            return Fields(value)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return [Fields(v) for v in value]
        return value


_TEXT_METHODS = (
    "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit isidentifier "
    "islower isnumeric isprintable isspace istitle isupper lower lstrip partition removeprefix "
    "removesuffix rfind rindex rpartition rsplit rstrip split splitlines startswith strip swapcase title "
    "upper join replace center ljust rjust zfill "
)

# Methods that cannot change their object and whose result is bounded by a check below or by the object's own size.
_METHODS: dict[type, frozenset[str]] = {
    str: frozenset(_TEXT_METHODS.split()),
    int: frozenset({"bit_length", "conjugate", "as_integer_ratio"}),
    float: frozenset({"is_integer", "conjugate", "as_integer_ratio", "hex"}),
    bool: frozenset({"bit_length", "conjugate"}),
    list: frozenset({"index", "count", "copy"}),
    tuple: frozenset({"index", "count"}),
    dict: frozenset({"get", "keys", "values", "items", "copy"}),
    Fields: frozenset({"get", "keys", "values", "items", "copy"}),
    set: frozenset(
        {"issubset", "issuperset", "isdisjoint", "union", "intersection", "difference", "copy"}
    ),
}
_PADDING = frozenset({"center", "ljust", "rjust", "zfill"})


def _bounded(value: Any) -> Any:
    if isinstance(value, (str, bytes, list, tuple)) and len(value) > MAX_TEXT:
        raise ExpressionError(f"the result is longer than {MAX_TEXT}")
    if type(value) is int and value.bit_length() > MAX_BITS:
        raise ExpressionError("the number is too large")
    return value


def _add(a: Any, b: Any) -> Any:
    if hasattr(a, "__len__") and hasattr(b, "__len__") and len(a) + len(b) > MAX_TEXT:
        raise ExpressionError(f"the result is longer than {MAX_TEXT}")
    return _bounded(a + b)


def _multiply(a: Any, b: Any) -> Any:
    for text, times in ((a, b), (b, a)):
        if (
            hasattr(text, "__len__")
            and isinstance(times, int)
            and len(text) * max(times, 0) > MAX_TEXT
        ):
            raise ExpressionError(f"the result is longer than {MAX_TEXT}")
    if isinstance(a, int) and isinstance(b, int) and a.bit_length() + b.bit_length() > MAX_BITS:
        raise ExpressionError("the number is too large")
    return a * b


def _power(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int) and a.bit_length() * abs(b) > MAX_BITS:
        raise ExpressionError("the number is too large")
    return a**b


def _modulo(a: Any, b: Any) -> Any:
    if isinstance(a, (str, bytes)):
        raise ExpressionError("% on a text is not allowed")
    return a % b


def _shift(a: Any, b: Any) -> Any:
    if isinstance(b, int) and b > MAX_BITS:
        raise ExpressionError("the number is too large")
    return _bounded(a << b)


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: _add,
    ast.Sub: operator.sub,
    ast.Mult: _multiply,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: _modulo,
    ast.Pow: _power,
    ast.LShift: _shift,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}


def _attribute(value: Any, name: str) -> Any:
    if name.startswith("_") or name.startswith("func_"):
        raise ExpressionError(f"access to {name!r} is not allowed")
    methods = _METHODS.get(type(value))
    if methods is not None and not isinstance(value, dict):
        raise ExpressionError(
            f"a {type(value).__name__} has no attribute {name!r} that may be used"
        )
    if isinstance(value, dict) and methods is not None and name in methods and name not in value:
        return getattr(value, name)
    if isinstance(value, Fields):
        return getattr(value, name)
    if isinstance(value, dict):
        if name in value:
            return value[name]
        raise ExpressionError(f"there is no key {name!r}")
    if isinstance(value, (type, ModuleType)) or callable(value):
        raise ExpressionError(f"access to {name!r} is not allowed")
    try:
        found = getattr(value, name)
    except AttributeError as error:
        raise ExpressionError(f"a {type(value).__name__} has no attribute {name!r}") from error
    if isinstance(found, ModuleType) or (callable(found) and not hasattr(found, "__dict__")):
        raise ExpressionError(f"access to {name!r} is not allowed")
    return found


def _call(value: Any, name: str, args: list[Any], keywords: dict[str, Any]) -> Any:
    if name not in _METHODS.get(type(value), ()):
        raise ExpressionError(f"a {type(value).__name__} has no method {name!r} that may be called")
    if isinstance(value, str):
        if name in _PADDING and args and isinstance(args[0], int) and args[0] > MAX_TEXT:
            raise ExpressionError(f"the result is longer than {MAX_TEXT}")
        if (
            name == "replace"
            and len(args) > 1
            and len(value) + (value.count(args[0]) + 1) * len(args[1]) > MAX_TEXT
        ):
            raise ExpressionError(f"the result is longer than {MAX_TEXT}")
        if name == "join" and args and sum(len(str(a)) + len(value) for a in args[0]) > MAX_TEXT:
            raise ExpressionError(f"the result is longer than {MAX_TEXT}")
    result = getattr(value, name)(*args, **keywords)
    return list(result) if name in ("keys", "values", "items") else result


class _Compiler:
    """Turns a syntax tree into closures; refuses every node that is not named here."""

    def __init__(self) -> None:
        self.count = 0

    def compile(self, node: ast.AST) -> Evaluate:
        self.count += 1
        if self.count > MAX_NODES:
            raise ExpressionError("the expression is too large")
        made = getattr(self, f"_{type(node).__name__.lower()}", None)
        if made is None:
            raise ExpressionError(f"{type(node).__name__} is not allowed in expressions")
        result: Evaluate = made(node)
        return result

    def _constant(self, node: ast.Constant) -> Evaluate:
        value = node.value
        if not isinstance(value, (str, int, float, bool, type(None))):
            raise ExpressionError(f"{type(value).__name__} constants are not allowed")
        _bounded(value)
        return lambda context: value

    def _name(self, node: ast.Name) -> Evaluate:
        if not node.id.startswith("var_"):
            raise ExpressionError(f"{node.id!r} is not defined (variables are written ${node.id})")
        name = node.id[4:]

        def look_up(context: Context) -> Any:
            value = context.get(name)
            return Fields(value) if type(value) is dict else value

        return look_up

    def _unaryop(self, node: ast.UnaryOp) -> Evaluate:
        do, operand = _UNARY[type(node.op)], self.compile(node.operand)
        return lambda context: do(operand(context))

    def _binop(self, node: ast.BinOp) -> Evaluate:
        do = _BINARY.get(type(node.op))
        if do is None:
            raise ExpressionError(f"the operator {type(node.op).__name__} is not allowed")
        left, right = self.compile(node.left), self.compile(node.right)
        return lambda context: do(left(context), right(context))

    def _boolop(self, node: ast.BoolOp) -> Evaluate:
        values = [self.compile(v) for v in node.values]
        stop_on = isinstance(node.op, ast.Or)

        def decide(context: Context) -> Any:
            value: Any = False
            for evaluate in values:
                value = evaluate(context)
                if bool(value) is stop_on:
                    break
            return value

        return decide

    def _compare(self, node: ast.Compare) -> Evaluate:
        first = self.compile(node.left)
        if len(node.ops) == 1:
            do, other = _COMPARE[type(node.ops[0])], self.compile(node.comparators[0])
            return lambda context: do(first(context), other(context))
        rest = [
            (_COMPARE[type(o)], self.compile(c))
            for o, c in zip(node.ops, node.comparators, strict=True)
        ]

        def chain(context: Context) -> Any:
            right, result = first(context), True
            for do, other in rest:
                if not result:
                    break
                left, right = right, other(context)
                result = do(left, right)
            return result

        return chain

    def _ifexp(self, node: ast.IfExp) -> Evaluate:
        test, body, other = (
            self.compile(node.test),
            self.compile(node.body),
            self.compile(node.orelse),
        )
        return lambda context: body(context) if test(context) else other(context)

    def _subscript(self, node: ast.Subscript) -> Evaluate:
        value, key = self.compile(node.value), self.compile(node.slice)
        return lambda context: value(context)[key(context)]

    def _slice(self, node: ast.Slice) -> Evaluate:
        nothing: Evaluate = lambda context: None  # noqa: E731
        parts = [
            self.compile(p) if p is not None else nothing
            for p in (node.lower, node.upper, node.step)
        ]
        return lambda context: slice(*(p(context) for p in parts))

    def _attribute(self, node: ast.Attribute) -> Evaluate:
        value, name = self.compile(node.value), node.attr
        return lambda context: _attribute(value(context), name)

    def _call(self, node: ast.Call) -> Evaluate:
        args = [self.compile(a) for a in node.args]
        keywords = {k.arg: self.compile(k.value) for k in node.keywords if k.arg is not None}
        if len(keywords) != len(node.keywords):
            raise ExpressionError("** is not allowed in a call")
        if isinstance(node.func, ast.Name) and node.func.id == "len":
            return lambda context: len(*(a(context) for a in args))
        if not isinstance(node.func, ast.Attribute):
            raise ExpressionError(
                "only len(...) and methods of texts, lists and dictionaries can be called"
            )
        value, name = self.compile(node.func.value), node.func.attr
        return lambda context: _bounded(
            _call(
                value(context),
                name,
                [a(context) for a in args],
                {k: v(context) for k, v in keywords.items()},
            )
        )

    def _joinedstr(self, node: ast.JoinedStr) -> Evaluate:
        parts = [self.compile(v) for v in node.values]
        return lambda context: _bounded("".join(str(p(context)) for p in parts))

    def _formattedvalue(self, node: ast.FormattedValue) -> Evaluate:
        if node.format_spec is not None:
            raise ExpressionError("format specifications are not allowed")
        return self.compile(node.value)


@lru_cache(maxsize=8192)
def compile_expression(text: str) -> Evaluate:
    """A function from a context to the expression's value; raises ExpressionError, at once or when it is called."""
    if len(text) > MAX_SOURCE:
        raise ExpressionError("the expression is too long")
    source = VARIABLE.sub(r"var_\1", text).strip()
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(f"{text!r} is not an expression") from error
    if not body or not isinstance(body[0], (ast.Expr, ast.Assign)):
        raise ExpressionError(f"{text!r} is not an expression")
    try:
        evaluate = _Compiler().compile(body[0].value)
    except (KeyError, RecursionError) as error:
        raise ExpressionError(f"{text!r}: not allowed in expressions") from error

    def run(context: Context) -> Any:
        try:
            return evaluate(context)
        except Exception as error:
            raise ExpressionError(f"error evaluating {text!r}: {error}") from error

    return run


def variables(text: str) -> frozenset[str]:
    """The names of the variables that an expression (or any text) mentions as $name."""
    return frozenset(VARIABLE.findall(text))
