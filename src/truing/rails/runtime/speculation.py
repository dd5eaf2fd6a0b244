"""Speculative generation: while the input rails run, the turn behind them is generated already.

A copy of the conversation goes on as if the input rails had passed, up to the first action that is
not truing's own. Its LLM replies are stored by prompt (`SpeculationCache`). The turn itself runs as
always; a call with an equal prompt takes the stored reply. A rail that blocks cancels the copy; a
rail that rewrites the message changes the prompts, so that nothing of the copy is used.
"""

from __future__ import annotations

from typing import Any

from truing.core.errors import TruingError
from truing.rails.colang.compiler import Program
from truing.rails.config.generation_options import STAGE_SWITCHES
from truing.rails.runtime.parallel_rails import variable_effects
from truing.rails.runtime.turn_context import TurnContext


def can_speculate(program: Program, input_rails: list[str]) -> bool:
    """Returns whether generation can start before these input rails have finished.

    That needs rails whose effects are known statically: apart from the message, nothing that they
    do may show in the prompts.
    """
    return bool(input_rails) and all(
        variable_effects(program, rail) is not None for rail in input_rails
    )


async def run_speculative_copy(turn: TurnContext) -> None:
    """Runs the copy of a turn; its replies end up in the turn's SpeculationCache."""
    try:
        await turn.services.run_until_listen(turn)
    except TruingError:
        return  # the turn itself meets the same error, or never comes here


def options_without_text_rails(options: dict[str, Any] | None) -> dict[str, Any]:
    """Returns the turn's options with the input and output rails switched off."""
    options = options or {}
    rails = {**(options.get("rails") or {}), "input": False, "output": False}
    for stage in STAGE_SWITCHES:
        rails.setdefault(stage, True)
    return {
        "llm_params": None,
        "llm_output": False,
        "output_vars": None,
        "log": {},
        **options,
        "rails": rails,
    }
