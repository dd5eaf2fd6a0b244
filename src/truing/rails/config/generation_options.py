"""NeMo's generation options: their shapes, and what is wrong with those of a call.

The same check serves Python (`GuardedModel`), HTTP (`guardrails.options`) and the dialogue tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from truing.core.errors import UserError, did_you_mean

# What the option `rails` switches on and off: the stages, and the dialog.
STAGE_SWITCHES = ("input", "output", "retrieval", "dialog", "tool_output", "tool_input")
LOG_OPTIONS = ("activated_rails", "llm_calls", "internal_events", "colang_history")
SHAPES = {
    "rails": '["input", "output"] or {"dialog": false}',
    "llm_params": '{"temperature": 0.2, "max_tokens": 100}',
    "llm_output": "true or false",
    "output_vars": '["name of a variable"] or true',
    "log": '{"activated_rails": true}',
}
"""Option -> the shape of its value, as it is shown in errors."""


class OptionsError(UserError):
    """Generation options that have no meaning."""


def find_option_faults(options: Any) -> Iterator[tuple[str, str]]:
    """Yields (option, fault) for options that do not exist and values of a wrong shape."""
    if options is None:
        return
    if not isinstance(options, Mapping):
        yield "", "expected an object of options"
        return
    for name, value in options.items():
        if name not in SHAPES:
            hint = did_you_mean(str(name), SHAPES)
            yield str(name), f"there is no such option{hint}"
        elif value is not None and not _has_shape(name, value):
            yield name, f"expected {SHAPES[name]}"
        elif name == "rails" and value is not None:
            yield from _find_unknown(name, value, STAGE_SWITCHES)
        elif name == "log" and value is not None:
            yield from _find_unknown(name, value, LOG_OPTIONS)


def require_options(options: Any) -> None:
    """Raises OptionsError, with every fault and the right shape, for wrong options."""
    faults = [
        f"options.{name}: {what}" if name else f"options: {what}"
        for name, what in find_option_faults(options)
    ]
    if faults:
        raise OptionsError(*faults)


def _has_shape(name: str, option: Any) -> bool:
    if name == "rails":
        if isinstance(option, Mapping):
            # NeMo also takes the names of single rails of a stage.
            return all(_is_switch(switch) for switch in option.values())
        return isinstance(option, (list, tuple)) and all(isinstance(s, str) for s in option)
    if name == "log":
        return isinstance(option, Mapping) and all(type(v) is bool for v in option.values())
    if name == "output_vars":
        is_list = isinstance(option, (list, tuple)) and all(isinstance(n, str) for n in option)
        return type(option) is bool or is_list
    if name == "llm_output":
        return type(option) is bool
    return isinstance(option, Mapping)


def _is_switch(value: Any) -> bool:
    return value is None or type(value) is bool


def _find_unknown(name: str, value: Any, known: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for key in value:
        if key not in known:
            yield name, f"there is no {key!r}{did_you_mean(str(key), known)}"
