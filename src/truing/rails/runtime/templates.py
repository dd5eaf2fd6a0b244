"""Templates of prompts and bot messages: Jinja in a sandbox, bounded in time and size.

Configurations may come from people who are not trusted with the process, so a template can neither
reach Python objects nor fill the memory from a few characters.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError, Undefined, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from truing.core.errors import TruingError
from truing.rails.runtime.prompt_filters import FILTERS

MAX_OUTPUT = 1_000_000  # characters
MAX_LOOP_DEPTH = 2
MAX_RANGE = 1000
MAX_OUTPUT_STEPS = 20_000  # parts that a template yields
MAX_ITERATIONS = 100_000  # of all loops of one rendering, also of those that yield nothing
MAX_BITS = 20_000  # of an integer; repeated squaring would fill the memory
MAX_DIGITS = 20  # of the filter `round`, which computes 10 to this power
# Methods of texts whose result can be far larger than the text.
_GROWING_METHODS = frozenset(
    ["ljust", "rjust", "center", "zfill", "expandtabs", "format", "format_map", "replace", "join"]
)
# Filters with the same problem, or that show Python objects.
_REMOVED_FILTERS = (
    "format",
    "center",
    "xmlattr",
    "pprint",
    "filesizeformat",
    "wordwrap",
    "batch",
    "slice",
    "replace",
    "round",
    "join",
    # Their patterns take quadratic time.
    "urlize",
    "striptags",
)
_FORBIDDEN_NODES = (
    nodes.Macro,
    nodes.CallBlock,
    nodes.Include,
    nodes.Import,
    nodes.FromImport,
    nodes.Extends,
)
_DOLLAR_VARIABLE = re.compile(r"\$([^ \"'!?\-,;</]{0,200}(?:\w|]))")


_SINGLE_EXPRESSION = re.compile(r"\s*\{\{((?:(?!\}\}|\{\{)[\s\S])*)\}\}\s*")


class PromptError(TruingError):
    """A template is malformed, tries to leave the sandbox, or grows without bound."""


class _BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, without what can fill the memory from a short template."""

    intercepted_binops = frozenset({"*", "**", "%", "+", "~"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Evaluates a binary operation whose result is bounded; raises SecurityError for others."""
        if operator in ("*", "**"):
            has_length = any(hasattr(value, "__len__") for value in (left, right))
            is_large_power = (
                operator == "**"
                and isinstance(left, int)
                and isinstance(right, int)
                and (abs(left) > 10**9 or abs(right) > 10**4)
            )
            if has_length or is_large_power:
                raise SecurityError(f"{operator} is not allowed on these values")
        if operator == "%" and isinstance(left, str):
            raise SecurityError("% on a text is not allowed")
        if operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
            _check_length(len(left) + len(right))
        are_integers = isinstance(left, int) and isinstance(right, int)
        # The sum of the lengths bounds the product's length.
        if are_integers and left.bit_length() + right.bit_length() > MAX_BITS:
            raise SecurityError("the number is too large")
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Refuses underscores (as the sandbox does) and the methods of texts that multiply them."""
        if isinstance(obj, (str, bytes)) and attr in _GROWING_METHODS:
            return False
        return bool(super().is_safe_attribute(obj, attr, value))


def _bounded_range(*args: int) -> range:
    numbers = range(*args)
    if len(numbers) > MAX_RANGE:
        raise SecurityError(f"range is limited to {MAX_RANGE}")
    return numbers


def _check_length(length: int) -> None:
    if length > MAX_OUTPUT:
        raise SecurityError("the text grows too large")


def _bounded_concat(*values: Any) -> str:
    """Joins the operands of ``~``, which the sandbox does not see as an operator."""
    texts = [str(value) for value in values]
    _check_length(sum(map(len, texts)))
    return "".join(texts)


def _bounded_join(values: Any, separator: str = "", attribute: Any = None) -> str:
    items = list(itertools.islice(values, MAX_OUTPUT + 1))
    if attribute is not None:
        items = [item.get(attribute, "") if isinstance(item, dict) else "" for item in items]
    texts = [str(item) for item in items]
    _check_length(sum(map(len, texts)) + len(texts) * len(str(separator)))
    return str(separator).join(texts)


def _bounded_round(value: float, precision: int = 0, method: str = "common") -> float:
    if not -MAX_DIGITS <= precision <= MAX_DIGITS or method not in ("common", "ceil", "floor"):
        raise SecurityError(f"round is limited to {MAX_DIGITS} digits")
    if method == "common":
        return round(float(value), precision)
    factor = 10.0**precision
    return (math.ceil if method == "ceil" else math.floor)(value * factor) / factor


_iterations: ContextVar[list[int]] = ContextVar("iterations")


def _count_iterations(values: Any) -> Iterator[Any]:
    counter = _iterations.get()
    for value in values:
        counter[0] += 1
        if counter[0] > MAX_ITERATIONS:
            raise SecurityError(f"more than {MAX_ITERATIONS:,} iterations")
        yield value


class _BoundingTransformer(NodeTransformer):
    """Puts bounded functions in the place of ``~`` and around what loops iterate over."""

    def visit_Concat(self, node: nodes.Concat, *args: Any) -> nodes.Node:
        self.generic_visit(node)
        return _call_helper("concat_", node.nodes, node.lineno)

    def visit_For(self, node: nodes.For, *args: Any) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _call_helper("iterate_", [node.iter], node.lineno)
        return node


def _call_helper(name: str, arguments: list[Any], line: int) -> nodes.Call:
    function = nodes.Name(name, "load", lineno=line)
    return nodes.Call(function, arguments, [], None, None, lineno=line)


_HELPERS = {"concat_": _bounded_concat, "iterate_": _count_iterations}


def _bounded_replace(text: Any, old: str, new: str) -> str:
    text = str(text)
    if len(text) + text.count(old) * len(new) > MAX_OUTPUT:
        raise SecurityError("the text grows too large")
    replaced: str = text.replace(old, new)
    return replaced


@lru_cache(maxsize=1)
def jinja_environment() -> _BoundedEnvironment:
    """Returns the environment of all templates."""
    environment = _BoundedEnvironment(cache_size=1024)
    environment.globals.clear()
    environment.globals["range"] = _bounded_range
    environment.globals.update(_HELPERS)
    for name in _REMOVED_FILTERS:
        environment.filters.pop(name, None)
    environment.filters.update(FILTERS)
    environment.filters["replace"] = _bounded_replace
    environment.filters["round"] = _bounded_round
    environment.filters["join"] = _bounded_join
    return environment


@lru_cache(maxsize=4096)
def _compile_template(source: str) -> tuple[Any, frozenset[str]]:
    """Returns the compiled template and the variables that it reads."""
    if len(source) > MAX_OUTPUT:
        raise PromptError("the template is too long")
    try:
        tree = jinja_environment().parse(source)
        _check_nodes(tree, 0)
        variables = frozenset(meta.find_undeclared_variables(tree)) - set(_HELPERS)
        bounded_tree = _BoundingTransformer().visit(tree)
        bounded_tree.set_environment(jinja_environment())
        template = jinja_environment().from_string(bounded_tree)
        return template, variables
    except (TemplateError, RecursionError, MemoryError) as error:
        raise PromptError(f"the template cannot be read: {error}") from error


def _check_nodes(node: nodes.Node, loop_depth: int) -> None:
    """Raises PromptError for nodes that read files or define macros, and for deep loops."""
    if isinstance(node, _FORBIDDEN_NODES):
        raise PromptError(f"{type(node).__name__.lower()} is not allowed in templates")
    if isinstance(node, nodes.For):
        loop_depth += 1
        if loop_depth > MAX_LOOP_DEPTH or node.recursive:
            raise PromptError(f"loops may be nested {MAX_LOOP_DEPTH} deep at most")
    for child in node.iter_child_nodes():
        _check_nodes(child, loop_depth)


def template_variables(source: str) -> frozenset[str]:
    """Returns the variables that a template reads."""
    return _compile_template(source)[1]


def render_template(source: str, context: Mapping[str, Any]) -> str:
    """Renders a template with the variables of a context; a missing variable is empty.

    Raises PromptError if the template is malformed, fails, or grows too large.
    """
    if "{" not in source:
        return source  # plain text, which most bot messages are
    template, names = _compile_template(source)
    # Only what the template reads: the context may hold many large values.
    variables = {name: context[name] for name in names if name in context}
    chunks: list[str] = []
    size = 0
    _iterations.set([0])
    try:
        for step, part in enumerate(template.generate(variables)):
            size += len(part)
            if size > MAX_OUTPUT or step > MAX_OUTPUT_STEPS:
                raise PromptError("the template's output grows without bound")
            chunks.append(part)
    except PromptError:
        raise
    except Exception as error:
        raise PromptError(f"the template failed: {error}") from error
    return "".join(chunks)


def evaluate_template(source: str, context: Mapping[str, Any]) -> Any:
    """Returns the value of a text that is one ``{{ expression }}``; renders any other text.

    A missing value is None. Raises PromptError as `render_template` does.
    """
    match = _SINGLE_EXPRESSION.fullmatch(source)
    if match is None:
        return render_template(source, context)
    outputs: list[Any] = []

    def capture(value: Any) -> str:
        outputs.append(value)
        return ""

    render_template("{{ capture_(" + match[1] + ") }}", {**context, "capture_": capture})
    return None if not outputs or isinstance(outputs[0], Undefined) else outputs[0]


@lru_cache(maxsize=4096)
def dollar_to_jinja(text: str) -> str:
    """Returns a bot message with each ``$name`` written as ``{{name}}``."""
    for name in _DOLLAR_VARIABLE.findall(text):
        text = text.replace(f"${name}", "{{" + name + "}}")
    return text


def render_bot_message(text: str, context: Mapping[str, Any]) -> str:
    """Renders a predefined bot message, whose variables are ``$name`` or ``{{ name }}``."""
    return render_template(dollar_to_jinja(text), context)
