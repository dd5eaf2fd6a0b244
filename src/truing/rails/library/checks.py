"""Self checks: the LLM says whether a message may pass, is supported, or is self-consistent.

The hallucination check by self-consistency follows Manakul, Liusie and Gales 2023 (SelfCheckGPT,
arXiv:2303.08896).
"""

from __future__ import annotations

import asyncio
from typing import Any

from truing.rails.actions import RailOutcome
from truing.rails.colang.flow_reference import parse_flow_name, parse_flow_parameters
from truing.rails.runtime.llm_client import LlmError, LlmReply
from truing.rails.runtime.prompt_filters import extract_bot_message, strip_quotes
from truing.rails.runtime.turn_context import EVIDENCE_CHARACTERS, TurnContext
from truing.rails.runtime.verdict_parsers import allows, is_objection, read_yes_no

EXTRA_ANSWERS = 2
DEFAULT_MAX_TOKENS = 1024  # of a verdict; reasoning models think before it


def _variant_task(turn: TurnContext, stage: str, rail: str, task: str) -> str:
    """Returns NAME for a rail configured as ``self check input $variant=NAME``, else `task`."""
    triggered = turn.state.context.get(f"triggered_{stage}_rail") or turn.rail_name or ""
    if not isinstance(triggered, str) or parse_flow_name(triggered) != rail:
        return task
    return parse_flow_parameters(triggered).get("variant") or task


async def _ask_verdict(
    turn: TurnContext, task: str, default_task: str, variables: dict[str, Any]
) -> RailOutcome:
    """Asks the LLM by the task's prompt, and blocks unless the verdict is clearly safe."""
    prompts = turn.services.prompts
    prompt_name = default_task
    if task != default_task:
        # The prompt of a variant may be named in either way.
        scoped = f"{default_task} $variant={task}"
        use_scoped = prompts.has_prompt(scoped) or not prompts.has_prompt(task)
        prompt_name = scoped if use_scoped else task
    llm = turn.llm(task if task in turn.services.models else default_task)
    reply = await llm(
        prompts.render_task_prompt(prompt_name, variables),
        stop=prompts.get_stop_tokens(prompt_name),
        temperature=turn.services.config.lowest_temperature,
        max_tokens=prompts.get_max_tokens(prompt_name) or DEFAULT_MAX_TOKENS,
    )
    verdict = _parse_verdict(turn, prompt_name, reply)
    if allows(verdict):
        turn.set_reason("the LLM has nothing to object")
        return RailOutcome.allow()
    violations = list(verdict[1:]) if isinstance(verdict, (list, tuple)) else []
    is_clear = bool(violations) or is_objection(reply.content)
    turn.set_reason(
        "the LLM objects" if is_clear else "the LLM's verdict is unclear, which counts as no",
        evidence=reply.content[:EVIDENCE_CHARACTERS],
    )
    return RailOutcome.block(metadata={"violations": violations})


def _parse_verdict(turn: TurnContext, task: str, reply: LlmReply) -> Any:
    """Returns [True] or [False, violations...], by the prompt's parser or by `is_content_safe`."""
    prompts = turn.services.prompts
    parser = None if prompts.has_output_parser(task) else "is_content_safe"
    return prompts.parse_task_output(task, reply.content, parser)


async def self_check_input(turn: TurnContext, **params: Any) -> RailOutcome:
    """Asks whether the user's message should be blocked; anything but a clear no blocks."""
    message = turn.state.context.get("user_message")
    if not message:
        turn.set_reason("an empty message is blocked")
        return RailOutcome.block()
    default = "self_check_input"
    task = params.get("variant") or _variant_task(turn, "input", "self check input", default)
    return await _ask_verdict(turn, task, default, {"user_input": message})


async def self_check_output(turn: TurnContext, **params: Any) -> RailOutcome:
    """Asks whether the bot's message should be blocked; anything but a clear no blocks."""
    context = turn.state.context
    message = context.get("bot_message")
    if not message:
        turn.set_reason("an empty message is blocked")
        return RailOutcome.block()
    default = "self_check_output"
    task = params.get("variant") or _variant_task(turn, "output", "self check output", default)
    variables = {
        "user_input": context.get("user_message"),
        "bot_response": message,
        "bot_thinking": context.get("bot_thinking"),
    }
    return await _ask_verdict(turn, task, default, variables)


