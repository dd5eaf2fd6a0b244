"""Templates of prompts and bot messages: Jinja in a sandbox, bounded in time and size."""

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

MAX_OUTPUT = 1_000_000
MAX_LOOPS = 2
MAX_STEPS = 20_000
_STRING_BOMBS = frozenset(
    ["ljust", "rjust", "center", "zfill", "expandtabs", "format", "format_map", "replace", "join"]
)
_VARIABLE = re.compile(r"\$([^ \"'!?\-,;</]*(?:\w|]))")


class PromptError(TruingError):
    """A template is malformed, tries to leave the sandbox, or grows without bound."""


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, without what can fill the memory from a short template."""

    intercepted_binops = frozenset({"*", "**", "%", "+", "~"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic with bounded results."""
        if operator in ("*", "**"):
            sized = any(hasattr(v, "__len__") for v in (left, right))
            large = (
                isinstance(left, int)
                and isinstance(right, int)
                and (abs(left) > 10**9 or abs(right) > 10**4)
            )
            if sized or (operator == "**" and large):
                raise SecurityError(f"{operator} is not allowed on these values")
        if operator == "%" and isinstance(left, str):
            raise SecurityError("% on a text is not allowed")
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Neither underscores nor methods that multiply a text."""
        if isinstance(obj, (str, bytes)) and attr in _STRING_BOMBS:
            return False
        return bool(super().is_safe_attribute(obj, attr, value))


def _range(*args: int) -> range:
    made = range(*args)
    if len(made) > 1000:
        raise SecurityError("range is limited to 1000")
    return made


@lru_cache(maxsize=1)
def environment() -> _Environment:
    """The one environment; templates are compiled once."""
    made = _Environment(cache_size=1024)
    made.globals.clear()
    made.globals["range"] = _range
    for name in (
        "format",
        "center",
        "xmlattr",
        "pprint",
        "filesizeformat",
        "wordwrap",
        "batch",
        "slice",
        "replace",
    ):
        made.filters.pop(name, None)
    made.filters.update(FILTERS)
    made.filters["replace"] = _replace
    return made


def _replace(text: Any, old: str, new: str) -> str:
    text = str(text)
    if len(text) + text.count(old) * len(new) > MAX_OUTPUT:
        raise SecurityError("the text grows too large")
    made: str = text.replace(old, new)
    return made


@lru_cache(maxsize=4096)
def _compiled(text: str) -> tuple[Any, frozenset[str]]:
    if len(text) > MAX_OUTPUT:
        raise PromptError("the template is too long")
    try:
        tree = environment().parse(text)
        _check_loops(tree, 0)
        return environment().from_string(text), frozenset(meta.find_undeclared_variables(tree))
    except (TemplateError, RecursionError, MemoryError) as error:
        raise PromptError(f"the template cannot be read: {error}") from error


def _check_loops(node: nodes.Node, depth: int) -> None:
    if isinstance(
        node,
        (
            nodes.Macro,
            nodes.CallBlock,
            nodes.Include,
            nodes.Import,
            nodes.FromImport,
            nodes.Extends,
        ),
    ):
        raise PromptError(f"{type(node).__name__.lower()} is not allowed in templates")
    if isinstance(node, nodes.For):
        depth += 1
        if depth > MAX_LOOPS or node.recursive:
            raise PromptError(f"loops may be nested {MAX_LOOPS} deep at most")
    for child in node.iter_child_nodes():
        _check_loops(child, depth)


def variables(text: str) -> frozenset[str]:
    """The variables that a template asks for."""
    return _compiled(text)[1]


def render(text: str, context: Mapping[str, Any]) -> str:
    """A template with the variables of a context; a missing variable is empty. PromptError on any fault."""
    if "{" not in text:
        return text
    template, names = _compiled(text)
    made: list[str] = []
    size = 0
    try:
        for step, piece in enumerate(
            template.generate({n: context[n] for n in names if n in context})
        ):
            size += len(piece)
            if size > MAX_OUTPUT or step > MAX_STEPS:
                raise PromptError("the template's output grows without bound")
            made.append(piece)
    except PromptError:
        raise
    except Exception as error:
        raise PromptError(f"the template failed: {error}") from error
    return "".join(made)


@lru_cache(maxsize=4096)
def with_variables(text: str) -> str:
    """A bot message's ``$name`` as ``{{name}}``."""
    for name in _VARIABLE.findall(text):
        text = text.replace(f"${name}", "{{" + name + "}}")
    return text


def render_message(text: str, context: Mapping[str, Any]) -> str:
    """A predefined bot message with its variables."""
    return render(with_variables(text), context)
