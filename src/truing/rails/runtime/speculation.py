"""Speculative generation: while the input rails run, the turn behind them is already generated, and thrown away if it may not be.

A copy of the conversation goes on as if the input rails had passed, up to the first action that is not truing's own. What
the LLM answers it is kept by prompt. The turn itself asks as always, and an equal prompt finds its answer on the way. A rail that
blocks cancels the copy; a rail that rewrites the message changes the prompts, so that nothing of the copy is used.
"""

from __future__ import annotations

from typing import Any

from truing.core.errors import TruingError
from truing.rails.colang.compiler import Program
from truing.rails.runtime.parallel_rails import effects
from truing.rails.runtime.turn_context import Turn


def possible(program: Program, rails: list[str]) -> bool:
    """Whether input rails can run beside the generation: they do nothing that shows in its prompts, save for the message."""
    return bool(rails) and all(effects(program, name) is not None for name in rails)


async def run_ahead(turn: Turn) -> None:
    """Goes on with a copy of the conversation, without input and output rails."""
    try:
        await turn.services.advance(turn)
    except TruingError:
        return


def switched_off(options: dict[str, Any] | None) -> dict[str, Any]:
    """The turn's options without input and output rails."""
    rails = {**((options or {}).get("rails") or {}), "input": False, "output": False}
    for name in ("dialog", "retrieval", "tool_output", "tool_input"):
        rails.setdefault(name, True)
    return {
        "llm_params": None,
        "llm_output": False,
        "output_vars": None,
        "log": {},
        **(options or {}),
        "rails": rails,
    }