async def self_check_facts(turn: TurnContext, **params: Any) -> RailOutcome:
    """Asks whether the bot's message follows from the retrieved facts; without facts it passes."""
    context, prompts, task = turn.state.context, turn.services.prompts, "self_check_facts"
    evidence = context.get("relevant_chunks", [])
    if not evidence:
        return RailOutcome.allow(metadata={"accuracy": 1.0})
    variables = {"evidence": evidence, "response": context.get("bot_message")}
    reply = await turn.llm(task)(
        prompts.render_task_prompt(task, variables),
        stop=prompts.get_stop_tokens(task),
        temperature=turn.services.config.lowest_temperature,
        max_tokens=prompts.get_max_tokens(task) or DEFAULT_MAX_TOKENS,
    )
    is_supported = _is_supported(turn, task, reply)
    if is_supported is None:
        evidence = reply.content[:EVIDENCE_CHARACTERS]
        turn.set_reason("the LLM's verdict is unclear, which counts as no", evidence=evidence)
        return RailOutcome.block(metadata={"accuracy": 0.0})
    turn.set_reason(
        "supported by the facts" if is_supported else "not supported by the facts",
        score=float(is_supported),
    )
    if is_supported:
        return RailOutcome.allow(metadata={"accuracy": 1.0})
    return RailOutcome.block(metadata={"accuracy": 0.0})


def _is_supported(turn: TurnContext, task: str, reply: LlmReply) -> bool | None:
    """Returns whether a reply says that the facts support the answer; None if it is unclear.

    To the question of this prompt, yes means supported, while the parsers of verdicts read "yes" as
    an objection. A parser that `config.py` registers is therefore inverted, as in NeMo.
    """
    name = turn.services.prompts.parser_name(task)
    if name is None or name == "is_content_safe":
        answer = read_yes_no(reply.content)
        return None if answer is None else answer == "yes"
    verdict = turn.services.prompts.parse_task_output(task, reply.content)
    first = verdict[0] if isinstance(verdict, (list, tuple)) and verdict else verdict
    return not first if isinstance(first, bool) else None


async def self_check_hallucination(turn: TurnContext, **params: Any) -> RailOutcome:
    """Draws more answers to the same prompt and asks whether the bot's message agrees with them."""
    context, prompts, task = turn.state.context, turn.services.prompts, "self_check_hallucination"
    message, prompt = context.get("bot_message"), context.get("_last_bot_prompt")
    is_predefined = bool(context.get("skip_output_rails"))
    if not message or (is_predefined and not prompt):
        return RailOutcome.allow(metadata={"is_hallucination": False})
    if not prompt:
        turn.set_reason("no prompt to which other answers could be drawn, which counts as no")
        return RailOutcome.block(metadata={"is_hallucination": None})
    llm = turn.llm(task)
    replies = await asyncio.gather(
        *(llm(prompt, temperature=1.0) for _ in range(EXTRA_ANSWERS)), return_exceptions=True
    )
    other_answers: list[str] = []
    for reply in replies:
        if isinstance(reply, LlmError):
            continue  # as in NeMo, the answers that came are enough
        if isinstance(reply, BaseException):
            raise reply
        other_answers.append(strip_quotes(extract_bot_message(reply.content)))
    if not other_answers:
        turn.set_reason("no other answer came back to compare with, which counts as no")
        return RailOutcome.block(metadata={"is_hallucination": None})
    variables = {"statement": message, "paragraph": ". ".join(other_answers)}
    reply = await llm(
        prompts.render_task_prompt(task, variables),
        stop=prompts.get_stop_tokens(task),
        temperature=turn.services.config.lowest_temperature,
    )
    verdict = read_yes_no(reply.content)
    if verdict == "yes":
        return RailOutcome.allow(metadata={"is_hallucination": False})
    turn.set_reason(
        "other answers to the same question differ"
        if verdict == "no"
        else "the LLM's verdict is unclear, which counts as no",
        evidence=reply.content[:EVIDENCE_CHARACTERS],
    )
    return RailOutcome.block(metadata={"is_hallucination": True if verdict == "no" else None})


# For the worst-case count of `truing rails check`.
for _action, _llm_calls in (
    (self_check_input, 1),
    (self_check_output, 1),
    (self_check_facts, 1),
    (self_check_hallucination, EXTRA_ANSWERS + 1),
):
    vars(_action)["llm_calls"] = _llm_calls

ACTIONS = (self_check_input, self_check_output, self_check_facts, self_check_hallucination)
