"""The names under which existing ``actions.py`` files import from nemoguardrails, filled with truing's own."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from truing.rails import actions, config, filters
from truing.rails.llm import Llm, Reply


async def llm_call(
    llm: Llm | None, prompt: str | Sequence[dict[str, Any]], model_name: str | None = None,
    model_provider: str | None = None, stop: Sequence[str] | None = None, llm_params: dict[str, Any] | None = None,
    **_: Any,
) -> Reply:  # fmt: skip
    """One call of the LLM that an action was given."""
    if llm is None:
        raise ValueError("no LLM was given")
    return await llm(prompt, stop=stop, **(llm_params or {}))


def _module(name: str, **names: Any) -> ModuleType:
    made = ModuleType(name, "truing's own, under NeMo's name")
    vars(made).update(names)
    made.__path__ = []
    return made


def modules() -> dict[str, ModuleType]:
    """Module name -> module."""
    own: dict[str, Any] = {
        "action": actions.action, "ActionResult": actions.ActionResult, "RailOutcome": actions.RailOutcome,
    }  # fmt: skip
    utils = {
        "llm_call": llm_call, "get_multiline_response": filters.message_text, "strip_quotes": filters.unquoted,
        "get_first_nonempty_line": filters.first_line, "get_colang_history": filters.colang,
    }  # fmt: skip
    made = {
        "nemoguardrails": {"RailsConfig": config.RailsConfig, **own},
        "nemoguardrails.actions": own,
        "nemoguardrails.actions.actions": own,
        "nemoguardrails.actions.rail_outcome": own,
        "nemoguardrails.actions.llm": {},
        "nemoguardrails.actions.llm.utils": utils,
        "nemoguardrails.llm": {},
        "nemoguardrails.llm.call": utils,
        "nemoguardrails.llm.completion_parsing": utils,
        "nemoguardrails.rails": {"RailsConfig": config.RailsConfig},
        "nemoguardrails.rails.llm": {},
        "nemoguardrails.rails.llm.config": {"RailsConfig": config.RailsConfig},
    }
    found = {name: _module(name, **names) for name, names in made.items()}
    for name, module in found.items():
        parent, _, leaf = name.rpartition(".")
        if parent:
            setattr(found[parent], leaf, module)
    return found
