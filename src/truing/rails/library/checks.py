"""Self checks: the LLM is asked whether a message may pass, whether an answer follows from the facts, or agrees with others.

Hallucination by self-consistency after Manakul, Liusie and Gales 2023 (SelfCheckGPT, arXiv:2303.08896).
"""

from __future__ import annotations

import asyncio
from typing import Any

from truing.rails.actions import RailOutcome
from truing.rails.colang.flow_reference import parse_flow_name, parse_flow_parameters
from truing.rails.runtime.llm_client import LlmError
from truing.rails.runtime.prompt_filters import message_text, unquoted
from truing.rails.runtime.turn_context import Turn

EXTRA_ANSWERS = 2


def _variant(turn: Turn, stage: str, flow: str, task: str) -> str:
    """The task of a self check whose rail is configured as ``self check input $variant=NAME``."""
    rail = turn.talk.context.get(f"triggered_{stage}_rail") or turn.rail or ""
    if not isinstance(rail, str) or parse_flow_name(rail) != flow:
        return task
    return parse_flow_parameters(rail).get("variant") or task


async def _ask(turn: Turn, task: str, default: str, given: dict[str, Any]) -> RailOutcome:
    prompts = turn.services.prompts
    scoped = f"{default} $variant={task}"
    name = (
        default
        if task == default
        else scoped
        if prompts.has(scoped) or not prompts.has(task)
        else task
    )
    prompt = prompts.render_task_prompt(name, given)
    models = turn.services.models
    llm = turn.llm(task if task in models else default)
    reply = await llm(
        prompt,
        stop=prompts.get_stop_tokens(name),
        temperature=turn.services.config.lowest_temperature,
        max_tokens=prompts.get_max_tokens(name) or 1024,
    )
    forced = None if prompts.has_output_parser(name) else "is_content_safe"
    verdict = prompts.parse_task_output(name, reply.content, forced)
    if verdict and verdict[0]:
        turn.because("the LLM has nothing to object")
        return RailOutcome.allow()
    clear = reply.content.lower().split()[:2]
    unclear = not any(word.strip(".,:;!*\"'") in ("yes", "unsafe") for word in clear)
    turn.because(
        "the LLM's verdict is unclear, which counts as no" if unclear else "the LLM objects",
        evidence=reply.content[:200],
    )
    return RailOutcome.block(metadata={"violations": list(verdict[1:]) if verdict else []})


async def self_check_input(turn: Turn, **params: Any) -> RailOutcome:
    """Asks whether the user's message should be blocked; anything but a clear no blocks."""
    message = turn.talk.context.get("user_message")
    if not message:
        turn.because("an empty message is blocked")
        return RailOutcome.block()
    task = params.get("variant") or _variant(turn, "input", "self check input", "self_check_input")
    return await _ask(turn, task, "self_check_input", {"user_input": message})


async def self_check_output(turn: Turn, **params: Any) -> RailOutcome:
    """Asks whether the bot's message should be blocked; anything but a clear no blocks."""
    context = turn.talk.context
    message = context.get("bot_message")
    if not message:
        turn.because("an empty message is blocked")
        return RailOutcome.block()
    task = params.get("variant") or _variant(
        turn, "output", "self check output", "self_check_output"
    )
    given = {
        "user_input": context.get("user_message"),
        "bot_response": message,
        "bot_thinking": context.get("bot_thinking"),
    }
    return await _ask(turn, task, "self_check_output", given)


async def self_check_facts(turn: Turn, **params: Any) -> RailOutcome:
    """Asks whether the bot's message follows from the retrieved facts; without facts there is nothing to check."""
    context, prompts, task = turn.talk.context, turn.services.prompts, "self_check_facts"
    evidence = context.get("relevant_chunks", [])
    if not evidence:
        return RailOutcome.allow(metadata={"accuracy": 1.0})
    prompt = prompts.render_task_prompt(
        task, {"evidence": evidence, "response": context.get("bot_message")}
    )
    reply = await turn.llm(task)(
        prompt,
        stop=prompts.get_stop_tokens(task),
        temperature=turn.services.config.lowest_temperature,
        max_tokens=prompts.get_max_tokens(task) or 1024,
    )
    forced = None if prompts.has_output_parser(task) else "is_content_safe"
    supported = not prompts.parse_task_output(task, reply.content, forced)[
        0
    ]  # here yes means supported
    turn.because(
        "supported by the facts" if supported else "not supported by the facts",
        score=float(supported),
    )
    if supported:
        return RailOutcome.allow(metadata={"accuracy": 1.0})
    return RailOutcome.block(metadata={"accuracy": 0.0})


async def self_check_hallucination(turn: Turn, **params: Any) -> RailOutcome:
    """Draws more answers to the same prompt and asks whether the bot's message agrees with them."""
    context, prompts, task = turn.talk.context, turn.services.prompts, "self_check_hallucination"
    message, prompt = context.get("bot_message"), context.get("_last_bot_prompt")
    if not message or not prompt:
        return RailOutcome.allow(metadata={"is_hallucination": False})
    llm = turn.llm(task)
    drawn = await asyncio.gather(
        *(llm(prompt, temperature=1.0) for _ in range(EXTRA_ANSWERS)), return_exceptions=True
    )
    others = []
    for reply in drawn:
        if isinstance(reply, BaseException):
            if not isinstance(reply, LlmError):
                raise reply
            continue
        others.append(unquoted(message_text(reply.content)))
    if not others:
        return RailOutcome.allow(metadata={"is_hallucination": False})
    ask = prompts.render_task_prompt(task, {"statement": message, "paragraph": ". ".join(others)})
    stop = prompts.get_stop_tokens(task)
    said = (
        await llm(ask, stop=stop, temperature=turn.services.config.lowest_temperature)
    ).content.lower()
    if "no" in said:
        turn.because("other answers to the same question differ", evidence=said[:200])
        return RailOutcome.block(metadata={"is_hallucination": True})
    return RailOutcome.allow(metadata={"is_hallucination": False})


for _call, _calls in (
    (self_check_input, 1),
    (self_check_output, 1),
    (self_check_facts, 1),
    (self_check_hallucination, EXTRA_ANSWERS + 1),
):
    vars(_call)["llm_calls"] = _calls  # for the worst-case count of `truing rails check`

ACTIONS = (self_check_input, self_check_output, self_check_facts, self_check_hallucination)
