"""The actions of the rails that ask a service (`services.co`)."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from truing.rails.actions import RailOutcome
from truing.rails.library.checks import self_check_facts
from truing.rails.library.guard_models import LYNX_MODEL
from truing.rails.library.service_protocols import SERVICE_BLOCKS
from truing.rails.library.service_rails import (
    ask_service,
    own_service_check,
    read_inputs,
)
from truing.rails.runtime.turn_context import EVIDENCE_CHARACTERS, TurnContext


async def vendor_service_check(
    turn: TurnContext, service: str, source: str, text: Any, **params: Any
) -> RailOutcome:
    """Asks a vendor's service about a text; a service that cannot tell blocks."""
    inputs = read_inputs(turn, source, text, SERVICE_BLOCKS.get(service, ""))
    return await ask_service(turn, service, inputs)


async def grounded_service_check(
    turn: TurnContext, service: str, text: Any, **params: Any
) -> RailOutcome:
    """As `vendor_service_check`, against the retrieved chunks; without chunks it passes."""
    inputs = read_inputs(turn, "output", text, SERVICE_BLOCKS.get(service, ""))
    if not inputs.chunks:
        turn.set_reason("there are no retrieved texts to check against")
        return RailOutcome.allow()
    return await ask_service(turn, service, inputs)


async def mask_by_service(
    turn: TurnContext, service: str, source: str, text: Any, **params: Any
) -> RailOutcome:
    """Replaces a text by the service's masked one; a service that cannot tell blocks."""
    inputs = read_inputs(turn, source, text, SERVICE_BLOCKS.get(service, ""))
    outcome = await ask_service(turn, service, inputs)
    if not outcome.is_blocked or "masked" not in outcome.metadata:
        return outcome
    masked = str(outcome.metadata["masked"])
    turn.set_reason(f"masked by the service {service!r}")
    return RailOutcome.transform(
        [
            (
                {"input": "user_message", "output": "bot_message"}.get(source, "relevant_chunks"),
                masked,
            )
        ]
    )


async def alignscore_check_facts(turn: TurnContext, **params: Any) -> float:
    """Returns how far the retrieved chunks support the answer, from 0 to 1; without chunks 1.

    Where the server cannot tell, the LLM is asked if `fallback_to_self_check` is set; else 0.
    """
    inputs = read_inputs(turn, "output", turn.state.context.get("bot_message"), "fact_checking")
    if not inputs.chunks:
        return 1.0
    outcome = await ask_service(turn, "alignscore", inputs)
    score = outcome.metadata.get("score")
    if score is not None:
        return float(score)
    if inputs.settings.get("fallback_to_self_check"):
        return float((await self_check_facts(turn)).metadata["accuracy"])
    return 0.0


_ABUSE = frozenset({"Toxic", "Insult", "Profanity", "Derogatory", "Violent"})
_INAPPROPRIATE = frozenset({"Sexual", "Death, Harm & Tragedy", "Firearms & Weapons"})


async def google_moderation_check(turn: TurnContext, text: Any, **params: Any) -> RailOutcome:
    """Asks Google's text moderation, by NeMo's threshold of each category; `metadata["group"]` of a
    block is abusive, inappropriate or sensitive.
    """
    outcome = await ask_service(
        turn, "google moderation detailed", read_inputs(turn, "input", text)
    )
    category = outcome.metadata.get("reason")
    group = "inappropriate" if category in _INAPPROPRIATE else "sensitive"
    return replace(
        outcome,
        metadata={**outcome.metadata, "group": "abusive" if category in _ABUSE else group},
    )


async def cleanlab_check(turn: TurnContext, text: Any, **params: Any) -> RailOutcome:
    """Asks Cleanlab whether an answer is trustworthy; `metadata["score"]` of a block is None where
    it could not tell.
    """
    return await ask_service(turn, "cleanlab", read_inputs(turn, "output", text))


LYNX_TASK = "patronus_lynx_check_output_hallucination"
_LYNX_SCORE = re.compile(r'"SCORE":\s*"?\b(PASS|FAIL)\b"?')


async def patronus_lynx_check_output_hallucination(
    turn: TurnContext, **params: Any
) -> dict[str, Any]:
    """Asks the model `patronus_lynx` whether the chunks support the answer; unclear means no."""
    context, prompts = turn.state.context, turn.services.prompts
    chunks = context.get("relevant_chunks")
    if not chunks:
        turn.set_reason("there are no retrieved texts to check against")
        return {"hallucination": False, "reasoning": None}
    variables = {
        "user_input": context.get("user_message"),
        "bot_response": context.get("bot_message"),
        "provided_context": chunks,
    }
    reply = await turn.llm(LYNX_MODEL)(
        prompts.render_task_prompt(LYNX_TASK, variables),
        stop=prompts.get_stop_tokens(LYNX_TASK),
        temperature=0.0,
    )
    scores = set(_LYNX_SCORE.findall(reply.content))
    is_passed = scores == {"PASS"}
    turn.set_reason(
        "supported by the retrieved texts" if is_passed else "not supported, or unclear",
        evidence=reply.content[:EVIDENCE_CHARACTERS],
    )
    return {"hallucination": not is_passed, "reasoning": None}


# For the worst-case count of `truing rails check`.
vars(patronus_lynx_check_output_hallucination)["llm_calls"] = 1

ACTIONS = (
    cleanlab_check,
    google_moderation_check,
    alignscore_check_facts,
    patronus_lynx_check_output_hallucination,
    own_service_check,
    vendor_service_check,
    grounded_service_check,
    mask_by_service,
)
