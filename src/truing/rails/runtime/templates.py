"""Templates of prompts and bot messages: Jinja in a sandbox, bounded in time and size.

Configurations may come from people who are not trusted with the process, so a template can neither
reach Python objects nor fill the memory from a few characters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from truing.core.errors import TruingError
from truing.rails.runtime.prompt_filters import FILTERS

MAX_OUTPUT = 1_000_000  # characters
MAX_LOOP_DEPTH = 2
MAX_RANGE = 1000
MAX_OUTPUT_STEPS = 20_000  # parts that a template yields; bounds the iterations of its loops
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
    for name in _REMOVED_FILTERS:
        environment.filters.pop(name, None)
    environment.filters.update(FILTERS)
    environment.filters["replace"] = _bounded_replace
    return environment


@lru_cache(maxsize=4096)
def _compile_template(source: str) -> tuple[Any, frozenset[str]]:
    """Returns the compiled template and the variables that it reads."""
    if len(source) > MAX_OUTPUT:
        raise PromptError("the template is too long")
    try:
        tree = jinja_environment().parse(source)
        _check_nodes(tree, 0)
        template = jinja_environment().from_string(source)
        return template, frozenset(meta.find_undeclared_variables(tree))
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
    parts: list[str] = []
    size = 0
    try:
        for step, part in enumerate(template.generate(variables)):
            size += len(part)
            if size > MAX_OUTPUT or step > MAX_OUTPUT_STEPS:
                raise PromptError("the template's output grows without bound")
            parts.append(part)
    except PromptError:
        raise
    except Exception as error:
        raise PromptError(f"the template failed: {error}") from error
    return "".join(parts)


@lru_cache(maxsize=4096)
def dollar_to_jinja(text: str) -> str:
    """Returns a bot message with each ``$name`` written as ``{{name}}``."""
    for name in _DOLLAR_VARIABLE.findall(text):
        text = text.replace(f"${name}", "{{" + name + "}}")
    return text


def render_bot_message(text: str, context: Mapping[str, Any]) -> str:
    """Renders a predefined bot message, whose variables are ``$name`` or ``{{ name }}``."""
    return render_template(dollar_to_jinja(text), context)
