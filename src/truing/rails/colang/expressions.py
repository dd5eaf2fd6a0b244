"""Evaluates Colang expressions in a sandbox: a subset of Python, bounded in time and size.

An expression is parsed with Python's `ast` and compiled once to nested closures; `eval` is never
used. A variable is looked up in the conversation's context, where an unset one is None. There are
no list or dictionary literals, as in Colang 1.0.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import CodeType, FrameType, ModuleType, TracebackType
from typing import Any

from truing.core.errors import TruingError

MAX_LENGTH = 100_000  # of a resulting string or list
MAX_NODES = 400  # of an expression's syntax tree
MAX_SOURCE = 8_000  # characters of an expression
MAX_BITS = 20_000  # of a resulting integer; `9**9**9` would take minutes and gigabytes

Context = Mapping[str, Any]
Evaluator = Callable[[Context], Any]

VARIABLE = re.compile(r"\$([a-zA-Z_][a-zA-Z0-9_]*)")


class ExpressionError(TruingError):
    """An expression is malformed, uses something that is not allowed, or failed to evaluate."""


class AttributeDict(dict[str, Any]):
    """A dictionary whose keys can also be read as attributes; a missing key reads as None."""

    def __getattr__(self, name: str) -> Any:
        value = self.get(name)
        if isinstance(value, dict):
            return AttributeDict(value)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return [AttributeDict(item) for item in value]
        return value


_STRING_METHODS = (
    "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit "
    "isidentifier islower isnumeric isprintable isspace istitle isupper lower lstrip partition "
    "removeprefix removesuffix rfind rindex rpartition rsplit rstrip split splitlines startswith "
    "strip swapcase title upper join replace center ljust rjust zfill"
)
_DICT_METHODS = frozenset({"get", "keys", "values", "items", "copy"})

# The methods that expressions may call, by exact type. None of them changes its object. Their
# results are bounded by the object's size or by `_check_result_size`. `str.format` is missing
# because it reads attributes: "{0.__class__}".
_ALLOWED_METHODS: dict[type, frozenset[str]] = {
    str: frozenset(_STRING_METHODS.split()),
    int: frozenset({"bit_length", "conjugate", "as_integer_ratio"}),
    float: frozenset({"is_integer", "conjugate", "as_integer_ratio", "hex"}),
    bool: frozenset({"bit_length", "conjugate"}),
    list: frozenset({"index", "count", "copy"}),
    tuple: frozenset({"index", "count"}),
    dict: _DICT_METHODS,
    AttributeDict: _DICT_METHODS,
    set: frozenset(
        {"issubset", "issuperset", "isdisjoint", "union", "intersection", "difference", "copy"}
    ),
}
_PADDING_METHODS = frozenset({"center", "ljust", "rjust", "zfill"})


# -- operators -------------------------------------------------------------------------------------
# Each checks the size of its result before it computes it, where the operands tell it.


def _too_long() -> ExpressionError:
    return ExpressionError(f"the result is longer than {MAX_LENGTH}")


def _too_large() -> ExpressionError:
    return ExpressionError("the number is too large")


def _check_bounds(value: Any) -> Any:
    """Returns the value; ExpressionError if it is too long or too large."""
    if isinstance(value, (str, bytes, list, tuple)) and len(value) > MAX_LENGTH:
        raise _too_long()
    if type(value) is int and value.bit_length() > MAX_BITS:
        raise _too_large()
    return value


def _add(left: Any, right: Any) -> Any:
    are_sized = hasattr(left, "__len__") and hasattr(right, "__len__")
    if are_sized and len(left) + len(right) > MAX_LENGTH:
        raise _too_long()
    return _check_bounds(left + right)


def _multiply(left: Any, right: Any) -> Any:
    for sequence, count in ((left, right), (right, left)):
        is_repetition = hasattr(sequence, "__len__") and isinstance(count, int)
        if is_repetition and len(sequence) * max(count, 0) > MAX_LENGTH:
            raise _too_long()
    are_integers = isinstance(left, int) and isinstance(right, int)
    if are_integers and left.bit_length() + right.bit_length() > MAX_BITS:
        raise _too_large()
    return left * right


def _power(base: Any, exponent: Any) -> Any:
    are_integers = isinstance(base, int) and isinstance(exponent, int)
    if are_integers and base.bit_length() * abs(exponent) > MAX_BITS:
        raise _too_large()
    return base**exponent


def _modulo(left: Any, right: Any) -> Any:
    # "%1000000000d" % 1 would build a string of a gigabyte.
    if isinstance(left, (str, bytes)):
        raise ExpressionError("% on a text is not allowed")
    return left % right


def _shift_left(value: Any, count: Any) -> Any:
    if isinstance(count, int) and count > MAX_BITS:
        raise _too_large()
    return _check_bounds(value << count)


_BINARY_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: _add,
    ast.Sub: operator.sub,
    ast.Mult: _multiply,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: _modulo,
    ast.Pow: _power,
    ast.LShift: _shift_left,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
_UNARY_OPERATORS: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda item, container: item in container,
    ast.NotIn: lambda item, container: item not in container,
}


# -- attributes and methods ------------------------------------------------------------------------


def _read_attribute(owner: Any, name: str) -> Any:
    """Returns an attribute, or a key of a dictionary.

    Refuses private names, and everything that leads to code: modules, classes and callables.
    """
    # func_globals, func_code: Python 2 names that Jinja's sandbox refuses as well.
    if name.startswith(("_", "func_")):
        raise _forbidden(name)
    methods = _ALLOWED_METHODS.get(type(owner))
    if methods is not None and not isinstance(owner, dict):
        raise ExpressionError(
            f"a {type(owner).__name__} has no attribute {name!r} that may be used"
        )
    if isinstance(owner, dict) and methods is not None and name in methods and name not in owner:
        return getattr(owner, name)
    if isinstance(owner, AttributeDict):
        return getattr(owner, name)
    if isinstance(owner, dict):
        if name in owner:
            return owner[name]
        raise ExpressionError(f"there is no key {name!r}")
    if isinstance(owner, (type, ModuleType)) or callable(owner):
        raise _forbidden(name)
    # Only objects of the configuration's own classes and of libraries have attributes: generators,
    # frames, exceptions and the like lead to the interpreter ("gi_frame").
    if type(owner).__module__ in ("builtins", "types", "coroutine"):
        raise _forbidden(name)
    try:
        attribute = getattr(owner, name)
    except AttributeError as error:
        raise ExpressionError(f"a {type(owner).__name__} has no attribute {name!r}") from error
    # A method written in Python may be read; `_call_method` does not call it.
    is_builtin_method = callable(attribute) and not hasattr(attribute, "__dict__")
    leads_to_code = isinstance(attribute, (ModuleType, FrameType, CodeType, TracebackType))
    if leads_to_code or is_builtin_method:
        raise _forbidden(name)
    return attribute


def _forbidden(name: str) -> ExpressionError:
    return ExpressionError(f"access to {name!r} is not allowed")


def _check_result_size(text: str, method: str, args: list[Any]) -> None:
    """Refuses string methods whose result would be too long, before they are called."""
    length = 0
    if method in _PADDING_METHODS and args and isinstance(args[0], int):
        length = args[0]
    elif method == "replace" and len(args) > 1:
        length = len(text) + (text.count(args[0]) + 1) * len(args[1])
    elif method == "join" and args:
        length = sum(len(str(item)) + len(text) for item in args[0])
    if length > MAX_LENGTH:
        raise _too_long()


def _call_method(value: Any, name: str, args: list[Any], keywords: dict[str, Any]) -> Any:
    if name not in _ALLOWED_METHODS.get(type(value), ()):
        raise ExpressionError(f"a {type(value).__name__} has no method {name!r} that may be called")
    if isinstance(value, str):
        _check_result_size(value, name, args)
    result = getattr(value, name)(*args, **keywords)
    return list(result) if name in ("keys", "values", "items") else result


# -- compiler --------------------------------------------------------------------------------------


class ExpressionCompiler:
    """Compiles a Python syntax tree to closures; ``_visit_X`` handles the node class `X`.

    Node classes without a method are refused.
    """

    def __init__(self) -> None:
        self.node_count = 0

    def compile(self, node: ast.AST) -> Evaluator:
        """Returns a function from the variables to the node's value."""
        self.node_count += 1
        if self.node_count > MAX_NODES:
            raise ExpressionError("the expression is too large")
        visit = getattr(self, f"_visit_{type(node).__name__}", None)
        if visit is None:
            raise ExpressionError(f"{type(node).__name__} is not allowed in expressions")
        evaluator: Evaluator = visit(node)
        return evaluator

    def _visit_Constant(self, node: ast.Constant) -> Evaluator:
        value = node.value
        if not isinstance(value, (str, int, float, bool, type(None))):
            raise ExpressionError(f"{type(value).__name__} constants are not allowed")
        _check_bounds(value)
        return lambda context: value

    def _visit_Name(self, node: ast.Name) -> Evaluator:
        # `compile_expression` has rewritten $name to var_name.
        if not node.id.startswith("var_"):
            raise ExpressionError(f"{node.id!r} is not defined (variables are written ${node.id})")
        name = node.id.removeprefix("var_")

        def look_up(context: Context) -> Any:
            value = context.get(name)
            return AttributeDict(value) if type(value) is dict else value

        return look_up

    def _visit_UnaryOp(self, node: ast.UnaryOp) -> Evaluator:
        apply = _UNARY_OPERATORS[type(node.op)]
        operand = self.compile(node.operand)
        return lambda context: apply(operand(context))

    def _visit_BinOp(self, node: ast.BinOp) -> Evaluator:
        apply = _BINARY_OPERATORS.get(type(node.op))
        if apply is None:
            raise ExpressionError(f"the operator {type(node.op).__name__} is not allowed")
        left, right = self.compile(node.left), self.compile(node.right)
        return lambda context: apply(left(context), right(context))

    def _visit_BoolOp(self, node: ast.BoolOp) -> Evaluator:
        operands = [self.compile(value) for value in node.values]
        # `or` stops at the first true operand, `and` at the first false one.
        deciding_value = isinstance(node.op, ast.Or)

        def evaluate(context: Context) -> Any:
            value: Any = False
            for operand in operands:
                value = operand(context)
                if bool(value) is deciding_value:
                    break
            return value

        return evaluate

    def _visit_Compare(self, node: ast.Compare) -> Evaluator:
        first = self.compile(node.left)
        comparisons = [
            (_COMPARISONS[type(op)], self.compile(comparator))
            for op, comparator in zip(node.ops, node.comparators, strict=True)
        ]
        if len(comparisons) == 1:
            compare, second = comparisons[0]
            return lambda context: compare(first(context), second(context))

        def evaluate_chain(context: Context) -> Any:
            # 1 < x < 9: each operand is evaluated once, up to the first comparison that fails.
            right, result = first(context), True
            for compare, operand in comparisons:
                if not result:
                    break
                left, right = right, operand(context)
                result = compare(left, right)
            return result

        return evaluate_chain

    def _visit_IfExp(self, node: ast.IfExp) -> Evaluator:
        test = self.compile(node.test)
        body = self.compile(node.body)
        orelse = self.compile(node.orelse)
        return lambda context: body(context) if test(context) else orelse(context)

    def _visit_Subscript(self, node: ast.Subscript) -> Evaluator:
        value, key = self.compile(node.value), self.compile(node.slice)
        return lambda context: value(context)[key(context)]

    def _visit_Slice(self, node: ast.Slice) -> Evaluator:
        bounds = [
            self.compile(ast.Constant(None) if bound is None else bound)
            for bound in (node.lower, node.upper, node.step)
        ]
        return lambda context: slice(*(bound(context) for bound in bounds))

    def _visit_Attribute(self, node: ast.Attribute) -> Evaluator:
        value, name = self.compile(node.value), node.attr
        return lambda context: _read_attribute(value(context), name)

    def _visit_Call(self, node: ast.Call) -> Evaluator:
        args = [self.compile(arg) for arg in node.args]
        keywords = {k.arg: self.compile(k.value) for k in node.keywords if k.arg is not None}
        if len(keywords) != len(node.keywords):
            raise ExpressionError("** is not allowed in a call")
        if isinstance(node.func, ast.Name) and node.func.id == "len":
            return lambda context: len(*(arg(context) for arg in args))
        if not isinstance(node.func, ast.Attribute):
            raise ExpressionError(
                "only len(...) and methods of texts, lists and dictionaries can be called"
            )
        receiver, method = self.compile(node.func.value), node.func.attr

        def evaluate_call(context: Context) -> Any:
            value = receiver(context)
            arg_values = [arg(context) for arg in args]
            keyword_values = {name: keyword(context) for name, keyword in keywords.items()}
            return _check_bounds(_call_method(value, method, arg_values, keyword_values))

        return evaluate_call

    def _visit_JoinedStr(self, node: ast.JoinedStr) -> Evaluator:
        parts = [self.compile(value) for value in node.values]
        return lambda context: _check_bounds("".join(str(part(context)) for part in parts))

    def _visit_FormattedValue(self, node: ast.FormattedValue) -> Evaluator:
        # f"{1:1000000000d}" would build a string of a gigabyte.
        if node.format_spec is not None:
            raise ExpressionError("format specifications are not allowed")
        return self.compile(node.value)


@lru_cache(maxsize=8192)
def compile_expression(text: str) -> Evaluator:
    """Compiles an expression to a function from a context to its value.

    Raises ExpressionError for a malformed expression; the function raises it for one that fails.
    """
    if len(text) > MAX_SOURCE:
        raise ExpressionError("the expression is too long")
    source = VARIABLE.sub(r"var_\1", text).strip()
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(f"{text!r} is not an expression") from error
    # As in simpleeval, which NeMo uses, only the first statement counts, and an assignment has the
    # value of its right side.
    if not statements or not isinstance(statements[0], (ast.Expr, ast.Assign)):
        raise ExpressionError(f"{text!r} is not an expression")
    try:
        evaluate = ExpressionCompiler().compile(statements[0].value)
    except (KeyError, RecursionError) as error:
        raise ExpressionError(f"{text!r}: not allowed in expressions") from error

    def evaluate_expression(context: Context) -> Any:
        try:
            return evaluate(context)
        except Exception as error:
            raise ExpressionError(f"error evaluating {text!r}: {error}") from error

    return evaluate_expression


def find_variables(text: str) -> frozenset[str]:
    """Returns the names of the variables that an expression (or any text) contains as $name."""
    return frozenset(VARIABLE.findall(text))
